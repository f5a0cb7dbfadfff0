/* Matrix products with the weights, in register tiles.
 *
 * A tile is as many rows and vectors of columns as the registers hold accumulators beside one row
 * of W. Every element is one chain of multiply-adds over k = 0, 1, 2, ..., whatever the tile, so
 * bits depend neither on how rows are divided nor on the padding; nor on leaving out a k where x is
 * 0, as long as W is finite: a + 0 w = a.
 */

/* Matrices laid out alike of which a product's place is needed behind it. */
typedef struct {
  const REAL *matrices[3];
  int n_matrices;
  ptrdiff_t ld;
} FN(prefetch);

typedef struct {
  ptrdiff_t k;
  const int32_t *list; /* the k to take, ascending; used by the indexed tiles */
  const REAL *x;
  ptrdiff_t ldx;
  const REAL *w;
  ptrdiff_t ldw;
  const REAL *init;  /* NULL: 0 */
  ptrdiff_t ld_init; /* 0: one row of it for all */
  REAL *z;
  ptrdiff_t ldz;
  ptrdiff_t tail; /* lanes of the last vector */
  const FN(prefetch) * prefetch;
  ptrdiff_t place; /* of the tile in those matrices */
  /* What is asked for meanwhile, from line `later` on, one for `every` rows of w; 0: nothing. nv
   * vectors of a row of the next panel; or, where that is made of rows by turning them round, of
   * each VL rows one vector. */
  const REAL *behind;
  ptrdiff_t ld_behind, later, every;
  ptrdiff_t asks_from; /* in spans: the first row of w for which the ones ahead are asked for */
  int turned;
} FN(tile_job);

/* How many rows of w ahead they are asked for: memory takes 200 ns. 784-2048-2048-10, ms an epoch
 * of 10,000 rows, 16 ahead 950, 64 ahead 870, 96 ahead 820. */
enum { FN(ROWS_AHEAD) = 96, FN(LINE) = 64 / sizeof(REAL) };

/* The last vector of a panel's columns: all of its lanes count, or `tail`; or, of two rows, those
 * of both lie in one vector, one row's in each half: 50 units in float64 are 13 vectors, not 14. */
enum { FN(WHOLE), FN(PARTIAL), FN(SHARED) };
INLINE int FN(kind_of_tail)(ptrdiff_t tail) {
  return tail == VL ? FN(WHOLE) : tail > VL / 2 ? FN(PARTIAL) : FN(SHARED);
}

/* Sums of one row or two over nv vectors of columns; their start. The second row of one is 0.
 * init (rows, n) or NULL, rows ld apart  IN */
INLINE void FN(pair_start)(const int nv, const int last, ptrdiff_t tail, int rows, const REAL *init,
                           ptrdiff_t ld, vec acc[][16]) {
#pragma GCC unroll 16
  for (int c = 0; c < nv; c++) {
    const int masked = last != FN(WHOLE) && c == nv - 1;
    acc[0][c] = acc[1][c] = (vec){0};
    if (!init) continue;
    acc[0][c] = masked ? vloadn(init + c * VL, tail) : vload(init + c * VL);
    if (rows == 2)
      acc[1][c] = masked ? vloadn(init + ld + c * VL, tail) : vload(init + ld + c * VL);
    if (masked && last == FN(SHARED)) acc[0][c] = vjoin(acc[0][c], acc[1][c]);
  }
}

/* For one k: each vector of w is loaded, used twice and gone. Rows of w are whole cache lines: half
 * a vector may be read where fewer columns are left.
 * x: of the first row; second: from there to the second row's */
INLINE void FN(pair_step)(const int nv, const int last, ptrdiff_t tail, const REAL *x,
                          ptrdiff_t second, const REAL *w, vec acc[][16]) {
  const vec first = vset1(x[0]), other = vset1(x[second]);
#pragma GCC unroll 16
  for (int c = 0; c < nv; c++) {
    const int masked = last != FN(WHOLE) && c == nv - 1;
    if (masked && last == FN(SHARED)) {
      const vec both = vfill(first, VL / 2, x[second]);
      acc[0][c] = vfma(both, vtwice(w + c * VL), acc[0][c]);
      continue;
    }
    vec row = masked ? vloadn(w + c * VL, tail) : vload(w + c * VL);
    vkeep(row);
    acc[0][c] = vfma(first, row, acc[0][c]);
    acc[1][c] = vfma(other, row, acc[1][c]);
  }
}

