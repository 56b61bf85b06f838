// Batch norm's statistics where nothing small comes after them: norm.cuh.
#include "norm.cuh"

KERNEL_BOUNDS(moments_alone, Norm, 256, 2) { moments(p); }
