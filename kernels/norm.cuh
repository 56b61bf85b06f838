// Batch norm's statistics: mean and biased variance of every column of x [rows, c].
//
// Σ(x − x₀) and Σ(x − x₀)² of every column, x₀ its first entry, in one pass over x; f64 throughout,
// so that one pass is enough: the columns' differences from x₀ cancel in none of a f32's digits. A
// walk (tensor.cuh) in which a thread keeps its four columns; what blocks share is added by the
// last of them (`add_parts`). What batch norm does with the statistics is entrywise work.
// Host: src/backend/cuda/launch/norm.rs.
// CPU twin: src/backend/cpu/norm.rs.
#pragma once
#include "tensor.cuh"

struct Norm {
    Walk walk;
    /// `out` [2, c]: mean, then biased variance.
    Tensor x, out;
    /// f64 [parts][2][c].
    u64 partials;
    Parts parts;
    /// Columns; rows of x that lie beside each other in a row of the walk; rows of x.
    u32 c, beside, rows, unused;
};

/// Returns whether this block is the one that has written `out`.
__device__ __forceinline__ bool moments(const Norm& p) {
    constexpr u32 MAX_THREADS = 512;
    /// Rows that a thread has under way at once.
    constexpr u32 AHEAD = 4;
    SHARED(double, sums, [2 * 4 * MAX_THREADS]);
    Steps steps(p.walk);
    Quad shift;
    u32 column = steps.column % p.c;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        shift.v[k] = load(p.x, column);
        column = column + 1 == p.c ? 0 : column + 1;
    }
    double acc[2][4] = {};
    u32 end = steps.width(p.walk) > 0 ? steps.end : 0;
    for (u32 first = steps.row; first < end; first += AHEAD) {
        Raw x[AHEAD];
        u32 n[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 row = first + i;
            n[i] = row < end ? steps.entries(p.walk, row) : 0;
            x[i] = load_raw(p.x, steps.at(p.walk, row), n[i]);
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            Quad xs = quad(x[i], p.x.half);
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                if (k < n[i]) {
                    double d = double(xs.v[k]) - double(shift.v[k]);
                    acc[0][k] += d;
                    acc[1][k] += d * d;
                }
            }
        }
    }
    u32 from = steps.strip * blockDim.x * 4, width = min(blockDim.x * 4, p.c - from);
#pragma unroll
    for (u32 q = 0; q < 2; q++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) sums[q * 4 * MAX_THREADS + threadIdx.x * 4 + k] = acc[q][k];
    }
    __syncthreads();
    double* partials = reinterpret_cast<double*>(p.partials);
    for (u32 q = 0; q < 2; q++) {
        double *sum = sums + q * 4 * MAX_THREADS, *partial = partials + (u64(steps.block) * 2 + q) * p.c + from;
        fold(sum, p.c, p.beside);
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) partial[i] = sum[i];
    }
    return add_parts(p.parts, steps.block, p.walk.strips, 0, [&](u32 first, u32 count, u32 step, bool last) {
        u64 size = 2 * u64(p.c);
        double* to = partials + first * size;
        for (u32 i = threadIdx.x; i < p.c; i += blockDim.x) {
            double d = sum_of_parts<1>(to + i, count, step * size).v[0], d2 = sum_of_parts<1>(to + p.c + i, count, step * size).v[0];
            if (last) {
                d /= p.rows;
                store(p.out, i, float(double(load(p.x, i)) + d));
                store(p.out, p.c + i, float(fmax(d2 / p.rows - d * d, 0.0)));
            } else {
                to[i] = d;
                to[p.c + i] = d2;
            }
        }
    });
}
