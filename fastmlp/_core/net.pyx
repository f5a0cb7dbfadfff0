"""A network and its data as the C descriptors, filled once a fit or once a predictor."""

import numpy as np

from fastmlp.arena import huge_pages_empty, leading_dimension

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from fastmlp._core.cpu cimport table
from fastmlp._core.kernels cimport (
    FM_BATCH_NORM,
    FM_DENSE,
    FM_FLOAT32,
    FM_FLOAT64,
    FM_LAYER_NORM,
    fm_layer,
    fm_loss,
    fm_matrix,
    fm_needs_z,
)


cdef void *address(object array) except NULL:
    return <void *><size_t>array.__array_interface__["data"][0]


cdef fm_matrix bind(object array, Py_ssize_t *itemsize=NULL) except *:
    """A 2-D array with contiguous rows as the kernels see it; itemsize: bytes of an element."""
    cdef fm_matrix matrix
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    matrix.data = view.buf
    matrix.rows, matrix.cols = view.shape[0], view.shape[1]
    matrix.ld = view.strides[0] // view.itemsize
    if itemsize != NULL:
        itemsize[0] = view.itemsize
    PyBuffer_Release(&view)
    return matrix


cdef object new_matrix(Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t ld, object dtype):
    """Uninitialised working memory; rows are padded with zeros."""
    block = huge_pages_empty(rows * ld, dtype).reshape(rows, ld)
    block[:, cols:] = 0
    return block[:, :cols]


