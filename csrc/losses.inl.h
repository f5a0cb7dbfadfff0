/* Losses: each sample's value, and its gradient with respect to Z, the output's pre-activation.
 *
 * An elementwise loss is two functions of vectors, of which the row's mean or sum is taken. Fused
 * (the activation that belongs to it, such as softmax with cross-entropy): both come from Z, where
 * log(A) would lose digits and 1 / A overflow.
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

/* base^exponent, lane by lane. */
INLINE vec FN(power_lanes)(vec base, vec exponent) {
  REAL lanes[VL], exponents[VL];
  vstore(lanes, base);
  vstore(exponents, exponent);
  for (int i = 0; i < VL; i++) lanes[i] = (REAL)pow((double)lanes[i], (double)exponents[i]);
  return vload(lanes);
}

/* Some lanes of a sample: output, pre-activation, target, the loss's option. */
typedef struct {
  vec a, z, y, o;
} FN(loss_lanes);
#define loss_lanes FN(loss_lanes)

/* The gradient of most losses behind the activation that belongs to them. */
INLINE vec FN(difference)(loss_lanes l) { return l.a - l.y; }

/* mse: (a - y)^2; 2 (a - y) */
INLINE vec FN(mse_value)(loss_lanes l) { return (l.a - l.y) * (l.a - l.y); }
INLINE vec FN(mse_gradient)(loss_lanes l) { return 2 * (l.a - l.y); }

/* mae: |a - y|; its sign */
INLINE vec FN(mae_value)(loss_lanes l) { return vabs(l.a - l.y); }
INLINE vec FN(mae_gradient)(loss_lanes l) {
  vec r = l.a - l.y;
  return vblend(vlt((vec){0}, vabs(r)), vcopysign(vset1(1), r), r);
}

/* huber, r = a - y: r^2 / 2 where |r| <= o, else o (|r| - o / 2); r, kept in [-o, o] */
INLINE vec FN(huber_value)(loss_lanes l) {
  vec r = vabs(l.a - l.y), inside = vmin(l.o, r);
  return vfma((REAL)0.5 * inside, inside, inside * (r - inside));
}
INLINE vec FN(huber_gradient)(loss_lanes l) { return vmax(-l.o, vmin(l.o, l.a - l.y)); }

/* quantile, r = a - y: max(r, 0) - o r; 1 - o above the target, -o below */
INLINE vec FN(quantile_value)(loss_lanes l) {
  vec r = l.a - l.y;
  return vfma(-l.o, r, vmax((vec){0}, r));
}
INLINE vec FN(quantile_gradient)(loss_lanes l) {
  vec r = l.a - l.y;
  return vblend(vlt((vec){0}, r), 1 - l.o, vblend(vlt(r, (vec){0}), -l.o, r));
}

/* binary cross-entropy: -(y log a + (1 - y) log(1 - a)); (1 - y) / (1 - a) - y / a */
INLINE vec FN(binary_cross_entropy_value)(loss_lanes l) {
  return -(l.y * FN(log_lanes)(FN(off_zero)(l.a)) +
           (1 - l.y) * FN(log_lanes)(FN(off_zero)(1 - l.a)));
}
INLINE vec FN(binary_cross_entropy_gradient)(loss_lanes l) {
  return (1 - l.y) / FN(off_zero)(1 - l.a) - l.y / FN(off_zero)(l.a);
}

/* the same behind sigmoid: max(z, 0) - z y + log(1 + e^-|z|); a - y */
INLINE vec FN(binary_cross_entropy_fused_value)(loss_lanes l) {
  return vmax((vec){0}, l.z) - l.z * l.y + vlog1p(vexp(-vabs(l.z)));
}

/* binary focal: -(y (1 - a)^o log a + (1 - y) a^o log(1 - a)) */
INLINE vec FN(binary_focal_value)(loss_lanes l) {
  vec yes = FN(power_lanes)(1 - l.a, l.o) * FN(log_lanes)(FN(off_zero)(l.a));
  vec no = FN(power_lanes)(l.a, l.o) * FN(log_lanes)(FN(off_zero)(1 - l.a));
  return -(l.y * yes + (1 - l.y) * no);
}
/* d/da (1 - a)^o log a, up to its sign; rest = 1 - a */
INLINE vec FN(binary_focal_pull)(vec a, vec rest, vec o) {
  a = FN(off_zero)(a), rest = FN(off_zero)(rest);
  return FN(power_lanes)(rest, o) * (o * FN(log_lanes)(a) / rest - 1 / a);
}
INLINE vec FN(binary_focal_gradient)(loss_lanes l) {
  return l.y * FN(binary_focal_pull)(l.a, 1 - l.a, l.o) -
         (1 - l.y) * FN(binary_focal_pull)(1 - l.a, l.a, l.o);
}

