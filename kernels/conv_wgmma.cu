// Wide convolutions of bf16 activations on Hopper's matrix units; weights were cast to bf16 before
// the launch. What they compute, and how: conv.cuh. Of cards other than those of compute capability
// 9.0 there is nothing here.
#include "conv_wgmma.cuh"
#include "conv_roles.cuh"

#ifdef HAS_WGMMA

//                      n, stages
using T256x128 = Wgmma<128, 3>;
using T256x160 = Wgmma<160, 3>;

CORRELATE_KERNELS(256x128, T256x128, true)
CORRELATE_KERNELS(256x160, T256x160, true)
WEIGHT_GRADIENT_KERNEL(256x128, T256x128, true)
WEIGHT_GRADIENT_KERNEL(256x160, T256x160, true)

#endif
