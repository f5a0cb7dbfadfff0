/* The whole C boundary: matrices, one network at work, and the table of kernels.
 *
 * Every kernel exists once an instruction set and once a dtype, behind one table. Element buffers
 * are `void *`; the table's dtype says what they hold. The kernels allocate nothing, start no
 * threads and know nothing of Python. Sizes and strides count elements.
 */
#ifndef FASTMLP_H
#define FASTMLP_H

#include <stddef.h>
#include <stdint.h>

enum fm_dtype { FM_FLOAT32, FM_FLOAT64, FM_N_DTYPES };

/* The order of fastmlp/activations.py. */
enum fm_activation {
  FM_IDENTITY,
  FM_RELU,
  FM_LEAKY_RELU,
  FM_ELU,
  FM_SELU,
  FM_SIGMOID,
  FM_TANH,
  FM_SOFTPLUS,
  FM_GELU,
  FM_SILU,
  FM_SOFTMAX,
  FM_STEP,
  FM_EXP,
  FM_INCREASING,
  FM_NATIVE = 1000 /* and above: a row of fm_native_activations */
};

/* The order of fastmlp/losses.py. */
enum fm_loss_code {
  FM_CROSS_ENTROPY,
  FM_BINARY_CROSS_ENTROPY,
  FM_MSE,
  FM_MAE,
  FM_HUBER,
  FM_QUANTILE,
  FM_POISSON,
  FM_GAMMA,
  FM_HINGE,
  FM_FOCAL,
  FM_BINARY_FOCAL
};

/* The codes of fastmlp/optimizers.py. */
enum fm_rule_code { FM_SGD, FM_MOMENTUM, FM_NESTEROV, FM_RMSPROP, FM_ADAGRAD, FM_ADAM };

/* Row-major (rows, cols); row r starts at data + r * ld. */
typedef struct {
  void *data;
  ptrdiff_t rows, cols, ld;
} fm_matrix;

/* A loss behind an output activation; fused: value and gradient come from Z. */
typedef struct {
  int code, activation, fused;
  const void *option; /* (n_outputs,) the loss's parameter for each output */
} fm_loss;

/* Targets of some samples: int64 labels (n,), or rows (n, n_outputs) where labels is NULL. */
typedef struct {
  const int64_t *labels;
  const void *rows;
  ptrdiff_t ld;
} fm_targets;

/* Gradient and optimizer at once; or, with every layer's G, the gradient of all first. */
enum fm_update_mode { FM_FUSED, FM_GRADIENT, FM_APPLY };

/* One step of an optimizer; what depends on the step number is worked out before. */
typedef struct {
  int rule;
  double beta1, beta2; /* momentum and rho among them */
  double l2;           /* added to the gradient: l2 * w */
  double step_m, step_g, epsilon;
  double shrink;       /* decoupled decay: w -= shrink * w */
  double lr;           /* for the layers' own decay */
  double clip, factor; /* largest |g|; times g when a stored gradient is applied */
  enum fm_update_mode mode;
} fm_update;

/* A bit for each element of a matrix: whether it is not 0. Rows are ld bytes apart, at least eight
 * more than they need; behind the last one there is memory for seven. data NULL: nobody looks. */
typedef struct {
  uint8_t *data;
  ptrdiff_t ld;
} fm_bits;

enum fm_layer_kind { FM_DENSE, FM_DROPOUT, FM_LAYER_NORM, FM_BATCH_NORM };

/* A layer at work on one batch: its operation gives Z, its activation A. A norm's gain is W, of one
 * row, its shift b; the W of dropout has no rows. */
typedef struct {
  int kind, activation;
  fm_matrix W, WT;                   /* WT: transposed copy, where samples are taken one by one */
  void *b;                           /* (n_out,) */
  void *W_moments[2], *b_moments[2]; /* laid out as W and b */
  double l1, l2;                     /* penalties on W */
  double *penalties;                 /* (n_in,) one for each strip of rows; NULL: none */
  double *squares;       /* (n_in + 1,) of the gradient, a strip each, b last; or NULL */
  fm_matrix G;           /* gradient, laid out as W; data NULL: is never stored */
  void *gb;              /* laid out as b */
  double decay;          /* decoupled, times the rate; below 0: the optimizer's */
  double max_norm;       /* of a unit's weights; 0: any */
  double rate;           /* dropout's; of a batch norm's running statistics */
  double epsilon;        /* a norm's */
  fm_matrix H;           /* (batch, n_out) dropout's masks, a norm's normal inputs */
  void *mean, *variance; /* (n_out,) a batch norm's, of the batch */
  void *inverse;         /* 1 / sqrt(variance + epsilon): (n_out,), a layer norm's (batch,) */
  void *gains, *shifts;  /* (n_out,) gradients of a norm's gain and shift */
  void *running[2];      /* (n_out,) a batch norm's mean and variance for predictions */
  fm_matrix Z, A, D;     /* (batch, n_out); D: dA, then dZ. Z may be A (fm_needs_z) */
  fm_bits nonzero;       /* of A, where the next layer leaves zeros out */
} fm_layer;

typedef struct {
  int n_layers, first_trained; /* the lowest layer with parameters */
  fm_layer *layers;
  fm_loss loss;
  double loss_factor, gradient_factor; /* times each sample's loss and its gradient */
} fm_net;

/* Samples to train on. X has the table's dtype, or is uint8: pixels, divided by 255. */
typedef struct {
  const void *X;
  ptrdiff_t n_features, ldx;
  int is_uint8;
  const int64_t *labels;
  const void *Y;
  ptrdiff_t ldy;
  const double *weight; /* (n,) or NULL */
} fm_data;