/* the same behind sigmoid, yes = -log a, no = -log(1 - a), both from z:
 * y e^(-o no) yes + (1 - y) e^(-o yes) no;
 * (1 - y) e^(-o yes) (o e^-no no + a) - y e^(-o no) (o a yes + e^-no) */
INLINE vec FN(binary_focal_fused_value)(loss_lanes l) {
  vec rest = vlog1p(vexp(-vabs(l.z)));
  vec no = vmax((vec){0}, l.z) + rest, yes = vmax((vec){0}, -l.z) + rest;
  return l.y * vexp(-l.o * no) * yes + (1 - l.y) * vexp(-l.o * yes) * no;
}
INLINE vec FN(binary_focal_fused_gradient)(loss_lanes l) {
  vec rest = vlog1p(vexp(-vabs(l.z)));
  vec no = vmax((vec){0}, l.z) + rest, yes = vmax((vec){0}, -l.z) + rest;
  vec down = vexp(-l.o * yes) * vfma(l.o * vexp(-no), no, l.a);
  vec up = vexp(-l.o * no) * vfma(l.o * l.a, yes, vexp(-no));
  return (1 - l.y) * down - l.y * up;
}

/* poisson: y log(y / a) - y + a; 1 - y / a; behind exp: a - y */
INLINE vec FN(poisson_value)(loss_lanes l) {
  vec log_y = FN(log_lanes)(FN(off_zero)(l.y)), log_a = FN(log_lanes)(FN(off_zero)(l.a));
  return l.y * (log_y - log_a) + (l.a - l.y);
}
INLINE vec FN(poisson_gradient)(loss_lanes l) { return 1 - l.y / FN(off_zero)(l.a); }
INLINE vec FN(poisson_fused_value)(loss_lanes l) {
  return l.y * (FN(log_lanes)(FN(off_zero)(l.y)) - l.z) + (l.a - l.y);
}

/* gamma: log(a / y) + y / a - 1; (1 - y / a) / a; behind exp, from z: 1 - y e^-z */
INLINE vec FN(gamma_value)(loss_lanes l) {
  vec a = FN(off_zero)(l.a);
  return FN(log_lanes)(a / l.y) + (l.y / a - 1);
}
INLINE vec FN(gamma_gradient)(loss_lanes l) {
  vec a = FN(off_zero)(l.a);
  return (1 - l.y / a) / a;
}
INLINE vec FN(gamma_fused_value)(loss_lanes l) {
  return l.z - FN(log_lanes)(l.y) + (l.y * vexp(-l.z) - 1);
}
INLINE vec FN(gamma_fused_gradient)(loss_lanes l) { return 1 - l.y * vexp(-l.z); }

/* cross-entropy: -y log a; -y / a */
INLINE vec FN(cross_entropy_value)(loss_lanes l) { return -l.y * FN(log_lanes)(FN(off_zero)(l.a)); }
INLINE vec FN(cross_entropy_gradient)(loss_lanes l) { return -l.y / FN(off_zero)(l.a); }

/* focal: -y (1 - a)^o log a; y (1 - a)^o (o log(a) / (1 - a) - 1 / a) */
INLINE vec FN(focal_value)(loss_lanes l) {
  return -l.y * FN(power_lanes)(1 - l.a, l.o) * FN(log_lanes)(FN(off_zero)(l.a));
}
/* log(a) / (1 - a), which is -1 at 1; rest = 1 - a */
INLINE vec FN(focal_ratio)(vec log_a, vec rest) {
  return vblend(vlt((vec){0}, rest), log_a / FN(off_zero)(rest), vset1(-1));
}
INLINE vec FN(focal_gradient)(loss_lanes l) {
  vec a = FN(off_zero)(l.a), log_a = FN(log_lanes)(a), rest = -vexpm1(log_a);
  return l.y * FN(power_lanes)(rest, l.o) * (l.o * FN(focal_ratio)(log_a, rest) - 1 / a);
}

