/* Where a layer's inputs are 0: a bit a feature, and products that leave zeros out.
 *
 * Forward, a few rows skip the columns that are 0 in all of them; for the gradient of a few
 * weights' rows, the samples that are 0 in all their features are skipped. In batches of MNIST 71%
 * and 78% of the work goes; of Fashion-MNIST 34% and 45%; of what relu gives for MNIST after an
 * epoch of Adam 35% and 29%, after three 45% and 42%.
 */

/* Of a hundred numbers so many may be listed for the others to be worth leaving out.
 *
 * In tiles as high as those that take all, where a multiply-add takes a little longer; in pairs of
 * rows, which read more for one. Forward and gradient of 64 samples in pairs take, of the time
 * without lists: 256 inputs, 128 units, where a share of 0.50 is listed, 0.75 and 0.66, of 0.64
 * 0.88 and 0.80, of 0.75 0.99 and 0.92, of 0.84 1.10 and 1.00; 1024 inputs, 1024 units 0.74 and
 * 0.75, 0.90 and 0.92, 1.04 and 1.06. Fewer of a hidden layer's inputs forward: pairs wait longer
 * for weights that other threads have just changed (Fashion-MNIST, of which 0.72 would be listed,
 * two threads on far CPUs: an epoch 5% longer). */
enum { FN(MOST_IN_TILES) = 90, FN(MOST_IN_PAIRS) = 75, FN(MOST_HIDDEN) = 65 };

INLINE int FN(worth_skipping)(ptrdiff_t listed, ptrdiff_t all, int most) {
  return 100 * listed < most * all;
}

/* bits[j] = x[j] != 0.  x (k,)  IN;  bits (k,)  OUT */
INLINE void FN(nonzero_bits)(ptrdiff_t k, const REAL *x, uint8_t *bits) {
  ptrdiff_t j = 0;
  for (; j + VL <= k && VL >= 8; j += VL) {
    const unsigned mask = vnonzero(vload(x + j));
    memcpy(bits + j / 8, &mask, (size_t)VL / 8);
  }
  for (; j < k; j += 8) {
    unsigned byte = 0;
    for (ptrdiff_t i = 0; i < 8 && j + i < k; i++) byte |= (unsigned)(x[j + i] != 0) << i;
    bits[j / 8] = (uint8_t)byte;
  }
}

/* Lists `first` and on for the bits that are set; returns how many. list has room for 16 more. */
INLINE ptrdiff_t FN(list_bits)(uint64_t bits, ptrdiff_t first, int32_t *list) {
  ptrdiff_t count = 0;
#ifdef FM_LISTED /* no branch to guess wrong */
  for (int i = 0; i < 64; i += FM_LISTED, bits >>= FM_LISTED) {
    const unsigned some = (unsigned)bits & ((1u << FM_LISTED) - 1);
    vlist(some, first + i, list + count);
    count += __builtin_popcount(some);
  }
#else
  for (; bits; bits &= bits - 1) list[count++] = (int32_t)(first + __builtin_ctzll(bits));
#endif
  return count;
}

/* The first 64 of k columns: which have a bit in any of m rows.  bits (m, k)  IN */
INLINE uint64_t FN(any_bits)(ptrdiff_t m, ptrdiff_t k, const uint8_t *bits, ptrdiff_t ld) {
  uint64_t any = 0;
  for (ptrdiff_t r = 0; r < m; r++) {
    uint64_t word;
    memcpy(&word, bits + r * ld, sizeof word);
    any |= word;
  }
  return k < 64 ? any & (((uint64_t)1 << k) - 1) : any;
}

/* Numbers that a list of n columns takes: they are written 16 at once. */
INLINE ptrdiff_t FN(list_ld)(ptrdiff_t n) { return (n + 31) / 16 * 16; }

/* Lists the columns with a bit in any of m rows; returns how many.
 * bits (m, k)  IN;  list (list_ld,)  OUT */
INLINE ptrdiff_t FN(list_columns)(ptrdiff_t m, ptrdiff_t k, const uint8_t *bits, ptrdiff_t ld,
                                  int32_t *list) {
  ptrdiff_t count = 0;
  for (ptrdiff_t j = 0; j < k; j += 64)
    count += FN(list_bits)(FN(any_bits)(m, k - j, bits + j / 8, ld), j, list + count);
  return count;
}

