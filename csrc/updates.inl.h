/* The second phase of a step of minibatch training, and those that follow where weights are limited
 * or averaged. A weight matrix is taken in strips of rows: each strip's gradient goes to the
 * optimizer while it is near.
 */

/* g + l2 w + l1 sign(w) for a vector; adds to the sums of w^2 and |w|. */
INLINE vec FN(penalty)(vec l2, vec l1, vec w, vec g, vec *squares, vec *sizes) {
  const vec size = vabs(w);
  *squares = vfma(w, w, *squares);
  *sizes += size;
  return vfma(l2, w, g) + vblend(vlt((vec){0}, size), vcopysign(l1, w), (vec){0});
}

/* g += scale (l2 w + l1 sign(w)) for a strip of weights; returns scale (l2 / 2 w^2 + l1 |w|),
 * summed. w (rows, n)  IN;  g (rows, n)  IN and OUT; rows of both lie ld apart */
static double FN(add_penalty)(const fm_layer *layer, double scale, ptrdiff_t rows, ptrdiff_t n,
                              ptrdiff_t ld, const REAL *w, REAL *g) {
  const vec l1 = vset1((REAL)(scale * layer->l1)), l2 = vset1((REAL)(scale * layer->l2));
  const ptrdiff_t whole = n - n % VL, tail = n - whole;
  vec squares = {0}, sizes = {0};
  for (ptrdiff_t r = 0; r < rows; r++, w += ld, g += ld) {
    for (ptrdiff_t j = 0; j < whole; j += VL)
      vstore(g + j, FN(penalty)(l2, l1, vload(w + j), vload(g + j), &squares, &sizes));
    if (tail)
      vstoren(
          g + whole,
          FN(penalty)(l2, l1, vloadn(w + whole, tail), vloadn(g + whole, tail), &squares, &sizes),
          tail);
  }
  return scale * (layer->l1 * (double)vsum(sizes) + layer->l2 / 2 * (double)vsum(squares));
}

/* Whether nothing comes between a layer's gradient and its update. */
INLINE int FN(is_direct)(const fm_layer *layer, const fm_update *update) {
  return update->mode == FM_FUSED && update->clip == INFINITY && !layer->squares &&
         layer->decay <= 0;
}

/* Whether the optimizer's own loop adds a layer's L2 penalty: a pass over the strip less. */
INLINE int FN(penalty_is_joined)(const fm_layer *layer, const fm_update *update) {
  return layer->penalties && layer->l1 == 0 && update->l2 == 0 && FN(is_direct)(layer, update);
}

/* A layer of few units, an output mostly, fills few lanes of its last vector; so its gradient is
 * made transposed, with lanes for the inputs (digits' 10 outputs in float64: 9 us a step, not 14).
 */
INLINE int FN(is_narrow)(const fm_layer *layer) {
  const ptrdiff_t n = layer->W.cols;
  return n <= 2 * FM_STRIP_ROWS && 5 * n <= 4 * VL * N_BLOCKS(n, VL);
}

/* A weight matrix is updated in strips of so many rows, the last one of those that are left. */
enum { FN(NARROW_ROWS) = FM_STRIP_VECTORS * VL };
INLINE ptrdiff_t FN(strip_rows)(const fm_layer *layer) {
  return FN(is_narrow)(layer) ? FN(NARROW_ROWS) : FM_STRIP_ROWS;
}

INLINE ptrdiff_t FN(strips_of)(const fm_layer *layer) {
  return N_BLOCKS(layer->W.rows, FN(strip_rows)(layer));
}

/* A layer's weights and moments. */
INLINE FN(prefetch) FN(parameters_of)(const fm_layer *layer) {
  FN(prefetch) all = {{layer->W.data}, 1, layer->W.ld};
  for (int i = 0; i < 2; i++)
    if (layer->W_moments[i]) all.matrices[all.n_matrices++] = layer->W_moments[i];
  return all;
}

