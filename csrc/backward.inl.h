/* The way back through a dense layer, dX = dZ W^T. Its lanes are of one of two kinds: columns of
 * dX, for which panels of W are turned round; or rows of the batch, dX^T = W dZ^T, for which dZ and
 * dX are, and W is read as it lies.
 */

INLINE fm_matrix FN(rows_of)(const fm_matrix *M, ptrdiff_t start, ptrdiff_t stop) {
  return (fm_matrix){(REAL *)M->data + start * M->ld, stop - start, M->cols, M->ld};
}

/* Rows of a batch; none where stop <= start. */
typedef struct {
  ptrdiff_t start, stop;
} FN(span);

/* What of `rows` a thread has, numbered from the first one of its own. */
INLINE FN(span) FN(part_of_own)(FN(span) rows, FN(span) own) {
  return (FN(span)){(rows.start > own.start ? rows.start : own.start) - own.start,
                    (rows.stop < own.stop ? rows.stop : own.stop) - own.start};
}

/* How many of h rows go back alone: those behind whole vectors, where one more vector would take
 * longer. For a row of W it takes n_out multiply-adds; a row alone, whose products are summed over
 * lanes, about 2 / VL of n_out + 64. */
INLINE ptrdiff_t FN(left_alone)(ptrdiff_t h, ptrdiff_t n_out) {
  const ptrdiff_t left = h % VL;
  return left * (n_out + 64) <= VL / 2 * n_out ? left : 0;
}

/* Whether rows are the better lanes for a batch of n; it may not depend on how many of them a
 * thread has. To turn a matrix round takes as long as TURN rows' products with it. A row alone
 * takes twice as long as one in a vector, and one vector a third longer than its share of several,
 * which have more chains (300 by 300, 256 by 128, 128 by 64, 64 by 32, batches of 1 to 200).
 * W (k, n_out) */
INLINE int FN(lanes_are_rows)(const fm_matrix *W, ptrdiff_t n) {
  enum { TURN = 9 };
  const ptrdiff_t k = W->rows, n_out = W->cols, h = n - n / 2, alone = FN(left_alone)(h, n_out);
  const ptrdiff_t lanes = N_BLOCKS(h - alone, VL) * VL, idle = lanes - (h - alone);
  const ptrdiff_t more = idle + alone + (lanes == VL ? VL / 3 : 0);
  if (k < VL) return 0; /* rows alone take as many rows of W at once */
  return lanes == 0 || (TURN - more) * k * n_out > TURN * h * (k + n_out);
}

/* Which rows of a batch of n go back as lanes, and which alone: the last ones of each half, since
 * half a batch is what each of two threads has. Sums over lanes have another order, so which rows
 * have them may not depend on the number of threads.  lanes, alone (2,)  OUT */
INLINE void FN(split_rows)(ptrdiff_t n, ptrdiff_t n_out, FN(span) lanes[], FN(span) alone[]) {
  const ptrdiff_t half = n / 2, first = half - FN(left_alone)(half, n_out);
  const ptrdiff_t second = n - FN(left_alone)(n - half, n_out);
  lanes[0] = (FN(span)){0, first < half ? first : second};
  lanes[1] = (FN(span)){first < half ? half : n, second};
  alone[0] = (FN(span)){first, half};
  alone[1] = (FN(span)){second, n};
}

/* Rows that go back together at most; of dX^T, rows that are made, and turned round while they are
 * near. */
enum { FN(BACK_BLOCK) = 256, FN(NEAR_ROWS) = 64 };

/* Numbers of memory for the way back through a layer of batches of n rows and less. */
INLINE ptrdiff_t FN(backward_size)(const fm_matrix *W, ptrdiff_t n) {
  const ptrdiff_t rows = n < FN(BACK_BLOCK) ? n : FN(BACK_BLOCK);
  const ptrdiff_t of_rows = (W->cols + FN(NEAR_ROWS)) * (rows + 2 * VL);
  return of_rows > W->cols * 3 * VL ? of_rows : W->cols * 3 * VL;
}

