from fastmlp._core.kernels cimport fm_kernels, fm_matrix

ctypedef fused real:
    float
    double

cdef const fm_kernels *table(int dtype) noexcept nogil
cdef fm_matrix matrix_of(const real[:, :] array, str name) except *
cdef const void *rows_of(const real[:] array, str name) except? NULL