/* Whether they come from memory in each step; a share of the last cache holds smaller ones. */
INLINE int FN(is_far)(const fm_layer *layer) {
  const ptrdiff_t size = layer->W.rows * layer->W.ld * (ptrdiff_t)sizeof(REAL);
  return size * FN(parameters_of)(layer).n_matrices >= 8 << 20;
}

/* Columns of such a layer that are taken together: so many that the batch's dZ stays in the L2
 * cache beside what comes from memory; but shorter runs of memory are slower (784-2048-2048-10, one
 * thread, nothing asked for ahead, ms of updates a step: 2048 columns 10.6, 512 11.9, 256 12.3). */
INLINE ptrdiff_t FN(far_columns)(ptrdiff_t n_samples) {
  const ptrdiff_t columns = (512 << 10) / (ptrdiff_t)sizeof(REAL) / n_samples / VL * VL;
  return columns > 512 ? columns : 512;
}

/* Whether a layer's gradient leaves zeros out for two rows of weights at a time. */
INLINE int FN(skips_in_pairs)(const fm_net *net, int l, const fm_batch *batch) {
  const fm_layer *layer = &net->layers[l];
  return FN(input_bits)(net, l, batch, 0).data && FN(in_pairs)(layer->W.cols) &&
         !FN(is_narrow)(layer);
}

/* Bytes of the bits of a layer's inputs turned round, and of a list of samples; whole cache lines:
 * what lies behind them is aligned. */
INLINE size_t FN(turned_size)(const fm_net *net, const fm_batch *batch) {
  const ptrdiff_t widest = FN(widest)(net, batch->X[0].cols + batch->X[1].cols);
  return (size_t)((widest + 8) * FN(bits_ld)(batch->X[0].rows) + 63) / 64 * 64;
}

INLINE size_t FN(samples_size)(const fm_batch *batch) {
  return (size_t)FN(list_ld)(batch->X[0].rows) * sizeof(int32_t);
}

/* Strips whose gradients are made together where zeros are left out in pairs: dZ comes from the L2
 * cache then, and of more strips it is used more often while it is near. 48 rows; but two strips
 * where their gradients are stored and samples are taken at once: memory is waited for behind the
 * products of many (MNIST in batches of 64: two 0.975 of an epoch of one by one; five, two threads
 * on far CPUs, 1.09). Of samples in pieces, so many that their gradients, 32 KB, stay near beside a
 * piece. */
enum { FN(TOGETHER) = 48 / FM_STRIP_ROWS };
INLINE ptrdiff_t FN(strips_together)(const fm_net *net, int l, const fm_batch *batch, int stored) {
  const ptrdiff_t row = net->layers[l].W.ld * (ptrdiff_t)sizeof(REAL);
  const ptrdiff_t fit = (32 << 10) / row / FM_STRIP_ROWS;
  if (!FN(skips_in_pairs)(net, l, batch)) return FN(TOGETHER);
  if (batch->X[0].rows <= FN(SAMPLES_PIECE)) return stored ? 2 : FN(TOGETHER);
  return fit < 1 ? 1 : fit < FN(TOGETHER) ? fit : FN(TOGETHER);
}

/* A thread's memory; turned: bits of the layer's inputs, NULL where none are left out in pairs;
 * samples: for a list; gradient: of strips together. */
typedef struct {
  uint8_t *turned;
  int32_t *samples;
  REAL *gradient;
} FN(update_memory);

/* Bytes of scratch that a thread needs. */
static size_t FN(scratch_size)(const fm_net *net, const fm_batch *batch) {
  ptrdiff_t gradient = 0, back = 0;
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    const ptrdiff_t strips =
        FN(skips_in_pairs)(net, l, batch) ? FN(strips_together)(net, l, batch, 1) : 1;
    const ptrdiff_t strip = strips * FN(strip_rows)(layer) * layer->W.ld;
    const ptrdiff_t way =
        l > net->first_trained ? FN(backward_size)(&layer->W, batch->X[0].rows) : 0;
    if (strip > gradient) gradient = strip;
    if (way > back) back = way;
  }
  const size_t phases[] = {
      (size_t)FN(list_ld)(FN(widest)(net, batch->X[0].cols)) * sizeof(int32_t),
      (size_t)back * sizeof(REAL),
      FN(turned_size)(net, batch) + FN(samples_size)(batch) + (size_t)gradient * sizeof(REAL)};
  size_t largest = 0;
  for (int i = 0; i < 3; i++)
    if (phases[i] > largest) largest = phases[i];
  return largest;
}

