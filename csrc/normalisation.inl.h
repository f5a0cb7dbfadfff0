/* Layer and batch normalisation: Z = gain H + shift, H = (X - mean) / sqrt(variance + epsilon).
 *
 * LayerNorm's mean and variance are a row's. BatchNorm's are a column's over the whole batch:
 * threads take columns for them, between barriers; sums go down the rows in order, so their bits do
 * not depend on how columns are divided. Back, with u = gain dZ and means over the same elements:
 * dX = (u - mean(u) - H mean(u H)) / sqrt(variance + epsilon).
 */

/* z = gain h + shift for one row.  h, gain, shift (n,)  IN;  z (n,)  OUT */
INLINE void FN(gain_row)(const fm_layer *layer, ptrdiff_t n, const REAL *h, REAL *z) {
  const REAL *gain = layer->W.data, *shift = layer->b;
  for (ptrdiff_t j = 0; j < n; j += VL) {
    const ptrdiff_t lanes = n - j < VL ? n - j : VL;
    vstoren(z + j, vfma(vloadn(gain + j, lanes), vloadn(h + j, lanes), vloadn(shift + j, lanes)),
            lanes);
  }
}

/* X (m, n)  IN;  H, Z (m, n), inverse (m,)  OUT; H may be Z, inverse NULL */
static void FN(layer_norm_forward)(const fm_layer *layer, const fm_matrix *X, fm_matrix *H,
                                   REAL *inverse, fm_matrix *Z) {
  const ptrdiff_t n = X->cols;
  for (ptrdiff_t r = 0; r < X->rows; r++) {
    const REAL *x = (const REAL *)X->data + r * X->ld;
    REAL *h = (REAL *)H->data + r * H->ld;
    vec sum = {0}, squares = {0};
    for (ptrdiff_t j = 0; j < n; j += VL) sum += vloadn(x + j, n - j < VL ? n - j : VL);
    const REAL mean = vsum(sum) / (REAL)n;
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      const vec centred = vfill(vloadn(x + j, lanes) - mean, lanes, 0);
      squares = vfma(centred, centred, squares);
      vstoren(h + j, centred, lanes);
    }
    const REAL factor = (REAL)(1 / sqrt((double)(vsum(squares) / (REAL)n) + layer->epsilon));
    if (inverse) inverse[r] = factor;
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      vstoren(h + j, factor * vloadn(h + j, lanes), lanes);
    }
    FN(gain_row)(layer, n, h, (REAL *)Z->data + r * Z->ld);
  }
}

/* H, dZ (m, n), inverse (m,)  IN;  dX (m, n)  OUT */
static void FN(layer_norm_backward)(const fm_layer *layer, const fm_matrix *H, const REAL *inverse,
                                    const fm_matrix *dZ, fm_matrix *dX) {
  const ptrdiff_t n = H->cols;
  const REAL *gain = layer->W.data;
  for (ptrdiff_t r = 0; r < H->rows; r++) {
    const REAL *h = (const REAL *)H->data + r * H->ld, *d = (const REAL *)dZ->data + r * dZ->ld;
    REAL *out = (REAL *)dX->data + r * dX->ld;
    vec sum = {0}, weighted = {0};
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      const vec u = vloadn(gain + j, lanes) * vloadn(d + j, lanes);
      sum += u;
      weighted = vfma(u, vloadn(h + j, lanes), weighted);
    }
    const REAL mean = vsum(sum) / (REAL)n, slope = vsum(weighted) / (REAL)n;
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      const vec u = vloadn(gain + j, lanes) * vloadn(d + j, lanes);
      vstoren(out + j, inverse[r] * ((u - mean) - slope * vloadn(h + j, lanes)), lanes);
    }
  }
}

/* gains = sum over rows of dZ H, shifts = of dZ, of columns [j, end).  H, dZ (m, n)  IN;  (n,)  OUT
 */
static void FN(norm_gradients)(const fm_matrix *H, const fm_matrix *dZ, ptrdiff_t j, ptrdiff_t end,
                               REAL *gains, REAL *shifts) {
  for (; j < end; j += VL) {
    const ptrdiff_t lanes = end - j < VL ? end - j : VL;
    vec sum = {0}, weighted = {0};
    for (ptrdiff_t r = 0; r < H->rows; r++) {
      const vec d = vloadn((const REAL *)dZ->data + r * dZ->ld + j, lanes);
      sum += d;
      weighted = vfma(d, vloadn((const REAL *)H->data + r * H->ld + j, lanes), weighted);
    }
    vstoren(gains + j, weighted, lanes);
    vstoren(shifts + j, sum, lanes);
  }
}

