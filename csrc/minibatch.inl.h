/* One step of minibatch training, in two phases with a barrier between them and one behind. (With
 * batch norms the first phase has several stages, see n_stages.) This is the first phase, and
 * predictions; updates.inl.h has the second.
 *
 * batch_rows: a thread takes its own rows of the batch all the way, forward to the loss and back to
 * every dZ; no thread waits for another between layers. update_weights: a thread takes its own rows
 * of each weight matrix; the gradient of a tile's rows is put together and given to the optimizer
 * while it is near, and is never stored as a whole. Every sum has one order, so the bits do not
 * depend on how many threads share the work.
 *
 * A wide first layer is most of the net, and in every step its weights would go from the thread
 * that changes them to all that read them. So its inputs are two slices. Their products are made
 * before, by batch_slices with a barrier behind, and added up in batch_rows: of two threads each
 * reads, and changes, the weights of its own slice alone. There are two slices whatever the number
 * of threads, for the bits' sake.
 */

/* X[r] = data[index[r]], pixels divided by 255. index NULL: rows 0, 1, 2, ...
 * X (n, n_features)  OUT */
enum { FN(AHEAD) = 6 };

static void FN(gather)(const fm_data *data, const ptrdiff_t *index, ptrdiff_t n, fm_matrix *X) {
  const ptrdiff_t k = X->cols, size = data->is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL);
  for (ptrdiff_t r = 0; r < n; r++) {
    const ptrdiff_t row = index ? index[r] : r;
    REAL *restrict x = (REAL *)X->data + r * X->ld;
    /* In a random order rows come from memory: ask for them ahead of time. Into the L2 cache, of
     * which more requests can be under way: 784-32-32-10, batch 32, an epoch 11% less on Zen 4. */
    if (index && r + FN(AHEAD) < n) {
      const char *next = (const char *)data->X + index[r + FN(AHEAD)] * data->ldx * size;
      for (ptrdiff_t i = 0; i < k * size; i += 64) __builtin_prefetch(next + i, 0, 2);
    }
    if (data->is_uint8) {
      const uint8_t *restrict pixels = (const uint8_t *)data->X + row * data->ldx;
      for (ptrdiff_t j = 0; j < k; j++) x[j] = (REAL)pixels[j] * (REAL)(1.0 / 255);
    } else if (k <= VL) {
      vstoren(x, vloadn((const REAL *)data->X + row * data->ldx, k), k);
    } else {
      memcpy(x, (const REAL *)data->X + row * data->ldx, (size_t)k * sizeof(REAL));
    }
  }
}

INLINE fm_bits FN(bits_from)(fm_bits bits, ptrdiff_t start) {
  return (fm_bits){bits.data ? bits.data + start * bits.ld : NULL, bits.ld};
}

/* Whether zeros of layer l's outputs are looked for: there are many behind relu and dropout, and
 * the next layer's products can leave them out. */
INLINE int FN(finds_zeros)(const fm_net *net, int l) {
  const fm_layer *layer = &net->layers[l], *next = layer + 1;
  return l < net->n_layers - 1 && (layer->activation == FM_RELU || layer->kind == FM_DROPOUT) &&
         next->kind == FM_DENSE && FN(in_pairs)(next->W.cols);
}

/* The bits of layer l's inputs in training: those of the layer below, or of the batch's slice. */
INLINE fm_bits FN(input_bits)(const fm_net *net, int l, const fm_batch *batch, int slice) {
  if (l && FN(finds_zeros)(net, l - 1)) return net->layers[l - 1].nonzero;
  while (l && net->layers[l - 1].kind == FM_DROPOUT) l--; /* what is left of the inputs */
  return l ? (fm_bits){0} : batch->nonzero[slice];
}

/* Z of layer l from its inputs X, for rows of the batch from `start` on.
 * batch: NULL for a prediction. nonzero: bits of X; scratch: for lists. */
INLINE void FN(forward_layer)(const fm_net *net, int l, const fm_batch *batch, ptrdiff_t start,
                              const fm_matrix *X, fm_matrix *Z, fm_bits nonzero, int32_t *scratch) {
  const fm_layer *layer = &net->layers[l];
  if (layer->kind == FM_DENSE) {
    if (nonzero.data)
      FN(sparse_affine_forward)(X, nonzero, &layer->W, layer->b, batch && l > 0, Z, scratch);
    else
      FN(affine_forward)(X, &layer->W, layer->b, Z);
  } else {
    fm_matrix H = batch ? FN(rows_of)(&layer->H, start, start + X->rows) : *Z;
    if (layer->kind == FM_DROPOUT)
      FN(dropout_forward)(layer, batch->seed, (uint32_t)l, batch->first + (uint64_t)start, X, &H,
                          Z);
    else if (layer->kind == FM_LAYER_NORM)
      FN(layer_norm_forward)(layer, X, &H, batch ? (REAL *)layer->inverse + start : NULL, Z);
    else if (batch)
      FN(batch_norm_forward)(layer, layer->mean, layer->inverse, X, &H, Z);
    else
      FN(batch_norm_predict)(layer, X, Z);
  }
}