/* Whether zeros of layer l's inputs may be many enough for pairs. Of those of a hidden layer, which
 * do not go together, two have a number in 1 - (1 - p)^2 of the samples if one has in p: three
 * quarters for a half. Eight samples tell p; to turn all bits for nothing took 1% of an epoch of
 * Fashion-MNIST. */
INLINE int FN(may_have_zeros)(const fm_net *net, int l, const fm_batch *batch) {
  const ptrdiff_t n = batch->n < 8 ? batch->n : 8, k = net->layers[l].W.rows;
  const fm_bits bits = FN(input_bits)(net, l, batch, 0);
  ptrdiff_t count = 0;
  for (ptrdiff_t r = 0; l && r < n; r++)
    count += FN(count_columns)(1, k, bits.data + r * bits.ld, bits.ld);
  return 2 * count < n * k;
}

/* Turns the bits of the inputs that rows [first, end) of layer l's weights belong to. */
INLINE void FN(turn_inputs)(const fm_net *net, int l, const fm_batch *batch, ptrdiff_t first,
                            ptrdiff_t end, uint8_t *turned) {
  const ptrdiff_t ld = FN(bits_ld)(batch->X[0].rows);
  const int sliced = l == 0 && FN(is_sliced)(batch);
  for (int slice = 0; slice <= sliced; slice++) {
    const fm_bits bits = FN(input_bits)(net, l, batch, slice);
    const ptrdiff_t start = FN(slice_start)(batch, slice);
    const ptrdiff_t size = sliced ? batch->X[slice].cols : net->layers[l].W.rows;
    const ptrdiff_t from = first > start ? first - start : 0;
    const ptrdiff_t to = end - start < size ? end - start : size;
    if (from < to)
      FN(turn_bits)(batch->n, from, to, bits.data, bits.ld, turned + (start + from / 8 * 8) * ld,
                    ld);
  }
}

/* Where part `part` of `n_parts` of a layer's strips begins. Half of the parts share the strips of
 * the first slice, which there are first. */
INLINE ptrdiff_t FN(first_strip)(const fm_layer *layer, ptrdiff_t first_slice, int part,
                                 int n_parts) {
  const ptrdiff_t n = FN(strips_of)(layer), s = first_slice / FN(strip_rows)(layer);
  if (s == 0) return n * part / n_parts;
  return 2 * part < n_parts ? 2 * s * part / n_parts : s + (n - s) * (2 * part - n_parts) / n_parts;
}

/* The penalties that the last update_weights added, over all layers, of the weights before it. */
static double FN(sum_of_penalties)(const fm_net *net) {
  double sum = 0;
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    for (ptrdiff_t strip = 0; layer->penalties && strip < FN(strips_of)(layer); strip++)
      sum += layer->penalties[strip];
  }
  return sum;
}

/* The squared norm of the gradient that the last update_weights found, over all layers. */
static double FN(sum_of_squares)(const fm_net *net) {
  double sum = 0;
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    for (ptrdiff_t strip = 0; strip < FN(strips_of)(layer); strip++) sum += layer->squares[strip];
    sum += layer->squares[layer->W.rows];
  }
  return sum;
}

/* Keeps g in [-clip, clip]; returns the sum of its squares then.
 * g (rows, n)  IN and OUT; rows lie ld apart */
static double FN(clip_gradient)(double clip, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ld, REAL *g) {
  const vec high = vset1((REAL)clip);
  double sum = 0;
  for (ptrdiff_t r = 0; r < rows; r++, g += ld) {
    vec squares = {0};
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      const vec v = vmax(-high, vmin(high, vloadn(g + j, lanes)));
      vstoren(g + j, v, lanes);
      squares = vfma(v, v, squares);
    }
    sum += (double)vsum(squares);
  }
  return sum;
}

