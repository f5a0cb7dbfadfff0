/* Plain stochastic gradient descent, sample by sample: forward, back, update, nothing stored
 * between.
 *
 * A sample's non-zero features are listed once; the first layer's rows of zeros are neither read
 * nor written (81% of MNIST). Every product here is a sum of rows of W (forward) or of its
 * transposed copy (back), so there are no horizontal sums; both copies are updated in place.
 *
 * A sample is a chain of short operations that wait for each other. What has to be done anyway runs
 * beside them, a piece at a time, in the order of the program: the processor looks some hundred
 * instructions ahead. None of it changes a bit of what one sample after the other would give.
 */

/* A sample's features: its row of the data, or `values`, filled from pixels; and where it is not 0.
 * values, list: room for n_features and a vector more */
typedef struct {
  const REAL *x;
  REAL *values;
  int32_t *list;
  ptrdiff_t n_nonzero;
} FN(features);
#define features FN(features)

/* Takes in the features from `start`, a multiple of 16, to `stop`. On the way it asks for those of
 * sample `ahead`, which in a random order come from memory: all at once the requests would keep the
 * loads behind them waiting (47 ms an epoch of MNIST against 37). */
INLINE void FN(read_features)(features *f, const fm_data *data, ptrdiff_t sample, ptrdiff_t ahead,
                              ptrdiff_t start, ptrdiff_t stop) {
  const ptrdiff_t size = data->is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL);
  const char *next = (const char *)data->X + ahead * data->ldx * size;
  if (data->is_uint8) {
    const uint8_t *restrict pixels = (const uint8_t *)data->X + sample * data->ldx;
    REAL *restrict values = f->values;
    for (ptrdiff_t j = start; j < stop; j++) values[j] = (REAL)pixels[j] * (REAL)(1.0 / 255);
  }
  const REAL *x = data->is_uint8 ? f->values : (const REAL *)data->X + sample * data->ldx;
  int32_t *list = f->list;
  ptrdiff_t count = start ? f->n_nonzero : 0, j = start;
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
  /* Packed in a register: a compressing store is microcoded on Zen 4. */
  __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  lane = _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)j));
  for (; j + 16 <= stop; j += 16) {
    for (ptrdiff_t i = 0; i < 16 * size; i += 64) __builtin_prefetch(next + j * size + i);
    unsigned mask = 0;
    for (ptrdiff_t i = 0; i < 16; i += VL) mask |= vnonzero(vload(x + j + i)) << i;
    _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32((__mmask16)mask, lane));
    lane = _mm512_add_epi32(lane, _mm512_set1_epi32(16));
    count += __builtin_popcount(mask);
  }
#endif
  for (; j < stop; j++) {
    if (j % 16 == 0)
      for (ptrdiff_t i = 0; i < 16 * size; i += 64) __builtin_prefetch(next + j * size + i);
    list[count] = (int32_t)j;
    count += x[j] != 0;
  }
  f->x = x;
  f->n_nonzero = count;
}

/* sum_of_rows for nv vectors of columns, the last one of `tail` lanes. Four chains of sums, i mod
 * 4, for the latency of a multiply-add. A changed row is stored before it is summed, or GCC would
 * load it twice. */