/* The bits of X.  X (m, k)  IN;  bits (m, k)  OUT */
INLINE void FN(find_zeros)(const fm_matrix *X, fm_bits bits) {
  for (ptrdiff_t r = 0; r < X->rows; r++)
    FN(nonzero_bits)(X->cols, (const REAL *)X->data + r * X->ld, bits.data + r * bits.ld);
}

/* A of layer l from its Z, for rows of the batch from `start` on, and A's bits. */
INLINE void FN(activate_rows)(const fm_net *net, int l, ptrdiff_t start, const fm_matrix *Z,
                              fm_matrix *A) {
  const fm_layer *layer = &net->layers[l];
  FN(activation_forward)(layer->activation, Z, A);
  if (layer->nonzero.data && FN(finds_zeros)(net, l))
    FN(find_zeros)(A, FN(bits_from)(layer->nonzero, start));
}

/* Rows [start, stop) of the batch through layers [first, last), into the same rows of every Z and
 * A; but not the A of the output, which belongs to the loss. */
INLINE void FN(forward_rows)(const fm_net *net, int first, int last, const fm_batch *batch,
                             ptrdiff_t start, ptrdiff_t stop, int32_t *scratch) {
  fm_matrix input = FN(rows_of)(first ? &net->layers[first - 1].A : &batch->X[0], start, stop);
  for (int l = first; l < last; l++) {
    const fm_layer *layer = &net->layers[l];
    fm_matrix Z = FN(rows_of)(&layer->Z, start, stop), A = FN(rows_of)(&layer->A, start, stop);
    const fm_bits nonzero = FN(bits_from)(FN(input_bits)(net, l, batch, 0), start);
    FN(forward_layer)(net, l, batch, start, &input, &Z, nonzero, scratch);
    if (l < net->n_layers - 1) FN(activate_rows)(net, l, start, &Z, &A);
    input = A;
  }
}

/* The most inputs of any layer. */
INLINE ptrdiff_t FN(widest)(const fm_net *net, ptrdiff_t n_features) {
  ptrdiff_t widest = n_features;
  for (int l = 0; l < net->n_layers - 1; l++)
    if (net->layers[l].W.cols > widest) widest = net->layers[l].W.cols;
  return widest;
}

/* Bytes of scratch with which net_forward takes n rows. */
static size_t FN(forward_scratch_size)(const fm_net *net, ptrdiff_t n, ptrdiff_t n_features) {
  const ptrdiff_t widest = FN(widest)(net, n_features);
  return (size_t)(FN(list_ld)(widest) * (ptrdiff_t)sizeof(int32_t) + n * FN(bits_ld)(widest));
}

/* Whether numbers are finite: infinity and NaN times 0 are NaN. Four chains of sums.  x (k,)  IN */
INLINE int FN(all_finite)(ptrdiff_t k, const REAL *x) {
  vec sum[4] = {{0}};
  ptrdiff_t j = 0;
  for (; j + 4 * VL <= k; j += 4 * VL)
    for (int c = 0; c < 4; c++) sum[c] = vfma(vload(x + j + c * VL), (vec){0}, sum[c]);
  for (; j < k; j += VL)
    sum[0] = vfma(k - j < VL ? vloadn(x + j, k - j) : vload(x + j), (vec){0}, sum[0]);
  return vsum((sum[0] + sum[1]) + (sum[2] + sum[3])) == 0;
}

/* The rows of X, at most FN(BLOCK), through all layers; zeros are left out of the products. One row
 * alone reads a weight for a single product: there they are looked for in every layer's inputs (an
 * MNIST row through 784-1024-1024-10 takes 25 us and not 47). Returns whether X is finite.
 * X (n, n_features)  IN;  every layer's Z, A (n, n_out)  OUT */
