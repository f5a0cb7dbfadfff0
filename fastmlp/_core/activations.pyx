"""A = f(Z) and dZ = dA f'(Z). Formulas: csrc/activations.inl.h."""

from fastmlp._core.cpu cimport matrix_of, real, table
from fastmlp._core.kernels cimport FM_FLOAT32, FM_FLOAT64, fm_kernels, fm_matrix


cdef bint same_shape(fm_matrix a, fm_matrix b) noexcept:
    return a.rows == b.rows and a.cols == b.cols


def activation_forward(int code, const real[:, :] Z, real[:, :] A):
    """Z (n, n_units) # IN, A (n, n_units) # OUT"""
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_matrix z = matrix_of(Z, "Z"), a = matrix_of(A, "A")
    if not same_shape(z, a):
        raise ValueError("activation_forward: the shapes do not fit")
    with nogil:
        kernels.activation_forward(code, &z, &a)


def activation_backward(
    int code, const real[:, :] dA, const real[:, :] Z, const real[:, :] A, real[:, :] dZ
):
    """dA, Z, A (n, n_units) # IN, dZ (n, n_units) # OUT"""
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_matrix d = matrix_of(dA, "dA"), z = matrix_of(Z, "Z"), a = matrix_of(A, "A")
    cdef fm_matrix out = matrix_of(dZ, "dZ")
    if not (same_shape(d, z) and same_shape(d, a) and same_shape(d, out)):
        raise ValueError("activation_backward: the shapes do not fit")
    with nogil:
        kernels.activation_backward(code, &d, &z, &a, &out)
