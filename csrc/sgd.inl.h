/* Plain stochastic gradient descent, sample by sample: forward, back, update.
 *
 * Samples are taken up in blocks of four, and the first layer's weights are read and written once a
 * block. What a sample k of it owes to those before is the product of the samples:
 *   x_k (W + sum_j x_j^T d_j) = x_k W + sum_j (x_k . x_j) d_j,  d = -lr dZ, j before k
 * which is one sample after the other, in another order of sums; the products are finite for
 * samples of lengths up to 1.8e19 in float32. Features that are 0 in a whole block are listed
 * nowhere: their rows of W are neither read nor written (61% of MNIST).
 *
 * In the layers above, one pass over the weights makes the change of the sample before and takes
 * the product; on the way back, one over their transposed copy takes the product and makes this
 * sample's change. Every product is a sum of rows, so there are no horizontal sums.
 *
 * A sample is a chain of short operations that wait for each other. The features of the next block
 * are read beside them, a piece at a time, in the order of the program: the processor looks some
 * hundred instructions ahead. Sums go through the activation in registers: a call and a trip
 * through memory for each layer, there and back, were 7% of the time. Vectors are whole: rows of
 * all matrices here are padded with zeros, and stay so while parameters are finite.
 */

/* The activation of all hidden layers, a constant of the code that follows, where it is one of
 * these, whose derivatives need A alone; else APART, and each layer's own is applied to rows. What
 * is long and does not depend on it is a function, or every form would have a copy. */
#define EACH_FUSED(M) M(FM_RELU, relu) M(FM_SIGMOID, sigmoid) M(FM_TANH, tanh)
enum { FN(APART) = -1 };

