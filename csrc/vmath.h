/* Elementary functions on vectors: exp, expm1, log, log1p, tanh, sigmoid, the normal distribution.
 *
 * Polynomials are Taylor's where nothing else is said, long enough that the remainder is below half
 * a unit in the last place on the reduced range. Largest errors against a float64 (long double)
 * reference, in units in the last place (tests/kernels/test_activations.py holds them): exp 2,
 * sigmoid 3, tanh 6 (float64: 4); log 2 (test_losses.py).
 */

/* e^r - 1 for |r| <= log(2) / 2, and the k with x = k log(2) + r. Cody and Waite's two-part log(2).
 * A number to which ROUND_MAGIC is added and taken away again is whole.
 */
#define exp_reduced FN(exp_reduced_)
INLINE vec exp_reduced(vec x, vec *k) {
  *k = vfma(x, vset1((REAL)1.4426950408889634), vset1(ROUND_MAGIC)) - ROUND_MAGIC;
#if FM_FLOAT64
  vec r = vfma(*k, vset1(-6.93147180369123816490e-01), x);
  r = vfma(*k, vset1(-1.90821492927058770002e-10), r);
  static const double coefficient[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
      1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
#else
  vec r = vfma(*k, vset1(-0.693359375f), x);
  r = vfma(*k, vset1(2.12194440e-4f), r);
  static const float coefficient[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120,
                                      1.0f / 24,   1.0f / 6,   0.5f};
#endif
  /* Pairs by r^2: half as long a chain as one term after the other. */
  const vec r2 = r * r;
  vec p = vfma(vset1(coefficient[0]), r, vset1(coefficient[1]));
  for (size_t i = 2; i < sizeof coefficient / sizeof *coefficient; i += 2)
    p = vfma(p, r2, vfma(vset1(coefficient[i]), r, vset1(coefficient[i + 1])));
  return vfma(p, r2, r);
}

/* e^x. Below EXP_LOW it is 0, above EXP_HIGH infinite. */
#define vexp FN(vexp_)
#if FM_FLOAT64
#define EXP_LOW -746.0
#define EXP_HIGH 710.0
#else
#define EXP_LOW -104.0f
#define EXP_HIGH 89.0f
#endif
INLINE vec vexp(vec x) {
  vec k;
  x = vmin(vset1(EXP_HIGH), vmax(vset1(EXP_LOW), x));
  vec q = exp_reduced(x, &k);
  return vscale(q + 1, k);
}

/* e^x - 1 for x up to 60, with full relative precision around 0. */
#define vexpm1 FN(vexpm1_)
INLINE vec vexpm1(vec x) {
  vec k;
  vec q = exp_reduced(vmax(vset1((REAL)-60), x), &k);
  vec power = vpow2(k);
  return vfma(power, q, power - 1);
}

/* log(1 + u) for 0 <= u <= 1: 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...), s = u / (2 + u) <=
 * 1/3. */
#define vlog1p FN(vlog1p_)
INLINE vec vlog1p(vec u) {
  vec s = u / (u + 2), s2 = s * s;
  const int n_terms = FM_FLOAT64 ? 17 : 8;
  vec p = vset1((REAL)(1.0 / (2 * n_terms + 1)));
  for (int i = n_terms - 1; i > 0; i--) p = vfma(p, s2, vset1((REAL)(1.0 / (2 * i + 1))));
  return 2 * vfma(p * s2, s, s);
}

/* log x of normal numbers above 0; infinity and NaN stay. x = 2^k m, m from sqrt(1/2) to sqrt(2);
 * log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.1716. */
#define vlog FN(vlog_)
INLINE vec vlog(vec x) {
  const ivec sqrt_half = (ivec)vset1((REAL)0.70710678118654752440);
  const ivec k = ((ivec)x - sqrt_half) >> MANTISSA_BITS;
  const vec m = (vec)((ivec)x - (k << MANTISSA_BITS));
  vec s = (m - 1) / (m + 1), s2 = s * s;
  const int n_terms = FM_FLOAT64 ? 11 : 5;
  vec p = vset1((REAL)(1.0 / (2 * n_terms + 1)));
  for (int i = n_terms - 1; i > 0; i--) p = vfma(p, s2, vset1((REAL)(1.0 / (2 * i + 1))));
  /* The low bits of k + 1.5 * 2^MANTISSA_BITS are k. */
  const vec exponent = (vec)(k + (ivec)vset1((REAL)ROUND_MAGIC)) - (REAL)ROUND_MAGIC;
#if FM_FLOAT64
  const vec high = exponent * 6.93147180369123816490e-01,
            low = exponent * 1.90821492927058770002e-10;
#else
  const vec high = exponent * 0.693359375f, low = exponent * -2.12194440e-4f;
#endif
  const vec log_m = 2 * vfma(p * s2, s, s);
  return vblend(vlt(x, vset1(INFINITY)), high + (log_m + low), x);
}

/* 1 / (1 + e^-x) = e^x / (1 + e^x), from e^-|x|, which cannot overflow. */
#define vsigmoid FN(vsigmoid_)
INLINE vec vsigmoid(vec x) {
  vec e = vexp(-vabs(x));
  return vblend(vlt(x, (vec){0}), e, vset1(1)) / (1 + e);
}

/* float64: tanh x = t / (t + 2), t = e^2|x| - 1; from 2|x| = 50 on it is 1.
 * float32: x P(x^2) / Q(x^2) for |x| < 9.02, behind which it is 1; the quotient of two polynomials
 * of degree 4 with the smallest relative error there, 2.1e-8 (Lawson's iteration). Half as many
 * operations. */
#define vtanh FN(vtanh_)
INLINE vec vtanh(vec x) {
#if FM_FLOAT64
  vec t = vexpm1(vmin(vset1((REAL)50), 2 * vabs(x)));
  return vcopysign(t / (t + 2), x);
#else
  static const float above[] = {1.33175657e-8f, 2.05824096e-5f, 3.49397113e-3f, 0.133796655f, 1};
  static const float below[] = {7.76140593e-7f, 3.28298769e-4f, 2.58708346e-2f, 0.467129808f, 1};
  x = vmin(vset1(9.02f), vmax(vset1(-9.02f), x));
  const vec u = x * x;
  vec p = vset1(above[0]), q = vset1(below[0]);
  for (int i = 1; i < 5; i++) p = vfma(p, u, vset1(above[i])), q = vfma(q, u, vset1(below[i]));
  return vmin(vset1(1), vmax(vset1(-1), x * p / q));
#endif
}

/* The standard normal distribution function, Phi(x) = erfc(-x / sqrt 2) / 2.
 *
 * W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969),
 * 631-637; coefficients of the tables for |t| <= 0.46875, for 0.46875 <= t <= 4 and for t >= 4.
 */
#define horner FN(horner_)
INLINE vec horner(vec x, const double *coefficient, int n) {
  vec p = vset1((REAL)coefficient[0]);
  for (int i = 1; i < n; i++) p = vfma(p, x, vset1((REAL)coefficient[i]));
  return p;
}

#define vnormal_cdf FN(vnormal_cdf_)
INLINE vec vnormal_cdf(vec x) {
  static const double small_num[] = {1.85777706184603153e-1, 3.16112374387056560e0,
                                     1.13864154151050156e2, 3.77485237685302021e2,
                                     3.20937758913846947e3};
  static const double small_den[] = {1, 2.36012909523441209e1, 2.44024637934444173e2,
                                     1.28261652607737228e3, 2.84423683343917062e3};
  static const double middle_num[] = {
      2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
      6.61191906371416295e1,  2.98635138197400131e2,  8.81952221241769090e2,
      1.71204761263407058e3,  2.05107837782607147e3,  1.23033935479799725e3};
  static const double middle_den[] = {1,
                                      1.57449261107098347e1,
                                      1.17693950891312499e2,
                                      5.37181101862009858e2,
                                      1.62138957456669019e3,
                                      3.29079923573345963e3,
                                      4.36261909014324716e3,
                                      3.43936767414372164e3,
                                      1.23033935480374942e3};
  static const double large_num[] = {1.63153871373020978e-2, 3.05326634961232344e-1,
                                     3.60344899949804439e-1, 1.25781726111229246e-1,
                                     1.60837851487422766e-2, 6.58749161529837803e-4};
  static const double large_den[] = {1,
                                     2.56852019228982242e0,
                                     1.87295284992346725e0,
                                     5.27905102951428412e-1,
                                     6.05183413124413191e-2,
                                     2.33520497626869185e-3};
  const REAL inverse_sqrt_pi = (REAL)0.56418958354775628695;
  vec t = vabs(x) * (REAL)0.70710678118654752440;
  /* From x, not from t: e^-t2 multiplies a relative error of t2 by t2. */
  vec t2 = (REAL)0.5 * x * x;
  vec erf_small = t * horner(t2, small_num, 5) / horner(t2, small_den, 5);
  /* The middle fraction's terms would overflow in float32 far out; the large one takes over at 4.
   */
  vec bounded = vmin(vset1((REAL)4), t);
  vec middle = horner(bounded, middle_num, 9) / horner(bounded, middle_den, 9);
  vec y = 1 / vmax(t2, vset1((REAL)1));
  vec large = (inverse_sqrt_pi - y * horner(y, large_num, 6) / horner(y, large_den, 6)) /
              vmax(t, vset1((REAL)1));
  vec erfc = vexp(-t2) * vblend(vlt(vset1((REAL)4), t), large, middle);
  vec half = (REAL)0.5 * vblend(vlt(vset1((REAL)0.46875), t), erfc, 1 - erf_small);
  return vblend(vlt(x, (vec){0}), half, 1 - half);
}
