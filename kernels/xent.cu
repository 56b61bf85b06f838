// Softmax and per-sample cross-entropy of logits z [n, k] with labels y [n], and their derivatives.
//
//   softmax             out [n, k] = exp z_j / Σ exp z
//   cross_entropy       out [n]    = log Σ exp z_j − z_y
//   residual            out [n, k] = softmax(z) − onehot(y), times weight_i where there are weights
//                       [n]: the weighted loss's gradient
//   correct             out [n]    = 1 where the largest logit (the first of equals) is the
//                       label's, else 0
// A warp takes a sample; lanes go through its logits, all relative to the largest one and in f64:
// there are few logits, and the loss of a sample that is almost certain keeps its digits. A label
// that is no class (the CPU refuses it) makes NaN, never an access out of bounds.
// Host: src/backend/cuda/launch/xent.rs.
// CPU twin: src/backend/cpu/xent.rs.
#include "tensor.cuh"

namespace {

struct Xent {
    /// [n, k]; [n] (residual only; at 0 where there are none); the result.
    Tensor z, weight, out;
    /// i32 [n], 0 where there are none.
    u64 labels;
    u32 n, k;
};

/// A sample's largest logit, where it is (the first of equals), and Σ exp(z_j − largest) over the
/// others.
struct Top {
    float z;
    u32 at;
    double others;
};

__device__ __forceinline__ double relative(float z, float top) { return exp(double(z) - double(top)); }

__device__ __forceinline__ Top top_and_others(const Xent& p, u32 sample) {
    // As a walk from the first logit on: one that is not a number stays where it is first, and is
    // not taken later.
    Top top = {load(p.z, sample * p.k), 0, 0.0};
    for (u32 j = LANE; j < p.k; j += 32) {
        float z = load(p.z, sample * p.k + j);
        if (z > top.z) top = {z, j, 0.0};
    }
#pragma unroll
    for (int by = 16; by > 0; by >>= 1) {
        float z = __shfl_xor_sync(FULL_MASK, top.z, by);
        u32 at = __shfl_xor_sync(FULL_MASK, top.at, by);
        if (z > top.z || (z == top.z && at < top.at)) top = {z, at, 0.0};
    }
    for (u32 j = LANE; j < p.k; j += 32)
        if (j != top.at) top.others += relative(load(p.z, sample * p.k + j), top.z);
    top.others = warp_sum(top.others);
    return top;
}

/// The warp's sample, n where there is none.
__device__ __forceinline__ u32 sample_of(const Xent& p) { return min(blockIdx.x * (blockDim.x / 32) + WARP, p.n); }

__device__ __forceinline__ u32 label_of(const Xent& p, u32 sample) { return u32(reinterpret_cast<const i32*>(p.labels)[sample]); }

} // namespace

KERNEL_BOUNDS(softmax, Xent, 128, 4) {
    u32 i = sample_of(p);
    if (i == p.n) return; // whole warps
    Top top = top_and_others(p, i);
    double total = 1.0 + top.others;
    for (u32 j = LANE; j < p.k; j += 32) store(p.out, i * p.k + j, float(relative(load(p.z, i * p.k + j), top.z) / total));
}

KERNEL_BOUNDS(cross_entropy, Xent, 128, 4) {
    u32 i = sample_of(p);
    if (i == p.n) return;
    Top top = top_and_others(p, i);
    u32 y = label_of(p, i);
    if (LANE > 0) return;
    // log(1 + Σ others) keeps the digits of a small loss.
    float loss = y < p.k ? float(log1p(top.others) + (double(top.z) - double(load(p.z, i * p.k + y)))) : __uint_as_float(0x7fc00000u);
    store(p.out, i, loss);
}

KERNEL_BOUNDS(residual, Xent, 128, 4) {
    u32 i = sample_of(p);
    if (i == p.n) return;
    Top top = top_and_others(p, i);
    u32 y = label_of(p, i);
    double weight = p.weight.at ? double(load(p.weight, i)) : 1.0, total = 1.0 + top.others;
    if (y >= p.k) weight = double(__uint_as_float(0x7fc00000u));
    // p_y − 1 = −Σ_{j≠y} p_j, without the cancellation.
    double others = 0.0;
    for (u32 j = LANE; j < p.k; j += 32) {
        if (j != y) {
            double q = relative(load(p.z, i * p.k + j), top.z) / total;
            others += q;
            store(p.out, i * p.k + j, float(weight * q));
        }
    }
    others = warp_sum(others);
    if (LANE == 0 && y < p.k) store(p.out, i * p.k + y, float(-weight * others));
}

KERNEL_BOUNDS(correct, Xent, 128, 4) {
    u32 i = sample_of(p);
    if (i == p.n) return;
    Top top = top_and_others(p, i);
    // Where a logit is not a number, neither is the rest's share, and nothing is right.
    bool hit = top.at == label_of(p, i) && top.others == top.others;
    if (LANE == 0) store(p.out, i, hit ? 1.0f : 0.0f);
}
