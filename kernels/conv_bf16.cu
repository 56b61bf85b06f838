// Convolutions of bf16 activations on the matrix units; sums are f32, and so are weights but for
// large tiles. What they compute, and how: conv.cuh.
#include "conv_roles.cuh"
#include "conv_small_weights.cuh"

//                               m    n  of a warp,   k, stages
using T128x16 = Mma<bf16, float, 128, 16, 32, 16, 32, 4>;
using T128x32 = Mma<bf16, float, 128, 32, 32, 32, 32, 4>;
using T64x32 = Mma<bf16, float, 64, 32, 32, 16, 64, 4>;
using T64x64 = Mma<bf16, float, 64, 64, 32, 32, 32, 4>;
using T128x128 = Mma<bf16, bf16, 128, 128, 64, 64, 32, 3>;
using T128x160 = Mma<bf16, bf16, 128, 160, 64, 80, 32, 3>;
// Any channels.
using Odd = Mma<bf16, float, 64, 32, 32, 16, 32, 4>;

CORRELATE_KERNELS(128x16, T128x16, true)
CORRELATE_KERNELS(128x32, T128x32, true)
CORRELATE_KERNELS(64x32, T64x32, true)
CORRELATE_KERNELS(64x64, T64x64, true)
CORRELATE_KERNELS(128x128, T128x128, true)
CORRELATE_KERNELS(128x160, T128x160, true)
CORRELATE_KERNELS(odd, Odd, false)

// 144 = 3·3·16: the weights of a 3×3 convolution are whole tiles.
using W144x16 = Mma<bf16, bf16, 144, 16, 48, 16, 32, 4>;
using W144x32 = Mma<bf16, bf16, 144, 32, 48, 32, 32, 4>;
using W144x64 = Mma<bf16, bf16, 144, 64, 48, 32, 32, 4>;
using OddWeights = Mma<bf16, bf16, 64, 32, 32, 16, 32, 4>;

WEIGHT_GRADIENT_KERNEL(144x16, W144x16, true)
WEIGHT_GRADIENT_KERNEL(144x32, W144x32, true)
WEIGHT_GRADIENT_KERNEL(144x64, W144x64, true)
WEIGHT_GRADIENT_KERNEL(128x160, T128x160, true)
WEIGHT_GRADIENT_KERNEL(odd, OddWeights, false)
GROUPED_KERNELS(Odd, OddWeights)

// Pixels in shared memory; the numbers are channels of the source and columns of a block.
SMALL_KERNELS(correlate, bf16, true)
SMALL_SUMS(correlate, bf16, true)
SMALL_WEIGHTS(weight_gradient_small, MatrixWeights<bf16, 1>)
SMALL_WEIGHTS(weight_gradient_2_small, MatrixWeights<bf16, 2>)
SMALL_PAIRS(correlate, bf16, true, MatrixWeights<bf16, 1>)
