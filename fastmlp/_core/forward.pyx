"""A forward pass through all layers.

Each thread takes blocks of rows from the first layer to the last: the activations of a block stay
in its cache.
"""

from cython.parallel cimport prange
from libc.stdlib cimport free
from libc.string cimport memcpy
from posix.stdlib cimport posix_memalign

from fastmlp._core.kernels cimport fm_data, fm_kernels, fm_layer, fm_matrix, fm_net
from fastmlp._core.net cimport BoundNet, bind

cdef enum:
    # A block's input and activations of a few hundred units fit a 1 MB L2 beside the weights.
    BLOCK = 56
    CACHE_LINE = 64


cdef Py_ssize_t padded(Py_ssize_t n, size_t itemsize) noexcept nogil:
    """Elements of a row in whole cache lines and one more, off powers of two."""
    cdef Py_ssize_t line = CACHE_LINE // itemsize
    return (n + line - 1) // line * line + line


cdef size_t workspace_size(
    const fm_kernels *kernels, const fm_net *net, const fm_data *data, Py_ssize_t rows,
    size_t itemsize
) noexcept nogil:
    """Bytes for one thread and a block of `rows`: layer records, pixels as numbers, every layer's
    rows, the kernel's scratch."""
    cdef size_t size = net.n_layers * sizeof(fm_layer) + CACHE_LINE
    cdef int i
    if data.is_uint8:
        size += rows * padded(data.n_features, itemsize) * itemsize
    for i in range(net.n_layers):
        size += rows * padded(net.layers[i].W.cols, itemsize) * itemsize
    size += kernels.forward_scratch_size(net, rows, data.n_features)
    return size // CACHE_LINE * CACHE_LINE + CACHE_LINE


cdef fm_matrix take(
    char **memory, Py_ssize_t rows, Py_ssize_t cols, size_t itemsize
) noexcept nogil:
    """Rows for a block, from the front of the workspace."""
    cdef fm_matrix matrix
    matrix.data = memory[0]
    matrix.rows = rows
    matrix.cols = cols
    matrix.ld = padded(cols, itemsize)
    memory[0] += rows * matrix.ld * itemsize
    return matrix


cdef int predict_rows(
    const fm_kernels *kernels, const fm_net *bound, const fm_data *data, Py_ssize_t start,
    Py_ssize_t stop, char *memory, size_t itemsize, fm_matrix out, fm_matrix Z
) noexcept nogil:
    """Rows [start, stop) of data into the same rows of out, and of Z where it is wanted.

    Returns the number of blocks in which X is not finite.
    """
    cdef fm_net net = bound[0]
    cdef fm_matrix X
    cdef fm_data block
    cdef fm_layer *last
    cdef Py_ssize_t row, n, size = <Py_ssize_t>itemsize
    cdef Py_ssize_t rows = min(<Py_ssize_t>BLOCK, stop - start)
    cdef int i, not_finite = 0
    net.layers = <fm_layer *>memory
    memcpy(net.layers, bound.layers, net.n_layers * sizeof(fm_layer))
    memory += (net.n_layers * sizeof(fm_layer) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    X = take(&memory, rows if data.is_uint8 else 0, data.n_features, itemsize)
    for i in range(net.n_layers):
        net.layers[i].A = take(&memory, rows, net.layers[i].W.cols, itemsize)
        net.layers[i].Z = net.layers[i].A
    last = &net.layers[net.n_layers - 1]
    block = data[0]
    row = start
    while row < stop:
        n = X.rows = min(rows, stop - row)
        if data.is_uint8:
            block.X = <const char *>data.X + row * data.ldx
            kernels.gather(&block, NULL, n, &X)
        else:
            X.data = <char *>data.X + row * data.ldx * size
            X.ld = data.ldx
        last.A = out
        last.A.data = <char *>out.data + row * out.ld * size
        last.Z = last.A
        if Z.data != NULL:
            last.Z = Z
            last.Z.data = <char *>Z.data + row * Z.ld * size
        not_finite += not kernels.net_forward(&net, &X, memory)
        row += n
    return not_finite


cdef class CompiledForward:
    """The forward pass of a BoundNet; any number of Python threads may call it at once."""

    cdef BoundNet bound

    def __init__(self, BoundNet bound):
        self.bound = bound

    def run(self, X, out, Z, int n_threads):
        """X (n, n_features), network's dtype or uint8 # IN, out, Z (n, n_outputs) or None # OUT

        Returns whether X is finite.
        """
        cdef size_t itemsize = 4 if self.bound.dtype == 0 else 8
        cdef fm_matrix x = bind(X), a = bind(out), z
        cdef fm_data data
        cdef void *memory = NULL
        cdef Py_ssize_t rows
        cdef size_t size
        cdef int part, not_finite = 0
        cdef const fm_kernels *kernels = self.bound.kernels
        cdef const fm_net *net = &self.bound.net
        z.data = NULL
        if Z is not None:
            z = bind(Z)
        if (
            x.cols != self.bound.n_inputs
            or a.rows != x.rows
            or a.cols != net.layers[net.n_layers - 1].W.cols
            or (Z is not None and (z.rows != a.rows or z.cols != a.cols))
        ):
            raise ValueError("predict: the shapes do not fit")
        data.X = x.data
        data.n_features = x.cols
        data.ldx = x.ld
        data.is_uint8 = X.itemsize == 1
        rows = min(<Py_ssize_t>BLOCK, (x.rows + n_threads - 1) // n_threads)
        size = workspace_size(kernels, net, &data, rows, itemsize)
        if posix_memalign(&memory, CACHE_LINE, n_threads * size) != 0:
            raise MemoryError()
        if n_threads == 1:  # without the fraction of a microsecond that a team of one costs
            with nogil:
                not_finite = predict_rows(
                    kernels, net, &data, 0, x.rows, <char *>memory, itemsize, a, z
                )
        else:
            for part in prange(n_threads, nogil=True, num_threads=n_threads, schedule="static"):
                not_finite += predict_rows(
                    kernels, net, &data, x.rows * part // n_threads,
                    x.rows * (part + 1) // n_threads, <char *>memory + part * size, itemsize, a, z
                )
        free(memory)
        return not_finite == 0
