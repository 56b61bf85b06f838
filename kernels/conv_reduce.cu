// The last step of a weight gradient: the partial sums of all splits of the reduction, added in a fixed order.
//
//     out[e] (+)= Σ_s partial[s, e]
//
// A block takes 32 columns: each of its warps adds every eighth split with a compensated sum, then the first warp adds the eight. No atomics, so
// the bits do not depend on the order in which blocks run. Grid: ⌈count / 32⌉. CPU twin: src/backend/cpu/conv/weight_gradient.rs.
#include "common.cuh"

/// Twin of `launch::conv::ReduceParams`.
struct ReduceParams {
    u64 partial, out;
    i32 count, splits, accumulate, unused;
};

KERNEL_BOUNDS(conv_reduce, ReduceParams, 256, 1) {
    SHARED(float, sums, [8][32]);
    SHARED(float, lows, [8][32]);
    i32 at = i32(blockIdx.x) * 32 + i32(LANE);
    const float* partial = reinterpret_cast<const float*>(p.partial);
    Compensated sum;
    if (at < p.count) {
#pragma unroll 8
        for (i32 s = i32(WARP); s < p.splits; s += 8) sum.add(partial[(long long)s * p.count + at]);
    }
    sums[WARP][LANE] = sum.sum;
    lows[WARP][LANE] = sum.low;
    __syncthreads();
    if (WARP == 0 && at < p.count) {
        for (int w = 1; w < 8; w++) {
            Compensated other;
            other.sum = sums[w][LANE];
            other.low = lows[w][LANE];
            sum.add(other);
        }
        float* out = reinterpret_cast<float*>(p.out);
        out[at] = sum.value() + (p.accumulate ? out[at] : 0.0f);
    }
}