/* f(z), zeros from lane n on; z as it is where f is APART. */
INLINE vec FN(activated)(const int activation, vec z, ptrdiff_t n) {
#define CASE(code, name)                                                                           \
  if (activation == code) return vfill(FN(name##_forward)(z), n < VL ? n : VL, 0);
  EACH_FUSED(CASE)
#undef CASE
  return z;
}

/* dZ of d = dA and a = A. */
INLINE vec FN(differentiated)(const int activation, vec d, vec a) {
#define CASE(code, name)                                                                           \
  if (activation == code) return FN(name##_backward)(d, a, a);
  EACH_FUSED(CASE)
#undef CASE
  return d;
}

enum { FN(PAIRS) = FM_TOGETHER * (FM_TOGETHER - 1) / 2 };

/* Some samples' features. */
typedef struct {
  ptrdiff_t n;                    /* samples; places from n on repeat the first */
  ptrdiff_t row;                  /* where theirs begin in Z, A and D */
  const char *rows[FM_TOGETHER];  /* of the data */
  const char *ahead[FM_TOGETHER]; /* those of the block behind it */
  ptrdiff_t n_listed;             /* features that are not 0 in all of them, */
  int32_t *list;                  /* which ones, */
  REAL *x;                        /* (FM_TOGETHER, n_listed) and their values, */
  ptrdiff_t ldx;                  /* so far apart */
  REAL products[FN(PAIRS)];       /* x_k . x_j for k = 1, 2, ..., j < k */
} FN(block);
#define block FN(block)

/* Takes up the samples from order[start] on, before order[stop]; of `end` in all the block behind
 * may be. */
INLINE void FN(open_block)(block *these, const fm_data *data, const ptrdiff_t *order,
                           ptrdiff_t start, ptrdiff_t stop, ptrdiff_t end) {
  const ptrdiff_t bytes = data->ldx * (data->is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL));
  const ptrdiff_t last = end - 1;
  these->n = stop - start < FM_TOGETHER ? stop - start : FM_TOGETHER;
  these->n_listed = 0;
  for (ptrdiff_t r = 0; r < FM_TOGETHER; r++) {
    const ptrdiff_t at = start + (r < these->n ? r : 0), later = start + FM_TOGETHER + r;
    const ptrdiff_t sample = order[at < last ? at : last];
    these->rows[r] = (const char *)data->X + sample * bytes;
    these->ahead[r] = (const char *)data->X + order[later < last ? later : last] * bytes;
    /* In a random order these come from memory too. */
    if (data->labels) __builtin_prefetch(data->labels + sample);
    if (data->Y) __builtin_prefetch((const REAL *)data->Y + sample * data->ldy);
    if (data->weight) __builtin_prefetch(data->weight + sample);
  }
}

/* n features from j on. */
INLINE vec FN(load_features)(const int is_uint8, const char *row, ptrdiff_t j, ptrdiff_t n) {
  if (!is_uint8) return n < VL ? vloadn((const REAL *)row + j, n) : vload((const REAL *)row + j);
  uint8_t some[VL] = {0};
  if (n < VL) memcpy(some, row + j, (size_t)n);
  return vbytes(n < VL ? some : (const uint8_t *)row + j) * (REAL)(1.0 / 255);
}

/* Takes in up to a vector of features from j on. */
INLINE void FN(read_vector)(const int is_uint8, block *these, ptrdiff_t j, ptrdiff_t n) {
  vec x[FM_TOGETHER];
  unsigned listed = 0;
#pragma GCC unroll 4
  for (int r = 0; r < FM_TOGETHER; r++) {
    x[r] = FN(load_features)(is_uint8, these->rows[r], j, n);
    listed |= vnonzero(x[r]);
  }
  int32_t *list = these->list + these->n_listed;
  REAL *values = these->x + these->n_listed;
#ifdef FM_LISTED
  /* Packed in a register: a compressing store is microcoded on Zen 4. */
  vlist(listed, j, list);
#pragma GCC unroll 4
  for (int r = 0; r < FM_TOGETHER; r++) vstore(values + r * these->ldx, vcompress(listed, x[r]));
  these->n_listed += __builtin_popcount(listed);
#else
  ptrdiff_t count = 0;
  for (ptrdiff_t lane = 0; lane < VL; lane++) {
    list[count] = (int32_t)(j + lane);
    for (int r = 0; r < FM_TOGETHER; r++) values[r * these->ldx + count] = x[r][lane];
    count += listed >> lane & 1;
  }
  these->n_listed += count;
#endif
}

/* Takes in the features from `start`, a multiple of 16, to `stop`. On the way it asks for those of
 * the block behind, which in a random order come from memory: all at once the requests would keep
 * the loads behind them waiting (47 ms an epoch of MNIST against 37). */
INLINE void FN(read_features_as)(const int is_uint8, block *these, ptrdiff_t start,
                                 ptrdiff_t stop) {
  const ptrdiff_t size = is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL);
  ptrdiff_t j = start;
  for (; j + VL <= stop; j += VL) {
    if (j * size % 64 == 0)
#pragma GCC unroll 4
      for (int r = 0; r < FM_TOGETHER; r++) __builtin_prefetch(these->ahead[r] + j * size);
    FN(read_vector)(is_uint8, these, j, VL);
  }
  if (j < stop) FN(read_vector)(is_uint8, these, j, stop - j);
}

NOINLINE void FN(read_features)(block *these, const fm_data *data, ptrdiff_t start,
                                ptrdiff_t stop) {
  if (these->n <= 0) return;
  if (data->is_uint8)
    FN(read_features_as)(1, these, start, stop);
  else
    FN(read_features_as)(0, these, start, stop);
}

/* Products of the block's samples, from features that are listed: those that are not cannot change
 * a bit of them. */
NOINLINE void FN(multiply_samples)(block *these) {
  vec products[FN(PAIRS)] = {{0}};
  for (ptrdiff_t i = 0; i < these->n_listed; i += VL) {
    const ptrdiff_t left = these->n_listed - i;
    vec x[FM_TOGETHER];
#pragma GCC unroll 4
    for (int r = 0; r < FM_TOGETHER; r++) {
      const REAL *values = these->x + r * these->ldx + i;
      x[r] = left < VL ? vloadn(values, left) : vload(values);
    }
    int pair = 0;
#pragma GCC unroll 4
    for (int k = 1; k < FM_TOGETHER; k++)
#pragma GCC unroll 4
      for (int j = 0; j < k; j++, pair++) products[pair] = vfma(x[k], x[j], products[pair]);
  }
  for (int pair = 0; pair < FN(PAIRS); pair++) these->products[pair] = vsum(products[pair]);
}

/* Z = b + X W for the block's samples, nv vectors of columns.  Z (FM_TOGETHER, .)  OUT */
INLINE void FN(block_forward_panel)(const int nv, const block *these, const REAL *restrict w,
                                    ptrdiff_t ldw, const REAL *b, REAL *z, ptrdiff_t ldz) {
  vec acc[FM_TOGETHER][2];
  for (int c = 0; c < nv; c++)
    for (int r = 0; r < FM_TOGETHER; r++) acc[r][c] = vload(b + c * VL);
  const int32_t *restrict list = these->list;
  const REAL *restrict x = these->x;
  for (ptrdiff_t i = 0; i < these->n_listed; i++) {
    const REAL *row = w + list[i] * ldw;
    vec weights[2];
    for (int c = 0; c < nv; c++) weights[c] = vload(row + c * VL);
#pragma GCC unroll 4
    for (int r = 0; r < FM_TOGETHER; r++) {
      const vec value = vset1(x[r * these->ldx + i]);
      for (int c = 0; c < nv; c++) acc[r][c] = vfma(value, weights[c], acc[r][c]);
    }
  }
  for (int c = 0; c < nv; c++)
    for (int r = 0; r < FM_TOGETHER; r++) vstore(z + r * ldz + c * VL, acc[r][c]);
}

/* W += X^T D and b += sum of D for the block's samples, nv vectors of columns. */
INLINE void FN(block_update_panel)(const int nv, const block *these, const REAL *d, ptrdiff_t ldd,
                                   REAL *restrict w, ptrdiff_t ldw, REAL *b) {
  vec step[FM_TOGETHER][2];
  for (int c = 0; c < nv; c++) {
    vec bias = vload(b + c * VL);
    for (int r = 0; r < FM_TOGETHER; r++) {
      step[r][c] = vload(d + r * ldd + c * VL);
      bias += step[r][c];
    }
    vstore(b + c * VL, bias);
  }
  const int32_t *restrict list = these->list;
  const REAL *restrict x = these->x;
  for (ptrdiff_t i = 0; i < these->n_listed; i++) {
    REAL *row = w + list[i] * ldw;
    vec weights[2];
    for (int c = 0; c < nv; c++) weights[c] = vload(row + c * VL);
#pragma GCC unroll 4
    for (int r = 0; r < FM_TOGETHER; r++) {
      const vec value = vset1(x[r * these->ldx + i]);
      for (int c = 0; c < nv; c++) weights[c] = vfma(value, step[r][c], weights[c]);
    }
    for (int c = 0; c < nv; c++) vstore(row + c * VL, weights[c]);
  }
}

INLINE REAL *FN(row_at)(const fm_matrix *M, ptrdiff_t row) { return (REAL *)M->data + row * M->ld; }

/* The first layer's Z for the block's samples, from W as it is. */
NOINLINE void FN(block_forward)(const fm_layer *layer, const block *these) {
  const REAL *w = layer->W.data, *b = layer->b;
  REAL *z = FN(row_at)(&layer->Z, these->row);
  ptrdiff_t j = 0;
  for (; j + VL < layer->W.cols; j += 2 * VL)
    FN(block_forward_panel)(2, these, w + j, layer->W.ld, b + j, z + j, layer->Z.ld);
  if (j < layer->W.cols)
    FN(block_forward_panel)(1, these, w + j, layer->W.ld, b + j, z + j, layer->Z.ld);
}

/* The first layer's W and b behind all of the block's samples. */
NOINLINE void FN(block_update)(const fm_layer *layer, const block *these) {
  const REAL *d = FN(row_at)(&layer->D, these->row);
  REAL *w = layer->W.data, *b = layer->b;
  ptrdiff_t j = 0;
  for (; j + VL < layer->W.cols; j += 2 * VL)
    FN(block_update_panel)(2, these, d + j, layer->D.ld, w + j, layer->W.ld, b + j);
  if (j < layer->W.cols)
    FN(block_update_panel)(1, these, d + j, layer->D.ld, w + j, layer->W.ld, b + j);
}

/* Z of sample k owes to the samples before: z_k += sum_j (1 + x_k . x_j) d_j; the 1 is the bias.
 * A from it, unless its activation is APART. */
INLINE void FN(catch_up)(const int activation, const fm_layer *layer, const block *these,
                         ptrdiff_t k) {
  REAL *z = FN(row_at)(&layer->Z, these->row + k);
  REAL *out = activation == FN(APART) ? z : FN(row_at)(&layer->A, these->row + k);
  const REAL *products = these->products + k * (k - 1) / 2, *d = FN(row_at)(&layer->D, these->row);
  for (ptrdiff_t j = 0; j < layer->W.cols; j += VL) {
    vec sum = vload(z + j);
    for (ptrdiff_t i = 0; i < k; i++)
      sum = vfma(vset1(1 + products[i]), vload(d + i * layer->D.ld + j), sum);
    vstore(out + j, FN(activated)(activation, sum, layer->W.cols - j));
  }
}

/* One pass over W (k, n), nv vectors of columns of renewed_product or product_and_renewal. Four
 * chains of sums, i mod 4, for the latency of a multiply-add. A changed row is stored before it is
 * summed, or GCC would load it twice. */
INLINE void FN(pass_over_rows)(const int activation, const int nv, const int renew_first,
                               ptrdiff_t k, ptrdiff_t n, const REAL *restrict x,
                               const REAL *restrict before, const REAL *restrict step,
                               REAL *restrict w, ptrdiff_t ldw, REAL *restrict b,
                               REAL *restrict out) {
  vec acc[4][2] = {{{0}}}, change[2];
  for (int c = 0; c < nv; c++) {
    change[c] = vload(step + c * VL);
    if (renew_first) vstore(b + c * VL, acc[0][c] = vload(b + c * VL) + change[c]);
  }
#define TAKE_ROW(i, chain)                                                                         \
  do {                                                                                             \
    const vec value = vset1(x[i]), factor = renew_first ? vset1(before[i]) : value;                \
    for (int c = 0; c < nv; c++) {                                                                 \
      REAL *row = w + (i) * ldw + c * VL;                                                          \
      const vec old = vload(row), renewed = vfma(factor, change[c], old);                          \
      vstore(row, renewed);                                                                        \
      acc[chain][c] = vfma(value, renew_first ? renewed : old, acc[chain][c]);                     \
    }                                                                                              \
  } while (0)
  ptrdiff_t i = 0;
  for (; i + 4 <= k; i += 4)
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; chain++) TAKE_ROW(i + chain, chain);
  for (; i < k; i++) TAKE_ROW(i, 0);
#undef TAKE_ROW
  for (int c = 0; c < nv; c++) {
    const vec sum = (acc[0][c] + acc[1][c]) + (acc[2][c] + acc[3][c]);
    vstore(out + c * VL, renew_first ? FN(activated)(activation, sum, n - c * VL)
                                     : FN(differentiated)(activation, sum, change[c]));
  }
}