/* How many columns have a bit in any of m rows.  bits (m, k)  IN */
INLINE ptrdiff_t FN(count_columns)(ptrdiff_t m, ptrdiff_t k, const uint8_t *bits, ptrdiff_t ld) {
  ptrdiff_t count = 0;
  for (ptrdiff_t j = 0; j < k; j += 64)
    count += __builtin_popcountll(FN(any_bits)(m, k - j, bits + j / 8, ld));
  return count;
}

/* Two rows have fewer zeros to take along than many, but few columns would be few chains. */
INLINE int FN(in_pairs)(ptrdiff_t n) { return n > 2 * VL; }

/* Rows that one product takes at most, and samples that a gradient takes at a time. */
enum { FN(BLOCK) = 64, FN(SAMPLES_PIECE) = 72 };

/* z = init + x w for m rows of at most BLOCK, two at a time, zeros of x left out; transposed:
 * x (k, m), as in tile. Of the job: k, x, w, init, z, strides, prefetch and place.
 * bits (m, k): of x;  weights (m, n): NULL, or updated with z, their gradient, which is not stored;
 * k is at most SAMPLES_PIECE then
 *
 * k is taken in pieces: a panel of the piece's rows of w, 40 KB at most, stays near while all rows
 * use it (Zen 4, first layer of MNIST, 64 rows alone: 73 us, 92 by five rows, 65 at the
 * multiply-adds' rate). Samples, whose dZ the L2 cache holds, in shorter pieces of wider panels
 * (gradient of digits, 200 samples, 100 units, float64: 26 us as one piece, 17 by 72). */
static void FN(pairs_product)(int transposed, ptrdiff_t m, ptrdiff_t n, const uint8_t *bits,
                              ptrdiff_t ld_bits, const FN(tile_job) * whole,
                              const FN(weights_block) * weights) {
  enum { INPUTS_PIECE = 104, LD = INPUTS_PIECE + 16 };
  int32_t lists[FN(BLOCK) / 2 * LD];
  ptrdiff_t counts[FN(BLOCK) / 2];
  const ptrdiff_t k = whole->k, ldw = whole->ldw;
  const ptrdiff_t most = transposed ? FN(SAMPLES_PIECE) : INPUTS_PIECE;
  const ptrdiff_t piece = ((k <= most ? k : N_BLOCKS(k, N_BLOCKS(k, most))) + 7) / 8 * 8;
  const ptrdiff_t near = (40 << 10) / FM_VECTOR_BYTES / piece;
  const ptrdiff_t widest = near < FM_PAIR_VECTORS ? near : FM_PAIR_VECTORS;
  FN(pairs_job)
  job = {.tile = *whole, .rows = m, .counts = counts, .lists = lists, .ld_lists = LD};
  for (ptrdiff_t first = 0; first < k; first += piece) {
    const ptrdiff_t size = k - first < piece ? k - first : piece;
    for (ptrdiff_t i = 0; i < m; i += 2)
      counts[i / 2] = FN(list_columns)(m - i < 2 ? 1 : 2, size, bits + i * ld_bits + first / 8,
                                       ld_bits, lists + i / 2 * LD);
    job.tile.x = whole->x + (transposed ? first * whole->ldx : first);
    if (first) job.tile.prefetch = NULL;
    for (ptrdiff_t n_left = n, nv; n_left > 0; n_left -= nv * VL) {
      const ptrdiff_t j = n - n_left;
      nv = FN(panel_vectors)(n_left, widest);
      job.tile.tail = FN(tail_of)(n_left, nv);
      job.tile.w = whole->w + first * ldw + j;
      job.tile.z = whole->z ? whole->z + j : NULL, job.tile.place = whole->place + j;
      job.tile.init = first ? job.tile.z : whole->init ? whole->init + j : NULL;
      job.tile.ld_init = first ? whole->ldz : 0;
      if (!transposed) { /* the next panel of weights, of this piece or the next */
        const int is_last = n_left <= nv * VL;
        const ptrdiff_t left = is_last ? k - first - piece : size;
        job.next = is_last ? whole->w + (first + piece) * ldw : job.tile.w + nv * VL;
        job.n_next = left < 0 ? 0 : left < piece ? left : piece;
      }
      FN(weights_block) panel;
      if (weights) {
        panel = FN(part_of)(weights, 0, m, j, n_left < nv * VL ? n_left : nv * VL);
        job.weights = &panel;
      }
      const int last = FN(kind_of_tail)(job.tile.tail);
      (transposed ? FN(pairs_t) : FN(pairs_n))[nv][last](&job);
    }
  }
}