/* z (rows, n)  OUT, rows ld apart */
INLINE void FN(pair_end)(const int nv, const int last, ptrdiff_t tail, int rows, vec acc[][16],
                         REAL *z, ptrdiff_t ld) {
#pragma GCC unroll 16
  for (int c = 0; c < nv; c++) {
    const int masked = last != FN(WHOLE) && c == nv - 1;
    if (masked && last == FN(SHARED)) acc[1][c] = vback(acc[0][c]);
    for (int r = 0; r < 2; r++)
      if (r < rows) {
        if (masked)
          vstoren(z + r * ld + c * VL, acc[r][c], tail);
        else
          vstore(z + r * ld + c * VL, acc[r][c]);
      }
  }
}

/* acc[r, :] += x[r] w for mr rows and nv vectors of columns.
 * w: a row of it;  base, ldx: x[3 q + r] lies at base[q] + r * ldx + at */
INLINE void FN(tile_step)(const int mr, const int nv, const int partial, ptrdiff_t tail,
                          const REAL *const base[], ptrdiff_t ldx, ptrdiff_t at, const REAL *w,
                          vec acc[][16]) {
  vec row[16];
#pragma GCC unroll 16
  for (int c = 0; c < nv; c++)
    row[c] = partial && c == nv - 1 ? vloadn(w + c * VL, tail) : vload(w + c * VL);
#pragma GCC unroll 16
  for (int r = 0; r < mr; r++) {
    const vec value = vset1(base[r / 3][r % 3 * ldx + at]);
#pragma GCC unroll 16
    for (int c = 0; c < nv; c++) acc[r][c] = vfma(value, row[c], acc[r][c]);
  }
}

/* Asks for row r of the places of a tile of mr rows in all matrices. */
INLINE void FN(ask_for_place)(const FN(tile_job) * job, const int mr, const int nv, ptrdiff_t r) {
  const REAL *matrix = job->prefetch->matrices[r / mr] + job->place;
  const REAL *row = matrix + r % mr * job->prefetch->ld;
  for (int c = 0; c < nv * VL; c += FN(LINE)) __builtin_prefetch(row + c, 1);
}

/* Asks for the first of a few vectors of w. */
INLINE void FN(ask_for_row)(const REAL *w, const int nv) {
  for (int c = 0; c < nv * VL; c += FN(LINE)) __builtin_prefetch(w + c);
}

/* The first block of rows that takes a panel would wait for it to come from memory: the blocks of
 * the panel before ask for it, each for its share, into the L2 cache (784-1024-1024-10, one thread,
 * an epoch 12% less). */
INLINE void FN(ask_for_behind)(const FN(tile_job) * job, const int nv, ptrdiff_t later) {
  const ptrdiff_t line =
      job->turned ? later / VL * VL + later % VL * job->ld_behind : later * job->ld_behind;
  const ptrdiff_t lines_apart = job->turned ? VL * job->ld_behind : VL;
  for (int c = 0; c < nv; c++) __builtin_prefetch(job->behind + line + c * lines_apart, 0, 2);
}

/* z[r, :] = init + sum_k x[r, k] w[k, :] for mr rows and nv vectors of columns.
 * transposed: x[r, k] lies at x + k * ldx + r instead of x + r * ldx + k.
 * asking: on the way it asks for what comes next: rows of w; transposed, the tile's place in other
 * matrices, a row at a time. Rows of a wide w lie pages apart, where no hardware fetches ahead;
 * with the last rows those of the next columns are asked for. */
INLINE void FN(tile)(const int transposed, const int mr, const int nv, const int partial,
                     const int indexed, const int asking, const FN(tile_job) * job) {
  const ptrdiff_t k = job->k, ldx = job->ldx, ldw = job->ldw, ldz = job->ldz, tail = job->tail;
  const int32_t *restrict list = job->list;
  const REAL *restrict w = job->w;
  REAL *z = job->z;
  const ptrdiff_t distance = k < FN(ROWS_AHEAD) ? k : FN(ROWS_AHEAD);
  ptrdiff_t offset = distance * ldw;
  vec acc[16][16];
#pragma GCC unroll 16
  for (int c = 0; c < nv; c++) {
    const int masked = partial && c == nv - 1;
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++) {
      acc[r][c] = (vec){0};
      if (job->init) {
        const REAL *init = job->init + r * job->ld_init + c * VL;
        acc[r][c] = masked ? vloadn(init, tail) : vload(init);
      }
    }
  }
  /* Three rows a base pointer: base, base + ldx, base + 2 * ldx are addressing modes. */
  const REAL *base[6];