/* x *= factor.  x (rows, n)  IN and OUT; rows lie ld apart */
static void FN(scale_rows)(double factor, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ld, REAL *x) {
  const vec f = vset1((REAL)factor);
  for (ptrdiff_t r = 0; r < rows; r++, x += ld)
    for (ptrdiff_t j = 0; j < n; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      vstoren(x + j, f * vloadn(x + j, lanes), lanes);
    }
}

/* Third phase, of layers with max_norm: part `part` of `n_parts` of the units; a unit whose
 * weights' norm is above it gets them scaled back to it. */
static void FN(constrain_weights)(const fm_net *net, int part, int n_parts) {
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    if (layer->max_norm == 0) continue;
    const ptrdiff_t n = layer->W.cols, vectors = (n + VL - 1) / VL;
    const ptrdiff_t end = vectors * (part + 1) / n_parts * VL;
    for (ptrdiff_t j = vectors * part / n_parts * VL; j < end; j += VL) {
      const ptrdiff_t lanes = n - j < VL ? n - j : VL;
      REAL *w = (REAL *)layer->W.data + j, norms[VL];
      vec squares = {0};
      for (ptrdiff_t i = 0; i < layer->W.rows; i++) {
        const vec v = vloadn(w + i * layer->W.ld, lanes);
        squares = vfma(v, v, squares);
      }
      vstore(norms, vsqrt(squares));
      for (ptrdiff_t c = 0; c < lanes; c++) {
        if (!(norms[c] > (REAL)layer->max_norm)) continue;
        const REAL factor = (REAL)layer->max_norm / norms[c];
        for (ptrdiff_t i = 0; i < layer->W.rows; i++) w[i * layer->W.ld + c] *= factor;
      }
    }
  }
}

/* average += share (w - average).  w (n,)  IN;  average (n,)  IN and OUT */
static void FN(average_weights)(ptrdiff_t n, double share, const void *weights, void *average) {
  const REAL *w = weights;
  REAL *a = average;
  for (ptrdiff_t j = 0; j < n; j += VL) {
    const ptrdiff_t lanes = n - j < VL ? n - j : VL;
    const vec old = vloadn(a + j, lanes);
    vstoren(a + j, vfma(vset1((REAL)share), vloadn(w + j, lanes) - old, old), lanes);
  }
}

/* n weights that are no matrix, from their gradient g on: clipped, its squares noted where that is
 * wanted, given to the optimizer. */
static void FN(update_vector)(const fm_update *update, ptrdiff_t n, REAL *g, void *w,
                              void *const moments[2], double *squares) {
  if (update->mode != FM_APPLY && (squares || update->clip < INFINITY)) {
    const double sum = FN(clip_gradient)(update->clip, 1, n, n, g);
    if (squares) *squares = sum;
  }
  if (update->mode == FM_GRADIENT) return;
  if (update->factor < 1) FN(scale_rows)(update->factor, 1, n, n, g);
  FN(optimizer_update)(update, n, g, w, moments[0], moments[1]);
}

/* The second phase of a layer without weights: a norm's gain and shift, a batch norm's running
 * statistics; nothing for dropout. */
static void FN(update_norm)(const fm_layer *layer, const fm_batch *batch, const fm_update *update) {
  if (layer->kind == FM_DROPOUT) return;
  const ptrdiff_t n = layer->W.cols;
  REAL *g[2] = {layer->gains, layer->shifts}, *w[2] = {layer->W.data, layer->b};
  void *const *moments[2] = {layer->W_moments, layer->b_moments};
  if (update->mode != FM_APPLY && layer->kind == FM_LAYER_NORM) {
    const fm_matrix H = FN(rows_of)(&layer->H, 0, batch->n);
    const fm_matrix D = FN(rows_of)(&layer->D, 0, batch->n);
    FN(norm_gradients)(&H, &D, 0, n, g[0], g[1]);
  }
  for (int i = 0; i < 2; i++)
    FN(update_vector)(update, n, g[i], w[i], moments[i],
                      layer->squares ? layer->squares + i : NULL);
  if (update->mode != FM_GRADIENT && layer->kind == FM_BATCH_NORM)
    FN(observe_batch)(layer, batch->n);
}

