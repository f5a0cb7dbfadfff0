/* NEON of 64-bit Arm: 32 registers of 16 bytes. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <arm_neon.h>

#include "fastmlp.h"

#define FM_ISA neon
#define FM_NEON
#define FM_VECTOR_BYTES 16
#define FM_SPAN 1
#define FM_TILE_ROWS 12
#define FM_TILE_ROWS_3 9
#define FM_STRIP_ROWS 6
#define FM_STRIP_VECTORS 4
#define FM_PAIR_VECTORS 7

#define FM_FLOAT64 0
#include "kernels.inl.h"
#undef FM_FLOAT64
#define FM_FLOAT64 1
#include "kernels.inl.h"