/* Adds to `rows` by c sums the products of as many columns of d and of w as there are lanes. */
INLINE void FN(alone_step)(const int rows, const int c, const int partial, ptrdiff_t lanes,
                           const REAL *d, ptrdiff_t ldd, const REAL *const base[], ptrdiff_t ldw,
                           vec sum[2][16]) {
  vec own[2];
#pragma GCC unroll 2
  for (int r = 0; r < rows; r++) own[r] = partial ? vloadn(d + r * ldd, lanes) : vload(d + r * ldd);
#pragma GCC unroll 16
  for (int j = 0; j < c; j++) {
    const REAL *w = base[j / 3] + j % 3 * ldw;
    vec weights = partial ? vloadn(w, lanes) : vload(w);
    vkeep(weights);
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) sum[r][j] = vfma(own[r], weights, sum[r][j]);
  }
}

/* x[r, j] = sum_i d[r, i] w[j, i] for one row r and VL rows j, or two and VL / 2.
 * d (rows, k), w (VL / rows, k)  IN;  x (rows, VL / rows)  OUT */
INLINE void FN(alone_tile)(const int rows, ptrdiff_t k, const REAL *d, ptrdiff_t ldd, const REAL *w,
                           ptrdiff_t ldw, REAL *x, ptrdiff_t ldx) {
  const int c = (int)VL / rows;
  const REAL *base[6]; /* of three rows each, as in a tile */
#pragma GCC unroll 6
  for (int q = 0; q < (c + 2) / 3; q++) base[q] = w + 3 * q * ldw;
  vec sum[2][16];
#pragma GCC unroll 2
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
    for (int j = 0; j < c; j++) sum[r][j] = (vec){0};
  for (ptrdiff_t left = k; left > 0; left -= VL, d += VL) {
    if (left < VL)
      FN(alone_step)(rows, c, 1, left, d, ldd, base, ldw, sum);
    else
      FN(alone_step)(rows, c, 0, VL, d, ldd, base, ldw, sum);
#pragma GCC unroll 6
    for (int q = 0; q < (c + 2) / 3; q++) base[q] += VL;
  }
  /* A copy, since what a loop shuffles GCC keeps in memory, in the loop above too. */
  vec block[VL];
#pragma GCC unroll 2
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
    for (int j = 0; j < c; j++) block[r * c + j] = sum[r][j];
  const vec sums = vsums(block);
  vstoren(x, sums, c);
  if (rows == 2) vstoren(x + ldx, vback(sums), c);
}

#define DEFINE_ALONE(rows)                                                                         \
  NOINLINE void FN(alone_##rows)(ptrdiff_t k, const REAL *d, ptrdiff_t ldd, const REAL *w,         \
                                 ptrdiff_t ldw, REAL *x, ptrdiff_t ldx) {                          \
    FN(alone_tile)(rows, k, d, ldd, w, ldw, x, ldx);                                               \
  }
DEFINE_ALONE(1)
DEFINE_ALONE(2)
#undef DEFINE_ALONE

/* Columns [i, end) of dX = dZ W^T, two rows at a time. The last block of W's rows may begin before.
 * dZ (m, n_out), W (k, n_out), k >= VL  IN;  dX (m, k)  OUT */
static void FN(backward_alone)(const fm_matrix *dZ, const fm_matrix *W, ptrdiff_t i, ptrdiff_t end,
                               fm_matrix *dX) {
  for (ptrdiff_t r = 0; r < dZ->rows; r += 2) {
    const REAL *d = (const REAL *)dZ->data + r * dZ->ld;
    REAL *x = (REAL *)dX->data + r * dX->ld;
    const int two = r + 1 < dZ->rows;
    const ptrdiff_t block = two ? VL / 2 : VL;
    for (ptrdiff_t row = i; row < end; row += block) {
      const ptrdiff_t j = row + block <= W->rows ? row : W->rows - block;
      (two ? FN(alone_2) : FN(alone_1))(W->cols, d, dZ->ld, (const REAL *)W->data + j * W->ld,
                                        W->ld, x + j, dX->ld);
    }
  }
}

/* dX^T = W dZ^T for rows that are lanes; and those that are alone, with some rows of W while these
 * are near.  own: which rows of the batch dZ and dX have
 * Behind a span's last row there are lanes of which nothing is wanted. */
