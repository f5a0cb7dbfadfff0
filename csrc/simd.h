/* Vector operations for one width. An isa_*.c sets FM_VECTOR_BYTES and includes this once a dtype.
 *
 * `vec` is a GCC/Clang vector, so + - * / are operators; what has no operator is below. Comparisons
 * with NaN are false, and vmax/vmin then give their second argument (as maxps does), so that
 * vmax(limit, x) lets a NaN in x through.
 * n in vloadn/vstoren/vfill: the first n lanes; the memory behind them is not touched. vtwice loads
 * half a vector into both halves; vbytes takes as many bytes as there are lanes to numbers.
 * vcompress: the lanes whose bits are set in m, to the front. vlist: `first` and on for the bits of
 * m, of FM_LISTED at most, and writes so many; where FM_LISTED is not defined there is neither.
 */
#if FM_FLOAT64
#define REAL double
#define INT int64_t
#define FN(name) name##_f64
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUND_MAGIC 0x1.8p52
#else
#define REAL float
#define INT int32_t
#define FN(name) name##_f32
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUND_MAGIC 0x1.8p23f
#endif

#define vec FN(vec_t)
#define ivec FN(ivec_t)
#define unaligned_vec FN(unaligned_vec_t)
#define VL ((ptrdiff_t)(FM_VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

