/* Plain stochastic gradient descent on one sample: forward, back, update, nothing stored between.
 *
 * The sample's non-zero features are listed once; the first layer's rows of zeros are neither read
 * nor written (81% of MNIST). Every product here is a sum of rows of W (forward) or of its
 * transposed copy (back), so there are no horizontal sums; both copies are updated in place.
 */

/* A sample's features: its row of the data, or `values`, filled from pixels.  values (k,)  OUT */
INLINE const REAL *FN(features_of)(const fm_data *data, ptrdiff_t sample, REAL *restrict values) {
  if (!data->is_uint8) return (const REAL *)data->X + sample * data->ldx;
  const uint8_t *restrict pixels = (const uint8_t *)data->X + sample * data->ldx;
  for (ptrdiff_t j = 0; j < data->n_features; j++) values[j] = (REAL)pixels[j] * (REAL)(1.0 / 255);
  return values;
}

/* Lists the features that are not 0; returns how many. On the way it asks for the next sample's row
 * of elements of `size` bytes, which in a random order comes from memory: all at once the requests
 * would keep the loads behind them waiting (47 ms an epoch of MNIST against 37).
 * x (k,), next (k,)  IN;  list (k + 16,)  OUT */
INLINE ptrdiff_t FN(list_nonzero)(ptrdiff_t k, const REAL *x, const char *next, ptrdiff_t size,
                                  int32_t *list) {
  ptrdiff_t count = 0, j = 0;
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
  /* Packed in a register: a compressing store is microcoded on Zen 4. */
  __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; j + 16 <= k; j += 16) {
    for (ptrdiff_t i = 0; i < 16 * size; i += 64) __builtin_prefetch(next + j * size + i);
    unsigned mask = 0;
    for (ptrdiff_t i = 0; i < 16; i += VL) mask |= vnonzero(vload(x + j + i)) << i;
    _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32((__mmask16)mask, lane));
    lane = _mm512_add_epi32(lane, _mm512_set1_epi32(16));
    count += __builtin_popcount(mask);
  }
#endif
  for (; j < k; j++) {
    if (j % 16 == 0)
      for (ptrdiff_t i = 0; i < 16 * size; i += 64) __builtin_prefetch(next + j * size + i);
    list[count] = (int32_t)j;
    count += x[j] != 0;
  }
  return count;
}

/* z = b + sum_i x[index[i]] W[index[i], :] for nv vectors of columns, the last one of `tail` lanes.
 * Four chains of sums, i mod 4, for the latency of a multiply-add. */
INLINE void FN(sum_of_rows_panel)(const int nv, const int partial, ptrdiff_t k,
                                  const REAL *restrict x, const int32_t *restrict index,
                                  const REAL *restrict w, ptrdiff_t ldw, const REAL *restrict b,
                                  REAL *restrict z, ptrdiff_t tail) {
  vec acc[4][2] = {{{0}}};
  ptrdiff_t i = 0;
  for (; i + 4 <= k; i += 4)
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; chain++) {
      const ptrdiff_t at = index ? index[i + chain] : i + chain;
      const REAL *row = w + at * ldw;
      const vec value = vset1(x[at]);
      for (int c = 0; c < nv; c++) {
        const int masked = partial && c == nv - 1;
        const vec weights = masked ? vloadn(row + c * VL, tail) : vload(row + c * VL);
        acc[chain][c] = vfma(value, weights, acc[chain][c]);
      }
    }
  for (; i < k; i++) {
    const ptrdiff_t at = index ? index[i] : i;
    const REAL *row = w + at * ldw;
    for (int c = 0; c < nv; c++) {
      const int masked = partial && c == nv - 1;
      const vec weights = masked ? vloadn(row + c * VL, tail) : vload(row + c * VL);
      acc[0][c] = vfma(vset1(x[at]), weights, acc[0][c]);
    }
  }
  for (int c = 0; c < nv; c++) {
    const ptrdiff_t lanes = partial && c == nv - 1 ? tail : VL;
    vec sum = (acc[0][c] + acc[1][c]) + (acc[2][c] + acc[3][c]);
    if (b) sum += vloadn(b + c * VL, lanes);
    vstoren(z + c * VL, sum, lanes);
  }
}

/* z = b + sum_i x[index[i]] W[index[i], :] over k terms; index NULL: 0, 1, 2, ...; b NULL: 0.
 * x, index (k,), W (., n)  IN;  z (n,)  OUT */
INLINE void FN(sum_of_rows)(ptrdiff_t k, ptrdiff_t n, const REAL *x, const int32_t *index,
                            const REAL *w, ptrdiff_t ldw, const REAL *b, REAL *z) {
  ptrdiff_t j = 0;
  for (; j + 2 * VL <= n; j += 2 * VL)
    FN(sum_of_rows_panel)(2, 0, k, x, index, w + j, ldw, b ? b + j : NULL, z + j, VL);
  for (; j < n; j += VL)
    FN(sum_of_rows_panel)(1, 1, k, x, index, w + j, ldw, b ? b + j : NULL, z + j,
                          n - j < VL ? n - j : VL);
}