static void FN(backward_by_rows)(const fm_matrix *dZ, const fm_matrix *W, fm_matrix *dX,
                                 FN(span) own, ptrdiff_t n, REAL *memory) {
  const ptrdiff_t n_out = W->cols;
  FN(span) lanes[2], alone[2];
  FN(split_rows)(n, n_out, lanes, alone);
  ptrdiff_t place[3] = {0}; /* of a span's first lane */
  for (int s = 0; s < 2; s++) {
    lanes[s] = FN(part_of_own)(lanes[s], own);
    alone[s] = FN(part_of_own)(alone[s], own);
    const ptrdiff_t rows = lanes[s].stop - lanes[s].start;
    place[s + 1] = place[s] + (rows > 0 ? N_BLOCKS(rows, VL) * VL : 0);
  }
  const ptrdiff_t ld = place[2];
  REAL *piece = memory + n_out * ld;
  for (int s = 0; s < 2; s++) {
    const fm_matrix D = FN(rows_of)(dZ, lanes[s].start, lanes[s].stop);
    fm_matrix DT = {memory + place[s], n_out, D.rows, ld};
    FN(transpose)(&D, &DT);
  }
  for (ptrdiff_t i = 0, end; i < W->rows; i = end) {
    end = W->rows - i < FN(NEAR_ROWS) ? W->rows : i + FN(NEAR_ROWS);
    const REAL *w = (const REAL *)W->data + i * W->ld, *behind = w + (end - i) * W->ld;
    FN(tile_job) job = {.k = n_out, .x = w, .ldx = W->ld, .ldw = ld, .ldz = ld, .tail = VL};
    for (ptrdiff_t j = 0, nv; j < ld; j += nv * VL) {
      nv = FN(forward_vectors)(ld - j);
      job.w = memory + j, job.z = piece + j;
      job.behind = j == 0 && end < W->rows ? behind : NULL; /* line by line, as it lies */
      job.ld_behind = nv * VL;
      FN(panel_product)(end - i, nv, job);
    }
    for (int s = 0; s < 2; s++) {
      fm_matrix X = FN(rows_of)(dX, lanes[s].start, lanes[s].stop);
      const fm_matrix XT = {piece + place[s], end - i, X.rows, ld};
      X.data = (REAL *)X.data + i;
      FN(transpose)(&XT, &X);
      X = FN(rows_of)(dX, alone[s].start, alone[s].stop);
      const fm_matrix D = FN(rows_of)(dZ, alone[s].start, alone[s].stop);
      FN(backward_alone)(&D, W, i, end, &X);
    }
  }
}

/* dX = dZ W^T for lanes that are columns.  panel (n_out, 3 VL): memory
 * Each thread turns round what it needs. A copy of W^T that the optimizer keeps takes as long to
 * make, and of its lines one thread writes what the others have read and have to read again
 * (784-1024-1024-10: an epoch 5% longer, the copy being 4 MB). */
static void FN(backward_by_columns)(const fm_matrix *dZ, const fm_matrix *W, fm_matrix *dX,
                                    REAL *panel) {
  FN(tile_job)
  job = {.k = W->cols,
         .x = dZ->data,
         .ldx = dZ->ld,
         .w = panel,
         .ldz = dX->ld,
         .ld_behind = W->ld,
         .turned = 1};
  for (ptrdiff_t i = 0, nv; i < W->rows; i += nv * VL) {
    const ptrdiff_t left = W->rows - i;
    nv = FN(forward_vectors)(left);
    const ptrdiff_t n = left < nv * VL ? left : nv * VL;
    const fm_matrix rows = {(REAL *)W->data + i * W->ld, n, W->cols, W->ld};
    fm_matrix columns = {panel, W->cols, n, nv * VL};
    FN(transpose)(&rows, &columns);
    job.ldw = columns.ld;
    job.tail = FN(tail_of)(left, nv);
    job.z = (REAL *)dX->data + i;
    job.behind = left > n ? (const REAL *)rows.data + n * W->ld : NULL;
    FN(panel_product)(dZ->rows, nv, job);
  }
}

/* dX = dZ W^T for the rows [start, start + m) of a batch of n.
 * dZ (m, n_out), W (k, n_out)  IN;  dX (m, k)  OUT;  memory (backward_size,) */
static void FN(affine_backward_inputs)(const fm_matrix *dZ, const fm_matrix *W, fm_matrix *dX,
                                       ptrdiff_t start, ptrdiff_t n, REAL *memory) {
  if (FN(lanes_are_rows)(W, n))
    FN(backward_by_rows)(dZ, W, dX, (FN(span)){start, start + dZ->rows}, n, memory);
  else
    FN(backward_by_columns)(dZ, W, dX, memory);
}
