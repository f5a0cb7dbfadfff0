/* AVX2 and FMA: 16 registers of 32 bytes. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <immintrin.h>

#include "fastmlp.h"

#define FM_ISA avx2
#define FM_VECTOR_BYTES 32
#define FM_SPAN 32
#define FM_TILE_ROWS 6
#define FM_TILE_ROWS_3 4
#define FM_STRIP_ROWS 6
#define FM_STRIP_VECTORS 2
#define FM_PAIR_VECTORS 6

#define FM_FLOAT64 0
#include "kernels.inl.h"
#undef FM_FLOAT64
#define FM_FLOAT64 1
#include "kernels.inl.h"