cdef class BoundNet:
    """A network at work.

    Parameters
    ----------
    layers : list of dict
        ``kind``, ``activation`` (codes), ``l1``, ``l2``, ``decay``, ``max_norm``, ``rate``,
        ``epsilon``, ``width``; and arrays of the network, used where they lie: ``parameters``,
        (W, b) or (gain, shift) or nothing, ``statistics``, and for training ``moments`` and, where
        gradients are stored, ``gradients``, lists of tuples laid out as the parameters.
    n_inputs : int
    dtype : numpy dtype
    loss : tuple of (code, fused, option, loss factor, gradient factor)
        `option` (n_outputs,) is the loss's parameter for each output.
    n_rows : int
        Rows of the working memory: the batch size; 0 for none (a predictor brings its own).
    squares : bool
        Whether the gradient's norm is wanted.
    one_by_one : bool
        Whether samples are taken one by one. Kernels then keep transposed copies of the weights and
        write the working memory in whole vectors. If not, a single column has no gaps: what is done
        with its elements is done with vectors of rows.
    """

    def __cinit__(
        self, list layers, Py_ssize_t n_inputs, dtype, tuple loss, Py_ssize_t n_rows,
        bint squares, bint one_by_one
    ):
        cdef fm_layer *layer
        self.dtype = FM_FLOAT32 if dtype == np.float32 else FM_FLOAT64
        self.kernels = table(self.dtype)
        self.n_rows, self.n_inputs = n_rows, n_inputs
        self.one_by_one = one_by_one
        self.keep = [layers]
        self.net.layers = <fm_layer *>calloc(len(layers), sizeof(fm_layer))
        if self.net.layers == NULL:
            raise MemoryError()
        self.net.n_layers = <int>len(layers)
        while not layers[self.net.first_trained]["parameters"]:
            self.net.first_trained += 1
        for i, spec in enumerate(layers):
            layer = &self.net.layers[i]
            layer.kind, layer.activation = spec["kind"], spec["activation"]
            layer.l1, layer.l2 = spec["l1"], spec["l2"]
            layer.decay, layer.max_norm = spec["decay"], spec["max_norm"]
            layer.rate, layer.epsilon = spec["rate"], spec["epsilon"]
            layer.W.cols = spec["width"]
            if spec["parameters"]:
                W, b = spec["parameters"]
                layer.W, layer.b = bind(np.atleast_2d(W)), address(b)
            for j, array in enumerate(spec["statistics"]):
                layer.running[j] = address(array)
            if n_rows:
                self.prepare_training(i, spec, squares)
        code, fused, option, self.net.loss_factor, self.net.gradient_factor = loss
        self.keep.append(option)
        activation = layers[len(layers) - 1]["activation"]
        self.net.loss = fm_loss(code, activation, fused, address(option))

    cdef int prepare_training(self, int i, dict spec, bint squares) except -1:
        """Moments, working memory for a batch."""
        cdef fm_layer *layer = &self.net.layers[i]
        cdef Py_ssize_t rows = layer.W.rows, width = layer.W.cols
        dtype = np.dtype(np.float32 if self.dtype == FM_FLOAT32 else np.float64)
        for j, moments in enumerate(spec["moments"]):
            if moments:
                layer.W_moments[j] = address(moments[0])
                layer.b_moments[j] = address(moments[1])
        for gradients in spec["gradients"]:
            if layer.kind == FM_DENSE:
                layer.G, layer.gb = bind(gradients[0]), address(gradients[1])
        if layer.l1 or layer.l2:
            layer.penalties = self.doubles(rows)
            self.penalised = True
        if layer.max_norm:
            self.constrained = True
        if squares:
            layer.squares = self.doubles(rows + 1)
        if layer.kind == FM_DENSE:
            if i > self.net.first_trained and self.one_by_one:
                layer.WT = self.own(width, rows, dtype)
        else:
            layer.H = self.own(self.n_rows, width, dtype)
        if layer.kind == FM_LAYER_NORM or layer.kind == FM_BATCH_NORM:
            layer.gains = self.own(1, width, dtype).data
            layer.shifts = self.own(1, width, dtype).data
            layer.mean = self.own(1, width, dtype).data
            layer.variance = self.own(1, width, dtype).data
            layer.inverse = self.own(1, max(width, self.n_rows), dtype).data
        layer.A = self.own(self.n_rows, width, dtype)
        layer.D = self.own(self.n_rows, width, dtype)
        layer.Z = layer.A
        if fm_needs_z(layer.activation) or i == self.net.n_layers - 1:
            layer.Z = self.own(self.n_rows, width, dtype)
        return 0

    cdef fm_matrix own(self, Py_ssize_t rows, Py_ssize_t cols, object dtype) except *:
        close = cols == 1 and rows > 1 and not self.one_by_one
        ld = 1 if close else leading_dimension(cols, dtype.itemsize)
        matrix = new_matrix(rows, cols, ld, dtype)
        self.keep.append(matrix)
        return bind(matrix)

    cdef double *doubles(self, Py_ssize_t n) except NULL:
        values = np.zeros(n)
        cdef double[::1] view = values
        self.keep.append(values)
        return &view[0]

    cdef void copy_transposed(self) noexcept nogil:
        """Bring the transposed copies of the weights up to date."""
        cdef int i
        for i in range(self.net.n_layers):
            if self.net.layers[i].WT.data != NULL:
                self.kernels.transpose(&self.net.layers[i].W, &self.net.layers[i].WT)

    def __dealloc__(self):
        free(self.net.layers)


cdef class BoundData:
    """Samples to train on.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), the network's dtype or uint8
    Y : ndarray of shape (n,) int64, or (n, n_outputs) of the network's dtype
    weight : ndarray of shape (n,) float64, or None
    """

    def __cinit__(self, X, Y, weight):
        self.keep = (X, Y, weight)
        self.n_samples = X.shape[0]
        cdef fm_matrix x = bind(X), y
        self.data.X = x.data
        self.data.n_features = x.cols
        self.data.ldx = x.ld
        self.data.is_uint8 = X.dtype == np.uint8
        if Y.ndim == 1:
            self.data.labels = <const int64_t *>address(Y)
        else:
            y = bind(Y)
            self.data.Y = y.data
            self.data.ldy = y.ld
        if weight is not None:
            self.data.weight = <const double *>address(weight)


cdef BoundData bound_data(BoundData data):
    """The data themselves; an epoch holds on to them, whoever binds others meanwhile."""
    if data is None:
        raise RuntimeError("epochs: expected data, see bind")
    return data