INLINE void FN(sum_of_rows_panel)(const int nv, const int partial, ptrdiff_t k,
                                  const REAL *restrict x, const int32_t *restrict index,
                                  REAL *restrict w, ptrdiff_t ldw, const REAL *restrict b,
                                  const REAL *restrict e, REAL *restrict z, ptrdiff_t tail) {
  vec acc[4][2] = {{{0}}}, step[2] = {{0}};
  for (int c = 0; e && c < nv; c++)
    step[c] = partial && c == nv - 1 ? vloadn(e + c * VL, tail) : vload(e + c * VL);
#define ADD_ROW(i, chain)                                                                          \
  do {                                                                                             \
    const ptrdiff_t at = index ? index[i] : i;                                                     \
    REAL *row = w + at * ldw;                                                                      \
    const vec value = vset1(x[at]);                                                                \
    for (int c = 0; c < nv; c++) {                                                                 \
      const int masked = partial && c == nv - 1;                                                   \
      const vec weights = masked ? vloadn(row + c * VL, tail) : vload(row + c * VL);               \
      if (e && masked) vstoren(row + c * VL, vfma(value, step[c], weights), tail);                 \
      if (e && !masked) vstore(row + c * VL, vfma(value, step[c], weights));                       \
      acc[chain][c] = vfma(value, weights, acc[chain][c]);                                         \
    }                                                                                              \
  } while (0)
  ptrdiff_t i = 0;
  for (; i + 4 <= k; i += 4)
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; chain++) ADD_ROW(i + chain, chain);
  for (; i < k; i++) ADD_ROW(i, 0);
#undef ADD_ROW
  for (int c = 0; c < nv; c++) {
    const ptrdiff_t lanes = partial && c == nv - 1 ? tail : VL;
    vec sum = (acc[0][c] + acc[1][c]) + (acc[2][c] + acc[3][c]);
    if (b) sum += vloadn(b + c * VL, lanes);
    vstoren(z + c * VL, sum, lanes);
  }
}

/* z = b + sum_i x[index[i]] W[index[i], :] over k terms; index NULL: 0, 1, 2, ...; b NULL: 0.
 * Where e is not NULL, each row is changed behind its use: W[i, :] += x[i] e.
 * x, index (k,), b, e (n,)  IN;  W (., n)  IN and OUT;  z (n,)  OUT */
