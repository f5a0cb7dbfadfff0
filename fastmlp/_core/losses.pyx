"""Each sample's loss, and its gradient with respect to Z. Formulas: csrc/losses.inl.h."""

from libc.stdint cimport int64_t

from fastmlp._core.cpu cimport matrix_of, real, rows_of, table
from fastmlp._core.kernels cimport (
    FM_FLOAT32,
    FM_FLOAT64,
    fm_kernels,
    fm_loss,
    fm_matrix,
    fm_targets,
)


cdef fm_targets targets_of(
    const int64_t[::1] labels, const real[:, :] rows, fm_matrix A
) except *:
    """Labels (n,), or rows (n, n_outputs); the other one is None."""
    cdef fm_targets targets
    cdef fm_matrix matrix
    targets.labels = NULL
    targets.rows = NULL
    targets.ld = 0
    if labels is not None:
        if labels.shape[0] != A.rows:
            raise ValueError("Y: expected a label a sample")
        for i in range(labels.shape[0]):
            if not 0 <= labels[i] < A.cols:
                raise ValueError("Y: expected labels below the number of outputs")
        targets.labels = &labels[0] if labels.shape[0] else NULL
    else:
        matrix = matrix_of(rows, "Y")
        if matrix.rows != A.rows or matrix.cols != A.cols:
            raise ValueError("Y: expected the shape of the outputs")
        targets.rows = matrix.data
        targets.ld = matrix.ld
    return targets


def loss_forward(
    int code, int activation, bint fused, const real[:] option, const real[:, :] A,
    const real[:, :] Z, const int64_t[::1] labels, const real[:, :] rows, double[::1] values
):
    """option (n_outputs,), A, Z (n, n_outputs), labels (n,) or rows (n, n_outputs) # IN

    values (n,) # OUT
    """
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_loss loss = fm_loss(code, activation, fused, rows_of(option, "option"))
    cdef fm_matrix a = matrix_of(A, "A"), z = matrix_of(Z, "Z")
    cdef fm_targets targets = targets_of[real](labels, rows, a)
    if (a.rows != z.rows or a.cols != z.cols or option.shape[0] != a.cols
            or values.shape[0] != a.rows):
        raise ValueError("loss_forward: the shapes do not fit")
    if a.rows:
        with nogil:
            kernels.loss_forward(&loss, &a, &z, &targets, &values[0])


def loss_backward(
    int code, int activation, bint fused, const real[:] option, const real[:, :] A,
    const real[:, :] Z, const int64_t[::1] labels, const real[:, :] rows, const double[::1] scale,
    real[:, :] dZ
):
    """option (n_outputs,), A, Z (n, n_outputs), targets, scale (n,) # IN

    dZ (n, n_outputs) # OUT
    """
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_loss loss = fm_loss(code, activation, fused, rows_of(option, "option"))
    cdef fm_matrix a = matrix_of(A, "A"), z = matrix_of(Z, "Z"), d = matrix_of(dZ, "dZ")
    cdef fm_targets targets = targets_of[real](labels, rows, a)
    if (a.rows != z.rows or a.cols != z.cols or a.rows != d.rows or a.cols != d.cols
            or option.shape[0] != a.cols or scale.shape[0] != a.rows):
        raise ValueError("loss_backward: the shapes do not fit")
    if a.rows:
        with nogil:
            kernels.loss_backward(&loss, &a, &z, &targets, &scale[0], &d)
