/* Losses: each sample's value, and its gradient with respect to Z, the output's pre-activation.
 *
 * An elementwise loss is two functions of vectors, of which the row's mean is taken; cross-entropy
 * is a sum. Fused (softmax with cross-entropy, sigmoid with its own): the value comes from Z, where
 * log(A) would lose digits, and the gradient is (A - Y) / divisor.
 */

/* log, lane by lane: only losses without their own activation come here. */
INLINE vec FN(log_lanes)(vec a) {
  REAL lanes[VL];
  vstore(lanes, a);
  for (int i = 0; i < VL; i++) lanes[i] = (REAL)log((double)lanes[i]);
  return vload(lanes);
}

/* Probabilities kept off 0, where log and 1 / a are not finite. */
INLINE vec FN(off_zero)(vec a) {
  return vmax(vset1(FM_FLOAT64 ? (REAL)DBL_MIN : (REAL)FLT_MIN), a);
}

/* mse: (a - y)^2; 2 (a - y) */
INLINE vec FN(mse_value)(vec a, vec z, vec y) {
  (void)z;
  return (a - y) * (a - y);
}
INLINE vec FN(mse_gradient)(vec a, vec y) { return 2 * (a - y); }

/* mae: |a - y|; its sign */
INLINE vec FN(mae_value)(vec a, vec z, vec y) {
  (void)z;
  return vabs(a - y);
}
INLINE vec FN(mae_gradient)(vec a, vec y) {
  vec r = a - y;
  return vblend(vlt((vec){0}, vabs(r)), vcopysign(vset1(1), r), r);
}

/* huber, r = a - y: r^2 / 2 where |r| <= 1, else |r| - 1/2; r, kept in [-1, 1] */
INLINE vec FN(huber_value)(vec a, vec z, vec y) {
  (void)z;
  vec r = vabs(a - y), inside = vmin(vset1(1), r);
  return vfma((REAL)0.5 * inside, inside, r - inside);
}
INLINE vec FN(huber_gradient)(vec a, vec y) { return vmax(vset1(-1), vmin(vset1(1), a - y)); }

/* binary cross-entropy: -(y log a + (1 - y) log(1 - a)); (1 - y) / (1 - a) - y / a */
INLINE vec FN(binary_cross_entropy_value)(vec a, vec z, vec y) {
  (void)z;
  return -(y * FN(log_lanes)(FN(off_zero)(a)) + (1 - y) * FN(log_lanes)(FN(off_zero)(1 - a)));
}
INLINE vec FN(binary_cross_entropy_gradient)(vec a, vec y) {
  return (1 - y) / FN(off_zero)(1 - a) - y / FN(off_zero)(a);
}

/* the same behind sigmoid: max(z, 0) - z y + log(1 + e^-|z|) */
INLINE vec FN(binary_cross_entropy_fused_value)(vec a, vec z, vec y) {
  (void)a;
  return vmax((vec){0}, z) - z * y + vlog1p(vexp(-vabs(z)));
}

/* cross-entropy: -y log a; -y / a */
INLINE vec FN(cross_entropy_value)(vec a, vec z, vec y) {
  (void)z;
  return -y * FN(log_lanes)(FN(off_zero)(a));
}
INLINE vec FN(cross_entropy_gradient)(vec a, vec y) { return -y / FN(off_zero)(a); }

/* the same behind softmax: y (log sum_i e^(z_i - max) - (z - max)), summed over the row.
 * z (n,), y (n,) or NULL with a label  IN */
INLINE double FN(cross_entropy_fused_row)(ptrdiff_t n, const REAL *z, const REAL *y,
                                          int64_t label) {
  REAL largest = FN(row_maximum)(n, z);
  vec sum = {0}, mass = {0}, weighted = {0};
  for (ptrdiff_t j = 0; j < n; j += VL) {
    ptrdiff_t lanes = n - j < VL ? n - j : VL;
    vec shifted = vloadn(z + j, lanes) - largest;
    sum += vfill(vexp(shifted), lanes, 0);
    if (y) {
      vec row = vloadn(y + j, lanes);
      mass += row;
      weighted = vfma(row, shifted, weighted);
    }
  }
  double log_sum = log((double)vsum(sum));
  if (y) return log_sum * (double)vsum(mass) - (double)vsum(weighted);
  return log_sum - ((double)z[label] - (double)largest);
}

INLINE const REAL *FN(target_row)(const fm_targets *Y, ptrdiff_t r) {
  return Y->labels ? NULL : (const REAL *)Y->rows + r * Y->ld;
}

/* Lanes j, j + 1, ... of a target row, or of a label's one-hot row. */
INLINE vec FN(target_lanes)(const REAL *y, int64_t label, ptrdiff_t j, ptrdiff_t lanes) {
  if (y) return vloadn(y + j, lanes);
  vec one_hot = {0};
  if (label >= j && label < j + lanes) {
    REAL buffer[VL];
    vstore(buffer, one_hot);
    buffer[label - j] = 1;
    one_hot = vload(buffer);
  }
  return one_hot;
}