/* Forward to sample r: W += a^T d, b += d of the sample before; then Z = b + A W, or f(Z) where the
 * activation is not APART.
 * below's A (., k), layer's D (., n)  IN;  W (k, n), b (n,)  IN and OUT;  Z or A (., n)  OUT */
INLINE void FN(renewed_product)(const int activation, const fm_layer *layer, const fm_layer *below,
                                ptrdiff_t before, ptrdiff_t r) {
  const ptrdiff_t k = layer->W.rows, n = layer->W.cols, ldw = layer->W.ld;
  const REAL *a = FN(row_at)(&below->A, r), *a_before = FN(row_at)(&below->A, before);
  const REAL *d = FN(row_at)(&layer->D, before);
  REAL *w = layer->W.data, *b = layer->b;
  REAL *out = FN(row_at)(activation == FN(APART) ? &layer->Z : &layer->A, r);
  ptrdiff_t j = 0;
  for (; j + VL < n; j += 2 * VL)
    FN(pass_over_rows)(activation, 2, 1, k, n - j, a, a_before, d + j, w + j, ldw, b + j, out + j);
  if (j < n)
    FN(pass_over_rows)(activation, 1, 1, k, n - j, a, a_before, d + j, w + j, ldw, b + j, out + j);
}

/* Back from sample r: D below = D W^T, times f'(A) where the activation is not APART; then
 * W^T += d^T a.
 * layer's D (., n), below's A (., k)  IN;  WT (n, k)  IN and OUT;  below's D (., k)  OUT */
