"""A forward pass through all layers.

Each thread takes blocks of rows from the first layer to the last: the activations of a block stay
in its cache. Of few rows each takes all, and of every layer some of the columns: a thread then
reads its own part of the weights, which is most of the work. Bits are the same.
"""

from numpy import dtype, empty, float32, float64, ndarray

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport parallel
from libc.stdlib cimport free
from libc.string cimport memcpy
from posix.stdlib cimport posix_memalign

from fastmlp._core.kernels cimport (
    FM_DENSE,
    fm_barrier,
    fm_barrier_init,
    fm_barrier_wait,
    fm_data,
    fm_kernels,
    fm_layer,
    fm_matrix,
    fm_needs_row,
    fm_net,
    fm_start,
    fm_start_init,
    fm_start_work,
    fm_team_size,
    fm_thread,
)
from fastmlp._core.net cimport BoundNet, bind

cdef enum:
    # A block's input and activations of a few hundred units fit a 1 MB L2 beside the weights.
    BLOCK = 56
    # With fewer rows a thread than this, columns are divided: 784-2048-2048-10 on two threads takes
    # 100 us and not 175 for one row, 170 and not 360 for four, but 480 and not 460 for sixteen.
    FEW = 4
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


cdef struct workspace:
    fm_net net
    fm_matrix X  # pixels as numbers
    char *scratch