INLINE const REAL *FN(target_row)(const fm_targets *Y, ptrdiff_t r) {
  return Y->labels ? NULL : (const REAL *)Y->rows + r * Y->ld;
}

/* Lanes j, j + 1, ... of a target row, or of a label's one-hot row. */
INLINE vec FN(target_lanes)(const REAL *y, int64_t label, ptrdiff_t j, ptrdiff_t lanes) {
  if (y) return vloadn(y + j, lanes);
  return (vec)((vlane() == (INT)(label - j)) & (ivec)vset1(1));
}

/* One sample: outputs, pre-activations, targets (y, or NULL with a label), options, all (n,).
 * center: what the targets are moved towards, by the share `option`; 0 where they stay.
 * column: n samples of one output each, instead; option (1,). */
typedef struct {
  ptrdiff_t n;
  const REAL *a, *z, *y, *option;
  int64_t label;
  REAL center;
  int column;
} FN(loss_row);
#define loss_row FN(loss_row)

INLINE loss_lanes FN(lanes_of)(const loss_row *row, ptrdiff_t j, ptrdiff_t lanes) {
  const vec o = row->column ? vset1(*row->option) : vloadn(row->option + j, lanes);
  vec y = FN(target_lanes)(row->y, row->label, j, lanes);
  if (row->center != 0) y = vfma(o, row->center - y, y);
  return (loss_lanes){vloadn(row->a + j, lanes), vloadn(row->z + j, lanes), y, o};
}

#define EACH_VECTOR(n)                                                                             \
  for (ptrdiff_t j = 0, lanes; lanes = (n) - j < VL ? (n) - j : VL, j < (n); j += VL)

/* cross-entropy behind softmax: y (log_sum - (z - largest)), summed over the row. */
INLINE double FN(cross_entropy_fused_row)(const loss_row *row, double log_sum, REAL largest) {
  vec mass = {0}, weighted = {0};
  EACH_VECTOR(row->n) {
    const loss_lanes l = FN(lanes_of)(row, j, lanes);
    const vec y = vfill(l.y, lanes, 0);
    mass += y;
    weighted = vfma(y, vfill(l.z - largest, lanes, 0), weighted);
  }
  return log_sum * (double)vsum(mass) - (double)vsum(weighted);
}

/* focal behind softmax, rest = 1 - a, both from log a: -y rest^o log a, summed over the row; with
 * pull = y rest^o (o a log(a) / rest - 1), d = factor (pull - a sum of pull).  d NULL or (n,)  OUT
 */
INLINE double FN(focal_fused_row)(const loss_row *row, REAL factor, REAL *d) {
  const REAL largest = FN(row_maximum)(row->n, row->z);
  vec sum = {0}, value = {0}, pulls = {0};
  EACH_VECTOR(row->n) sum += vfill(vexp(vloadn(row->z + j, lanes) - largest), lanes, 0);
  const REAL log_sum = (REAL)log((double)vsum(sum));
  EACH_VECTOR(row->n) {
    const loss_lanes l = FN(lanes_of)(row, j, lanes);
    const vec log_a = (l.z - largest) - log_sum, rest = -vexpm1(log_a);
    const vec weighted = l.y * FN(power_lanes)(rest, l.o);
    value += vfill(-weighted * log_a, lanes, 0);
    const vec pull = weighted * (l.o * vexp(log_a) * FN(focal_ratio)(log_a, rest) - 1);
    pulls += vfill(pull, lanes, 0);
    if (d) vstoren(d + j, pull, lanes);
  }
  const REAL total = vsum(pulls);
  if (d) EACH_VECTOR(row->n) {
      const vec a = vloadn(row->a + j, lanes);
      vstoren(d + j, factor * (vloadn(d + j, lanes) - a * total), lanes);
    }
  return (double)vsum(value);
}

/* hinge: the largest a_j + 1 - y_j, less sum_j a_j y_j; d = factor (1 at the first largest, less
 * y). d NULL or (n,)  OUT */
INLINE double FN(hinge_row)(const loss_row *row, REAL factor, REAL *d) {
  REAL best = -INFINITY;
  ptrdiff_t at = 0;
  double own = 0;
  for (ptrdiff_t j = 0; j < row->n; j++) {
    const REAL y = row->y ? row->y[j] : (REAL)(j == row->label), score = row->a[j] + 1 - y;
    own += (double)row->a[j] * (double)y;
    if (best == best && !(score <= best)) best = score, at = j; /* NaN is the largest and stays */
    if (d) d[j] = -factor * y;
  }
  if (d) d[at] += factor;
  return (double)best - own;
}