/* W[index[i], :] += x[index[i]] d for every i.  x (k,), d (n,)  IN;  W (., n)  IN and OUT */
INLINE void FN(add_outer)(ptrdiff_t k, ptrdiff_t n, const REAL *restrict x,
                          const int32_t *restrict index, const REAL *restrict d, REAL *restrict w,
                          ptrdiff_t ldw) {
  for (ptrdiff_t j = 0; j < n; j += 2 * VL) {
    const ptrdiff_t left = n - j;
    if (left >= 2 * VL) {
      vec d0 = vload(d + j), d1 = vload(d + j + VL);
      for (ptrdiff_t i = 0; i < k; i++) {
        const ptrdiff_t at = index ? index[i] : i;
        REAL *row = w + at * ldw + j;
        vec value = vset1(x[at]);
        vstore(row, vfma(value, d0, vload(row)));
        vstore(row + VL, vfma(value, d1, vload(row + VL)));
      }
    } else {
      for (ptrdiff_t v = j; v < n; v += VL) {
        const ptrdiff_t lanes = n - v < VL ? n - v : VL;
        vec dv = vloadn(d + v, lanes);
        for (ptrdiff_t i = 0; i < k; i++) {
          const ptrdiff_t at = index ? index[i] : i;
          REAL *row = w + at * ldw + v;
          vstoren(row, vfma(vset1(x[at]), dv, vloadn(row, lanes)), lanes);
        }
      }
    }
  }
}

/* One step on sample order[0]: w -= lr dw; order[1], where n_left > 1, is next.
 * Returns 1 where the sample was right before.
 * values, indices: room for n_features and a vector more. Uses row 0 of every layer's Z, A, D. */
static ptrdiff_t FN(sgd_sample)(const fm_net *net, const fm_data *data, const ptrdiff_t *order,
                                ptrdiff_t n_left, double lr, void *values, int32_t *indices,
                                double *loss) {
  const ptrdiff_t sample = order[0];
  const ptrdiff_t bytes = data->ldx * (data->is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL));
  const char *next = (const char *)data->X + order[n_left > 1] * bytes;
  const REAL *x = FN(features_of)(data, sample, values);
  const ptrdiff_t n_nonzero =
      FN(list_nonzero)(data->n_features, x, next, data->is_uint8 ? 1 : sizeof(REAL), indices);
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    const REAL *input = l ? net->layers[l - 1].A.data : x;
    fm_matrix Z = FN(rows_of)(&layer->Z, 0, 1), A = FN(rows_of)(&layer->A, 0, 1);
    FN(sum_of_rows)(l ? layer->W.rows : n_nonzero, layer->W.cols, input, l ? NULL : indices,
                    layer->W.data, layer->W.ld, layer->b, Z.data);
    FN(activation_forward)(layer->activation, &Z, &A);
  }

  const fm_layer *last = &net->layers[net->n_layers - 1];
  const fm_targets Y = {data->labels ? data->labels + sample : NULL,
                        data->Y ? (const REAL *)data->Y + sample * data->ldy : NULL, data->ldy};
  const double weight = data->weight ? data->weight[sample] : 1.0;
  const double scale = weight > 0 ? net->gradient_factor : 0;
  fm_matrix A = FN(rows_of)(&last->A, 0, 1), Z = FN(rows_of)(&last->Z, 0, 1);
  fm_matrix D = FN(rows_of)(&last->D, 0, 1);
  FN(loss_forward)(&net->loss, &A, &Z, &Y, loss);
  *loss *= weight * net->loss_factor;
  const ptrdiff_t correct = FN(count_correct)(&net->loss, &A, &Y);
  FN(loss_backward)(&net->loss, &A, &Z, &Y, &scale, &D);

  for (int l = net->n_layers - 1; l >= 0; l--) {
    const fm_layer *layer = &net->layers[l];
    REAL *d = layer->D.data;
    const ptrdiff_t k = layer->W.rows, n = layer->W.cols;
    const fm_layer *below = l ? layer - 1 : NULL;
    if (below) {
      fm_matrix dA = FN(rows_of)(&below->D, 0, 1);
      A = FN(rows_of)(&below->A, 0, 1);
      Z = FN(rows_of)(&below->Z, 0, 1);
      FN(sum_of_rows)(n, k, d, NULL, layer->WT.data, layer->WT.ld, NULL, dA.data);
      FN(activation_backward)(below->activation, &dA, &Z, &A, &dA);
    }
    /* Scaled before it meets the inputs, so that W and its transposed copy round alike. */
    for (ptrdiff_t j = 0; j < n; j++) d[j] *= (REAL)-lr;
    if (below) {
      FN(add_outer)(k, n, A.data, NULL, d, layer->W.data, layer->W.ld);
      FN(add_outer)(n, k, d, NULL, A.data, layer->WT.data, layer->WT.ld);
    } else {
      FN(add_outer)(n_nonzero, n, x, indices, d, layer->W.data, layer->W.ld);
    }
    FN(add_outer)(1, n, &(REAL){1}, NULL, d, layer->b, n);
  }
  return correct;
}