static int FN(net_forward)(const fm_net *net, const fm_matrix *X, void *scratch) {
  const ptrdiff_t widest = FN(widest)(net, X->cols);
  const fm_bits bits = {(uint8_t *)((int32_t *)scratch + FN(list_ld)(widest)), FN(bits_ld)(widest)};
  int finite = 1;
  for (ptrdiff_t r = 0; r < X->rows; r++) { /* both at once, while the row is near */
    const REAL *x = (const REAL *)X->data + r * X->ld;
    FN(nonzero_bits)(X->cols, x, bits.data + r * bits.ld);
    finite &= FN(all_finite)(X->cols, x);
  }
  fm_matrix input = *X;
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    fm_matrix Z = FN(rows_of)(&layer->Z, 0, X->rows), A = FN(rows_of)(&layer->A, 0, X->rows);
    const int looks = l == 0 || X->rows == 1 || FN(finds_zeros)(net, l - 1);
    if (l && looks) FN(find_zeros)(&input, bits);
    FN(forward_layer)(net, l, NULL, 0, &input, &Z, looks ? bits : (fm_bits){0}, scratch);
    FN(activation_forward)(layer->activation, &Z, &A);
    input = A;
  }
  return finite;
}

/* dX of one layer from its dZ, for rows of the batch from `start` on. */
INLINE void FN(backward_layer)(const fm_layer *layer, const fm_batch *batch, ptrdiff_t start,
                               const fm_matrix *dZ, fm_matrix *dX, void *scratch) {
  if (layer->kind == FM_DENSE) {
    FN(affine_backward_inputs)(dZ, &layer->W, dX, start, batch->n, scratch);
    return;
  }
  const fm_matrix H = FN(rows_of)(&layer->H, start, start + dZ->rows);
  if (layer->kind == FM_DROPOUT)
    FN(multiply_rows)(dZ, &H, dX);
  else if (layer->kind == FM_LAYER_NORM)
    FN(layer_norm_backward)(layer, &H, (const REAL *)layer->inverse + start, dZ, dX);
  else
    FN(batch_norm_backward)(layer, batch->n, &H, dZ, dX);
}

/* From the dZ of layer `top` down to that of layer `bottom`, rows [start, stop). */
static void FN(backward_rows)(const fm_net *net, const fm_batch *batch, int top, int bottom,
                              ptrdiff_t start, ptrdiff_t stop, void *scratch) {
  fm_matrix D = FN(rows_of)(&net->layers[top].D, start, stop);
  for (int l = top; l > bottom; l--) {
    const fm_layer *below = &net->layers[l - 1];
    fm_matrix dA = FN(rows_of)(&below->D, start, stop);
    FN(backward_layer)(&net->layers[l], batch, start, &D, &dA, scratch);
    const fm_matrix A = FN(rows_of)(&below->A, start, stop);
    const fm_matrix Z = FN(rows_of)(&below->Z, start, stop);
    FN(activation_backward)(below->activation, &dA, &Z, &A, &dA);
    D = dA;
  }
}

/* The layer at which a segment begins: layer 0, or a batch norm, which needs all of the batch's
 * inputs; n_layers behind the last segment. */
INLINE int FN(segment_start)(const fm_net *net, int segment) {
  int l = 0;
  for (; segment > 0 && l < net->n_layers; l++)
    if (net->layers[l].kind == FM_BATCH_NORM && --segment == 0) break;
  return l;
}

/* Stages of the first phase: each segment forward, the last one with the loss and back, the others
 * back. */
static int FN(n_stages)(const fm_net *net) {
  int n_norms = 0;
  for (int l = 0; l < net->n_layers; l++) n_norms += net->layers[l].kind == FM_BATCH_NORM;
  return 2 * n_norms + 1;
}

/* Between stage `stage` and the next: what that one needs of the whole batch, part `part` of
 * `n_parts` of the columns. */
static void FN(batch_statistics)(const fm_net *net, const fm_batch *batch, int stage, int part,
                                 int n_parts) {
  const int n_norms = FN(n_stages)(net) / 2, forward = stage < n_norms;
  const int l = FN(segment_start)(net, forward ? stage + 1 : 2 * n_norms - stage);
  const fm_layer *layer = &net->layers[l];
  const ptrdiff_t n = layer->W.cols, vectors = (n + VL - 1) / VL;
  const ptrdiff_t start = vectors * part / n_parts * VL;
  const ptrdiff_t stop = vectors * (part + 1) / n_parts * VL, end = stop < n ? stop : n;
  if (forward) {
    const fm_matrix X = FN(rows_of)(l ? &net->layers[l - 1].A : &batch->X[0], 0, batch->n);
    FN(batch_moments)(layer, &X, start, end);
  } else {
    const fm_matrix H = FN(rows_of)(&layer->H, 0, batch->n);
    const fm_matrix D = FN(rows_of)(&layer->D, 0, batch->n);
    FN(norm_gradients)(&H, &D, start, end, layer->gains, layer->shifts);
  }
}