/* The same, by up to FM_TILE_ROWS rows at a time, where w is two vectors wide or less. */
static void FN(tall_product)(ptrdiff_t m, ptrdiff_t n, const uint8_t *bits, ptrdiff_t ld_bits,
                             const FN(tile_job) * whole) {
  enum { ROOM = FN(BLOCK) * 80 };
  int32_t lists[ROOM];
  ptrdiff_t counts[FN(BLOCK)];
  const ptrdiff_t k = whole->k, ldx = whole->ldx, ldz = whole->ldz;
  const ptrdiff_t n_blocks = N_BLOCKS(m, FM_TILE_ROWS), height = N_BLOCKS(m, n_blocks);
  const ptrdiff_t ld = ROOM / n_blocks, piece = (ld - 16) / 64 * 64, nv = N_BLOCKS(n, VL);
  FN(tile_job) job = *whole;
  job.tail = FN(tail_of)(n, nv);
  for (ptrdiff_t first = 0; first < k; first += piece) {
    const ptrdiff_t size = k - first < piece ? k - first : piece;
    for (ptrdiff_t b = 0; b < n_blocks; b++) {
      const ptrdiff_t i = b * height, rows = m - i < height ? m - i : height;
      counts[b] =
          FN(list_columns)(rows, size, bits + i * ld_bits + first / 8, ld_bits, lists + b * ld);
    }
    job.w = whole->w + first * whole->ldw;
    for (ptrdiff_t b = 0; b < n_blocks; b++) {
      const ptrdiff_t i = b * height, rows = m - i < height ? m - i : height;
      job.k = counts[b], job.list = lists + b * ld;
      job.x = whole->x + i * ldx + first, job.z = whole->z + i * ldz;
      job.init = first ? job.z : whole->init;
      job.ld_init = first ? ldz : 0;
      FN(tiles_sparse_n)[rows - 1][nv - 1][job.tail < VL](&job);
    }
  }
}

/* Z = X W + b where X has many zeros; nonzero: its bits.
 * hidden: whether they are a hidden layer's in training; list: for one row alone, of its columns.
 */
INLINE void FN(sparse_affine_forward)(const fm_matrix *X, fm_bits nonzero, const fm_matrix *W,
                                      const void *b, int hidden, fm_matrix *Z, int32_t *list) {
  const ptrdiff_t m = X->rows, k = X->cols;
  ptrdiff_t listed = 0;
  if (m == 0) return;
  if (m == 1) {
    listed = FN(list_columns)(1, k, nonzero.data, nonzero.ld, list);
    const int worth = FN(worth_skipping)(listed, k, FN(MOST_IN_TILES));
    FN(row_product)(k, W->cols, X->data, worth ? list : NULL, listed, W->data, W->ld, b, Z->data);
    return;
  }
  const int pairs = FN(in_pairs)(W->cols);
  const ptrdiff_t n_blocks = N_BLOCKS(m, pairs ? 2 : FM_TILE_ROWS), height = N_BLOCKS(m, n_blocks);
  for (ptrdiff_t b = 0; b < n_blocks; b++) {
    const ptrdiff_t i = b * height, rows = m - i < height ? m - i : height;
    listed += FN(count_columns)(rows, k, nonzero.data + i * nonzero.ld, nonzero.ld);
  }
  const int most = !pairs ? FN(MOST_IN_TILES) : hidden ? FN(MOST_HIDDEN) : FN(MOST_IN_PAIRS);
  if (!FN(worth_skipping)(listed, n_blocks * k, most)) {
    FN(affine_forward)(X, W, b, Z);
    return;
  }
  const FN(tile_job) job = {.k = k,
                            .x = X->data,
                            .ldx = X->ld,
                            .w = W->data,
                            .ldw = W->ld,
                            .init = b,
                            .z = Z->data,
                            .ldz = Z->ld};
  if (pairs)
    FN(pairs_product)(0, m, W->cols, nonzero.data, nonzero.ld, &job, NULL);
  else
    FN(tall_product)(m, W->cols, nonzero.data, nonzero.ld, &job);
}

