// Sums over a middle axis.
//
// Host: src/backend/cuda/launch/reduce.rs.
// CPU twin: src/backend/cpu/reduce.rs. All sums run in f64, in an order that depends on the shapes
// only; these kernels wait for memory, not for f64.
#include "tensor.cuh"

namespace {

/// Warps of a block of `sum_wide`, and of `totals`.
constexpr u32 SUM_WARPS = 8, TOTALS_WARPS = 16;

struct Sum {
    Tensor x, out;
    /// f64 [chunks][pre · post], where there are several chunks.
    u64 partials;
    /// x is [pre, mid, post]; a block or warp adds `rows` neighbours along mid, a `chunks`-th of
    /// it.
    u32 pre, mid, post, rows, chunks, strips;
};

/// Where a sum over a chunk goes.
__device__ __forceinline__ void put(const Sum& p, u32 chunk, u32 i, double sum) {
    if (p.chunks == 1) {
        store(p.out, i, float(sum));
    } else {
        reinterpret_cast<double*>(p.partials)[u64(chunk) * p.pre * p.post + i] = sum;
    }
}

} // namespace

/// The sums of all chunks: a warp takes 32 neighbouring ones and every 16th chunk.
KERNEL_BOUNDS(totals, Sum, 512, 2) {
    SHARED(double, parts, [TOTALS_WARPS * 32]);
    u32 i = blockIdx.x * 32 + LANE, length = p.pre * p.post;
    const double* partials = reinterpret_cast<const double*>(p.partials) + i;
    bool some = i < length && WARP < p.chunks;
    parts[threadIdx.x] = some ? sum_of_parts<1>(partials + u64(WARP) * length, (p.chunks - WARP - 1) / TOTALS_WARPS + 1, u64(TOTALS_WARPS) * length).v[0] : 0.0;
    __syncthreads();
    fold(parts, 32, TOTALS_WARPS);
    if (WARP == 0 && i < length) store(p.out, i, float(parts[LANE]));
}

/// out [pre, post] = Σ_mid x [pre, mid, post] for post ≥ 32: a warp reads 32 neighbouring columns
/// of every 8th row.
KERNEL_BOUNDS(sum_wide, Sum, 256, 4) {
    SHARED(double, parts, [SUM_WARPS * 32]);
    u32 rest = blockIdx.x / p.strips, strip = blockIdx.x - rest * p.strips;
    u32 i = rest / p.chunks, chunk = rest - i * p.chunks;
    u32 column = strip * 32 + LANE, end = min(p.mid, (chunk + 1) * p.rows);
    double sum = 0.0;
    if (column < p.post) {
#pragma unroll 4
        for (u32 row = chunk * p.rows + WARP; row < end; row += SUM_WARPS) sum += double(load(p.x, (i * p.mid + row) * p.post + column));
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    fold(parts, 32, SUM_WARPS);
    if (WARP == 0 && column < p.post) put(p, chunk, i * p.post + column, parts[LANE]);
}

/// The same for post ≤ 32, a warp for each entry of pre and chunk: it reads the [mid, post] numbers
/// as they lie, as many rows at once as fit, so that a lane keeps its column.
KERNEL_BOUNDS(sum_narrow, Sum, 128, 8) {
    u32 warp = blockIdx.x * (blockDim.x / 32) + WARP;
    u32 i = warp / p.chunks, chunk = warp - i * p.chunks;
    if (i >= p.pre) return; // whole warps
    u32 rows = 32 / p.post, end = min(p.mid, (chunk + 1) * p.rows) * p.post, from = i * p.mid * p.post;
    double sum = 0.0;
    if (LANE < rows * p.post) {
#pragma unroll 4
        for (u32 at = chunk * p.rows * p.post + LANE; at < end; at += rows * p.post) sum += double(load(p.x, from + at));
    }
    while (rows > 1) {
        u32 half = rows / 2;
        rows -= half;
        double other = __shfl_down_sync(FULL_MASK, sum, rows * p.post);
        if (LANE < half * p.post) sum += other;
    }
    if (LANE < p.post) put(p, chunk, i * p.post + LANE, sum);
}