/* A loss is its outputs' mean, or their sum. */
INLINE double FN(divisor)(const fm_loss *loss, ptrdiff_t n) {
  switch (loss->code) {
    case FM_CROSS_ENTROPY:
    case FM_FOCAL:
    case FM_HINGE:
    case FM_POISSON:
    case FM_GAMMA: return 1;
    default: return (double)n;
  }
}

/* What label smoothing moves the targets towards; 0 where there is none. */
INLINE REAL FN(center)(const fm_loss *loss, ptrdiff_t n) {
  if (loss->code == FM_CROSS_ENTROPY && *(const REAL *)loss->option > 0) return 1 / (REAL)n;
  if (loss->code == FM_BINARY_CROSS_ENTROPY && *(const REAL *)loss->option > 0) return (REAL)0.5;
  return 0;
}

INLINE loss_row FN(row_of)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                           const fm_targets *Y, ptrdiff_t r) {
  loss_row row = {.n = A->cols,
                  .a = (const REAL *)A->data + r * A->ld,
                  .z = (const REAL *)Z->data + r * Z->ld,
                  .y = FN(target_row)(Y, r),
                  .option = loss->option,
                  .label = Y->labels ? Y->labels[r] : 0};
  row.center = FN(center)(loss, row.n);
  return row;
}

/* Whether all samples can be taken as one row: of one output, and next to each other. */
INLINE int FN(is_column)(const fm_matrix *A, const fm_matrix *Z, const fm_targets *Y) {
  return A->cols == 1 && A->ld == 1 && Z->ld == 1 && !Y->labels && Y->ld == 1;
}

INLINE loss_row FN(column_of)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                              const fm_targets *Y) {
  loss_row row = FN(row_of)(loss, A, Z, Y, 0);
  row.n = A->rows, row.column = 1;
  return row;
}

/* The same of all rows: log_sum = log sum_i e^(z_i - largest) is -log of the largest a, which is 1
 * over that sum. Of a label, without smoothing, only its own z counts. */
static void FN(cross_entropy_fused)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                                    const fm_targets *Y, double *values) {
  const ptrdiff_t n = A->cols;
  const int of_labels = Y->labels && FN(center)(loss, n) == 0;
  for (ptrdiff_t start = 0; start < A->rows; start += VL) {
    const ptrdiff_t m = A->rows - start < VL ? A->rows - start : VL;
    const REAL *z = (const REAL *)Z->data + start * Z->ld;
    REAL logs[VL], largest[VL];
    vstore(logs, (vec){0});
    for (ptrdiff_t r = 0; r < m; r++) {
      logs[r] = FN(row_maximum)(n, (const REAL *)A->data + (start + r) * A->ld);
      largest[r] = FN(row_maximum)(n, z + r * Z->ld);
    }
    vstore(logs, vlog(vload(logs)));
    for (ptrdiff_t r = 0; r < m; r++) {
      const double log_sum = -(double)logs[r];
      if (of_labels) {
        const REAL own = z[r * Z->ld + Y->labels[start + r]];
        values[start + r] = log_sum - ((double)own - (double)largest[r]);
      } else {
        const loss_row row = FN(row_of)(loss, A, Z, Y, start + r);
        values[start + r] = FN(cross_entropy_fused_row)(&row, log_sum, largest[r]);
      }
    }
  }
}

typedef vec (*FN(lanes_function))(loss_lanes);

/* An elementwise loss of each sample.  A, Z (m, n), Y  IN;  values (m,)  OUT */
INLINE void FN(values_of)(FN(lanes_function) value, const fm_loss *loss, const fm_matrix *A,
                          const fm_matrix *Z, const fm_targets *Y, double *values) {
  if (FN(is_column)(A, Z, Y)) {
    const loss_row column = FN(column_of)(loss, A, Z, Y);
    EACH_VECTOR(column.n) {
      REAL some[VL];
      vstore(some, (vec){0} + value(FN(lanes_of)(&column, j, lanes))); /* no -0, as below */
      for (ptrdiff_t i = 0; i < lanes; i++) values[j + i] = (double)some[i];
    }
    return;
  }
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const loss_row row = FN(row_of)(loss, A, Z, Y, r);
    vec sum = {0};
    EACH_VECTOR(row.n) sum += vfill(value(FN(lanes_of)(&row, j, lanes)), lanes, 0);
    values[r] = (double)vsum(sum) / FN(divisor)(loss, row.n);
  }
}