/* dW = (dZ^T X)^T for one strip, of which x are the columns.
 * x (k, rows), D (k, n)  IN;  g (rows, n)  OUT, rows ld apart */
INLINE void FN(narrow_product)(ptrdiff_t rows, ptrdiff_t k, const REAL *x, ptrdiff_t ldx,
                               const fm_matrix *D, REAL *g, ptrdiff_t ld) {
  REAL sums[2 * FM_STRIP_ROWS * FN(NARROW_ROWS)];
  const ptrdiff_t n_blocks = N_BLOCKS(D->cols, FM_STRIP_ROWS), height = N_BLOCKS(D->cols, n_blocks);
  for (ptrdiff_t i = 0; i < D->cols; i += height) {
    FN(tile_job)
    job = {.k = k,
           .x = (const REAL *)D->data + i,
           .ldx = D->ld,
           .w = x,
           .ldw = ldx,
           .z = sums + i * FN(NARROW_ROWS),
           .ldz = FN(NARROW_ROWS)};
    FN(strip_product)(D->cols - i < height ? D->cols - i : height, rows, &job);
  }
  const fm_matrix transposed = {sums, D->cols, rows, FN(NARROW_ROWS)};
  fm_matrix strip = {g, rows, D->cols, ld};
  FN(transpose)(&transposed, &strip);
}

/* Strips [first, end) of a layer; layer NULL: none. */
typedef struct {
  const fm_layer *layer;
  ptrdiff_t first, end;
} FN(layer_part);

/* What a part will update of the next dense layer, and has to get the right to write: other threads
 * have read it. A line takes 8 ns, where the CPUs are far from each other, and no time in the shade
 * of this layer's products (MNIST, two threads on far CPUs: 0.96 of an epoch; on near ones, where
 * it takes 2 ns, 1.00). Where that layer's tiles ask for it themselves, it would be asked for twice
 * (28-300-300-300-300-300-1: an epoch 1% longer, on far CPUs 2%). */
INLINE FN(layer_part) FN(next_part)(const fm_net *net, int l, const fm_batch *batch,
                                    const fm_update *update, int part, int n_parts) {
  FN(layer_part) next = {NULL, 0, 0};
  do l++;
  while (l < net->n_layers && net->layers[l].kind != FM_DENSE);
  if (n_parts == 1 || l >= net->n_layers || update->mode == FM_GRADIENT) return next;
  const int asks_itself = update->mode == FM_FUSED && !FN(is_narrow)(&net->layers[l]) &&
                          !FN(skips_in_pairs)(net, l, batch);
  if (asks_itself || FN(is_far)(&net->layers[l])) return next;
  next.layer = &net->layers[l];
  next.first = FN(first_strip)(next.layer, 0, part, n_parts);
  next.end = FN(first_strip)(next.layer, 0, part + 1, n_parts);
  return next;
}

/* Asks for shares [first, end) of `all` of it. */
INLINE void FN(ask_to_write)(const FN(layer_part) * next, ptrdiff_t first, ptrdiff_t end,
                             ptrdiff_t all) {
  if (!next->layer) return;
  const fm_matrix *W = &next->layer->W;
  const ptrdiff_t height = FN(strip_rows)(next->layer), i = next->first * height;
  const ptrdiff_t stop = next->end * height, m = (stop < W->rows ? stop : W->rows) - i;
  const FN(prefetch) weights = {{W->data}, 1, W->ld};
  const ptrdiff_t from = m * first / all, to = m * end / all;
  FN(ask)(&weights, (i + from) * W->ld, to - from, W->cols);
}

