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

#define UPDATE_LOOP(name, n_states)                                                                \
  for (ptrdiff_t row = 0; row < rows; row++)                                                       \
    for (ptrdiff_t j = 0; j < n; j += VL) {                                                        \
      const ptrdiff_t i = row * ld + j, lanes = n - j < VL ? n - j : VL;                           \
      vec s0 = {0}, s1 = {0};                                                                      \
      __builtin_prefetch(w + ahead + i, 1);                                                        \
      if (lanes == VL) {                                                                           \
        vec w_old = vload(w + i);                                                                  \
        if (n_states > 0) s0 = vload(s0_data + i);                                                 \
        if (n_states > 1) s1 = vload(s1_data + i);                                                 \
        squares = vfma(w_old, w_old, squares);                                                     \
        vec w_new = FN(name##_update)(&u, w_old, vfma(u.l2, w_old, vload(g + i)), &s0, &s1);       \
        vstore(w + i, w_new);                                                                      \
        if (n_states > 0) vstore(s0_data + i, s0);                                                 \
        if (n_states > 1) vstore(s1_data + i, s1);                                                 \
      } else {                                                                                     \
        vec w_old = vloadn(w + i, lanes);                                                          \
        if (n_states > 0) s0 = vloadn(s0_data + i, lanes);                                         \
        if (n_states > 1) s1 = vloadn(s1_data + i, lanes);                                         \
        squares = vfma(w_old, w_old, squares);                                                     \
        vec w_new =                                                                                \
            FN(name##_update)(&u, w_old, vfma(u.l2, w_old, vloadn(g + i, lanes)), &s0, &s1);       \
        vstoren(w + i, w_new, lanes);                                                              \
        if (n_states > 0) vstoren(s0_data + i, s0, lanes);                                         \
        if (n_states > 1) vstoren(s1_data + i, s1, lanes);                                         \
      }                                                                                            \
    }

/* g (rows, n)  IN;  w, s0, s1 (rows, n)  IN and OUT; rows of all lie ld apart; states that the rule
 * does not have may be NULL. Returns the sum of w^2 before.
 * On the way it asks for the right to write w that lies `ahead` elements behind: other threads have
 * read it. */
static double FN(update_rows)(const fm_update *update, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ld,
                              ptrdiff_t ahead, const void *gradient, void *parameters, void *state0,
                              void *state1) {
  const REAL *restrict g = gradient;
  REAL *restrict w = parameters, *restrict s0_data = state0, *restrict s1_data = state1;
  const update_vectors u = {.beta1 = vset1((REAL)update->beta1),
                            .one_minus_beta1 = vset1((REAL)(1 - update->beta1)),
                            .beta2 = vset1((REAL)update->beta2),
                            .one_minus_beta2 = vset1((REAL)(1 - update->beta2)),
                            .l2 = vset1((REAL)update->l2),
                            .step_m = vset1((REAL)update->step_m),
                            .step_g = vset1((REAL)update->step_g),
                            .epsilon = vset1((REAL)update->epsilon),
                            .shrink = vset1((REAL)update->shrink)};
  vec squares = {0};
  switch (update->rule) {
    case FM_SGD: UPDATE_LOOP(sgd, 0); break;
    case FM_MOMENTUM: UPDATE_LOOP(momentum, 1); break;
    case FM_NESTEROV: UPDATE_LOOP(nesterov, 1); break;
    case FM_RMSPROP: UPDATE_LOOP(rmsprop, 1); break;
    case FM_ADAGRAD: UPDATE_LOOP(adagrad, 1); break;
    case FM_ADAM: UPDATE_LOOP(adam, 2); break;
  }
  return (double)vsum(squares);
}

/* g (n,)  IN;  w, s0, s1 (n,)  IN and OUT */
static void FN(optimizer_update)(const fm_update *update, ptrdiff_t n, const void *gradient,
                                 void *parameters, void *state0, void *state1) {
  FN(update_rows)(update, 1, n, n, 0, gradient, parameters, state0, state1);
}
#undef UPDATE_LOOP
#undef update_vectors
