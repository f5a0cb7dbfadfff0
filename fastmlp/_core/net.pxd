from fastmlp._core.kernels cimport fm_data, fm_kernels, fm_layer, fm_matrix, fm_net

cdef void *address(object array) except NULL
cdef fm_matrix bind(object array, Py_ssize_t *itemsize=*) except *
cdef BoundData bound_data(BoundData data)


cdef class BoundNet:
    cdef fm_net net
    cdef const fm_kernels *kernels
    cdef readonly int dtype
    cdef readonly Py_ssize_t n_rows, n_inputs
    cdef bint penalised, constrained, one_by_one
    cdef list keep

    cdef int prepare_training(self, int i, dict spec, bint squares) except -1
    cdef double *doubles(self, Py_ssize_t n) except NULL
    cdef fm_matrix own(self, Py_ssize_t rows, Py_ssize_t cols, object dtype) except *
    cdef void copy_transposed(self) noexcept nogil


cdef class BoundData:
    cdef fm_data data
    cdef readonly Py_ssize_t n_samples
    cdef tuple keep