/* Targets and weights of n samples of the batch from `row` on.  labels, scale (n,)  OUT */
INLINE fm_targets FN(gather_targets)(const fm_data *data, fm_batch *batch, ptrdiff_t row,
                                     ptrdiff_t n, ptrdiff_t n_outputs, int64_t *labels,
                                     double *scale) {
  const ptrdiff_t *index = batch->index + row;
  REAL *targets = data->labels ? NULL : (REAL *)batch->Y.data + row * batch->Y.ld;
  for (ptrdiff_t r = 0; r < n; r++) {
    scale[r] = data->weight ? data->weight[index[r]] : 1.0;
    if (data->labels)
      labels[r] = data->labels[index[r]];
    else
      memcpy(targets + r * batch->Y.ld, (const REAL *)data->Y + index[r] * data->ldy,
             (size_t)n_outputs * sizeof(REAL));
  }
  return (fm_targets){data->labels ? labels : NULL, targets, batch->Y.ld};
}

INLINE int FN(is_sliced)(const fm_batch *batch) { return batch->X[1].cols > 0; }

/* The feature at which a slice begins. */
INLINE ptrdiff_t FN(slice_start)(const fm_batch *batch, int slice) {
  return slice ? batch->X[0].cols : 0;
}

/* Rows [start, stop) of a slice of the batch, and the bits of what is not 0. */
INLINE void FN(gather_rows)(const fm_data *data, fm_batch *batch, int slice, ptrdiff_t start,
                            ptrdiff_t stop) {
  fm_matrix X = FN(rows_of)(&batch->X[slice], start, stop);
  fm_data own = *data;
  own.X = (const char *)data->X +
          FN(slice_start)(batch, slice) * (data->is_uint8 ? 1 : (ptrdiff_t)sizeof(REAL));
  FN(gather)(&own, batch->index + start, X.rows, &X);
  if (batch->nonzero[slice].data) FN(find_zeros)(&X, FN(bits_from)(batch->nonzero[slice], start));
}

/* Before the first phase, where there are slices: gathers the batch; slice 0's product goes into
 * the first layer's Z, slice 1's into its D. The threads share slice 0's rows and then slice 1's as
 * one range. */
static void FN(batch_slices)(const fm_net *net, const fm_data *data, fm_batch *batch, int part,
                             int n_parts, void *scratch) {
  const fm_layer *layer = &net->layers[0];
  const ptrdiff_t n = batch->n, first = 2 * n * part / n_parts, end = 2 * n * (part + 1) / n_parts;
  for (int slice = 0; slice < 2; slice++) {
    const ptrdiff_t start = first > slice * n ? first - slice * n : 0;
    const ptrdiff_t stop = end - slice * n < n ? end - slice * n : n;
    for (ptrdiff_t row = start; row < stop; row += FN(BLOCK)) {
      const ptrdiff_t row_end = stop - row < FN(BLOCK) ? stop : row + FN(BLOCK);
      FN(gather_rows)(data, batch, slice, row, row_end);
      const fm_matrix X = FN(rows_of)(&batch->X[slice], row, row_end);
      const ptrdiff_t feature = FN(slice_start)(batch, slice);
      const fm_matrix W = FN(rows_of)(&layer->W, feature, feature + X.cols);
      fm_matrix Z = FN(rows_of)(slice ? &layer->D : &layer->Z, row, row_end);
      const void *b = slice ? NULL : layer->b;
      const fm_bits nonzero = FN(bits_from)(batch->nonzero[slice], row);
      if (nonzero.data)
        FN(sparse_affine_forward)(&X, nonzero, &W, b, 0, &Z, scratch);
      else
        FN(affine_forward)(&X, &W, b, &Z);
    }
  }
}

/* The first layer's Z from the products of both slices, for rows [start, stop), and its A unless it
 * is the output, which belongs to the loss. */