cdef workspace in_memory(
    const fm_net *bound, const fm_data *data, Py_ssize_t rows, char *memory, size_t itemsize
) noexcept nogil:
    """A net whose layers' records and outputs, of so many rows, lie in the memory."""
    cdef workspace work
    cdef fm_layer *layer
    cdef int i
    work.net = bound[0]
    work.net.layers = <fm_layer *>memory
    memcpy(work.net.layers, bound.layers, bound.n_layers * sizeof(fm_layer))
    memory += (bound.n_layers * sizeof(fm_layer) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    work.X = take(&memory, rows if data.is_uint8 else 0, data.n_features, itemsize)
    for i in range(bound.n_layers):
        layer = &work.net.layers[i]
        layer.Z = layer.A = take(&memory, rows, layer.W.cols, itemsize)
    work.scratch = memory
    return work


cdef void set_block(
    const fm_kernels *kernels, workspace *work, const fm_data *data, Py_ssize_t row, Py_ssize_t n,
    fm_matrix out, fm_matrix Z, Py_ssize_t itemsize
) noexcept nogil:
    """n rows from `row` on: X, and the last layer's A and Z in out and, where it is wanted, Z."""
    cdef fm_data block = data[0]
    cdef fm_layer *last = &work.net.layers[work.net.n_layers - 1]
    work.X.rows, work.X.cols = n, data.n_features
    if data.is_uint8:
        block.X = <const char *>data.X + row * data.ldx
        kernels.gather(&block, NULL, n, &work.X)
    else:
        work.X.data = <char *>data.X + row * data.ldx * itemsize
        work.X.ld = data.ldx
    last.A = out
    last.A.data = <char *>out.data + row * out.ld * itemsize
    last.Z = last.A
    if Z.data != NULL:
        last.Z = Z
        last.Z.data = <char *>Z.data + row * Z.ld * itemsize


cdef int predict_rows(
    const fm_kernels *kernels, const fm_net *net, const fm_data *data, Py_ssize_t start,
    Py_ssize_t stop, char *memory, size_t itemsize, fm_matrix out, fm_matrix Z
) noexcept nogil:
    """Rows [start, stop) of data into the same rows of out, and of Z where it is wanted.

    Returns the number of blocks in which X is not finite.
    """
    cdef Py_ssize_t row, rows = min(<Py_ssize_t>BLOCK, stop - start)
    cdef workspace work = in_memory(net, data, rows, memory, itemsize)
    cdef int not_finite = 0
    row = start
    while row < stop:
        set_block(kernels, &work, data, row, min(rows, stop - row), out, Z, itemsize)
        not_finite += not kernels.net_forward(&work.net, &work.X, work.scratch)
        row += rows
    return not_finite


cdef void predict_part(
    const fm_kernels *kernels, const fm_net *net, const fm_data *data, char *memory, size_t size,
    size_t itemsize, fm_matrix out, fm_matrix Z
) noexcept nogil:
    """This thread's rows, in its own memory, which begins with the result then.

    Not in a prange: GCC has a barrier before its loop, for a variable that is `firstprivate` and
    `lastprivate`, and whoever comes late to that keeps all others waiting.
    """
    cdef int part = fm_thread(), n_parts = fm_team_size()
    memory += part * size
    (<int *>memory)[0] = predict_rows(
        kernels, net, data, out.rows * part // n_parts, out.rows * (part + 1) // n_parts, memory,
        itemsize, out, Z
    )


cdef bint take_columns(fm_layer *layer, int part, int n_parts, Py_ssize_t itemsize) noexcept nogil:
    """Leaves the layer a part of its columns, in whole cache lines; returns whether it has any.

    What needs whole rows is part 0's.
    """
    cdef Py_ssize_t line = CACHE_LINE // itemsize, lines = (layer.W.cols + line - 1) // line
    # Rounded up: part 0 always has some.
    cdef Py_ssize_t first = (lines * part + n_parts - 1) // n_parts * line
    cdef Py_ssize_t last = (lines * (part + 1) + n_parts - 1) // n_parts * line
    if layer.kind != FM_DENSE or fm_needs_row(layer.activation):
        return part == 0
    layer.W.data = <char *>layer.W.data + first * itemsize
    layer.b = <char *>layer.b + first * itemsize
    layer.Z.data = <char *>layer.Z.data + first * itemsize
    layer.A.data = <char *>layer.A.data + first * itemsize
    layer.W.cols = layer.Z.cols = layer.A.cols = min(last, layer.W.cols) - first
    return layer.W.cols > 0


cdef void predict_columns(
    const fm_kernels *kernels, const workspace *work, fm_barrier *barrier, int part, int n_parts,
    char *scratch, size_t itemsize, int *not_finite
) noexcept nogil:
    """All rows, part of each layer's columns. Part 0 says whether X is not finite."""
    cdef fm_layer layer
    cdef fm_net alone = work.net
    cdef fm_matrix X = work.X
    cdef int i, finite
    alone.layers, alone.n_layers = &layer, 1
    for i in range(work.net.n_layers):
        layer = work.net.layers[i]
        if take_columns(&layer, part, n_parts, itemsize):
            finite = kernels.net_forward(&alone, &X, scratch)
            if i == 0 and part == 0:
                not_finite[0] = not finite
        if i < work.net.n_layers - 1:
            fm_barrier_wait(barrier, part, n_parts)
        X = work.net.layers[i].A
        X.rows = work.X.rows


cdef class CompiledForward:
    """The forward pass of a BoundNet; any number of Python threads may call it at once.

    Parameters
    ----------
    bound : BoundNet
    few_rows : int
        As many as `predict_few` takes at most.
    """

    cdef BoundNet bound
    cdef Py_ssize_t few_rows
    cdef object dtype

    def __init__(self, BoundNet bound, Py_ssize_t few_rows):
        self.bound = bound
        self.few_rows = few_rows
        self.dtype = dtype(float32 if bound.dtype == 0 else float64)

    def predict_few(self, X):
        """Outputs of a few rows on one thread, without the checks in Python, which take as long as
        the sums: they find their own code and data pushed out of the caches by the weights.

        Returns None, for whoever checks and explains, where `X` is not a plain array (n, n_inputs)
        of the network's dtype or of pixels, has more rows, or is not finite.
        """
        cdef size_t itemsize = 4 if self.bound.dtype == 0 else 8
        cdef char expected = b"f" if self.bound.dtype == 0 else b"d"
        cdef const fm_net *net = &self.bound.net
        cdef Py_buffer view
        cdef fm_data data
        cdef bint finite
        if type(X) is not ndarray:
            return None
        try:
            PyObject_GetBuffer(X, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError):
            return None
        try:
            data.X = view.buf
            data.is_uint8 = view.format[0] == b"B"
            if (
                view.ndim != 2
                or view.shape[1] != self.bound.n_inputs
                or not 0 < view.shape[0] <= self.few_rows
                or not (data.is_uint8 or view.format[0] == expected)
                or view.format[1] != 0
                or <size_t>view.buf % <size_t>view.itemsize != 0
            ):
                return None
            data.n_features = data.ldx = view.shape[1]
            out = empty((view.shape[0], net.layers[net.n_layers - 1].W.cols), self.dtype)
            finite = self.run_alone(&data, bind(out), fm_matrix(NULL, 0, 0, 0), itemsize)
            return out if finite else None
        finally:
            PyBuffer_Release(&view)

    cdef bint run_alone(
        self, const fm_data *data, fm_matrix out, fm_matrix Z, size_t itemsize
    ) except -1:
        """All rows on this thread; returns whether X is finite."""
        cdef const fm_kernels *kernels = self.bound.kernels
        cdef const fm_net *net = &self.bound.net
        cdef void *memory = NULL
        cdef bint not_finite
        cdef size_t size = workspace_size(
            kernels, net, data, min(<Py_ssize_t>BLOCK, out.rows), itemsize
        )
        if posix_memalign(&memory, CACHE_LINE, size) != 0:
            raise MemoryError()
        with nogil:
            not_finite = predict_rows(
                kernels, net, data, 0, out.rows, <char *>memory, itemsize, out, Z
            )
        free(memory)
        return not not_finite

    def run(self, X, out, Z, int n_threads):
        """X (n, n_features), network's dtype or uint8 # IN, out, Z (n, n_outputs) or None # OUT

        Returns whether X is finite.
        """
        cdef size_t itemsize = 4 if self.bound.dtype == 0 else 8
        cdef Py_ssize_t x_itemsize
        cdef fm_matrix x = bind(X, &x_itemsize), a = bind(out), z
        cdef fm_data data
        cdef void *memory = NULL
        cdef Py_ssize_t rows, scratch
        cdef size_t size
        cdef bint divides_columns
        cdef workspace work
        cdef fm_start start
        cdef fm_barrier barrier
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
        data.is_uint8 = x_itemsize == 1
        if n_threads == 1:  # without the fraction of a microsecond that a team of one costs
            return self.run_alone(&data, a, z, itemsize)
        divides_columns = x.rows < min(FEW * n_threads, <int>BLOCK)
        rows = x.rows if divides_columns else (x.rows + n_threads - 1) // n_threads
        size = workspace_size(kernels, net, &data, min(<Py_ssize_t>BLOCK, rows), itemsize)
        if posix_memalign(&memory, CACHE_LINE, n_threads * size) != 0:
            raise MemoryError()
        if divides_columns:
            fm_barrier_init(&barrier)
            fm_start_init(&start)
            with nogil:
                work = in_memory(net, &data, x.rows, <char *>memory, itemsize)
                set_block(kernels, &work, &data, 0, x.rows, a, z, itemsize)
                scratch = work.scratch - <char *>memory
                with parallel(num_threads=n_threads):
                    fm_start_work(&start)
                    predict_columns(
                        kernels, &work, &barrier, fm_thread(), fm_team_size(),
                        <char *>memory + fm_thread() * size + scratch, itemsize, &not_finite,
                    )
        else:
            for part in range(n_threads):  # of which OpenMP may start fewer
                (<int *>(<char *>memory + part * size))[0] = 0
            fm_start_init(&start)
            with nogil, parallel(num_threads=n_threads):
                fm_start_work(&start)
                predict_part(kernels, net, &data, <char *>memory, size, itemsize, a, z)
            for part in range(n_threads):
                not_finite += (<int *>(<char *>memory + part * size))[0]
        free(memory)
        return not_finite == 0