#pragma GCC unroll 6
  for (int q = 0; q < (mr + 2) / 3; q++) base[q] = job->x + (transposed ? 3 * q : 3 * q * ldx);
  const ptrdiff_t apart = transposed ? 1 : ldx, step = transposed ? ldx : 1;
  const int asks_w = asking && !transposed, asks_behind = asks_w && !indexed && nv < 8;
  const ptrdiff_t n_rows =
      transposed && asking && job->prefetch ? mr * job->prefetch->n_matrices : 0;
  const ptrdiff_t spacing = n_rows ? k / n_rows + 1 : 0;
  ptrdiff_t next = 0, r = 0, later = job->later, wait = job->every > 0;
  /* A row of w is few multiply-adds where vectors are short: 12 among 34 instructions. On a core
   * that another hyperthread shares, a thread gets three instructions a cycle, and a third of them
   * would ask for what comes next. So there it is asked for once a span of rows, and rows of w by
   * the first and the last block alone, 22 instructions: AVX2 on Zen 3, where the other hyperthread
   * is busy, 1.16 to 1.29 times as fast forward and 1.2 to 1.3 times for gradients; where it is
   * not, 1.02. Rows of AVX-512 have 28 among 61, and were measured asking in each. */
#if FM_SPAN == 1
  for (ptrdiff_t p = 0; p < k; p++) {
    if (transposed && asking && p == next && r < n_rows) {
      FN(ask_for_place)(job, mr, nv, r);
      next += spacing, r++;
    }
    const ptrdiff_t at = indexed ? list[p] : p;
    const REAL *weights = w + at * ldw;
    if (asks_w) {
      if (p == k - distance) offset = nv * VL - p * ldw;
      FN(ask_for_row)(indexed ? w + list[p + 16 < k ? p + 16 : p] * ldw : weights + offset, nv);
    }
    if (asks_behind && --wait == 0) {
      FN(ask_for_behind)(job, nv, later);
      wait = job->every, later++;
    }
    FN(tile_step)(mr, nv, partial, tail, base, apart, at * step, weights, acc);
  }
#else
  for (ptrdiff_t p = 0, end; p < k; p = end) {
    end = k - p > FM_SPAN ? p + FM_SPAN : k;
    for (; r < n_rows && next < end; next += spacing, r++) FN(ask_for_place)(job, mr, nv, r);
    if (asks_w && end > job->asks_from) {
      if (p >= k - distance) offset = nv * VL - (k - distance) * ldw;
      for (ptrdiff_t i = p; i < end; i++)
        FN(ask_for_row)(w + (indexed ? list[i + 16 < k ? i + 16 : i] * ldw : i * ldw + offset), nv);
    }
    if (asks_behind && job->every)
      for (wait -= FM_SPAN; wait <= 0; wait += job->every, later++)
        FN(ask_for_behind)(job, nv, later);
#pragma GCC unroll 4
    for (ptrdiff_t i = p; i < end; i++) {
      const ptrdiff_t at = indexed ? list[i] : i;
      FN(tile_step)(mr, nv, partial, tail, base, apart, at * step, w + at * ldw, acc);
    }
  }
#endif
#pragma GCC unroll 16
  for (int row = 0; row < mr; row++)
#pragma GCC unroll 16
    for (int c = 0; c < nv; c++) {
      if (partial && c == nv - 1)
        vstoren(z + row * ldz + c * VL, acc[row][c], tail);
      else
        vstore(z + row * ldz + c * VL, acc[row][c]);
    }
}

/* Where zeros are left out and there are more than two vectors of columns, two rows by up to
 * FM_PAIR_VECTORS: of MNIST's pixels 19% are not 0; in 2 samples 29%, in 5 41%, in 13 50%; of runs
 * of 2 pixels 22%, of 6 34%. Many such tiles are of few k, so one call goes through all of them. */
typedef struct {
  FN(tile_job) tile; /* the first one; without k and list */
  ptrdiff_t rows;    /* of x; the last pair may be a single one */
  const ptrdiff_t *counts;
  const int32_t *lists; /* counts[b] numbers for pair b, ld_lists apart */
  ptrdiff_t ld_lists;
  const REAL *next; /* rows of w that are asked for into the L2 cache, by each pair its share */
  ptrdiff_t n_next;
  const FN(weights_block) * weights; /* NULL, or whose gradient the products are, without z */
} FN(pairs_job);

/* Asks for rows of n elements at a place of each matrix. */
INLINE void FN(ask)(const FN(prefetch) * prefetch, ptrdiff_t place, ptrdiff_t rows, ptrdiff_t n) {
  for (int i = 0; i < prefetch->n_matrices; i++)
    for (ptrdiff_t r = 0; r < rows; r++)
      for (ptrdiff_t c = 0; c < n; c += FN(LINE))
        __builtin_prefetch(prefetch->matrices[i] + place + r * prefetch->ld + c, 1);
}