/* What all strips of a layer's weights have in common in a step. */
typedef struct {
  const fm_net *net;
  int l;
  const fm_batch *batch;
  const fm_update *update;
  const FN(update_vectors) * vectors;
  int in_passing, joined;        /* see IN_PASSING, penalty_is_joined */
  const FN(prefetch) * prefetch; /* weights and moments, to be asked for; or NULL */
  const FN(update_memory) * memory;
  FN(layer_part) next;
} FN(layer_update);

/* The bits of the inputs that row i of the weights belongs to, turned round. */
INLINE const uint8_t *FN(turned_bits)(const FN(layer_update) * task, ptrdiff_t i) {
  return task->memory->turned + i * FN(bits_ld)(task->batch->X[0].rows);
}

/* The gradient of columns [j, j + n) of rows [i, i + rows) of a layer's weights: a strip, or strips
 * together in pairs of rows.
 * weights: NULL, or updated with it;  g (rows, n)  OUT, rows ld apart; not used with weights */
NOINLINE void FN(weights_gradient)(const FN(layer_update) * task, int pairs, ptrdiff_t i,
                                   ptrdiff_t rows, ptrdiff_t j, ptrdiff_t n,
                                   const FN(weights_block) * weights, REAL *g) {
  const fm_net *net = task->net;
  const fm_batch *batch = task->batch;
  const int l = task->l;
  const fm_layer *layer = &net->layers[l];
  const ptrdiff_t ld = layer->W.ld;
  const int slice = l == 0 && FN(is_sliced)(batch) && i >= batch->X[0].cols;
  const fm_matrix *input = l ? &net->layers[l - 1].A : &batch->X[slice];
  const ptrdiff_t column = i - FN(slice_start)(batch, slice);
  const REAL *x = (const REAL *)input->data + column;
  if (FN(is_narrow)(layer)) {
    FN(narrow_product)(rows, batch->n, x, input->ld, &layer->D, g, ld);
    return;
  }
  FN(tile_job)
  job = {.k = batch->n,
         .x = x,
         .ldx = input->ld,
         .w = (const REAL *)layer->D.data + j,
         .ldw = layer->D.ld,
         .z = g,
         .ldz = ld,
         .prefetch = task->prefetch,
         .place = i * ld + j};
  if (pairs) {
    if (!FN(is_far)(layer)) job.prefetch = NULL; /* MNIST, one thread: an epoch 4% longer with it */
    FN(pairs_product)(1, rows, n, FN(turned_bits)(task, i), FN(bits_ld)(batch->X[0].rows), &job,
                      weights);
    return;
  }
  const fm_bits bits = FN(input_bits)(net, l, batch, slice);
  if (bits.data && !FN(in_pairs)(layer->W.cols)) {
    const ptrdiff_t listed =
        FN(list_samples)(batch->n, column, rows, bits.data, bits.ld, task->memory->samples);
    if (FN(worth_skipping)(listed, batch->n, FN(MOST_IN_TILES)))
      job.k = listed, job.list = task->memory->samples;
  }
  FN(strip_product)(rows, n, &job);
}

/* Penalties and limits of a strip's gradient, columns [j, j + n).
 * g (rows, n)  IN and OUT, rows ld apart */
INLINE void FN(restrain_gradient)(const fm_layer *layer, const fm_batch *batch, double clip,
                                  int joined, ptrdiff_t strip, ptrdiff_t rows, ptrdiff_t j,
                                  ptrdiff_t n, REAL *g) {
  const ptrdiff_t ld = layer->W.ld;
  if (layer->penalties && !joined) {
    const REAL *w = (const REAL *)layer->W.data + strip * FN(strip_rows)(layer) * ld + j;
    layer->penalties[strip] = (j ? layer->penalties[strip] : 0) +
                              FN(add_penalty)(layer, batch->penalty_scale, rows, n, ld, w, g);
  }
  if (layer->squares || clip < INFINITY) {
    const double squares = FN(clip_gradient)(clip, rows, n, ld, g);
    if (layer->squares) layer->squares[strip] = (j ? layer->squares[strip] : 0) + squares;
  }
}