INLINE void FN(product_and_renewal)(const int activation, const fm_layer *layer,
                                    const fm_layer *below, ptrdiff_t r) {
  const ptrdiff_t k = layer->WT.cols, n = layer->WT.rows, ldw = layer->WT.ld;
  const REAL *d = FN(row_at)(&layer->D, r), *a = FN(row_at)(&below->A, r);
  REAL *w = layer->WT.data, *out = FN(row_at)(&below->D, r);
  ptrdiff_t j = 0;
  for (; j + VL < k; j += 2 * VL)
    FN(pass_over_rows)(activation, 2, 0, n, k - j, d, NULL, a + j, w + j, ldw, NULL, out + j);
  if (j < k)
    FN(pass_over_rows)(activation, 1, 0, n, k - j, d, NULL, a + j, w + j, ldw, NULL, out + j);
}

/* W += A^T D, b += D of sample r, for a layer above the first. */
INLINE void FN(renew)(const fm_layer *layer, const fm_layer *below, ptrdiff_t r) {
  const REAL *a = FN(row_at)(&below->A, r), *d = FN(row_at)(&layer->D, r);
  REAL *b = layer->b;
  for (ptrdiff_t j = 0; j < layer->W.cols; j += VL) {
    const vec step = vload(d + j);
    for (ptrdiff_t i = 0; i < layer->W.rows; i++) {
      REAL *w = FN(row_at)(&layer->W, i) + j;
      vstore(w, vfma(vset1(a[i]), step, vload(w)));
    }
    vstore(b + j, vload(b + j) + step);
  }
}

