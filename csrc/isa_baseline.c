/* What every CPU of the architecture has: 16-byte vectors, no intrinsics. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "fastmlp.h"

#define FM_ISA baseline
#define FM_VECTOR_BYTES 16
#define FM_SPAN 1
#define FM_TILE_ROWS 4
#define FM_TILE_ROWS_3 4
#define FM_STRIP_ROWS 4
#define FM_STRIP_VECTORS 2
#define FM_PAIR_VECTORS 4

#define FM_FLOAT64 0
#include "kernels.inl.h"
#undef FM_FLOAT64
#define FM_FLOAT64 1
#include "kernels.inl.h"