/* A layer's bias. g (n,): memory, where its gradient is not stored. */
static void FN(update_bias)(const fm_layer *layer, const fm_batch *batch, const fm_update *update,
                            REAL *g) {
  if (layer->gb) g = layer->gb;
  if (update->mode != FM_APPLY) {
    const fm_matrix D = FN(rows_of)(&layer->D, 0, batch->n);
    FN(affine_backward_bias)(&D, g);
  }
  FN(update_vector)(update, layer->W.cols, g, layer->b, layer->b_moments,
                    layer->squares ? layer->squares + layer->W.rows : NULL);
}

/* Columns [j, j + n) of strips [first, end) of a layer's weights, at most FN(TOGETHER). pairs:
 * their gradients are made together in pairs of rows */
static void FN(update_strips)(const FN(layer_update) * task, int pairs, ptrdiff_t first,
                              ptrdiff_t end, ptrdiff_t j, ptrdiff_t n) {
  const fm_layer *layer = &task->net->layers[task->l];
  const fm_update *update = task->update;
  const ptrdiff_t height = FN(strip_rows)(layer), ld = layer->W.ld, i = first * height;
  const ptrdiff_t rows = (end * height < layer->W.rows ? end * height : layer->W.rows) - i;
  const int makes = update->mode != FM_APPLY;
  REAL squares[FN(TOGETHER) * FN(NARROW_ROWS) * VL]; /* not touched without a penalty */
  FN(weights_block)
  block = {.rule = update->rule,
           .vectors = task->vectors,
           .rows = rows,
           .n = n,
           .ldg = ld,
           .w = (REAL *)layer->W.data + i * ld + j,
           .ld = ld};
  if (layer->W_moments[0]) block.s0 = (REAL *)layer->W_moments[0] + i * ld + j;
  if (layer->W_moments[1]) block.s1 = (REAL *)layer->W_moments[1] + i * ld + j;
  if (task->joined) {
    block.squares = squares;
    memset(squares, 0, (size_t)(rows * VL) * sizeof(REAL));
  }
  REAL *g = layer->G.data ? (REAL *)layer->G.data + i * ld + j : task->memory->gradient;
  if (pairs && task->in_passing) {
    FN(weights_gradient)(task, pairs, i, rows, j, n, &block, NULL);
  } else {
    const int advances = pairs || layer->G.data;
    if (makes && pairs) FN(weights_gradient)(task, pairs, i, rows, j, n, NULL, g);
    for (ptrdiff_t strip = first, r = 0; strip < end; strip++, r += height) {
      const ptrdiff_t m = rows - r < height ? rows - r : height;
      if (makes && !pairs) FN(weights_gradient)(task, pairs, i + r, m, j, n, NULL, g);
      FN(weights_block) part = FN(part_of)(&block, r, m, 0, n);
      if (makes)
        FN(restrain_gradient)(layer, task->batch, update->clip, task->joined, strip, m, j, n, g);
      if (update->mode != FM_GRADIENT) {
        if (update->factor < 1) FN(scale_rows)(update->factor, m, n, ld, g);
        if (layer->decay > 0) FN(scale_rows)(1 - update->lr * layer->decay, m, n, ld, part.w);
        part.g = g;
        FN(update_block)(&part);
      }
      if (advances) g += height * ld;
    }
  }
  for (ptrdiff_t strip = first, r = 0; task->joined && strip < end; strip++) {
    vec sum = {0};
    for (const ptrdiff_t stop = r + height < rows ? r + height : rows; r < stop; r++)
      sum += vload(squares + r * VL);
    layer->penalties[strip] = (j ? layer->penalties[strip] : 0) +
                              task->batch->penalty_scale * (layer->l2 / 2 * (double)vsum(sum));
  }
}