/* mean, variance and 1 / sqrt(variance + epsilon) of columns [j, end).  X (m, n)  IN;  (n,)  OUT */
static void FN(batch_moments)(const fm_layer *layer, const fm_matrix *X, ptrdiff_t j,
                              ptrdiff_t end) {
  REAL *mean = layer->mean, *variance = layer->variance, *inverse = layer->inverse;
  for (; j < end; j += VL) {
    const ptrdiff_t lanes = end - j < VL ? end - j : VL;
    const REAL *x = (const REAL *)X->data + j;
    vec sum = {0}, squares = {0};
    for (ptrdiff_t r = 0; r < X->rows; r++) sum += vloadn(x + r * X->ld, lanes);
    const vec m = sum / (REAL)X->rows;
    for (ptrdiff_t r = 0; r < X->rows; r++) {
      const vec centred = vloadn(x + r * X->ld, lanes) - m;
      squares = vfma(centred, centred, squares);
    }
    const vec v = squares / (REAL)X->rows;
    vstoren(mean + j, m, lanes);
    vstoren(variance + j, v, lanes);
    vstoren(inverse + j, 1 / vsqrt(v + (REAL)layer->epsilon), lanes);
  }
}

/* With a mean and an inverse for each column.  X (m, n)  IN;  H, Z (m, n)  OUT; H may be Z */
static void FN(batch_norm_forward)(const fm_layer *layer, const REAL *mean, const REAL *inverse,
                                   const fm_matrix *X, fm_matrix *H, fm_matrix *Z) {
  for (ptrdiff_t r = 0; r < X->rows; r++) {
    const REAL *x = (const REAL *)X->data + r * X->ld;
    REAL *h = (REAL *)H->data + r * H->ld;
    for (ptrdiff_t j = 0; j < X->cols; j += VL) {
      const ptrdiff_t lanes = X->cols - j < VL ? X->cols - j : VL;
      const vec centred = vloadn(x + j, lanes) - vloadn(mean + j, lanes);
      vstoren(h + j, centred * vloadn(inverse + j, lanes), lanes);
    }
    FN(gain_row)(layer, X->cols, h, (REAL *)Z->data + r * Z->ld);
  }
}

/* At prediction: with the running statistics.  X (m, n)  IN;  Z (m, n)  OUT */
static void FN(batch_norm_predict)(const fm_layer *layer, const fm_matrix *X, fm_matrix *Z) {
  const REAL *running_mean = layer->running[0], *running_variance = layer->running[1];
  const REAL *gain = layer->W.data, *shift = layer->b;
  for (ptrdiff_t j = 0; j < X->cols; j += VL) {
    const ptrdiff_t lanes = X->cols - j < VL ? X->cols - j : VL;
    const vec inverse = 1 / vsqrt(vloadn(running_variance + j, lanes) + (REAL)layer->epsilon);
    const vec mean = vloadn(running_mean + j, lanes), g = vloadn(gain + j, lanes);
    const vec b = vloadn(shift + j, lanes);
    for (ptrdiff_t r = 0; r < X->rows; r++) {
      const vec x = vloadn((const REAL *)X->data + r * X->ld + j, lanes);
      vstoren((REAL *)Z->data + r * Z->ld + j, vfma(g, (x - mean) * inverse, b), lanes);
    }
  }
}

/* dX of some rows of a batch of n samples, from the sums over all of them.
 * H, dZ (m, n_units)  IN;  dX (m, n_units)  OUT */
static void FN(batch_norm_backward)(const fm_layer *layer, ptrdiff_t n, const fm_matrix *H,
                                    const fm_matrix *dZ, fm_matrix *dX) {
  const REAL *gain = layer->W.data, *inverse = layer->inverse;
  const REAL *weighted = layer->gains, *sums = layer->shifts;
  const REAL share = 1 / (REAL)n;
  for (ptrdiff_t r = 0; r < H->rows; r++) {
    const REAL *h = (const REAL *)H->data + r * H->ld, *d = (const REAL *)dZ->data + r * dZ->ld;
    REAL *out = (REAL *)dX->data + r * dX->ld;
    for (ptrdiff_t j = 0; j < H->cols; j += VL) {
      const ptrdiff_t lanes = H->cols - j < VL ? H->cols - j : VL;
      const vec centred = (vloadn(d + j, lanes) - share * vloadn(sums + j, lanes)) -
                          vloadn(h + j, lanes) * (share * vloadn(weighted + j, lanes));
      const vec factor = vloadn(gain + j, lanes) * vloadn(inverse + j, lanes);
      vstoren(out + j, factor * centred, lanes);
    }
  }
}

/* running += momentum (batch's - running), with the unbiased variance, behind a step of n samples
 */
static void FN(observe_batch)(const fm_layer *layer, ptrdiff_t n) {
  REAL *running_mean = layer->running[0], *running_variance = layer->running[1];
  const REAL *mean = layer->mean, *variance = layer->variance;
  const REAL share = (REAL)layer->rate, unbiased = (REAL)((double)n / (double)(n - 1));
  for (ptrdiff_t j = 0; n > 1 && j < layer->W.cols; j++) {
    running_mean[j] += share * (mean[j] - running_mean[j]);
    running_variance[j] += share * (variance[j] * unbiased - running_variance[j]);
  }
}