/* Bytes of a row of bits of n columns: list_columns reads whole words. */
INLINE ptrdiff_t FN(bits_ld)(ptrdiff_t n) { return (n + 63) / 64 * 8 + 8; }

/* Bits turned round, columns [first, end) of n samples.
 * bits (n rounded up to 8, k)  IN;  turned (from first - first % 8 on, n)  OUT */
static void FN(turn_bits)(ptrdiff_t n, ptrdiff_t first, ptrdiff_t end, const uint8_t *bits,
                          ptrdiff_t ld, uint8_t *turned, ptrdiff_t ld_turned) {
  for (ptrdiff_t j = first / 8; 8 * j < end; j++, turned += 8 * ld_turned)
    for (ptrdiff_t s = 0; s < n; s += 64) {
      uint8_t column[64] = {0};
      const ptrdiff_t size = n - s < 64 ? n - s : 64;
      const uint8_t *byte = bits + s * ld + j;
      for (ptrdiff_t i = 0; i < size; i += 8, byte += 8 * ld)
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) column[i + r] = byte[r * ld];
#if defined(__AVX512BW__) && FM_VECTOR_BYTES == 64
      const __m512i all = _mm512_loadu_si512(column);
      for (int b = 0; b < 8; b++) {
        const uint64_t word = _mm512_test_epi8_mask(all, _mm512_set1_epi8((char)(1 << b)));
        memcpy(turned + b * ld_turned + s / 8, &word, sizeof word);
      }
#else
      for (ptrdiff_t i = 0; i < 64; i += 8) {
        uint64_t block, swapped; /* 8 by 8 bits, of which 1, 2 and 4 rows change with columns */
        memcpy(&block, column + i, sizeof block);
        swapped = (block ^ (block >> 7)) & 0x00aa00aa00aa00aa;
        block ^= swapped ^ (swapped << 7);
        swapped = (block ^ (block >> 14)) & 0x0000cccc0000cccc;
        block ^= swapped ^ (swapped << 14);
        swapped = (block ^ (block >> 28)) & 0x00000000f0f0f0f0;
        block ^= swapped ^ (swapped << 28);
        for (int b = 0; b < 8; b++) turned[b * ld_turned + (s + i) / 8] = (uint8_t)(block >> 8 * b);
      }
#endif
    }
}

/* Lists the samples with a bit in columns [i, i + width), width at most 8; returns how many.
 * bits (n, k)  IN;  list (n,)  OUT */
INLINE ptrdiff_t FN(list_samples)(ptrdiff_t n, ptrdiff_t i, ptrdiff_t width, const uint8_t *bits,
                                  ptrdiff_t ld, int32_t *list) {
  ptrdiff_t count = 0;
  const unsigned wanted = ((1u << width) - 1) << i % 8;
  const uint8_t *byte = bits + i / 8;
  for (ptrdiff_t s = 0; s < n; s++) {
    uint16_t pair;
    memcpy(&pair, byte + s * ld, sizeof pair);
    list[count] = (int32_t)s;
    count += (pair & wanted) != 0;
  }
  return count;
}

/* Whether enough zeros are left out of the gradient of m rows of weights, two at a time.
 * bits (m, k): of x, turned round */
INLINE int FN(pairs_are_worth_it)(ptrdiff_t m, ptrdiff_t k, const uint8_t *bits,
                                  ptrdiff_t ld_bits) {
  ptrdiff_t listed = 0;
  for (ptrdiff_t i = 0; i < m; i += 2)
    listed += FN(count_columns)(m - i < 2 ? 1 : 2, k, bits + i * ld_bits, ld_bits);
  return FN(worth_skipping)(listed, (m + 1) / 2 * k, FN(MOST_IN_PAIRS));
}
