/* Matrix products with the weights, in register tiles.
 *
 * A tile is FM_TILE_ROWS rows by two vectors of columns: as many accumulators as the registers hold
 * beside one row of W. Every element is one chain of multiply-adds over k = 0, 1, 2, ..., whatever
 * the tile, so bits depend neither on how rows are divided nor on the padding.
 */

/* z[r, :] = init + sum_k x[r, k] w[k, :] for mr rows and nv vectors of columns, the last one of
 * `tail` lanes. x[r, k] lies at x + r * rs + k * cs; unit_rows: rs is 1 (x is read transposed). */
INLINE void FN(tile)(const int mr, const int nv, const int unit_rows, const int partial,
                     ptrdiff_t k, const REAL *restrict x, ptrdiff_t stride, const REAL *restrict w,
                     ptrdiff_t ldw, const REAL *restrict init, REAL *restrict z, ptrdiff_t ldz,
                     ptrdiff_t tail) {
  vec acc[FM_TILE_ROWS][8];
  for (int c = 0; c < nv; c++) {
    vec start = {0};
    if (init) start = partial && c == nv - 1 ? vloadn(init + c * VL, tail) : vload(init + c * VL);
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++) acc[r][c] = start;
  }
  /* Three rows a base pointer: base, base + stride, base + 2 * stride are addressing modes. */
  const REAL *base[(FM_TILE_ROWS + 2) / 3];
#pragma GCC unroll 16
  for (int q = 0; q < (mr + 2) / 3; q++) base[q] = x + 3 * q * stride;
  for (ptrdiff_t p = 0; p < k; p++) {
    vec row[8];
#pragma GCC unroll 8
    for (int c = 0; c < nv; c++)
      row[c] = partial && c == nv - 1 ? vloadn(w + c * VL, tail) : vload(w + c * VL);
    w += ldw;
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++) {
      vec value = vset1(unit_rows ? x[r] : base[r / 3][(r % 3) * stride]);
#pragma GCC unroll 8
      for (int c = 0; c < nv; c++) acc[r][c] = vfma(value, row[c], acc[r][c]);
    }
    if (unit_rows) {
      x += stride;
    } else {
#pragma GCC unroll 16
      for (int q = 0; q < (mr + 2) / 3; q++) base[q]++;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < mr; r++)
#pragma GCC unroll 8
    for (int c = 0; c < nv; c++) {
      if (partial && c == nv - 1)
        vstoren(z + r * ldz + c * VL, acc[r][c], tail);
      else
        vstore(z + r * ldz + c * VL, acc[r][c]);
    }
}

#define TILE_ARGUMENTS                                                                             \
  ptrdiff_t k, const REAL *restrict x, ptrdiff_t stride, const REAL *restrict w, ptrdiff_t ldw,    \
      const REAL *restrict init, REAL *restrict z, ptrdiff_t ldz, ptrdiff_t tail
typedef void (*FN(tile_function))(TILE_ARGUMENTS);

/* One function for each number of rows, for one or two vectors, whole or partial, x as it is (n) or
 * transposed (t). */
#define DEFINE_TILE(letter, unit_rows, mr, nv, partial)                                            \
  static __attribute__((noinline)) void FN(tile_##letter##_##mr##_##nv##_##partial)(               \
      TILE_ARGUMENTS) {                                                                            \
    FN(tile)(mr, nv, unit_rows, partial, k, x, stride, w, ldw, init, z, ldz, tail);                \
  }
#define DEFINE_TILES(mr)                                                                           \
  DEFINE_TILE(n, 0, mr, 1, 0)                                                                      \
  DEFINE_TILE(n, 0, mr, 1, 1)                                                                      \
  DEFINE_TILE(n, 0, mr, 2, 0)                                                                      \
  DEFINE_TILE(n, 0, mr, 2, 1)                                                                      \
  DEFINE_TILE(t, 1, mr, 1, 0)                                                                      \
  DEFINE_TILE(t, 1, mr, 1, 1)                                                                      \
  DEFINE_TILE(t, 1, mr, 2, 0)                                                                      \
  DEFINE_TILE(t, 1, mr, 2, 1)