/* One batch: which samples, and where its rows and results go. */
typedef struct {
  const ptrdiff_t *index; /* (n,) rows of the data */
  ptrdiff_t n;
  double weight;        /* sum of the samples' weights */
  double penalty_scale; /* times the layers' penalties */
  uint64_t seed, first; /* of the random numbers; place in the epoch of sample 0 */
  fm_matrix X[2];       /* (n, n_features) gathered; or two slices of it, the wider one first */
  fm_matrix Y;          /* (n, n_outputs) gathered, where the targets are rows */
  fm_bits nonzero[2];   /* of X */
  double *losses;       /* (n,) each sample's loss times its weight */
} fm_batch;

/* So many samples are read together where they are taken one by one; Z, A and D need rows for twice
 * as many. */
enum { FM_TOGETHER = 4 };

/* Samples to take one by one, and room for the features of two blocks of them. */
typedef struct {
  const ptrdiff_t *order; /* (n,) rows of the data */
  const double *rates;    /* (n,) */
  ptrdiff_t n, steps;     /* steps: those taken so far */
  void *values[2];        /* (FM_TOGETHER, n_features + 16) of the table's dtype */
  int32_t *lists[2];      /* (n_features + 16,) */
  double *losses;         /* (n,) each sample's loss */
} fm_samples;

typedef struct {
  const char *isa;
  int vector_bytes;

  /* affine.inl.h */
  void (*affine_forward)(const fm_matrix *X, const fm_matrix *W, const void *b, fm_matrix *Z);
  void (*affine_backward_weights)(const fm_matrix *X, const fm_matrix *dZ, fm_matrix *dW);
  void (*affine_backward_bias)(const fm_matrix *dZ, void *db);
  void (*transpose)(const fm_matrix *W, fm_matrix *WT);

  /* activations.inl.h */
  void (*activation_forward)(int activation, const fm_matrix *Z, fm_matrix *A);
  void (*activation_backward)(int activation, const fm_matrix *dA, const fm_matrix *Z,
                              const fm_matrix *A, fm_matrix *dZ);

  /* losses.inl.h */
  void (*loss_forward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                       const fm_targets *Y, double *values);
  void (*loss_backward)(const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z,
                        const fm_targets *Y, const double *scale, fm_matrix *dZ);
  ptrdiff_t (*count_correct)(const fm_loss *loss, const fm_matrix *A, const fm_targets *Y);

  /* optimizers.inl.h */
  void (*optimizer_update)(const fm_update *update, ptrdiff_t n, const void *g, void *w, void *s0,
                           void *s1);

  /* minibatch.inl.h */
  void (*gather)(const fm_data *data, const ptrdiff_t *index, ptrdiff_t n, fm_matrix *X);
  size_t (*forward_scratch_size)(const fm_net *net, ptrdiff_t n, ptrdiff_t n_features);
  int (*net_forward)(const fm_net *net, const fm_matrix *X, void *scratch);
  size_t (*scratch_size)(const fm_net *net, const fm_batch *batch);
  int (*n_stages)(const fm_net *net);
  void (*batch_slices)(const fm_net *net, const fm_data *data, fm_batch *batch, int part,
                       int n_parts, void *scratch);
  ptrdiff_t (*batch_rows)(const fm_net *net, const fm_data *data, fm_batch *batch, int stage,
                          ptrdiff_t start, ptrdiff_t stop, void *scratch);
  void (*batch_statistics)(const fm_net *net, const fm_batch *batch, int stage, int part,
                           int n_parts);

  /* updates.inl.h */
  void (*update_weights)(const fm_net *net, const fm_batch *batch, const fm_update *update,
                         int part, int n_parts, void *scratch);
  double (*sum_of_penalties)(const fm_net *net);
  double (*sum_of_squares)(const fm_net *net);
  void (*constrain_weights)(const fm_net *net, int part, int n_parts);
  void (*average_weights)(ptrdiff_t n, double share, const void *w, void *average);

  /* sgd.inl.h */
  void (*sgd_samples)(const fm_net *net, const fm_data *data, fm_samples *run, ptrdiff_t n,
                      double sums[3]);
} fm_kernels;

/* A user's activation: functions of one row of n elements. a may be z, dz may be da. */
typedef struct {
  void (*forward)(ptrdiff_t n, const void *z, void *a);
  void (*backward)(ptrdiff_t n, const void *da, const void *z, const void *a, void *dz);
} fm_native_activation;

/* Those of fastmlp/cfunctions.py: a pair of functions a dtype. */
extern const fm_native_activation (*fm_native_activations)[FM_N_DTYPES];
void fm_set_native_activations(const void *table);

/* Whether an activation's derivative reads Z; the others need A alone, so Z may share its memory.
 */
static inline int fm_needs_z(int activation) {
  return activation >= FM_NATIVE || activation == FM_SOFTPLUS || activation == FM_GELU ||
         activation == FM_SILU || activation == FM_INCREASING;
}

/* Whether an activation's outputs depend on more of a row than their own element, or may. */
static inline int fm_needs_row(int activation) {
  return activation >= FM_NATIVE || activation == FM_SOFTMAX || activation == FM_INCREASING;
}

/* The table of an instruction set; NULL where this build or this CPU does not have it.
 * fm_isa_names() lists those that were built, best last, NULL at the end. */
const fm_kernels *fm_kernels_of(const char *isa, enum fm_dtype dtype);
const char *const *fm_isa_names(void);
int fm_isa_supported(const char *isa);

#endif