/* dZ[r] = scale[r] times the gradient of it.
 * A, Z (m, n), Y, scale (m,)  IN;  dZ (m, n)  OUT */
INLINE void FN(gradients_of)(FN(lanes_function) gradient, const fm_loss *loss, const fm_matrix *A,
                             const fm_matrix *Z, const fm_targets *Y, const double *scale,
                             fm_matrix *dZ) {
  if (FN(is_column)(A, Z, Y) && dZ->ld == 1) {
    const loss_row column = FN(column_of)(loss, A, Z, Y);
    EACH_VECTOR(column.n) {
      REAL factors[VL] = {0};
      for (ptrdiff_t i = 0; i < lanes; i++) factors[i] = (REAL)scale[j + i];
      const vec g = gradient(FN(lanes_of)(&column, j, lanes));
      vstoren((REAL *)dZ->data + j, vload(factors) * g, lanes);
    }
    return;
  }
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const loss_row row = FN(row_of)(loss, A, Z, Y, r);
    const REAL factor = (REAL)(scale[r] / FN(divisor)(loss, row.n));
    REAL *d = (REAL *)dZ->data + r * dZ->ld;
    EACH_VECTOR(row.n) { vstoren(d + j, factor * gradient(FN(lanes_of)(&row, j, lanes)), lanes); }
  }
}

/* Loss of each sample.  A, Z (m, n), Y  IN;  values (m,)  OUT */
static void FN(loss_forward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                             const fm_targets *Y, double *values) {
#define VALUES(name) FN(values_of)(FN(name##_value), loss, A, Z, Y, values)
#define ROWS(name)                                                                                 \
  for (ptrdiff_t r = 0; r < A->rows; r++) {                                                        \
    const loss_row row = FN(row_of)(loss, A, Z, Y, r);                                             \
    values[r] = FN(name)(&row, 0, NULL);                                                           \
  }
  if (loss->fused) {
    switch (loss->code) {
      case FM_CROSS_ENTROPY: FN(cross_entropy_fused)(loss, A, Z, Y, values); break;
      case FM_FOCAL: ROWS(focal_fused_row) break;
      case FM_BINARY_CROSS_ENTROPY: VALUES(binary_cross_entropy_fused); break;
      case FM_BINARY_FOCAL: VALUES(binary_focal_fused); break;
      case FM_POISSON: VALUES(poisson_fused); break;
      case FM_GAMMA: VALUES(gamma_fused); break;
    }
    return;
  }
  switch (loss->code) {
    case FM_HINGE: ROWS(hinge_row) break;
    case FM_MSE: VALUES(mse); break;
    case FM_MAE: VALUES(mae); break;
    case FM_HUBER: VALUES(huber); break;
    case FM_QUANTILE: VALUES(quantile); break;
    case FM_CROSS_ENTROPY: VALUES(cross_entropy); break;
    case FM_FOCAL: VALUES(focal); break;
    case FM_BINARY_CROSS_ENTROPY: VALUES(binary_cross_entropy); break;
    case FM_BINARY_FOCAL: VALUES(binary_focal); break;
    case FM_POISSON: VALUES(poisson); break;
    case FM_GAMMA: VALUES(gamma); break;
  }
#undef VALUES
#undef ROWS
}

/* dZ[r] = scale[r] times the gradient of sample r's loss with respect to Z[r].
 * A, Z (m, n), Y, scale (m,)  IN;  dZ (m, n)  OUT */
