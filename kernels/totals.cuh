// The last stage of sums that several blocks share, and what a program goes on with.
//
// Computes: the sums over blocks of partial sums in f64; and, where kernels are written for a program (src/backend/cuda/launch/tail.rs), the small
//   entrywise groups that come next: the last block to be done with its sums runs them.
// Host: src/backend/cuda/launch/{reduce,norm,tail}.rs.
#pragma once
#include "tensor.cuh"

/// Most tensors that one launch writes; warps of a block.
constexpr u32 MAX_TOTALS = 64, TOTALS_WARPS = 16;

/// outs[q] [each] = the sums over blocks of partials, f64 [blocks][tensors · each].
struct Totals {
    u64 partials;
    u32 blocks, length, each, pad;
    Tensor outs[MAX_TOTALS];
};

/// Mean and biased variance of every column of x, out [2, c], from the sums over blocks of partials, f64 [blocks][2][c].
struct MomentsTotal {
    Tensor x, out;
    u64 partials;
    double eps;
    /// Columns; blocks; rows of x; whether the second row of `out` is 1/√(variance + eps) instead of the variance.
    u32 c, blocks, rows, inverse;
};

/// A warp takes 32 neighbouring sums and every 16th block; the block's warps are then added pairwise.
__device__ __forceinline__ void sum_totals(const Totals& p) {
    SHARED(double, parts, [TOTALS_WARPS * 32]);
    u32 i = blockIdx.x * 32 + LANE;
    const double* partials = reinterpret_cast<const double*>(p.partials) + i;
    double sum = i < p.length ? sum_of_blocks(partials, p.blocks, TOTALS_WARPS, p.length) : 0.0;
    parts[threadIdx.x] = sum;
    __syncthreads();
    fold(parts, 32, TOTALS_WARPS);
    if (WARP == 0 && i < p.length) {
        u32 q = i / p.each;
        store(p.outs[q], i - q * p.each, float(parts[LANE]));
    }
}

/// Both sums over blocks of column blockIdx.x·32 + lane; right in warp 0, where the column exists.
__device__ __forceinline__ void column_totals(u64 from, u32 blocks, u32 c, double (&total)[2]) {
    SHARED(double, parts, [2 * TOTALS_WARPS * 32]);
    u32 column = blockIdx.x * 32 + LANE;
    double sum[2] = {};
    if (column < c) {
        const double* partials = reinterpret_cast<const double*>(from) + column;
        sum[0] = sum_of_blocks(partials, blocks, TOTALS_WARPS, 2 * c);
        sum[1] = sum_of_blocks(partials + c, blocks, TOTALS_WARPS, 2 * c);
    }
    parts[WARP * 64 + LANE] = sum[0];
    parts[WARP * 64 + 32 + LANE] = sum[1];
    __syncthreads();
    fold(parts, 64, TOTALS_WARPS);
    total[0] = parts[LANE];
    total[1] = parts[32 + LANE];
}

__device__ __forceinline__ void total_moments(const MomentsTotal& p) {
    double total[2];
    column_totals(p.partials, p.blocks, p.c, total);
    u32 column = blockIdx.x * 32 + LANE;
    if (WARP == 0 && column < p.c) {
        double d = total[0] / p.rows, variance = fmax(total[1] / p.rows - d * d, 0.0);
        store(p.out, column, float(double(load(p.x, column)) + d));
        store(p.out, p.c + column, float(p.inverse ? 1.0 / sqrt(variance + p.eps) : variance));
    }
}
