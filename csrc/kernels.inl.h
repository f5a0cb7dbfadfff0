/* All kernel families for one instruction set and one dtype, and their table.
 * An isa_*.c sets FM_ISA, FM_VECTOR_BYTES, FM_SPAN, FM_TILE_ROWS, FM_TILE_ROWS_3, FM_STRIP_ROWS,
 * FM_STRIP_VECTORS and FM_PAIR_VECTORS, and includes this twice. */

#include "simd.h"
#include "vmath.h"

#include "optimizers.inl.h"

#include "affine.inl.h"

#include "backward.inl.h"

#include "activations.inl.h"

#include "losses.inl.h"

#include "sparsity.inl.h"

#include "dropout.inl.h"

#include "normalisation.inl.h"

#include "minibatch.inl.h"

#include "updates.inl.h"

#include "sgd.inl.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define TABLE_(isa, suffix) fm_kernels_##isa##suffix
#define TABLE(isa, suffix) TABLE_(isa, suffix)
#if FM_FLOAT64
#define SUFFIX _f64
#else
#define SUFFIX _f32
#endif

const fm_kernels TABLE(FM_ISA, SUFFIX) = {
    .isa = STRING(FM_ISA),
    .vector_bytes = FM_VECTOR_BYTES,
    .affine_forward = FN(affine_forward),
    .affine_backward_weights = FN(affine_backward_weights),
    .affine_backward_bias = FN(affine_backward_bias),
    .transpose = FN(transpose),
    .activation_forward = FN(activation_forward),
    .activation_backward = FN(activation_backward),
    .loss_forward = FN(loss_forward),
    .loss_backward = FN(loss_backward),
    .count_correct = FN(count_correct),
    .optimizer_update = FN(optimizer_update),
    .gather = FN(gather),
    .forward_scratch_size = FN(forward_scratch_size),
    .net_forward = FN(net_forward),
    .scratch_size = FN(scratch_size),
    .n_stages = FN(n_stages),
    .batch_slices = FN(batch_slices),
    .batch_rows = FN(batch_rows),
    .batch_statistics = FN(batch_statistics),
    .update_weights = FN(update_weights),
    .sum_of_penalties = FN(sum_of_penalties),
    .sum_of_squares = FN(sum_of_squares),
    .constrain_weights = FN(constrain_weights),
    .average_weights = FN(average_weights),
    .sgd_samples = FN(sgd_samples),
};

/* The second inclusion defines all of these again. */
#undef REAL
#undef INT
#undef FN
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUND_MAGIC
#undef EXP_LOW
#undef EXP_HIGH
#undef SUFFIX
