/* Optimizers: w from its gradient g, elementwise over flat memory.
 *
 * fastmlp/optimizers.py has the formulas in the textbook's form and their sources; here they stand
 * with what depends on the step number alone worked out before (step_m, step_g, epsilon, shrink).
 */
typedef struct {
  vec beta1, one_minus_beta1, beta2, one_minus_beta2, l2, step_m, step_g, epsilon, shrink;
} FN(update_vectors);

#define update_vectors FN(update_vectors)

/* sgd: w -= lr g */
INLINE vec FN(sgd_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  (void)s0, (void)s1;
  return vfma(-u->step_g, g, w);
}

/* momentum: v = momentum v - lr g; w += v */
INLINE vec FN(momentum_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  (void)s1;
  *s0 = vfma(u->beta1, *s0, -(u->step_g * g));
  return w + *s0;
}

/* nesterov: v = momentum v - lr g; w += momentum v - lr g */
INLINE vec FN(nesterov_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  (void)s1;
  vec step = -(u->step_g * g);
  *s0 = vfma(u->beta1, *s0, step);
  return w + vfma(u->beta1, *s0, step);
}

/* rmsprop: s = rho s + (1 - rho) g^2; w -= lr g / (sqrt(s) + epsilon) */
INLINE vec FN(rmsprop_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  (void)s1;
  *s0 = vfma(u->beta2, *s0, u->one_minus_beta2 * g * g);
  return w - u->step_g * g / (vsqrt(*s0) + u->epsilon);
}

/* adagrad: s += g^2; w -= lr g / (sqrt(s) + epsilon) */
INLINE vec FN(adagrad_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  (void)s1;
  *s0 = vfma(g, g, *s0);
  return w - u->step_g * g / (vsqrt(*s0) + u->epsilon);
}

/* adam, adamw, nadam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 * w -= shrink w + (step_m m + step_g g) / (sqrt(v) + epsilon) */
INLINE vec FN(adam_update)(const update_vectors *u, vec w, vec g, vec *s0, vec *s1) {
  *s0 = vfma(u->beta1, *s0, u->one_minus_beta1 * g);
  *s1 = vfma(u->beta2, *s1, u->one_minus_beta2 * g * g);
  vec step = vfma(u->step_g, g, u->step_m * *s0);
  return vfma(-u->shrink, w, w) - step / (vsqrt(*s1) + u->epsilon);
}