/* z = init + x w for all pairs of rows and nv vectors of columns. */
INLINE void FN(pairs)(const int nv, const int last, const FN(pairs_job) * job) {
  FN(tile_job) tile = job->tile;
  const ptrdiff_t n_pairs = (job->rows + 1) / 2, ld_init = tile.ld_init, tail = tile.tail;
  const ptrdiff_t share = job->n_next ? (job->n_next + n_pairs - 1) / n_pairs : 0;
  for (ptrdiff_t b = 0; b < n_pairs; b++) {
    for (ptrdiff_t r = share * b; r < share * (b + 1) && r < job->n_next; r++)
      for (int c = 0; c < nv * FM_VECTOR_BYTES; c += 64)
        __builtin_prefetch((const char *)(job->next + r * tile.ldw) + c, 0, 2);
    tile.k = job->counts[b], tile.list = job->lists + b * job->ld_lists;
    if (2 * b + 1 == job->rows) {
      FN(tile)(0, 1, nv, last != FN(WHOLE), 1, 0, &tile);
      return;
    }
    vec acc[2][16];
    FN(pair_start)(nv, last, tail, 2, tile.init, ld_init, acc);
    for (ptrdiff_t p = 0; p < tile.k; p++)
      FN(pair_step)(nv, last, tail, tile.x + tile.list[p], tile.ldx,
                    tile.w + tile.list[p] * tile.ldw, acc);
    FN(pair_end)(nv, last, tail, 2, acc, tile.z, tile.ldz);
    tile.x += 2 * tile.ldx, tile.z += 2 * tile.ldz;
    if (ld_init) tile.init += 2 * ld_init;
  }
}

/* Vector p of two rows of nv vectors of weights, which lies at `at`; returns where the next one
 * lies. No branch for the second row, which would make two loops of one. */
INLINE ptrdiff_t FN(adam_vector)(const FN(update_vectors) * u, const FN(weights_block) * block,
                                 const int nv, const int partial, ptrdiff_t tail, ptrdiff_t p,
                                 ptrdiff_t at) {
  const int ends = p == nv - 1;
  const ptrdiff_t lanes = ends || p == 2 * nv - 1 ? tail : VL;
  (void)FN(adam_lanes)(u, !partial, lanes, block->g + p * VL, block->w + at, block->s0 + at,
                       block->s1 + at);
  return at + (ends ? block->ld - (nv - 1) * VL : VL);
}

/* Of a copy: what has no address elsewhere stays in registers. */
INLINE void FN(update_copy)(FN(weights_block) block) { FN(update_block)(&block); }

/* Whether gradients of two rows go to the optimizer at once, and to Adam during the products of the
 * next two: its square root and division take as long as those, on a unit that they leave alone.
 * Not where registers are too few for both (MNIST, one thread: AVX-512 0.94 of an epoch, AVX2
 * 1.01). */
enum { FN(IN_PASSING) = FM_STRIP_VECTORS == 4 };

/* z = init + x^T w, see tile, for all pairs of columns of x and nv vectors of columns of w: the
 * gradient of two rows of weights at a time; or these rows' update with it. */
INLINE void FN(gradient_pairs)(const int nv, const int last, const FN(pairs_job) * job) {
  const FN(tile_job) *tile = &job->tile;
  const ptrdiff_t ldx = tile->ldx, ldw = tile->ldw, tail = tile->tail;
  REAL own[2 * FM_PAIR_VECTORS * VL] __attribute__((aligned(64)));
  const int updates = FN(IN_PASSING) && job->weights;
  const ptrdiff_t ldz = updates ? nv * VL : tile->ldz;
  const REAL *x = tile->x, *init = tile->init, *w = tile->w;
  REAL *z = updates ? own : tile->z;
  FN(update_vectors) u = {0}; /* its address goes nowhere: it stays in registers */
  FN(weights_block) next = {0}, before = {0};
  if (updates) u = *job->weights->vectors, next = *job->weights;
  ptrdiff_t waiting = 0; /* vectors of `before`, whose gradient is there */
  for (ptrdiff_t b = 0; 2 * b < job->rows; b++) {
    const int32_t *list = job->lists + b * job->ld_lists;
    const ptrdiff_t k = job->counts[b], rows = job->rows - 2 * b < 2 ? 1 : 2;
    const ptrdiff_t both = k < waiting ? k : waiting;
    if (tile->prefetch)
      FN(ask)(tile->prefetch, tile->place + 2 * b * tile->prefetch->ld, rows, nv * VL);
    vec acc[2][16];
    FN(pair_start)(nv, last, tail, (int)rows, init, ldz, acc);
    ptrdiff_t p = 0, at = 0;
    for (; p < both; p++) {
      FN(pair_step)(nv, last, tail, x + list[p] * ldx, rows - 1, w + list[p] * ldw, acc);
      at = FN(adam_vector)(&u, &before, nv, last != FN(WHOLE), tail, p, at);
    }
    for (ptrdiff_t q = p; q < k; q++)
      FN(pair_step)(nv, last, tail, x + list[q] * ldx, rows - 1, w + list[q] * ldw, acc);
    for (; p < waiting; p++) at = FN(adam_vector)(&u, &before, nv, last != FN(WHOLE), tail, p, at);
    FN(pair_end)(nv, last, tail, (int)rows, acc, z, ldz);
    x += 2;
    if (init) init += 2 * ldz;
    if (!updates) {
      z += 2 * ldz;
      continue;
    }
    before = next;
    before.rows = rows, before.g = z, before.ldg = ldz;
    waiting = next.rule == FM_ADAM && rows == 2 ? 2 * nv : 0;
    if (waiting && next.squares) FN(add_squares)(&before);
    if (!waiting) FN(update_copy)(before);
    next.w += 2 * next.ld;
    if (next.s0) next.s0 += 2 * next.ld;
    if (next.s1) next.s1 += 2 * next.ld;
    if (next.squares) next.squares += 2 * VL;
  }
  for (ptrdiff_t p = 0, at = 0; p < waiting; p++)
    at = FN(adam_vector)(&u, &before, nv, last != FN(WHOLE), tail, p, at);
}