static void FN(loss_backward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                              const fm_targets *Y, const double *scale, fm_matrix *dZ) {
#define GRADIENTS(name) FN(gradients_of)(FN(name), loss, A, Z, Y, scale, dZ)
#define ROWS(name)                                                                                 \
  for (ptrdiff_t r = 0; r < A->rows; r++) {                                                        \
    const loss_row row = FN(row_of)(loss, A, Z, Y, r);                                             \
    FN(name)(&row, (REAL)scale[r], (REAL *)dZ->data + r * dZ->ld);                                 \
  }
  if (loss->fused) {
    switch (loss->code) {
      case FM_FOCAL: ROWS(focal_fused_row) break;
      case FM_BINARY_FOCAL: GRADIENTS(binary_focal_fused_gradient); break;
      case FM_GAMMA: GRADIENTS(gamma_fused_gradient); break;
      default: GRADIENTS(difference);
    }
    return;
  }
  switch (loss->code) {
    case FM_HINGE: ROWS(hinge_row) break;
    case FM_MSE: GRADIENTS(mse_gradient); break;
    case FM_MAE: GRADIENTS(mae_gradient); break;
    case FM_HUBER: GRADIENTS(huber_gradient); break;
    case FM_QUANTILE: GRADIENTS(quantile_gradient); break;
    case FM_CROSS_ENTROPY: GRADIENTS(cross_entropy_gradient); break;
    case FM_FOCAL: GRADIENTS(focal_gradient); break;
    case FM_BINARY_CROSS_ENTROPY: GRADIENTS(binary_cross_entropy_gradient); break;
    case FM_BINARY_FOCAL: GRADIENTS(binary_focal_gradient); break;
    case FM_POISSON: GRADIENTS(poisson_gradient); break;
    case FM_GAMMA: GRADIENTS(gamma_gradient); break;
  }
  FN(activation_backward)(loss->activation, dZ, Z, A, dZ);
#undef GRADIENTS
#undef ROWS
}
#undef EACH_VECTOR
#undef loss_lanes
#undef loss_row

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
  const int of_classes =
      loss->code == FM_CROSS_ENTROPY || loss->code == FM_FOCAL || loss->code == FM_HINGE;
  if (!of_classes && loss->code != FM_BINARY_CROSS_ENTROPY && loss->code != FM_BINARY_FOCAL)
    return 0;
  for (ptrdiff_t r = 0; r < A->rows; r++) {
    const REAL *a = (const REAL *)A->data + r * A->ld;
    const REAL *y = FN(target_row)(Y, r);
    if (of_classes) {
      count += FN(argmax)(n, a) == (y ? FN(argmax)(n, y) : Y->labels[r]);
    } else {
      int right = 1;
      for (ptrdiff_t j = 0; j < n; j++) right &= (a[j] > (REAL)0.5) == (y[j] > (REAL)0.5);
      count += right;
    }
  }
  return count;
}

/* Softmax and cross-entropy of one row of n <= VL outputs and its label, all in registers: the
 * loss; d = factor (a - one-hot); returns whether the label's output is the (first) largest. z (n,)
 * IN;  a, d (n,)  OUT */
INLINE ptrdiff_t FN(softmax_cross_entropy_label)(ptrdiff_t n, const REAL *z, int64_t label,
                                                 REAL factor, REAL *a, REAL *d, double *loss) {
  const vec row = vfill(vloadn(z, n), n, -INFINITY), ones = vset1(1);
  const REAL largest = vlargest(row);
  const vec e = vexp(row - largest);
  const REAL sum = vsum(e), top = 1 / sum;
  const vec outputs = e * top;
  const vec one_hot = vfill((vec){0}, label, 1) - vfill((vec){0}, label + 1, 1);
  vstoren(a, outputs, n);
  vstoren(d, vfma(e, vset1(factor / sum), -factor * one_hot), n);
  *loss = log((double)sum) - ((double)z[label] - (double)largest);
  return __builtin_ctz(vnonzero(vblend(vlt(outputs, vset1(top)), (vec){0}, ones))) == label;
}

/* Rows with more outputs than this take other ways. */
enum { FN(CLASSES) = 32 };

/* Whether the loss is a softmax's cross-entropy, of labels without smoothing. */
INLINE int FN(is_of_labels)(const fm_loss *loss, const fm_targets *Y) {
  return loss->fused && loss->code == FM_CROSS_ENTROPY && Y->labels &&
         *(const REAL *)loss->option == 0;
}

/* At most VL rows, transposed: columns[j] is column j of x. Of fewer rows the last one is repeated.
 * most: a constant, VL, or less where n is.
 * x (m, n), rows ld apart  IN;  columns (n,) and up to a multiple of `most`  OUT */
INLINE void FN(take_columns)(const int most, ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t ld,
                             vec *columns) {
  for (ptrdiff_t j = 0; j < n; j += VL) {
    vec block[VL];
    for (ptrdiff_t r = 0; r < VL; r++)
      block[r] = vloadn(x + (r < m ? r : m - 1) * ld + j, n - j < VL ? n - j : VL);
    vtranspose(1, block);
    for (ptrdiff_t c = 0; c < most; c++) columns[j + c] = block[c];
  }
}

