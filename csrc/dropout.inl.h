/* Dropout's masks: Philox4x32-10 of seed, sample, layer and unit; fastmlp/philox.py says how.
 *
 * Plain loops over 16 counters, which compilers turn into vectors of 32-bit words.
 */
enum { FN(GROUP) = 16 };

/* Four words for each of 16 counters (first + 0 .. 15, layer, sample); words (4, 16)  OUT */
INLINE void FN(philox)(uint64_t seed, uint32_t first, uint32_t layer, uint64_t sample,
                       uint32_t words[4][16]) {
  uint32_t a[16], b[16], c[16], d[16], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int i = 0; i < 16; i++) {
    a[i] = first + (uint32_t)i, b[i] = layer;
    c[i] = (uint32_t)sample, d[i] = (uint32_t)(sample >> 32);
  }
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < 16; i++) {
      const uint64_t p = (uint64_t)0xD2511F53u * a[i], q = (uint64_t)0xCD9E8D57u * c[i];
      a[i] = (uint32_t)(q >> 32) ^ b[i] ^ k0, b[i] = (uint32_t)q;
      c[i] = (uint32_t)(p >> 32) ^ d[i] ^ k1, d[i] = (uint32_t)p;
    }
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  memcpy(words[0], a, sizeof a), memcpy(words[1], b, sizeof b);
  memcpy(words[2], c, sizeof c), memcpy(words[3], d, sizeof d);
}

/* mask[j] = word j < threshold ? 0 : scale.  mask (n,)  OUT */
INLINE void FN(dropout_mask)(uint64_t seed, uint32_t layer, uint64_t sample, uint32_t threshold,
                             REAL scale, ptrdiff_t n, REAL *mask) {
  uint32_t words[4][16];
  for (ptrdiff_t j = 0; j < n; j += 64) {
    FN(philox)(seed, (uint32_t)(j / 4), layer, sample, words);
    for (ptrdiff_t w = 0; w < 4 && j + 16 * w < n; w++) {
      const ptrdiff_t lanes = n - j - 16 * w < 16 ? n - j - 16 * w : 16;
      for (ptrdiff_t i = 0; i < lanes; i++)
        mask[j + 16 * w + i] = words[w][i] < threshold ? 0 : scale;
    }
  }
}

/* c = a b, elementwise.  a, b (m, n)  IN;  c (m, n)  OUT, may be a */
INLINE void FN(multiply_rows)(const fm_matrix *A, const fm_matrix *B, fm_matrix *C) {
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const REAL *a = (const REAL *)A->data + r * A->ld, *b = (const REAL *)B->data + r * B->ld;
    REAL *c = (REAL *)C->data + r * C->ld;
    for (ptrdiff_t j = 0; j < A->cols; j += VL) {
      const ptrdiff_t lanes = A->cols - j < VL ? A->cols - j : VL;
      vstoren(c + j, vloadn(a + j, lanes) * vloadn(b + j, lanes), lanes);
    }
  }
}

/* Masks of samples first, first + 1, ... into H, and Z = X H.
 * X (m, n)  IN;  H, Z (m, n)  OUT */
static void FN(dropout_forward)(const fm_layer *layer, uint64_t seed, uint32_t number,
                                uint64_t first, const fm_matrix *X, fm_matrix *H, fm_matrix *Z) {
  const REAL scale = (REAL)(1 / (1 - layer->rate));
  const uint32_t threshold = (uint32_t)(layer->rate * 4294967296.0);
  for (ptrdiff_t r = 0; r < X->rows; r++)
    FN(dropout_mask)(seed, number, first + (uint64_t)r, threshold, scale, X->cols,
                     (REAL *)H->data + r * H->ld);
  FN(multiply_rows)(X, H, Z);
}