typedef REAL vec __attribute__((vector_size(FM_VECTOR_BYTES)));
typedef INT ivec __attribute__((vector_size(FM_VECTOR_BYTES)));
typedef REAL unaligned_vec
    __attribute__((vector_size(FM_VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

/* 0, 1, 2, ... From memory: GCC makes a constant of it, but not of a loop that fills lanes, and
 * then picks shuffles that suit. */
#define vlane FN(vlane_)
static const INT FN(lane_numbers)[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
INLINE ivec vlane(void) {
  ivec lane;
  memcpy(&lane, FN(lane_numbers), sizeof lane);
  return lane;
}

/* x - 0 is x for every x, -0 among them; 0 + x is not. */
#define vset1 FN(vset1_)
INLINE vec vset1(REAL x) { return x - (vec){0}; }

#define vload FN(vload_)
INLINE vec vload(const REAL *p) { return *(const unaligned_vec *)p; }

#define vstore FN(vstore_)
INLINE void vstore(REAL *p, vec v) { *(unaligned_vec *)p = v; }

/* Keeps v in a register: of a vector that is used twice GCC makes two loads, inside the operations,
 * and the loads are what is short then (two rows by 7 vectors: 40 us, not 30). */
#if defined(__x86_64__)
#define vkeep(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define vkeep(v) __asm__("" : "+w"(v))
#else
#define vkeep(v) ((void)0)
#endif

#define vabs FN(vabs_)
INLINE vec vabs(vec a) { return (vec)((ivec)a & ~(ivec)vset1((REAL)-0.0)); }

#define vcopysign FN(vcopysign_)
INLINE vec vcopysign(vec magnitude, vec sign) {
  ivec bit = (ivec)vset1((REAL)-0.0);
  return (vec)(((ivec)magnitude & ~bit) | ((ivec)sign & bit));
}

#define vmask FN(vmask_t)
#define vlt FN(vlt_)
#define vblend FN(vblend_)
#define vloadn FN(vloadn_)
#define vstoren FN(vstoren_)
#define vfill FN(vfill_)
#define vfma FN(vfma_)
#define vsqrt FN(vsqrt_)
#define vscale FN(vscale_)
#define vnonzero FN(vnonzero_)
#define vpow2 FN(vpow2_)
#define vmax FN(vmax_)
#define vmin FN(vmin_)
#define vcompress FN(vcompress_)
#define vlist FN(vlist_)
#define vbytes FN(vbytes_)
#define vtwice FN(vtwice_)

/* 2^k for whole k in the range of normal numbers: the low bits of k + 1.5 * 2^MANTISSA_BITS are k.
 */
INLINE vec vpow2(vec k) {
  ivec bits = (ivec)(k + ROUND_MAGIC);
  return (vec)((bits + EXPONENT_BIAS) << MANTISSA_BITS);
}

#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64

#if FM_FLOAT64
#define OP(name) _mm512_##name##_pd
#define MASKED(name) _mm512_mask_##name##_pd
#define ZEROED(name) _mm512_maskz_##name##_pd
#define REDUCE(name) _mm512_reduce_##name##_pd
typedef __mmask8 vmask;
#define LANES(n) ((__mmask8)((1u << (n)) - 1))
INLINE vec vbytes(const uint8_t *p) {
  return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE vmask vlt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
INLINE unsigned vnonzero(vec a) { return _mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_NEQ_UQ); }
INLINE vec vtwice(const REAL *p) { return _mm512_broadcast_f64x4(_mm256_loadu_pd(p)); }
#else
#define OP(name) _mm512_##name##_ps
#define MASKED(name) _mm512_mask_##name##_ps
#define ZEROED(name) _mm512_maskz_##name##_ps
#define REDUCE(name) _mm512_reduce_##name##_ps
typedef __mmask16 vmask;
#define LANES(n) ((__mmask16)((1u << (n)) - 1))
INLINE vec vbytes(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE vmask vlt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE unsigned vnonzero(vec a) { return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
INLINE vec vtwice(const REAL *p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }
#endif
INLINE vec vblend(vmask m, vec yes, vec no) { return MASKED(blend)(m, no, yes); }
INLINE vec vloadn(const REAL *p, ptrdiff_t n) { return ZEROED(loadu)(LANES(n), p); }
INLINE void vstoren(REAL *p, vec v, ptrdiff_t n) { MASKED(storeu)(p, LANES(n), v); }
/* v, with `value` from lane n on. */
INLINE vec vfill(vec v, ptrdiff_t n, REAL value) { return MASKED(mov)(vset1(value), LANES(n), v); }
INLINE vec vfma(vec a, vec b, vec c) { return OP(fmadd)(a, b, c); }
INLINE vec vsqrt(vec a) { return OP(sqrt)(a); }
INLINE vec vscale(vec a, vec k) { return OP(scalef)(a, k); }
INLINE vec vmax(vec a, vec b) { return OP(max)(a, b); }
INLINE vec vmin(vec a, vec b) { return OP(min)(a, b); }
INLINE vec vcompress(unsigned m, vec v) { return ZEROED(compress)((vmask)m, v); }
#define FM_LISTED 16
INLINE void vlist(unsigned m, ptrdiff_t first, int32_t *list) {
  const __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i all = _mm512_add_epi32(place, _mm512_set1_epi32((int32_t)first));
  _mm512_storeu_si512(list, _mm512_maskz_compress_epi32((__mmask16)m, all));
}
#undef OP
#undef MASKED
#undef ZEROED
#undef LANES

#else /* every other set: masks are vectors of all ones and zeros */

typedef ivec vmask;
INLINE vmask vlt(vec a, vec b) { return a < b; }
INLINE vec vblend(vmask m, vec yes, vec no) { return (vec)(((ivec)yes & m) | ((ivec)no & ~m)); }
/* Lanes below n. */
#define vlanes FN(vlanes_)
INLINE ivec vlanes(ptrdiff_t n) { return vlane() < (ivec){0} + (INT)n; }
INLINE vec vfill(vec v, ptrdiff_t n, REAL value) { return vblend(vlanes(n), v, vset1(value)); }

#if defined(__AVX2__) && FM_VECTOR_BYTES == 32
#ifndef FM_LISTED /* once for both dtypes */
/* [m]: numbers of the bits of m, the lowest first, a byte each. */
#define FM_LISTED 8
#define PLACE(m, bit)                                                                              \
  ((uint64_t)((m) >> (bit) & 1) * (bit) << 8 * __builtin_popcount((m) & ((1 << (bit)) - 1)))
#define PLACES(m)                                                                                  \
  (PLACE(m, 1) | PLACE(m, 2) | PLACE(m, 3) | PLACE(m, 4) | PLACE(m, 5) | PLACE(m, 6) | PLACE(m, 7))
#define PLACES_4(m) PLACES(m), PLACES(m + 1), PLACES(m + 2), PLACES(m + 3)
#define PLACES_16(m) PLACES_4(m), PLACES_4(m + 4), PLACES_4(m + 8), PLACES_4(m + 12)
#define PLACES_64(m) PLACES_16(m), PLACES_16(m + 16), PLACES_16(m + 32), PLACES_16(m + 48)
static const uint64_t fm_places[256] = {PLACES_64(0), PLACES_64(64), PLACES_64(128),
                                        PLACES_64(192)};
#undef PLACE
#undef PLACES
#undef PLACES_4
#undef PLACES_16
#undef PLACES_64
INLINE __m256i fm_places_of(unsigned m) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)&fm_places[m]));
}
#endif
INLINE void vlist(unsigned m, ptrdiff_t first, int32_t *list) {
  const __m256i all = _mm256_add_epi32(fm_places_of(m), _mm256_set1_epi32((int32_t)first));
  _mm256_storeu_si256((__m256i *)list, all);
}
#if FM_FLOAT64
INLINE vec vcompress(unsigned m, vec v) { /* a lane is two of 32 bits */
  const __m256i places = fm_places_of((m & 1) * 3 | (m & 2) * 6 | (m & 4) * 12 | (m & 8) * 24);
  return (vec)_mm256_permutevar8x32_ps((__m256)v, places);
}
INLINE vec vbytes(const uint8_t *p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
}
INLINE vec vloadn(const REAL *p, ptrdiff_t n) { return _mm256_maskload_pd(p, (__m256i)vlanes(n)); }
INLINE vec vfma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
INLINE vec vsqrt(vec a) { return _mm256_sqrt_pd(a); }
INLINE vec vmax(vec a, vec b) { return _mm256_max_pd(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm256_min_pd(a, b); }
INLINE unsigned vnonzero(vec a) { return (unsigned)_mm256_movemask_pd((vec)(a != 0)); }
INLINE vec vtwice(const REAL *p) { return _mm256_broadcast_pd((const __m128d *)p); }
#else
INLINE vec vcompress(unsigned m, vec v) { return _mm256_permutevar8x32_ps(v, fm_places_of(m)); }
INLINE vec vbytes(const uint8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE vec vloadn(const REAL *p, ptrdiff_t n) { return _mm256_maskload_ps(p, (__m256i)vlanes(n)); }
INLINE vec vfma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec vsqrt(vec a) { return _mm256_sqrt_ps(a); }
INLINE vec vmax(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE unsigned vnonzero(vec a) { return (unsigned)_mm256_movemask_ps((vec)(a != 0)); }
INLINE vec vtwice(const REAL *p) { return _mm256_broadcast_ps((const __m128 *)p); }
#endif
#else
INLINE vec vmax(vec a, vec b) { return vblend(vlt(b, a), a, b); }
INLINE vec vmin(vec a, vec b) { return vblend(vlt(a, b), a, b); }
INLINE vec vbytes(const uint8_t *p) {
  vec v;
  for (int i = 0; i < VL; i++) v[i] = p[i];
  return v;
}
INLINE vec vloadn(const REAL *p, ptrdiff_t n) {
  vec v = {0};
  for (ptrdiff_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
INLINE vec vtwice(const REAL *p) {
  vec v;
  for (int i = 0; i < VL; i++) v[i] = p[i % (VL / 2)];
  return v;
}
INLINE unsigned vnonzero(vec a) {
  unsigned bits = 0;
  for (int i = 0; i < VL; i++) bits |= (unsigned)(a[i] != 0) << i;
  return bits;
}
#if defined(FM_NEON) && FM_FLOAT64
INLINE vec vfma(vec a, vec b, vec c) {
  return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
INLINE vec vsqrt(vec a) { return (vec)vsqrtq_f64((float64x2_t)a); }
#elif defined(FM_NEON)
INLINE vec vfma(vec a, vec b, vec c) {
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE vec vsqrt(vec a) { return (vec)vsqrtq_f32((float32x4_t)a); }
#else
INLINE vec vfma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec vsqrt(vec a) {
  for (int i = 0; i < VL; i++) a[i] = (REAL)sqrt((double)a[i]);
  return a;
}
#endif
#endif

/* Not _mm256_maskstore: it is microcoded on AMD, and a masked store happens at row ends only. */
INLINE void vstoren(REAL *p, vec v, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++) p[i] = v[i];
}
/* a * 2^k in two steps, so that k may leave the range of normal exponents. */
INLINE vec vscale(vec a, vec k) {
  vec half = (k * (REAL)0.5 + ROUND_MAGIC) - ROUND_MAGIC;
  return a * vpow2(half) * vpow2(k - half);
}
#endif

/* Element j of vector i changes places with element i of vector j: a block of VL by VL, in log2(VL)
 * rounds that exchange pieces of it. Where only the first vectors are wanted behind it, `shrinking`
 * pieces leave most rounds with half of the work; where only the first are not 0, growing ones. */
#define vtranspose FN(vtranspose_)
INLINE void vtranspose(const int shrinking, vec block[]) {
#ifdef __clang__
  (void)shrinking;
  REAL copy[VL][VL];
  for (int i = 0; i < VL; i++) vstore(copy[i], block[i]);
  for (int i = 0; i < VL; i++)
    for (int j = 0; j < VL; j++) block[i][j] = copy[j][i];
#else
#pragma GCC unroll 4
  for (int grown = 1; grown < VL; grown *= 2) {
    const int width = shrinking ? (int)VL / 2 / grown : grown;
    const ivec low = vlane() + (((vlane() & width) != 0) & (INT)(VL - width)), high = low + width;
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
      if (!(i & width)) {
        const vec a = block[i], b = block[i + width];
        block[i] = __builtin_shuffle(a, b, low);
        block[i + width] = __builtin_shuffle(a, b, high);
      }
  }
#endif
}

/* Lane i: the sum of vector i's lanes. In log2(VL) rounds pairs of vectors become one. */
#define vsums FN(vsums_)
INLINE vec vsums(vec block[]) {
#ifdef __clang__
  vec sums = {0};
  for (int i = 0; i < VL; i++)
    for (int j = 0; j < VL; j++) sums[i] += block[i][j];
  return sums;
#else
#pragma GCC unroll 4
  for (int width = (int)VL / 2; width > 0; width /= 2) {
    const ivec low = vlane() + (((vlane() & width) != 0) & (INT)(VL - width)), high = low + width;
#pragma GCC unroll 8
    for (int i = 0; i < VL / 2; i++)
      if (i < width)
        block[i] = __builtin_shuffle(block[i], block[i + width], low) +
                   __builtin_shuffle(block[i], block[i + width], high);
  }
  return block[0];
#endif
}

/* The front half of a, then that of b; the back half of a, twice. */
#define vjoin FN(vjoin_)
#define vback FN(vback_)
#ifdef __clang__
INLINE vec vjoin(vec a, vec b) {
  for (int i = 0; i < VL / 2; i++) a[VL / 2 + i] = b[i];
  return a;
}
INLINE vec vback(vec a) {
  for (int i = 0; i < VL / 2; i++) a[i] = a[VL / 2 + i];
  return a;
}
#else
INLINE vec vjoin(vec a, vec b) {
  return __builtin_shuffle(a, b, vlane() + ((vlane() >= (INT)(VL / 2)) & (INT)(VL / 2)));
}
INLINE vec vback(vec a) { return __builtin_shuffle(a, vlane() | (INT)(VL / 2)); }
#endif

/* Sum and maximum over the lanes, in a fixed order. */
#define vsum FN(vsum_)
INLINE REAL vsum(vec a) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
  return REDUCE(add)(a);
#else
  REAL lanes[VL];
  vstore(lanes, a);
  for (ptrdiff_t width = VL / 2; width > 0; width /= 2)
    for (ptrdiff_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
#endif
}

#define vlargest FN(vlargest_)
INLINE REAL vlargest(vec a) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
  return REDUCE(max)(a);
#else
  REAL largest = a[0];
  for (int i = 1; i < VL; i++)
    if (a[i] > largest) largest = a[i];
  return largest;
#endif
}
#undef REDUCE
