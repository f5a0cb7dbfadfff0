/* Activations, forward and backward: A = f(Z), dZ = dA f'(Z).
 *
 * An elementwise one is two functions of vectors; its derivative is taken from A where that loses
 * nothing, from Z for those that fm_needs_z names.
 */
#define LEAKY_RELU_SLOPE ((REAL)0.01)
#define ELU_ALPHA ((REAL)1)
#define SELU_ALPHA ((REAL)1.6732632423543772)
#define SELU_SCALE ((REAL)1.0507009873554805)
#define INVERSE_SQRT_2PI ((REAL)0.39894228040143267794)

/* identity: z; 1 */
INLINE vec FN(identity_forward)(vec z) { return z; }
INLINE vec FN(identity_backward)(vec d, vec z, vec a) {
  (void)z, (void)a;
  return d;
}

/* relu: max(z, 0); 1 where z > 0, else 0 (0 at 0) */
INLINE vec FN(relu_forward)(vec z) { return vmax((vec){0}, z); }
INLINE vec FN(relu_backward)(vec d, vec z, vec a) {
  (void)z;
  return vblend(vlt((vec){0}, a), d, (vec){0});
}

/* leaky_relu: z where z > 0, else 0.01 z */
INLINE vec FN(leaky_relu_forward)(vec z) {
  return vblend(vlt((vec){0}, z), z, LEAKY_RELU_SLOPE * z);
}
INLINE vec FN(leaky_relu_backward)(vec d, vec z, vec a) {
  (void)z;
  return vblend(vlt((vec){0}, a), d, LEAKY_RELU_SLOPE * d);
}

/* elu: z where z > 0, else alpha (e^z - 1); 1, else a + alpha */
INLINE vec FN(elu_forward)(vec z) {
  return vblend(vlt((vec){0}, z), z, ELU_ALPHA * vexpm1(vmin((vec){0}, z)));
}
INLINE vec FN(elu_backward)(vec d, vec z, vec a) {
  (void)z;
  return vblend(vlt((vec){0}, a), d, d * (a + ELU_ALPHA));
}

/* selu: scale elu(z), with its own alpha */
INLINE vec FN(selu_forward)(vec z) {
  vec negative = SELU_ALPHA * vexpm1(vmin((vec){0}, z));
  return SELU_SCALE * vblend(vlt((vec){0}, z), z, negative);
}
INLINE vec FN(selu_backward)(vec d, vec z, vec a) {
  (void)z;
  return d * vblend(vlt((vec){0}, a), vset1(SELU_SCALE), a + SELU_SCALE * SELU_ALPHA);
}

/* sigmoid: 1 / (1 + e^-z); a (1 - a) */
INLINE vec FN(sigmoid_forward)(vec z) { return vsigmoid(z); }
INLINE vec FN(sigmoid_backward)(vec d, vec z, vec a) {
  (void)z;
  return d * (a * (1 - a));
}

/* tanh; (1 - a) (1 + a) */
INLINE vec FN(tanh_forward)(vec z) { return vtanh(z); }
INLINE vec FN(tanh_backward)(vec d, vec z, vec a) {
  (void)z;
  return d * (1 - a) * (1 + a);
}

/* softplus: log(1 + e^z) = max(z, 0) + log(1 + e^-|z|); sigmoid(z) */
INLINE vec FN(softplus_forward)(vec z) { return vmax((vec){0}, z) + vlog1p(vexp(-vabs(z))); }
INLINE vec FN(softplus_backward)(vec d, vec z, vec a) {
  (void)a;
  return d * vsigmoid(z);
}

/* gelu: z Phi(z); Phi(z) + z phi(z) */
INLINE vec FN(gelu_forward)(vec z) { return z * vnormal_cdf(z); }
INLINE vec FN(gelu_backward)(vec d, vec z, vec a) {
  (void)a;
  vec density = INVERSE_SQRT_2PI * vexp((REAL)-0.5 * z * z);
  return d * vfma(z, density, vnormal_cdf(z));
}