INLINE void FN(add_slices)(const fm_net *net, ptrdiff_t start, ptrdiff_t stop) {
  const fm_layer *layer = &net->layers[0];
  fm_matrix Z = FN(rows_of)(&layer->Z, start, stop), A = FN(rows_of)(&layer->A, start, stop);
  const fm_matrix D = FN(rows_of)(&layer->D, start, stop);
  for (ptrdiff_t r = 0; r < Z.rows; r++) {
    REAL *z = (REAL *)Z.data + r * Z.ld;
    const REAL *d = (const REAL *)D.data + r * D.ld;
    for (ptrdiff_t j = 0; j < Z.cols; j += VL) {
      const ptrdiff_t lanes = Z.cols - j < VL ? Z.cols - j : VL;
      vstoren(z + j, vloadn(z + j, lanes) + vloadn(d + j, lanes), lanes);
    }
  }
  if (net->n_layers > 1) FN(activate_rows)(net, 0, start, &Z, &A);
}

/* The last layer's A, and the loss's dZ, times scale; values: each sample's loss. Returns how many
 * samples were right. */
INLINE ptrdiff_t FN(output_of_rows)(const fm_net *net, const fm_matrix *Z, fm_matrix *A,
                                    const fm_targets *Y, const double *scale, double *values,
                                    fm_matrix *dZ) {
  if (FN(is_of_labels)(&net->loss, Y) && Z->cols <= FN(CLASSES))
    return FN(softmax_cross_entropy_labels)(Z, Y->labels, scale, dZ, values);
  FN(activation_forward)(net->layers[net->n_layers - 1].activation, Z, A);
  FN(loss_forward)(&net->loss, A, Z, Y, values);
  FN(loss_backward)(&net->loss, A, Z, Y, scale, dZ);
  return FN(count_correct)(&net->loss, A, Y);
}

/* First phase, stage `stage` of n_stages, for rows [start, stop) of the batch; returns how many of
 * them were right. In all, fills these rows of batch X (where there are no slices) and losses, and
 * of every layer's Z, A and D.
 */
static ptrdiff_t FN(batch_rows)(const fm_net *net, const fm_data *data, fm_batch *batch, int stage,
                                ptrdiff_t start, ptrdiff_t stop, void *scratch) {
  enum { BLOCK = FN(BLOCK) };
  const int n_norms = FN(n_stages)(net) / 2;
  const int segment = stage < n_norms ? stage : 2 * n_norms - stage;
  const int sliced = FN(is_sliced)(batch), end = FN(segment_start)(net, segment + 1);
  const int first = segment ? FN(segment_start)(net, segment) : sliced;
  const int bottom = segment ? first : net->first_trained;
  const fm_layer *last = &net->layers[net->n_layers - 1];
  ptrdiff_t count = 0;
  for (ptrdiff_t row = start; stage <= n_norms && row < stop; row += BLOCK) {
    const ptrdiff_t row_end = stop - row < BLOCK ? stop : row + BLOCK, n = row_end - row;
    if (stage == 0 && sliced)
      FN(add_slices)(net, row, row_end);
    else if (stage == 0)
      FN(gather_rows)(data, batch, 0, row, row_end);
    FN(forward_rows)(net, first, end, batch, row, row_end, scratch);
    if (stage < n_norms) continue;

    int64_t labels[BLOCK] = {0}; /* whole vectors are read */
    double scale[BLOCK] = {0};
    const fm_targets Y = FN(gather_targets)(data, batch, row, n, last->A.cols, labels, scale);
    fm_matrix A = FN(rows_of)(&last->A, row, row_end), Z = FN(rows_of)(&last->Z, row, row_end);
    fm_matrix D = FN(rows_of)(&last->D, row, row_end);
    const double even = batch->weight > 0 ? 1 / batch->weight * net->gradient_factor : 0;
    double weights[BLOCK];
    for (ptrdiff_t r = 0; r < n; r++) {
      weights[r] = scale[r];
      scale[r] = data->weight && even > 0 ? scale[r] / batch->weight * net->gradient_factor : even;
    }
    double *losses = batch->losses + row;
    count += FN(output_of_rows)(net, &Z, &A, &Y, scale, losses, &D);
    for (ptrdiff_t r = 0; r < n; r++) losses[r] *= weights[r] * net->loss_factor;
  }
  if (stage < n_norms) return count;
  /* Back in higher blocks: each of them reads all weights, or turns them round. */
  const int top = stage == n_norms ? net->n_layers - 1 : end;
  const ptrdiff_t rows = stop - start, n_blocks = N_BLOCKS(rows, FN(BACK_BLOCK));
  for (ptrdiff_t i = 0; i < n_blocks; i++)
    FN(backward_rows)(net, batch, top, bottom, start + rows * i / n_blocks,
                      start + rows * (i + 1) / n_blocks, scratch);
  return count;
}