/* One function a shape: x as it is (n) or transposed (t), or some of its k (sparse_n, sparse_t);
 * rows, vectors, partial. */
typedef void (*FN(tile_function))(const FN(tile_job) * job);
#define DEFINE_TILE(name, transposed, mr, nv, partial, indexed, asking)                            \
  NOINLINE void FN(name)(const FN(tile_job) * job) {                                               \
    FN(tile)(transposed, mr, nv, partial, indexed, asking, job);                                   \
  }
#define DEFINE_TILES(kind, transposed, mr, nv, indexed, asking)                                    \
  DEFINE_TILE(tile_##kind##_##mr##_##nv##_0, transposed, mr, nv, 0, indexed, asking)               \
  DEFINE_TILE(tile_##kind##_##mr##_##nv##_1, transposed, mr, nv, 1, indexed, asking)
#define TILES(kind, mr, nv) {FN(tile_##kind##_##mr##_##nv##_0), FN(tile_##kind##_##mr##_##nv##_1)},

// clang-format off
#define EACH_4(M) M(1) M(2) M(3) M(4)
#define EACH_5(M) EACH_4(M) M(5)
#define EACH_6(M) EACH_5(M) M(6)
#define EACH_7(M) EACH_6(M) M(7)
#define EACH_8(M) EACH_7(M) M(8)
#define EACH_9(M) EACH_8(M) M(9)
#define EACH_12(M) EACH_9(M) M(10) M(11) M(12)
#define EACH_14(M) EACH_12(M) M(13) M(14)
#define EACH_OF(count, M) EACH_##count(M)
#define EACH(count, M) EACH_OF(count, M)

/* Forward tiles: FM_TILE_ROWS by two vectors; by three where so many are left: one alone would wait
 * for its loads. */
#define DEFINE_N(mr) \
  DEFINE_TILES(n, 0, mr, 1, 0, 1) DEFINE_TILES(n, 0, mr, 2, 0, 1) \
  DEFINE_TILES(sparse_n, 0, mr, 1, 1, 1) DEFINE_TILES(sparse_n, 0, mr, 2, 1, 1)
#define TABLE_N(mr) {TILES(n, mr, 1) TILES(n, mr, 2)},
#define TABLE_SPARSE_N(mr) {TILES(sparse_n, mr, 1) TILES(sparse_n, mr, 2)},
EACH(FM_TILE_ROWS, DEFINE_N)
static const FN(tile_function) FN(tiles_n)[FM_TILE_ROWS][2][2] = {EACH(FM_TILE_ROWS, TABLE_N)};
#define DEFINE_N3(mr) DEFINE_TILES(n, 0, mr, 3, 0, 1)
#define TABLE_N3(mr) TILES(n, mr, 3)
EACH(FM_TILE_ROWS_3, DEFINE_N3)
static const FN(tile_function) FN(tiles_n3)[FM_TILE_ROWS_3][2] = {EACH(FM_TILE_ROWS_3, TABLE_N3)};
static const FN(tile_function)
FN(tiles_sparse_n)[FM_TILE_ROWS][2][2] = {EACH(FM_TILE_ROWS, TABLE_SPARSE_N)};

/* Weight gradient tiles: FM_STRIP_ROWS by FM_STRIP_VECTORS. */
#if FM_STRIP_VECTORS == 4
#define DEFINE_WIDE(mr) DEFINE_TILES(t, 1, mr, 3, 0, 1) DEFINE_TILES(t, 1, mr, 4, 0, 1)
#define TILES_WIDE(mr) TILES(t, mr, 3) TILES(t, mr, 4)
#else
#define DEFINE_WIDE(mr)
#define TILES_WIDE(mr)
#endif
#define DEFINE_T(mr) \
  DEFINE_TILES(t, 1, mr, 1, 0, 1) DEFINE_TILES(t, 1, mr, 2, 0, 1) DEFINE_WIDE(mr) \
  DEFINE_TILES(sparse_t, 1, mr, 1, 1, 0) DEFINE_TILES(sparse_t, 1, mr, 2, 1, 0)
#define TABLE_T(mr) {TILES(t, mr, 1) TILES(t, mr, 2) TILES_WIDE(mr)},
#define TABLE_SPARSE_T(mr) {TILES(sparse_t, mr, 1) TILES(sparse_t, mr, 2)},
EACH(FM_STRIP_ROWS, DEFINE_T)
static const FN(tile_function)
FN(tiles_t)[FM_STRIP_ROWS][FM_STRIP_VECTORS][2] = {EACH(FM_STRIP_ROWS, TABLE_T)};
static const FN(tile_function)
FN(tiles_sparse_t)[FM_STRIP_ROWS][2][2] = {EACH(FM_STRIP_ROWS, TABLE_SPARSE_T)};

/* Two rows at a time, by one panel of columns. */
#define DEFINE_PAIRS(kind, function, nv)                                                           \
  NOINLINE void FN(pairs_##kind##_##nv##_0)(const FN(pairs_job) * job) {                           \
    FN(function)(nv, FN(WHOLE), job);                                                              \
  }                                                                                                \
  NOINLINE void FN(pairs_##kind##_##nv##_1)(const FN(pairs_job) * job) {                           \
    FN(function)(nv, FN(PARTIAL), job);                                                            \
  }                                                                                                \
  NOINLINE void FN(pairs_##kind##_##nv##_2)(const FN(pairs_job) * job) {                           \
    FN(function)(nv, FN(SHARED), job);                                                             \
  }
#define DEFINE_PAIRS_N(nv) DEFINE_PAIRS(n, pairs, nv)
#define DEFINE_PAIRS_T(nv) DEFINE_PAIRS(t, gradient_pairs, nv)
#define PAIRS_N(nv) {FN(pairs_n_##nv##_0), FN(pairs_n_##nv##_1), FN(pairs_n_##nv##_2)},
#define PAIRS_T(nv) {FN(pairs_t_##nv##_0), FN(pairs_t_##nv##_1), FN(pairs_t_##nv##_2)},
EACH(FM_PAIR_VECTORS, DEFINE_PAIRS_N)
EACH(FM_PAIR_VECTORS, DEFINE_PAIRS_T)
typedef void (*FN(pairs_function))(const FN(pairs_job) * job);
static const FN(pairs_function)
FN(pairs_n)[FM_PAIR_VECTORS + 1][3] = {{0}, EACH(FM_PAIR_VECTORS, PAIRS_N)}; /* [vectors][last] */
static const FN(pairs_function)
FN(pairs_t)[FM_PAIR_VECTORS + 1][3] = {{0}, EACH(FM_PAIR_VECTORS, PAIRS_T)};

/* One row alone has too few chains: it takes eight vectors at once, or sixteen, where the registers
 * hold them. Sixteen come faster where the next rows are not asked for (a dense row through
 * 784-1024-1024-10: 67 us, not 74). */
DEFINE_TILE(row_8, 0, 1, 8, 0, 0, 1)
DEFINE_TILE(row_8_indexed, 0, 1, 8, 0, 1, 1)
#if FM_STRIP_VECTORS == 4
DEFINE_TILE(row_16, 0, 1, 16, 0, 0, 0)
DEFINE_TILE(row_16_indexed, 0, 1, 16, 0, 1, 1)
#endif
// clang-format on

#define N_BLOCKS(m, most) (((m) + (most) - 1) / (most))

/* Vectors of the next panel of at most `most`, of the n columns that are left; divided as evenly: a
 * last panel of one vector has too few chains. */
INLINE ptrdiff_t FN(panel_vectors)(ptrdiff_t n, ptrdiff_t most) {
  const ptrdiff_t vectors = N_BLOCKS(n, VL);
  return vectors <= most ? vectors : N_BLOCKS(vectors, N_BLOCKS(vectors, most));
}

/* Vectors of a panel that blocks of rows take one after the other: two, of the last three all. */
INLINE ptrdiff_t FN(forward_vectors)(ptrdiff_t n) {
  const ptrdiff_t vectors = N_BLOCKS(n, VL);
  return vectors <= 3 ? vectors : 2;
}

/* Lanes of the last of nv vectors at the front of n columns. */
INLINE ptrdiff_t FN(tail_of)(ptrdiff_t n, ptrdiff_t nv) {
  return n < nv * VL ? n - (nv - 1) * VL : VL;
}

/* z = init + x w for one row alone; list: NULL, or the `listed` columns of x that matter.
 * x (k,), w (k, n), init (n,) or NULL  IN;  z (n,)  OUT */
static void FN(row_product)(ptrdiff_t k, ptrdiff_t n, const REAL *x, const int32_t *list,
                            ptrdiff_t listed, const REAL *w, ptrdiff_t ldw, const REAL *init,
                            REAL *z) {
  FN(tile_job) job = {.k = list ? listed : k, .list = list, .x = x, .ldw = ldw, .tail = VL};
  for (ptrdiff_t j = 0, nv; j < n; j += nv * VL) {
    const ptrdiff_t vectors = (n - j) / VL;
    job.w = w + j, job.init = init ? init + j : NULL, job.z = z + j;
#if FM_STRIP_VECTORS == 4
    if (vectors >= 16) {
      nv = 16;
      (list ? FN(row_16_indexed) : FN(row_16))(&job);
      continue;
    }
#endif
    if (vectors >= 8) {
      nv = 8;
      (list ? FN(row_8_indexed) : FN(row_8))(&job);
      continue;
    }
    nv = FN(panel_vectors)(n - j, list ? FM_PAIR_VECTORS : 2);
    job.tail = FN(tail_of)(n - j, nv);
    if (list) {
      const FN(pairs_job) alone = {.tile = job, .rows = 1, .counts = &listed, .lists = list};
      FN(pairs_n)[nv][FN(kind_of_tail)(job.tail)](&alone);
    } else {
      FN(tiles_n)[0][nv - 1][job.tail < VL](&job);
    }
  }
}

/* A panel of nv vectors of columns, by blocks of rows of the same height, so that no last block is
 * thin. Of the job: all but rows; behind NULL: there is no next panel. */
INLINE void FN(panel_product)(ptrdiff_t m, ptrdiff_t nv, FN(tile_job) job) {
  const REAL *x = job.x;
  REAL *z = job.z;
  const int partial = job.tail < VL;
  const ptrdiff_t n_blocks = N_BLOCKS(m, nv == 3 ? FM_TILE_ROWS_3 : FM_TILE_ROWS);
  for (ptrdiff_t block = 0; block < n_blocks; block++) {
    const ptrdiff_t i = m * block / n_blocks, rows = m * (block + 1) / n_blocks - i;
    job.x = x + i * job.ldx, job.z = z + i * job.ldz;
    job.later = job.k * block / n_blocks, job.every = job.behind ? n_blocks : 0;
    job.asks_from = block == 0 ? 0 : block < n_blocks - 1 ? job.k : job.k - FN(ROWS_AHEAD);
    (nv == 3 ? FN(tiles_n3)[rows - 1][partial] : FN(tiles_n)[rows - 1][nv - 1][partial])(&job);
  }
}

/* z = init + x w.  x (m, k), w (k, n), init (n,) or NULL  IN;  z (m, n)  OUT
 * A panel of columns of w is used by all blocks of rows while it is near. */
static void FN(product)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const REAL *x, ptrdiff_t ldx,
                        const REAL *w, ptrdiff_t ldw, const REAL *init, REAL *z, ptrdiff_t ldz) {
  if (m == 1) {
    FN(row_product)(k, n, x, NULL, 0, w, ldw, init, z);
    return;
  }
  FN(tile_job) job = {.k = k, .x = x, .ldx = ldx, .ldw = ldw, .ldz = ldz, .ld_behind = ldw};
  for (ptrdiff_t j = 0, nv; j < n; j += nv * VL) {
    nv = FN(forward_vectors)(n - j);
    job.tail = FN(tail_of)(n - j, nv);
    job.w = w + j, job.init = init ? init + j : NULL, job.z = z + j;
    job.behind = n - j > nv * VL ? w + j + nv * VL : NULL;
    FN(panel_product)(m, nv, job);
  }
}

/* z = x^T w for one strip of at most FM_STRIP_ROWS columns of x, panel by panel. With a list of the
 * rows of x and w that matter at most two vectors of columns.
 * x (k, m), w (k, n)  IN;  z (m, n)  OUT */
static void FN(strip_product)(ptrdiff_t m, ptrdiff_t n, FN(tile_job) * job) {
  for (ptrdiff_t nv; n > 0; n -= nv * VL) {
    nv = FN(panel_vectors)(n, FM_STRIP_VECTORS);
    job->tail = FN(tail_of)(n, nv);
    if (job->list)
      FN(tiles_sparse_t)[m - 1][nv - 1][job->tail < VL](job);
    else
      FN(tiles_t)[m - 1][nv - 1][job->tail < VL](job);
    job->w += nv * VL, job->z += nv * VL, job->place += nv * VL;
  }
}

/* Z = X W + b.  X (m, k), W (k, n), b (n,) or NULL  IN;  Z (m, n)  OUT */
static void FN(affine_forward)(const fm_matrix *X, const fm_matrix *W, const void *b,
                               fm_matrix *Z) {
  FN(product)(X->rows, X->cols, W->cols, X->data, X->ld, W->data, W->ld, b, Z->data, Z->ld);
}

/* dW = X^T dZ.  X (m, k), dZ (m, n)  IN;  dW (k, n)  OUT */
static void FN(affine_backward_weights)(const fm_matrix *X, const fm_matrix *dZ, fm_matrix *dW) {
  for (ptrdiff_t i = 0; i < X->cols; i += FM_STRIP_ROWS) {
    const ptrdiff_t rows = X->cols - i < FM_STRIP_ROWS ? X->cols - i : FM_STRIP_ROWS;
    FN(tile_job)
    job = {.k = X->rows,
           .x = (const REAL *)X->data + i,
           .ldx = X->ld,
           .w = dZ->data,
           .ldw = dZ->ld,
           .z = (REAL *)dW->data + i * dW->ld,
           .ldz = dW->ld};
    FN(strip_product)(rows, dZ->cols, &job);
  }
}

/* nv vectors of columns of db from column j on, the last one of `tail` lanes. */
INLINE void FN(bias_columns)(const int nv, const fm_matrix *dZ, ptrdiff_t j, ptrdiff_t tail,
                             REAL *db) {
  vec sum[4] = {{0}};
  for (ptrdiff_t r = 0; r < dZ->rows; r++) {
    const REAL *d = (const REAL *)dZ->data + r * dZ->ld + j;
#pragma GCC unroll 4
    for (int c = 0; c < nv; c++)
      sum[c] += c < nv - 1 ? vload(d + c * VL) : vloadn(d + c * VL, tail);
  }
  for (int c = 0; c < nv; c++) vstoren(db + j + c * VL, sum[c], c < nv - 1 ? VL : tail);
}

/* db = sum over rows of dZ, four vectors at a time: one alone waits for each addition.
 * dZ (m, n)  IN;  db (n,)  OUT */
static void FN(affine_backward_bias)(const fm_matrix *dZ, void *db) {
  for (ptrdiff_t j = 0; j < dZ->cols; j += 4 * VL) {
    const ptrdiff_t left = dZ->cols - j, nv = left < 4 * VL ? N_BLOCKS(left, VL) : 4;
    const ptrdiff_t tail = FN(tail_of)(left, nv);
    switch (nv) {
      case 1: FN(bias_columns)(1, dZ, j, tail, db); break;
      case 2: FN(bias_columns)(2, dZ, j, tail, db); break;
      case 3: FN(bias_columns)(3, dZ, j, tail, db); break;
      default: FN(bias_columns)(4, dZ, j, tail, db);
    }
  }
}

/* A block of at most VL by VL; a few elements one by one. */
INLINE void FN(transpose_block)(ptrdiff_t rows, ptrdiff_t cols, const REAL *w, ptrdiff_t ldw,
                                REAL *t, ptrdiff_t ldt) {
  vec block[VL];
  if (rows == VL && cols == VL) {
    for (int r = 0; r < VL; r++) block[r] = vload(w + r * ldw);
    vtranspose(0, block);
    for (int r = 0; r < VL; r++) vstore(t + r * ldt, block[r]);
  } else if (rows * cols <= 64) {
    for (ptrdiff_t c = 0; c < cols; c++)
      for (ptrdiff_t r = 0; r < rows; r++) t[c * ldt + r] = w[r * ldw + c];
  } else {
    for (int r = 0; r < VL; r++) block[r] = r < rows ? vloadn(w + r * ldw, cols) : (vec){0};
    vtranspose(0, block);
    for (int r = 0; r < VL; r++)
      if (r < cols) vstoren(t + r * ldt, block[r], rows);
  }
}

/* WT = W^T.  W (k, n)  IN;  WT (n, k)  OUT */
static void FN(transpose)(const fm_matrix *W, fm_matrix *WT) {
  const REAL *restrict w = W->data;
  REAL *restrict t = WT->data;
  for (ptrdiff_t i = 0; i < W->rows; i += VL)
    for (ptrdiff_t j = 0; j < W->cols; j += VL) {
      const ptrdiff_t rows = W->rows - i < VL ? W->rows - i : VL;
      const ptrdiff_t cols = W->cols - j < VL ? W->cols - j : VL;
      FN(transpose_block)(rows, cols, w + i * W->ld + j, W->ld, t + j * WT->ld + i, WT->ld);
    }
}