/* silu: z s, s = sigmoid(z); s (1 + z (1 - s)) */
INLINE vec FN(silu_forward)(vec z) { return z * vsigmoid(z); }
INLINE vec FN(silu_backward)(vec d, vec z, vec a) {
  (void)a;
  vec s = vsigmoid(z);
  return d * s * vfma(z, 1 - s, vset1(1));
}

/* step: 1 from 0 on, else 0; NaN stays. It has no backward. */
INLINE vec FN(step_forward)(vec z) {
  const vec below_zero = vset1(FM_FLOAT64 ? (REAL)-DBL_TRUE_MIN : (REAL)-FLT_TRUE_MIN);
  return vblend(vlt(below_zero, z), vset1(1), vblend(vlt(z, (vec){0}), (vec){0}, z));
}

/* exp: e^z; a */
INLINE vec FN(exp_forward)(vec z) { return vexp(z); }
INLINE vec FN(exp_backward)(vec d, vec z, vec a) {
  (void)z;
  return d * a;
}

/* increasing: a_0 = z_0, a_j = a_(j-1) + log(1 + e^z_j).  z (n,)  IN;  a (n,)  OUT, may be z */
INLINE void FN(increasing_row)(ptrdiff_t n, const REAL *z, REAL *a) {
  if (n == 0) return;
  const REAL first = z[0];
  for (ptrdiff_t j = 0; j < n; j += VL) {
    const ptrdiff_t lanes = n - j < VL ? n - j : VL;
    vstoren(a + j, FN(softplus_forward)(vloadn(z + j, lanes)), lanes);
  }
  a[0] = first;
  for (ptrdiff_t j = 1; j < n; j++) a[j] += a[j - 1];
}

/* dz_j = sigmoid(z_j) sum_(k >= j) da_k, without the sigmoid for j = 0.
 * da, z (n,)  IN;  dz (n,)  OUT, may be da */
INLINE void FN(increasing_backward_row)(ptrdiff_t n, const REAL *da, const REAL *z, REAL *dz) {
  REAL sum = 0;
  if (n == 0) return;
  for (ptrdiff_t j = n - 1; j >= 0; j--) dz[j] = sum += da[j];
  for (ptrdiff_t j = 0; j < n; j += VL) {
    const ptrdiff_t lanes = n - j < VL ? n - j : VL;
    vstoren(dz + j, vloadn(dz + j, lanes) * vsigmoid(vloadn(z + j, lanes)), lanes);
  }
  dz[0] = sum;
}

/* z (n,)  IN */
INLINE REAL FN(row_maximum)(ptrdiff_t n, const REAL *z) {
  vec largest = vset1(-INFINITY);
  for (ptrdiff_t j = 0; j < n; j += VL) {
    ptrdiff_t lanes = n - j < VL ? n - j : VL;
    largest = vmax(vfill(vloadn(z + j, lanes), lanes, -INFINITY), largest);
  }
  return vlargest(largest);
}

/* softmax of one row: e^(z - max) over its sum.  z (n,)  IN;  a (n,)  OUT */
INLINE void FN(softmax_row)(ptrdiff_t n, const REAL *z, REAL *a) {
  if (n <= VL) { /* most outputs: all in registers */
    const vec row = vfill(vloadn(z, n), n, -INFINITY), e = vexp(row - vlargest(row));
    vstoren(a, e * (1 / vsum(e)), n);
    return;
  }
  vec sum = {0}, top = vset1(FN(row_maximum)(n, z));
  ptrdiff_t whole = n - n % VL, tail = n - whole;
  for (ptrdiff_t j = 0; j < whole; j += VL) {
    vec e = vexp(vload(z + j) - top);
    sum += e;
    vstore(a + j, e);
  }
  if (tail) {
    vec e = vfill(vexp(vloadn(z + whole, tail) - top), tail, 0);
    sum += e;
    vstoren(a + whole, e, tail);
  }
  vec factor = vset1(1 / vsum(sum));
  for (ptrdiff_t j = 0; j < whole; j += VL) vstore(a + j, vload(a + j) * factor);
  if (tail) vstoren(a + whole, vloadn(a + whole, tail) * factor, tail);
}