/* A vector of weights, or its first `lanes`; returns what they were. */
#define DEFINE_LANES(name, n_states)                                                               \
  INLINE vec FN(name##_lanes)(const update_vectors *u, const int whole, ptrdiff_t lanes,           \
                              const REAL *g, REAL *w, REAL *s0_data, REAL *s1_data) {              \
    vec s0 = {0}, s1 = {0}, old = whole ? vload(w) : vloadn(w, lanes);                             \
    if (n_states > 0) s0 = whole ? vload(s0_data) : vloadn(s0_data, lanes);                        \
    if (n_states > 1) s1 = whole ? vload(s1_data) : vloadn(s1_data, lanes);                        \
    const vec gradient = vfma(u->l2, old, whole ? vload(g) : vloadn(g, lanes));                    \
    const vec new = FN(name##_update)(u, old, gradient, &s0, &s1);                                 \
    whole ? vstore(w, new) : vstoren(w, new, lanes);                                               \
    if (n_states > 0) whole ? vstore(s0_data, s0) : vstoren(s0_data, s0, lanes);                   \
    if (n_states > 1) whole ? vstore(s1_data, s1) : vstoren(s1_data, s1, lanes);                   \
    return old;                                                                                    \
  }
DEFINE_LANES(sgd, 0)
DEFINE_LANES(momentum, 1)
DEFINE_LANES(nesterov, 1)
DEFINE_LANES(rmsprop, 1)
DEFINE_LANES(adagrad, 1)
DEFINE_LANES(adam, 2)

/* What is the same for all weights of a step. */
INLINE update_vectors FN(vectors_of)(const fm_update *update) {
  return (update_vectors){.beta1 = vset1((REAL)update->beta1),
                          .one_minus_beta1 = vset1((REAL)(1 - update->beta1)),
                          .beta2 = vset1((REAL)update->beta2),
                          .one_minus_beta2 = vset1((REAL)(1 - update->beta2)),
                          .l2 = vset1((REAL)update->l2),
                          .step_m = vset1((REAL)update->step_m),
                          .step_g = vset1((REAL)update->step_g),
                          .epsilon = vset1((REAL)update->epsilon),
                          .shrink = vset1((REAL)update->shrink)};
}

/* Rows of weights with their gradient; states that the rule does not have are NULL. */
typedef struct {
  int rule;
  const update_vectors *vectors;
  ptrdiff_t rows, n;
  const REAL *g; /* ldg apart */
  ptrdiff_t ldg;
  REAL *w, *s0, *s1; /* ld apart */
  ptrdiff_t ld;
  REAL *squares; /* (rows, VL) w^2 before are added here; or NULL */
} FN(weights_block);

/* Rows [i, i + rows), columns [j, j + n) of a block; without the gradient. */
INLINE FN(weights_block) FN(part_of)(const FN(weights_block) * block, ptrdiff_t i, ptrdiff_t rows,
                                     ptrdiff_t j, ptrdiff_t n) {
  FN(weights_block) part = *block;
  part.rows = rows, part.n = n, part.g = NULL;
  part.w += i * block->ld + j;
  if (part.s0) part.s0 += i * block->ld + j;
  if (part.s1) part.s1 += i * block->ld + j;
  if (part.squares) part.squares += i * VL;
  return part;
}

/* Adds w^2 to the block's sums, in the order of update_block. */
INLINE void FN(add_squares)(const FN(weights_block) * block) {
  for (ptrdiff_t r = 0; r < block->rows; r++) {
    const REAL *w = block->w + r * block->ld;
    vec sum = vload(block->squares + r * VL);
    for (ptrdiff_t j = 0; j < block->n; j += VL) {
      const vec v = block->n - j < VL ? vloadn(w + j, block->n - j) : vload(w + j);
      sum = vfma(v, v, sum);
    }
    vstore(block->squares + r * VL, sum);
  }
}

#define UPDATE_LOOP(name, n_states)                                                                \
  for (ptrdiff_t r = 0; r < block->rows; r++) {                                                    \
    const REAL *restrict g = block->g + r * block->ldg;                                            \
    REAL *restrict w = block->w + r * ld, *restrict s0 = n_states > 0 ? block->s0 + r * ld : NULL; \
    REAL *restrict s1 = n_states > 1 ? block->s1 + r * ld : NULL;                                  \
    vec sum = block->squares ? vload(block->squares + r * VL) : (vec){0}, old;                     \
    ptrdiff_t j = 0;                                                                               \
    for (; j + VL <= n; j += VL) {                                                                 \
      old = FN(name##_lanes)(&u, 1, VL, g + j, w + j, s0 ? s0 + j : s0, s1 ? s1 + j : s1);         \
      sum = vfma(old, old, sum);                                                                   \
    }                                                                                              \
    if (j < n) {                                                                                   \
      old = FN(name##_lanes)(&u, 0, n - j, g + j, w + j, s0 ? s0 + j : s0, s1 ? s1 + j : s1);      \
      sum = vfma(old, old, sum);                                                                   \
    }                                                                                              \
    if (block->squares) vstore(block->squares + r * VL, sum);                                      \
  }

static void FN(update_block)(const FN(weights_block) * block) {
  const update_vectors u = *block->vectors;
  const ptrdiff_t n = block->n, ld = block->ld;
  switch (block->rule) {
    case FM_SGD: UPDATE_LOOP(sgd, 0); break;
    case FM_MOMENTUM: UPDATE_LOOP(momentum, 1); break;
    case FM_NESTEROV: UPDATE_LOOP(nesterov, 1); break;
    case FM_RMSPROP: UPDATE_LOOP(rmsprop, 1); break;
    case FM_ADAGRAD: UPDATE_LOOP(adagrad, 1); break;
    case FM_ADAM: UPDATE_LOOP(adam, 2); break;
  }
}

/* g (n,)  IN;  w, s0, s1 (n,)  IN and OUT */
static void FN(optimizer_update)(const fm_update *update, ptrdiff_t n, const void *gradient,
                                 void *parameters, void *state0, void *state1) {
  const update_vectors u = FN(vectors_of)(update);
  const FN(weights_block) all = {.rule = update->rule,
                                 .vectors = &u,
                                 .rows = 1,
                                 .n = n,
                                 .g = gradient,
                                 .w = parameters,
                                 .s0 = state0,
                                 .s1 = state1};
  FN(update_block)(&all);
}
#undef DEFINE_LANES
#undef UPDATE_LOOP
#undef update_vectors