/* Behind an epoch that diverged: infinity times 0 is NaN. */
INLINE void FN(clear_padding)(const fm_matrix *M) {
  for (ptrdiff_t i = 0; i < M->rows; i++)
    memset(FN(row_at)(M, i) + M->cols, 0, (size_t)(M->ld - M->cols) * sizeof(REAL));
}

/* Output, loss and dZ, times scale, of sample r; returns 1 where it was right. */
INLINE ptrdiff_t FN(output_of_sample)(const fm_net *net, ptrdiff_t r, const fm_targets *Y,
                                      double scale, double *loss) {
  const fm_layer *last = &net->layers[net->n_layers - 1];
  const ptrdiff_t n = last->W.cols;
  fm_matrix A = FN(rows_of)(&last->A, r, r + 1), Z = FN(rows_of)(&last->Z, r, r + 1);
  fm_matrix D = FN(rows_of)(&last->D, r, r + 1);
  if (FN(is_of_labels)(&net->loss, Y) && n <= VL)
    return FN(softmax_cross_entropy_label)(n, Z.data, Y->labels[0], (REAL)scale, A.data, D.data,
                                           loss);
  FN(activation_forward)(last->activation, &Z, &A);
  FN(loss_forward)(&net->loss, &A, &Z, Y, loss);
  FN(loss_backward)(&net->loss, &A, &Z, Y, &scale, &D);
  return FN(count_correct)(&net->loss, &A, Y);
}

/* n steps on from run->steps, fewer where the sum of losses stops being finite. Every layer's Z, A
 * and D have 2 FM_TOGETHER rows, by turns for one block and the next.
 * sums: weight times loss, weight, right ones  IN and OUT */
