// Convolutions in f32 on the ordinary units. What they compute, and how: conv.cuh. Tile sizes:
// src/backend/cuda/launch/conv/tiles.rs.
#include "conv_roles.cuh"
#include "conv_small_f32.cuh"

//                   m    n  warps, lanes along n, stages
using T128x16 = Ffma<128, 16, 4, 4, 4>;
using T128x32 = Ffma<128, 32, 4, 8, 4>;
using T64x32 = Ffma<64, 32, 4, 8, 4>;
using T64x64 = Ffma<64, 64, 4, 8, 4>;
using T128x128 = Ffma<128, 128, 8, 8, 3>;
using T128x160 = Ffma<128, 160, 8, 8, 3>;

CORRELATE_KERNELS(128x16, T128x16, true)
CORRELATE_KERNELS(128x32, T128x32, true)
CORRELATE_KERNELS(64x32, T64x32, true)
CORRELATE_KERNELS(64x64, T64x64, true)
CORRELATE_KERNELS(128x128, T128x128, true)
CORRELATE_KERNELS(128x160, T128x160, true)
CORRELATE_KERNELS(odd, T64x32, false)

WEIGHT_GRADIENT_KERNEL(128x16, T128x16, true)
WEIGHT_GRADIENT_KERNEL(128x32, T128x32, true)
WEIGHT_GRADIENT_KERNEL(64x64, T64x64, true)
WEIGHT_GRADIENT_KERNEL(128x160, T128x160, true)
WEIGHT_GRADIENT_KERNEL(odd, T64x32, false)
GROUPED_KERNELS(T64x32, T64x32)

// Pixels in shared memory; the numbers are channels of the source and columns of a block.
SMALL_KERNELS(correlate_f32, float, false)
SMALL_SUMS(correlate_f32, float, false)
SMALL_WEIGHTS(weight_gradient_small, OrdinaryWeights<1>)
SMALL_WEIGHTS(weight_gradient_2_small, OrdinaryWeights<2>)
SMALL_PAIRS(correlate_f32, float, false, OrdinaryWeights<1>)