INLINE void FN(sum_of_rows)(ptrdiff_t k, ptrdiff_t n, const REAL *x, const int32_t *index, REAL *w,
                            ptrdiff_t ldw, const REAL *b, const REAL *e, REAL *z) {
  ptrdiff_t j = 0;
  for (; j + 2 * VL <= n; j += 2 * VL)
    FN(sum_of_rows_panel)(2, 0, k, x, index, w + j, ldw, b ? b + j : NULL, e ? e + j : NULL, z + j,
                          VL);
  for (; j < n; j += VL)
    FN(sum_of_rows_panel)(1, 1, k, x, index, w + j, ldw, b ? b + j : NULL, e ? e + j : NULL, z + j,
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

/* w -= lr dw of layer l for the sample behind its D, which is dZ times -lr. */
INLINE void FN(add_gradient)(const fm_layer *layer, ptrdiff_t k, const REAL *input,
                             const int32_t *index) {
  const REAL *d = layer->D.data;
  FN(add_outer)(k, layer->W.cols, input, index, d, layer->W.data, layer->W.ld);
  FN(add_outer)(1, layer->W.cols, &(REAL){1}, NULL, d, layer->b, layer->W.cols);
}

/* The layers above the first. */
static void FN(add_upper_gradients)(const fm_net *net) {
  for (int l = 1; l < net->n_layers; l++)
    FN(add_gradient)(&net->layers[l], net->layers[l].W.rows, net->layers[l - 1].A.data, NULL);
}

/* Output, loss and dZ, times scale, of a sample; returns 1 where it was right. */
INLINE ptrdiff_t FN(output_of_sample)(const fm_net *net, const fm_targets *Y, double scale,
                                      double *loss) {
  const fm_layer *last = &net->layers[net->n_layers - 1];
  const ptrdiff_t n = last->W.cols;
  if (net->loss.fused && net->loss.code == FM_CROSS_ENTROPY && Y->labels && n <= VL &&
      *(const REAL *)net->loss.option == 0)
    return FN(softmax_cross_entropy_label)(n, last->Z.data, Y->labels[0], (REAL)scale, last->A.data,
                                           last->D.data, loss);
  fm_matrix A = FN(rows_of)(&last->A, 0, 1), Z = FN(rows_of)(&last->Z, 0, 1);
  fm_matrix D = FN(rows_of)(&last->D, 0, 1);
  FN(activation_forward)(last->activation, &Z, &A);
  FN(loss_forward)(&net->loss, &A, &Z, Y, loss);
  FN(loss_backward)(&net->loss, &A, &Z, Y, &scale, &D);
  return FN(count_correct)(&net->loss, &A, Y);
}

/* n steps on from run->steps, fewer where the sum of losses stops being finite. Uses row 0 of every
 * layer's Z, A, D; the first layer's Z must not be its A, which the sample behind still needs.
 * sums: weight times loss, weight, right ones  IN and OUT */
static void FN(sgd_samples)(const fm_net *net, const fm_data *data, fm_samples *run, ptrdiff_t n,
                            double sums[3]) {
  const fm_layer *first = &net->layers[0], *last = &net->layers[net->n_layers - 1];
  const ptrdiff_t k = data->n_features, stop = run->steps + n;
  const ptrdiff_t piece = k / net->n_layers / 16 * 16; /* of the next sample's, beside a layer */
  features slots[2] = {{.values = run->values[0], .list = run->lists[0]},
                       {.values = run->values[1], .list = run->lists[1]}};
  features *this = &slots[0], *next = &slots[1];
  const ptrdiff_t *order = run->order;
  ptrdiff_t t = run->steps;
  FN(read_features)(this, data, order[t], order[t + (t + 1 < run->n)], 0, k);
  for (int going = 0; t < stop; going = 1) {
    const ptrdiff_t sample = order[t], after = order[t + (t + 1 < run->n)];
    const ptrdiff_t ahead = order[t + 2 < run->n ? t + 2 : t];
    FN(sum_of_rows)(this->n_nonzero, first->W.cols, this->x, this->list, first->W.data, first->W.ld,
                    first->b, NULL, first->Z.data);
    if (going) FN(add_upper_gradients)(net); /* of the sample before */
    for (const fm_layer *layer = first; layer < last; layer++) {
      const ptrdiff_t start = (layer - first) * piece;
      fm_matrix Z = FN(rows_of)(&layer->Z, 0, 1), A = FN(rows_of)(&layer->A, 0, 1);
      FN(activation_forward)(layer->activation, &Z, &A);
      FN(read_features)(next, data, after, ahead, start, start + piece);
      FN(sum_of_rows)(layer[1].W.rows, layer[1].W.cols, A.data, NULL, layer[1].W.data,
                      layer[1].W.ld, layer[1].b, NULL, layer[1].Z.data);
    }

    const fm_targets Y = {data->labels ? data->labels + sample : NULL,
                          data->Y ? (const REAL *)data->Y + sample * data->ldy : NULL, data->ldy};
    const double weight = data->weight ? data->weight[sample] : 1;
    double loss;
    /* -lr here, and so in D of every layer below. */
    const double scale = weight > 0 ? -run->rates[t] * net->gradient_factor : 0;
    sums[2] += (double)FN(output_of_sample)(net, &Y, scale, &loss);
    FN(read_features)(next, data, after, ahead, (last - first) * piece, k);
    for (const fm_layer *layer = last; layer > first; layer--) {
      const fm_layer *below = layer - 1;
      fm_matrix Z = FN(rows_of)(&below->Z, 0, 1), A = FN(rows_of)(&below->A, 0, 1);
      fm_matrix D = FN(rows_of)(&below->D, 0, 1);
      FN(sum_of_rows)(layer->W.cols, layer->W.rows, layer->D.data, NULL, layer->WT.data,
                      layer->WT.ld, NULL, A.data, D.data);
      FN(activation_backward)(below->activation, &D, &Z, &A, &D);
    }
    FN(add_gradient)(first, this->n_nonzero, this->x, this->list);

    loss *= weight * net->loss_factor;
    sums[0] += loss;
    sums[1] += weight;
    run->losses[t] = weight > 0 ? loss / weight : loss;
    run->steps = ++t;
    if (!isfinite(sums[0])) break;
    features *done = this;
    this = next;
    next = done;
  }
  FN(add_upper_gradients)(net);
}
#undef features
