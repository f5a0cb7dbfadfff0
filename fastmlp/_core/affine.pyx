"""Z = X W + b and back, rows divided among threads. Formulas: csrc/affine.inl.h."""

from cython.parallel cimport parallel

from fastmlp._core.cpu cimport matrix_of, real, rows_of, table
from fastmlp._core.kernels cimport (
    FM_FLOAT32,
    FM_FLOAT64,
    fm_kernels,
    fm_matrix,
    fm_start,
    fm_start_init,
    fm_start_work,
    fm_team_size,
    fm_thread,
)


cdef fm_matrix part_of(fm_matrix M, Py_ssize_t start, Py_ssize_t stop, size_t size) noexcept nogil:
    """Rows [start, stop)."""
    M.data = <char *>M.data + start * M.ld * <Py_ssize_t>size
    M.rows = stop - start
    return M


cdef fm_matrix columns_of(
    fm_matrix M, Py_ssize_t start, Py_ssize_t stop, size_t size
) noexcept nogil:
    """Columns [start, stop)."""
    M.data = <char *>M.data + start * <Py_ssize_t>size
    M.cols = stop - start
    return M


cdef void forward_part(
    const fm_kernels *kernels, fm_matrix X, fm_matrix W, const void *b, fm_matrix Z, int part,
    int n_parts, size_t size
) noexcept nogil:
    cdef Py_ssize_t start = Z.rows * part // n_parts
    cdef Py_ssize_t stop = Z.rows * (part + 1) // n_parts
    cdef fm_matrix X_part = part_of(X, start, stop, size)
    cdef fm_matrix Z_part = part_of(Z, start, stop, size)
    kernels.affine_forward(&X_part, &W, b, &Z_part)


cdef void weights_part(
    const fm_kernels *kernels, fm_matrix X, fm_matrix dZ, fm_matrix dW, int part, int n_parts,
    size_t size
) noexcept nogil:
    cdef Py_ssize_t start = dW.rows * part // n_parts
    cdef Py_ssize_t stop = dW.rows * (part + 1) // n_parts
    cdef fm_matrix X_part = columns_of(X, start, stop, size)
    cdef fm_matrix dW_part = part_of(dW, start, stop, size)
    kernels.affine_backward_weights(&X_part, &dZ, &dW_part)


def affine_forward(
    const real[:, :] X, const real[:, :] W, const real[:] b, real[:, :] Z, int n_threads
):
    """Z = X W + b.  X (n, n_in), W (n_in, n_out), b (n_out,) # IN, Z (n, n_out) # OUT"""
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_matrix x = matrix_of(X, "X"), w = matrix_of(W, "W"), z = matrix_of(Z, "Z")
    cdef const void *bias = NULL
    cdef fm_start start
    if b is not None:
        bias = rows_of(b, "b")
    if x.rows != z.rows or x.cols != w.rows or w.cols != z.cols or (
        b is not None and b.shape[0] != z.cols
    ):
        raise ValueError("affine_forward: the shapes do not fit")
    fm_start_init(&start)
    with nogil, parallel(num_threads=n_threads):
        fm_start_work(&start)
        forward_part(kernels, x, w, bias, z, fm_thread(), fm_team_size(), sizeof(real))


def affine_backward(
    const real[:, :] X, const real[:, :] dZ, real[:, :] dW, real[:] db, int n_threads
):
    """dW = X^T dZ, db = sum of dZ.  X (n, n_in), dZ (n, n_out) # IN, dW (n_in, n_out), db # OUT"""
    cdef const fm_kernels *kernels = table(FM_FLOAT32 if real is float else FM_FLOAT64)
    cdef fm_matrix x = matrix_of(X, "X"), d = matrix_of(dZ, "dZ"), w = matrix_of(dW, "dW")
    cdef void *bias = <void *>rows_of(db, "db")
    cdef fm_start start
    if x.rows != d.rows or x.cols != w.rows or d.cols != w.cols or db.shape[0] != d.cols:
        raise ValueError("affine_backward: the shapes do not fit")
    fm_start_init(&start)
    with nogil, parallel(num_threads=n_threads):
        fm_start_work(&start)
        weights_part(kernels, x, d, w, fm_thread(), fm_team_size(), sizeof(real))
    kernels.affine_backward_bias(&d, bias)


def transpose(const real[:, :] W, real[:, :] WT):
    """WT = W^T.  W (k, n) # IN, WT (n, k) # OUT"""
    cdef fm_matrix w = matrix_of(W, "W"), t = matrix_of(WT, "WT")
    if w.rows != t.cols or w.cols != t.rows:
        raise ValueError("transpose: the shapes do not fit")
    table(FM_FLOAT32 if real is float else FM_FLOAT64).transpose(&w, &t)