#define TILES(mr)                                                                                  \
  {                                                                                                \
    {{FN(tile_n_##mr##_1_0), FN(tile_n_##mr##_1_1)},                                               \
     {FN(tile_n_##mr##_2_0), FN(tile_n_##mr##_2_1)}},                                              \
    {                                                                                              \
      {FN(tile_t_##mr##_1_0), FN(tile_t_##mr##_1_1)}, {                                            \
        FN(tile_t_##mr##_2_0), FN(tile_t_##mr##_2_1)                                               \
      }                                                                                            \
    }                                                                                              \
  }
DEFINE_TILES(1)
DEFINE_TILES(2)
DEFINE_TILES(3)
DEFINE_TILES(4)
#if FM_TILE_ROWS > 4
DEFINE_TILES(5)
DEFINE_TILES(6)
#endif
#if FM_TILE_ROWS > 6
DEFINE_TILES(7)
DEFINE_TILES(8)
DEFINE_TILES(9)
DEFINE_TILES(10)
DEFINE_TILES(11)
DEFINE_TILES(12)
#endif
#if FM_TILE_ROWS > 12
DEFINE_TILES(13)
DEFINE_TILES(14)
#endif
/* One row alone has too few chains to hide the latency of a multiply-add (4 cycles, 2 a cycle): it
 * takes eight vectors at once. */
DEFINE_TILE(n, 0, 1, 8, 0)

/* [rows - 1][transposed][vectors - 1][partial] */
static const FN(tile_function) FN(tiles)[FM_TILE_ROWS][2][2][2] = {
    TILES(1),  TILES(2),  TILES(3), TILES(4),
#if FM_TILE_ROWS > 4
    TILES(5),  TILES(6),
#endif
#if FM_TILE_ROWS > 6
    TILES(7),  TILES(8),  TILES(9), TILES(10), TILES(11), TILES(12),
#endif
#if FM_TILE_ROWS > 12
    TILES(13), TILES(14),
#endif
};

/* z (m, n) = init + x w, tile by tile; x (m, k), or (k, m) where it is read transposed.
 *
 * A panel of columns of w is used by all rows while it is near; rows are divided evenly, so that no
 * last tile is thin. */
static void FN(matmul)(int transposed, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const REAL *x,
                       ptrdiff_t ldx, const REAL *w, ptrdiff_t ldw, const REAL *init, REAL *z,
                       ptrdiff_t ldz) {
  ptrdiff_t n_blocks = (m + FM_TILE_ROWS - 1) / FM_TILE_ROWS;
  ptrdiff_t j = 0;
  if (m == 1 && !transposed)
    for (; j + 8 * VL <= n; j += 8 * VL)
      FN(tile_n_1_8_0)(k, x, ldx, w + j, ldw, init ? init + j : NULL, z + j, ldz, VL);
  for (; j < n; j += 2 * VL) {
    ptrdiff_t width = n - j < 2 * VL ? n - j : 2 * VL;
    ptrdiff_t nv = (width + VL - 1) / VL, tail = width - (nv - 1) * VL;
    for (ptrdiff_t block = 0; block < n_blocks; block++) {
      ptrdiff_t i = m * block / n_blocks, rows = m * (block + 1) / n_blocks - i;
      FN(tiles)
      [rows - 1][transposed][nv - 1][tail < VL](k, x + i *(transposed ? 1 : ldx), ldx, w + j, ldw,
                                                init ? init + j : NULL, z + i *ldz + j, ldz, tail);
    }
  }
}

/* Z = X W + b.  X (m, k), W (k, n), b (n,) or NULL  IN;  Z (m, n)  OUT
 * dX = dZ WT is the same product, without b. */
static void FN(affine_forward)(const fm_matrix *X, const fm_matrix *W, const void *b,
                               fm_matrix *Z) {
  FN(matmul)(0, X->rows, X->cols, W->cols, X->data, X->ld, W->data, W->ld, b, Z->data, Z->ld);
}

/* dW = X^T dZ.  X (m, k), dZ (m, n)  IN;  dW (k, n)  OUT */
static void FN(affine_backward_weights)(const fm_matrix *X, const fm_matrix *dZ, fm_matrix *dW) {
  FN(matmul)(1, X->cols, X->rows, dZ->cols, X->data, X->ld, dZ->data, dZ->ld, NULL, dW->data,
             dW->ld);
}

/* db = sum over rows of dZ.  dZ (m, n)  IN;  db (n,)  OUT */
static void FN(affine_backward_bias)(const fm_matrix *dZ, void *db) {
  const REAL *d = dZ->data;
  REAL *out = db;
  for (ptrdiff_t j = 0; j < dZ->cols; j += VL) {
    ptrdiff_t lanes = dZ->cols - j < VL ? dZ->cols - j : VL;
    vec sum = {0};
    for (ptrdiff_t r = 0; r < dZ->rows; r++) sum += vloadn(d + r * dZ->ld + j, lanes);
    vstoren(out + j, sum, lanes);
  }
}

/* WT = W^T.  W (k, n)  IN;  WT (n, k)  OUT */
static void FN(transpose)(const fm_matrix *W, fm_matrix *WT) {
  const REAL *restrict w = W->data;
  REAL *restrict t = WT->data;
  for (ptrdiff_t j = 0; j < W->cols; j++)
    for (ptrdiff_t i = 0; i < W->rows; i++) t[j * WT->ld + i] = w[i * W->ld + j];
}