INLINE void FN(sgd_samples_as)(const int activation, const fm_net *net, const fm_data *data,
                               fm_samples *run, ptrdiff_t n, double sums[3]) {
  const fm_layer *first = &net->layers[0], *last = &net->layers[net->n_layers - 1];
  const ptrdiff_t k = data->n_features, stop = run->steps + n, *order = run->order;
  /* Of the next block's features, beside a layer. */
  const ptrdiff_t piece = k / (FM_TOGETHER * net->n_layers) / 16 * 16;
  block slots[2];
  for (int i = 0; i < 2; i++)
    slots[i] =
        (block){.row = i * FM_TOGETHER, .list = run->lists[i], .x = run->values[i], .ldx = k + 16};
  block *these = &slots[0], *next = &slots[1];
  ptrdiff_t t = run->steps;
  /* The sample before the first one changes nothing. */
  ptrdiff_t before = 2 * FM_TOGETHER - 1;
  for (const fm_layer *layer = first; layer <= last; layer++) {
    memset(FN(row_at)(&layer->A, before), 0, (size_t)layer->A.ld * sizeof(REAL));
    memset(FN(row_at)(&layer->D, before), 0, (size_t)layer->D.ld * sizeof(REAL));
    if (layer > first) FN(clear_padding)(&layer->WT);
  }
  FN(open_block)(these, data, order, t, stop, run->n);
  FN(read_features)(these, data, 0, k);
  while (t < stop && isfinite(sums[0])) {
    FN(open_block)(next, data, order, t + these->n, stop, run->n);
    FN(multiply_samples)(these);
    FN(block_forward)(first, these);
    ptrdiff_t taken = 0, i = 0; /* features of the next block; samples of this one */
    for (; i < these->n && isfinite(sums[0]); i++) {
      const ptrdiff_t r = these->row + i, sample = order[t];
      FN(catch_up)(activation, first, these, i);
      for (const fm_layer *layer = first; layer < last; layer++, taken += piece) {
        const fm_layer *above = layer + 1;
        if (activation == FN(APART)) {
          fm_matrix Z = FN(rows_of)(&layer->Z, r, r + 1), A = FN(rows_of)(&layer->A, r, r + 1);
          FN(activation_forward)(layer->activation, &Z, &A);
        }
        FN(read_features)(next, data, taken, taken + piece);
        if (above < last)
          FN(renewed_product)(activation, above, layer, before, r);
        else
          FN(renewed_product)(FN(APART), above, layer, before, r);
      }

      const fm_targets Y = {data->labels ? data->labels + sample : NULL,
                            data->Y ? (const REAL *)data->Y + sample * data->ldy : NULL, data->ldy};
      const double weight = data->weight ? data->weight[sample] : 1;
      double loss;
      /* -lr here, and so in D of every layer below. */
      const double scale = weight > 0 ? -run->rates[t] * net->gradient_factor : 0;
      sums[2] += (double)FN(output_of_sample)(net, r, &Y, scale, &loss);
      const ptrdiff_t end = i + 1 < these->n ? taken + piece : k;
      FN(read_features)(next, data, taken, end);
      taken = end;
      for (const fm_layer *layer = last; layer > first; layer--) {
        const fm_layer *below = layer - 1;
        FN(product_and_renewal)(activation, layer, below, r);
        if (activation == FN(APART)) {
          fm_matrix Z = FN(rows_of)(&below->Z, r, r + 1), A = FN(rows_of)(&below->A, r, r + 1);
          fm_matrix D = FN(rows_of)(&below->D, r, r + 1);
          FN(activation_backward)(below->activation, &D, &Z, &A, &D);
        }
      }
      before = r;
      loss *= weight * net->loss_factor;
      sums[0] += loss;
      sums[1] += weight;
      run->losses[t] = weight > 0 ? loss / weight : loss;
      run->steps = ++t;
    }
    /* Those that were not taken change nothing. */
    for (; i < FM_TOGETHER; i++)
      memset(FN(row_at)(&first->D, these->row + i), 0, (size_t)first->D.cols * sizeof(REAL));
    FN(block_update)(first, these);
    block *done = these;
    these = next;
    next = done;
  }
  for (const fm_layer *layer = last; layer > first; layer--) FN(renew)(layer, layer - 1, before);
}

/* The same, whatever the activations. */
static void FN(sgd_samples)(const fm_net *net, const fm_data *data, fm_samples *run, ptrdiff_t n,
                            double sums[3]) {
  const fm_layer *first = net->layers, *last = &net->layers[net->n_layers - 1];
  int activation = first < last ? first->activation : FN(APART);
  for (const fm_layer *layer = first; layer < last; layer++)
    if (layer->activation != activation) activation = FN(APART);
#define CASE(code, name)                                                                           \
  if (activation == code)                                                                          \
    FN(sgd_samples_as)(code, net, data, run, n, sums);                                             \
  else
  EACH_FUSED(CASE)
  FN(sgd_samples_as)(FN(APART), net, data, run, n, sums);
#undef CASE
}
#undef EACH_FUSED
#undef block
