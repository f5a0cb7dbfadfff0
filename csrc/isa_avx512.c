/* AVX-512 F, BW, DQ, VL: 32 registers of 64 bytes. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <immintrin.h>

#include "fastmlp.h"

#define FM_ISA avx512
#define FM_VECTOR_BYTES 64
#define FM_SPAN 1
#define FM_TILE_ROWS 14
#define FM_TILE_ROWS_3 9
#define FM_STRIP_ROWS 6
#define FM_STRIP_VECTORS 4
#define FM_PAIR_VECTORS 8

#define FM_FLOAT64 0
#include "kernels.inl.h"
#undef FM_FLOAT64
#define FM_FLOAT64 1
#include "kernels.inl.h"