#define VALUE_LOOP(name)                                                                           \
  do {                                                                                             \
    for (ptrdiff_t j = 0; j < n; j += VL) {                                                        \
      ptrdiff_t lanes = n - j < VL ? n - j : VL;                                                   \
      vec value = FN(name##_value)(vloadn(a + j, lanes), vloadn(z + j, lanes),                     \
                                   FN(target_lanes)(y, label, j, lanes));                          \
      sum += vfill(value, lanes, 0);                                                               \
    }                                                                                              \
  } while (0)

/* Loss of each sample.  A, Z (m, n), Y  IN;  values (m,)  OUT */
static void FN(loss_forward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                             const fm_targets *Y, double *values) {
  const ptrdiff_t n = A->cols;
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const REAL *a = (const REAL *)A->data + r * A->ld, *z = (const REAL *)Z->data + r * Z->ld;
    const REAL *y = FN(target_row)(Y, r);
    const int64_t label = y ? 0 : Y->labels[r];
    if (loss->code == FM_CROSS_ENTROPY && loss->fused) {
      values[r] = FN(cross_entropy_fused_row)(n, z, y, label);
      continue;
    }
    vec sum = {0};
    switch (loss->code) {
      case FM_MSE: VALUE_LOOP(mse); break;
      case FM_MAE: VALUE_LOOP(mae); break;
      case FM_HUBER: VALUE_LOOP(huber); break;
      case FM_CROSS_ENTROPY: VALUE_LOOP(cross_entropy); break;
      case FM_BINARY_CROSS_ENTROPY:
        if (loss->fused)
          VALUE_LOOP(binary_cross_entropy_fused);
        else
          VALUE_LOOP(binary_cross_entropy);
        break;
    }
    values[r] = (double)vsum(sum) / (loss->code == FM_CROSS_ENTROPY ? 1 : (double)n);
  }
}

#define GRADIENT_LOOP(name)                                                                        \
  do {                                                                                             \
    for (ptrdiff_t j = 0; j < n; j += VL) {                                                        \
      ptrdiff_t lanes = n - j < VL ? n - j : VL;                                                   \
      vec y_lanes = FN(target_lanes)(y, label, j, lanes);                                          \
      vstoren(d + j, factor * FN(name##_gradient)(vloadn(a + j, lanes), y_lanes), lanes);          \
    }                                                                                              \
  } while (0)

/* fused: a - y */
INLINE vec FN(fused_gradient)(vec a, vec y) { return a - y; }

/* dZ[r] = scale[r] times the gradient of sample r's loss with respect to Z[r].
 * A, Z (m, n), Y, scale (m,)  IN;  dZ (m, n)  OUT */
static void FN(loss_backward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                              const fm_targets *Y, const double *scale, fm_matrix *dZ) {
  const ptrdiff_t n = A->cols;
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const REAL *a = (const REAL *)A->data + r * A->ld;
    REAL *d = (REAL *)dZ->data + r * dZ->ld;
    const REAL *y = FN(target_row)(Y, r);
    const int64_t label = y ? 0 : Y->labels[r];
    const REAL factor = (REAL)(scale[r] / (loss->code == FM_CROSS_ENTROPY ? 1 : (double)n));
    if (loss->fused) {
      GRADIENT_LOOP(fused);
      continue;
    }
    switch (loss->code) {
      case FM_MSE: GRADIENT_LOOP(mse); break;
      case FM_MAE: GRADIENT_LOOP(mae); break;
      case FM_HUBER: GRADIENT_LOOP(huber); break;
      case FM_CROSS_ENTROPY: GRADIENT_LOOP(cross_entropy); break;
      case FM_BINARY_CROSS_ENTROPY: GRADIENT_LOOP(binary_cross_entropy); break;
    }
  }
  if (!loss->fused) FN(activation_backward)(loss->activation, dZ, Z, A, dZ);
}
#undef VALUE_LOOP
#undef GRADIENT_LOOP

/* The first largest element's position.  a (n,)  IN */
INLINE ptrdiff_t FN(argmax)(ptrdiff_t n, const REAL *a) {
  ptrdiff_t best = 0;
  for (ptrdiff_t j = 1; j < n; j++)
    if (a[j] > a[best]) best = j;
  return best;
}

/* Samples that count as right: the largest output is the class's, or every output is on its
 * target's side of 1/2; 0 for losses without classes.  A (m, n), Y  IN */
static ptrdiff_t FN(count_correct)(const fm_loss *loss, const fm_matrix *A, const fm_targets *Y) {
  ptrdiff_t count = 0;
  const ptrdiff_t n = A->cols;
  if (loss->code != FM_CROSS_ENTROPY && loss->code != FM_BINARY_CROSS_ENTROPY) return 0;
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const REAL *a = (const REAL *)A->data + r * A->ld;
    const REAL *y = FN(target_row)(Y, r);
    if (loss->code == FM_CROSS_ENTROPY) {
      count += FN(argmax)(n, a) == (y ? FN(argmax)(n, y) : Y->labels[r]);
    } else {
      int right = 1;
      for (ptrdiff_t j = 0; j < n; j++) right &= (a[j] > (REAL)0.5) == (y[j] > (REAL)0.5);
      count += right;
    }
  }
  return count;
}