/* dz_j = a_j (da_j - sum_i da_i a_i): the Jacobian a_i (delta_ij - a_j) times da.
 * da, a (n,)  IN;  dz (n,)  OUT */
INLINE void FN(softmax_backward_row)(ptrdiff_t n, const REAL *da, const REAL *a, REAL *dz) {
  vec sum = {0};
  for (ptrdiff_t j = 0; j < n; j += VL) {
    ptrdiff_t lanes = n - j < VL ? n - j : VL;
    sum = vfma(vloadn(da + j, lanes), vloadn(a + j, lanes), sum);
  }
  vec mean = vset1(vsum(sum));
  for (ptrdiff_t j = 0; j < n; j += VL) {
    ptrdiff_t lanes = n - j < VL ? n - j : VL;
    vstoren(dz + j, vloadn(a + j, lanes) * (vloadn(da + j, lanes) - mean), lanes);
  }
}

/* Rows by vectors, the last vector of a row masked. */
#define FORWARD_LOOP(name)                                                                         \
  do {                                                                                             \
    for (ptrdiff_t r = 0; r < rows; r++) {                                                         \
      const REAL *z = (const REAL *)Z->data + r * Z->ld;                                           \
      REAL *a = (REAL *)A->data + r * A->ld;                                                       \
      for (ptrdiff_t j = 0; j < whole; j += VL) vstore(a + j, FN(name##_forward)(vload(z + j)));   \
      if (tail) vstoren(a + whole, FN(name##_forward)(vloadn(z + whole, tail)), tail);             \
    }                                                                                              \
  } while (0)

/* A = activation(Z).  Z (m, n)  IN;  A (m, n)  OUT, may be Z */
static void FN(activation_forward)(int activation, const fm_matrix *Z, fm_matrix *A) {
  /* Element by element, rows without a gap are one row: a single output's, above all. */
  const int together = Z->ld == Z->cols && A->ld == Z->cols;
  const ptrdiff_t rows = together ? 1 : Z->rows, cols = together ? Z->rows * Z->cols : Z->cols;
  const ptrdiff_t whole = cols - cols % VL, tail = cols - whole;
  switch (activation) {
    case FM_IDENTITY:
      if (A->data != Z->data) FORWARD_LOOP(identity);
      break;
    case FM_RELU: FORWARD_LOOP(relu); break;
    case FM_LEAKY_RELU: FORWARD_LOOP(leaky_relu); break;
    case FM_ELU: FORWARD_LOOP(elu); break;
    case FM_SELU: FORWARD_LOOP(selu); break;
    case FM_SIGMOID: FORWARD_LOOP(sigmoid); break;
    case FM_TANH: FORWARD_LOOP(tanh); break;
    case FM_SOFTPLUS: FORWARD_LOOP(softplus); break;
    case FM_GELU: FORWARD_LOOP(gelu); break;
    case FM_SILU: FORWARD_LOOP(silu); break;
    case FM_STEP: FORWARD_LOOP(step); break;
    case FM_EXP: FORWARD_LOOP(exp); break;
    case FM_INCREASING:
      for (ptrdiff_t r = 0; r < Z->rows; r++)
        FN(increasing_row)(Z->cols, (const REAL *)Z->data + r * Z->ld, (REAL *)A->data + r * A->ld);
      break;
    case FM_SOFTMAX:
      for (ptrdiff_t r = 0; r < Z->rows; r++)
        FN(softmax_row)(Z->cols, (const REAL *)Z->data + r * Z->ld, (REAL *)A->data + r * A->ld);
      break;
    default:
      for (ptrdiff_t r = 0; r < Z->rows; r++)
        fm_native_activations[activation - FM_NATIVE][FM_FLOAT64].forward(
            Z->cols, (const REAL *)Z->data + r * Z->ld, (REAL *)A->data + r * A->ld);
  }
}

#define BACKWARD_LOOP(name)                                                                        \
  do {                                                                                             \
    for (ptrdiff_t r = 0; r < dA->rows; r++) {                                                     \
      const REAL *d = (const REAL *)dA->data + r * dA->ld;                                         \
      const REAL *z = (const REAL *)Z->data + r * Z->ld;                                           \
      const REAL *a = (const REAL *)A->data + r * A->ld;                                           \
      REAL *out = (REAL *)dZ->data + r * dZ->ld;                                                   \
      for (ptrdiff_t j = 0; j < whole; j += VL)                                                    \
        vstore(out + j, FN(name##_backward)(vload(d + j), vload(z + j), vload(a + j)));            \
      if (tail)                                                                                    \
        vstoren(out + whole,                                                                       \
                FN(name##_backward)(vloadn(d + whole, tail), vloadn(z + whole, tail),              \
                                    vloadn(a + whole, tail)),                                      \
                tail);                                                                             \
    }                                                                                              \
  } while (0)

/* dZ = dA times the derivative.  dA, Z, A (m, n)  IN;  dZ (m, n)  OUT, may be dA
 * Z is read where fm_needs_z says so, and may else be A. */
static void FN(activation_backward)(int activation, const fm_matrix *dA, const fm_matrix *Z,
                                    const fm_matrix *A, fm_matrix *dZ) {
  ptrdiff_t whole = dA->cols - dA->cols % VL, tail = dA->cols - whole;
  switch (activation) {
    case FM_IDENTITY:
      if (dZ->data != dA->data) BACKWARD_LOOP(identity);
      break;
    case FM_RELU: BACKWARD_LOOP(relu); break;
    case FM_LEAKY_RELU: BACKWARD_LOOP(leaky_relu); break;
    case FM_ELU: BACKWARD_LOOP(elu); break;
    case FM_SELU: BACKWARD_LOOP(selu); break;
    case FM_SIGMOID: BACKWARD_LOOP(sigmoid); break;
    case FM_TANH: BACKWARD_LOOP(tanh); break;
    case FM_SOFTPLUS: BACKWARD_LOOP(softplus); break;
    case FM_GELU: BACKWARD_LOOP(gelu); break;
    case FM_SILU: BACKWARD_LOOP(silu); break;
    case FM_EXP: BACKWARD_LOOP(exp); break;
    case FM_INCREASING:
      for (ptrdiff_t r = 0; r < dA->rows; r++)
        FN(increasing_backward_row)(dA->cols, (const REAL *)dA->data + r * dA->ld,
                                    (const REAL *)Z->data + r * Z->ld,
                                    (REAL *)dZ->data + r * dZ->ld);
      break;
    case FM_SOFTMAX:
      for (ptrdiff_t r = 0; r < dA->rows; r++)
        FN(softmax_backward_row)(dA->cols, (const REAL *)dA->data + r * dA->ld,
                                 (const REAL *)A->data + r * A->ld, (REAL *)dZ->data + r * dZ->ld);
      break;
    case FM_STEP: break;
    default:
      for (ptrdiff_t r = 0; r < dA->rows; r++)
        fm_native_activations[activation - FM_NATIVE][FM_FLOAT64].backward(
            dA->cols, (const REAL *)dA->data + r * dA->ld, (const REAL *)Z->data + r * Z->ld,
            (const REAL *)A->data + r * A->ld, (REAL *)dZ->data + r * dZ->ld);
  }
}
#undef FORWARD_LOOP
#undef BACKWARD_LOOP