/* The same of any number of strips; `together`: see strips_together */
INLINE void FN(update_part)(const FN(layer_update) * task, ptrdiff_t first, ptrdiff_t end,
                            ptrdiff_t together, ptrdiff_t j, ptrdiff_t n) {
  const ptrdiff_t k = task->net->layers[task->l].W.rows, samples = task->batch->X[0].rows;
  for (ptrdiff_t strip = first, stop; strip < end; strip = stop) {
    stop = strip + together < end ? strip + together : end;
    const ptrdiff_t i = strip * FM_STRIP_ROWS, last = stop * FM_STRIP_ROWS;
    const int pairs = task->memory->turned &&
                      FN(pairs_are_worth_it)((last < k ? last : k) - i, task->batch->n,
                                             FN(turned_bits)(task, i), FN(bits_ld)(samples));
    if (j == 0) FN(ask_to_write)(&task->next, strip - first, stop - first, end - first);
    FN(update_strips)(task, pairs, strip, stop, j, n);
  }
}

/* Second phase: part `part` of `n_parts` of every weight matrix, and by turns the biases: one part
 * with all of them keeps the other waiting for 1% of a step. */
static void FN(update_weights)(const fm_net *net, const fm_batch *batch, const fm_update *update,
                               int part, int n_parts, void *scratch) {
  fm_update bias_update = *update;
  bias_update.l2 = bias_update.shrink = 0;
  FN(update_memory) memory = {0};
  memory.samples = (int32_t *)((uint8_t *)scratch + FN(turned_size)(net, batch));
  memory.gradient = (REAL *)((char *)memory.samples + FN(samples_size)(batch));
  for (int l = 0; l < net->n_layers; l++) {
    const fm_layer *layer = &net->layers[l];
    if (layer->kind != FM_DENSE) {
      if (part == n_parts - 1) FN(update_norm)(layer, batch, &bias_update);
      continue;
    }
    fm_update weights_update = *update;
    if (layer->decay >= 0) weights_update.l2 = weights_update.shrink = 0;
    const int joined = FN(penalty_is_joined)(layer, &weights_update);
    const int in_passing = FN(IN_PASSING) && FN(is_direct)(layer, update) &&
                           (joined || !layer->penalties) && batch->n <= FN(SAMPLES_PIECE);
    if (joined) weights_update.l2 = batch->penalty_scale * layer->l2;
    const FN(update_vectors) vectors = FN(vectors_of)(&weights_update);
    const FN(prefetch) prefetch = FN(parameters_of)(layer);
    const FN(layer_update) task = {.net = net,
                                   .l = l,
                                   .batch = batch,
                                   .update = &weights_update,
                                   .vectors = &vectors,
                                   .in_passing = in_passing,
                                   .joined = joined,
                                   .prefetch = update->mode == FM_FUSED ? &prefetch : NULL,
                                   .memory = &memory,
                                   .next = FN(next_part)(net, l, batch, update, part, n_parts)};
    const ptrdiff_t first_slice = l == 0 && FN(is_sliced)(batch) ? batch->X[0].cols : 0;
    const ptrdiff_t first = FN(first_strip)(layer, first_slice, part, n_parts);
    const ptrdiff_t end = FN(first_strip)(layer, first_slice, part + 1, n_parts);
    const ptrdiff_t n = layer->W.cols;
    const ptrdiff_t width = FN(is_far)(layer) ? FN(far_columns)(batch->n) : n;
    memory.turned = NULL;
    if (update->mode != FM_APPLY && FN(skips_in_pairs)(net, l, batch) &&
        FN(may_have_zeros)(net, l, batch)) {
      memory.turned = scratch;
      FN(turn_inputs)(net, l, batch, first * FM_STRIP_ROWS, end * FM_STRIP_ROWS, memory.turned);
    }
    const ptrdiff_t cut = first_slice / FM_STRIP_ROWS; /* strips together are of one slice */
    const ptrdiff_t together = FN(strips_together)(net, l, batch, !in_passing);
    for (ptrdiff_t from = first, to; from < end; from = to) {
      to = from < cut && cut < end ? cut : end;
      for (ptrdiff_t j = 0; j < n; j += width)
        FN(update_part)(&task, from, to, together, j, n - j < width ? n - j : width);
    }
    if (part == n_parts - 1 - l % n_parts)
      FN(update_bias)(layer, batch, &bias_update, memory.gradient);
  }
}