/* And back.  columns (n,)  IN;  x (m, n)  OUT */
INLINE void FN(put_columns)(const int most, ptrdiff_t m, ptrdiff_t n, const vec *columns, REAL *x,
                            ptrdiff_t ld) {
  for (ptrdiff_t j = 0; j < n; j += VL) {
    vec block[VL];
    for (ptrdiff_t c = 0; c < VL; c++) block[c] = c < most ? columns[j + c] : (vec){0};
    vtranspose(0, block);
    for (ptrdiff_t r = 0; r < VL; r++)
      if (r < m) vstoren(x + r * ld + j, block[r], n - j < VL ? n - j : VL);
  }
}

/* At most VL rows of softmax_cross_entropy_labels, a vector for each output.
 * most: a constant, as for take_columns. */
INLINE ptrdiff_t FN(softmax_cross_entropy_block)(const int most, ptrdiff_t m, ptrdiff_t n,
                                                 const REAL *z, ptrdiff_t ldz,
                                                 const int64_t *labels, const double *scale,
                                                 REAL *d, ptrdiff_t ldd, double *values) {
  INT numbers[VL];
  REAL factors[VL], parts[3][VL];
  double losses[VL];
  for (ptrdiff_t r = 0; r < VL; r++) {
    numbers[r] = (INT)labels[r];
    factors[r] = (REAL)scale[r];
  }
  const vec scales = vload(factors);
  ivec label, best = {0};
  memcpy(&label, numbers, sizeof label);
  vec e[FN(CLASSES)], sum = {0}, own = {0};
  FN(take_columns)(most, m, n, z, ldz, e);
  if (n < 1) __builtin_unreachable(); /* or GCC warns that e[0] may not be there */
  vec top = e[0];
  for (ptrdiff_t j = 0; j < n; j++) {
    const ivec above = top < e[j];
    best = (best & ~above) | (above & (INT)j);
    top = vmax(e[j], top);
    own = (vec)((ivec)own | ((label == (INT)j) & (ivec)e[j]));
  }
  for (ptrdiff_t j = 0; j < n; j++) sum += e[j] = vexp(e[j] - top);
  const vec factor = scales / sum;
  for (ptrdiff_t j = 0; j < n; j++) e[j] = e[j] * factor - (vec)((label == (INT)j) & (ivec)scales);
  FN(put_columns)(most, m, n, e, d, ldd);

  vstore(parts[0], vlog(sum)), vstore(parts[1], own), vstore(parts[2], top);
  for (ptrdiff_t r = 0; r < VL; r++)
    losses[r] = (double)parts[0][r] - ((double)parts[1][r] - (double)parts[2][r]);
  memcpy(values, losses, (size_t)m * sizeof(double));
  const vec hits = (vec)((best == label) & (ivec)vset1(1));
  return __builtin_popcount(vnonzero(hits) & ((1u << m) - 1));
}

/* Softmax and cross-entropy of labels, of rows with at most CLASSES outputs.
 * values = log sum_j e^(z_j - max) - (z_label - max); dZ = scale (softmax(z) - one-hot); returns
 * how many rows have their first largest output at the label.
 * Z (m, n), labels, scale (m,), both with room for a multiple of VL  IN;  dZ (m, n), values (m,)
 * OUT */
static ptrdiff_t FN(softmax_cross_entropy_labels)(const fm_matrix *Z, const int64_t *labels,
                                                  const double *scale, fm_matrix *dZ,
                                                  double *values) {
  enum { FEW = VL < 4 ? VL : 4 };
  ptrdiff_t right = 0;
  for (ptrdiff_t start = 0; start < Z->rows; start += VL) {
    const ptrdiff_t m = Z->rows - start < VL ? Z->rows - start : VL;
    const REAL *z = (const REAL *)Z->data + start * Z->ld;
    REAL *d = (REAL *)dZ->data + start * dZ->ld;
#define BLOCK_OF(most)                                                                             \
  FN(softmax_cross_entropy_block)(most, m, Z->cols, z, Z->ld, labels + start, scale + start, d,    \
                                  dZ->ld, values + start)
    right += Z->cols <= FEW ? BLOCK_OF(FEW) : BLOCK_OF(VL);
#undef BLOCK_OF
  }
  return right;
}
