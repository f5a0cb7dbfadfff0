"""One update of flat arrays. Formulas: csrc/optimizers.inl.h."""

from fastmlp._core.cpu cimport real, rows_of, table
from fastmlp._core.kernels cimport FM_FLOAT32, FM_FLOAT64, FM_FUSED, fm_kernels, fm_update


def optimizer_update(
    int rule, double beta1, double beta2, double l2, const double[::1] scalars, real[:] w,
    const real[:] g, real[:] s0, real[:] s1
):
    """g (n,), scalars (step_m, step_g, epsilon, shrink) # IN; w, s0, s1 (n,) # IN and OUT

    A moment that the rule does not have is None.
    """
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef Py_ssize_t n = w.shape[0]
    cdef void *parameters = <void *>rows_of(w, "w")
    cdef const void *gradient = rows_of(g, "g")
    cdef void *moment0 = NULL
    cdef void *moment1 = NULL
    cdef fm_update update
    if s0 is not None:
        moment0 = <void *>rows_of(s0, "states[0]")
    if s1 is not None:
        moment1 = <void *>rows_of(s1, "states[1]")
    if g.shape[0] != n or (s0 is not None and s0.shape[0] != n) or (
        s1 is not None and s1.shape[0] != n
    ) or scalars.shape[0] != 4:
        raise ValueError("optimizer_update: the shapes do not fit")
    update = fm_update(
        rule, beta1, beta2, l2, scalars[0], scalars[1], scalars[2], scalars[3], 0, 0, 1, FM_FUSED
    )
    with nogil:
        kernels.optimizer_update(&update, n, gradient, parameters, moment0, moment1)
