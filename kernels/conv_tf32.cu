// Convolutions in tf32 on the matrix units; storage and sums are f32. What they compute, and how:
// conv.cuh.
#include "conv_roles.cuh"
#include "conv_small_weights.cuh"

//                                m    n  of a warp,   k, stages
using T128x16 = Mma<float, float, 128, 16, 32, 16, 16, 4>;
using T128x32 = Mma<float, float, 128, 32, 32, 32, 16, 4>;
using T64x32 = Mma<float, float, 64, 32, 32, 16, 32, 4>;
using T64x64 = Mma<float, float, 64, 64, 32, 32, 16, 4>;
using T128x128 = Mma<float, float, 128, 128, 64, 64, 16, 3>;
using T128x160 = Mma<float, float, 128, 160, 64, 80, 16, 3>;
// Any channels.
using Odd = Mma<float, float, 64, 32, 32, 16, 16, 4>;

CORRELATE_KERNELS(128x16, T128x16, true)
CORRELATE_KERNELS(128x32, T128x32, true)
CORRELATE_KERNELS(64x32, T64x32, true)
CORRELATE_KERNELS(64x64, T64x64, true)
CORRELATE_KERNELS(128x128, T128x128, true)
CORRELATE_KERNELS(128x160, T128x160, true)
CORRELATE_KERNELS(odd, Odd, false)

// 144 = 3·3·16: the weights of a 3×3 convolution are whole tiles.
using W144x16 = Mma<float, float, 144, 16, 48, 16, 16, 4>;
using W144x32 = Mma<float, float, 144, 32, 48, 32, 16, 4>;
using W144x64 = Mma<float, float, 144, 64, 48, 32, 16, 4>;

WEIGHT_GRADIENT_KERNEL(144x16, W144x16, true)
WEIGHT_GRADIENT_KERNEL(144x32, W144x32, true)
WEIGHT_GRADIENT_KERNEL(144x64, W144x64, true)
WEIGHT_GRADIENT_KERNEL(128x160, T128x160, true)
WEIGHT_GRADIENT_KERNEL(odd, Odd, false)
GROUPED_KERNELS(Odd, Odd)

// Pixels in shared memory; the numbers are channels of the source and columns of a block.
SMALL_KERNELS(correlate, float, true)
SMALL_SUMS(correlate, float, true)
SMALL_WEIGHTS(weight_gradient_small, MatrixWeights<float, 1>)
SMALL_WEIGHTS(weight_gradient_2_small, MatrixWeights<float, 2>)
SMALL_PAIRS(correlate, float, true, MatrixWeights<float, 1>)
