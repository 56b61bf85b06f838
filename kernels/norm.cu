// Batch norm's statistics, and batch norm and its Jacobian where they are not fused with their neighbours.
//
// x [rows, c] is normalised over rows (all axes but the last). Host: src/backend/cuda/launch/norm.rs. CPU twin: src/backend/cpu/norm.rs.
//   moments, then moments_total        Σ(x − x₀) and Σ(x − x₀)² of every column, x₀ its first entry, in one pass over x; then mean and
//                                      biased variance (or 1/√(variance + eps)). f64 throughout, so that one pass is enough: the columns'
//                                      differences from x₀ cancel in none of a f32's digits.
//   normalise                          x̂ = (x − mean)·r
//   projections, projections_total     Σv and Σx̂v of every column; then r·mean(v) and r²·mean(x̂v)
//   apply_jacobian                     r·v − r·mean(v) − (x − mean)·r²·mean(x̂v)
// Each is a walk (tensor.cuh) in which a thread keeps its four columns. Partial sums of blocks are added in a fixed order.
#include "totals.cuh"

namespace {

constexpr u32 MAX_THREADS = 256;
/// Rows that a thread has under way at once.
constexpr u32 AHEAD = 4;

struct Norm {
    Walk walk;
    /// `v` for the Jacobian and its projections; `out` for what is written.
    Tensor x, v, out;
    /// f32 [2, c]: mean, then 1/√(variance + eps).
    u64 moments;
    /// f64 [blocks][2][c].
    u64 partials;
    /// f32 [2, c]: r·mean(v), then r²·mean(x̂v).
    u64 coefficients;
    /// Columns; rows of x that lie beside each other in a row of the walk; blocks; rows of x.
    u32 c, beside, blocks, rows;
};

/// f(column k of the thread) from a table [c], as floats.
__device__ __forceinline__ Quad of_columns(const Norm& p, const Steps& steps, const float* table) {
    Quad q;
    u32 column = steps.column % p.c;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        q.v[k] = table[column];
        column = column + 1 == p.c ? 0 : column + 1;
    }
    return q;
}

/// Two sums over rows for each column: of f(x, v, per-column numbers a, b)[0] and [1].
template <bool PAIR, class F> __device__ __forceinline__ void column_sums(const Norm& p, const Steps& steps, const Quad& a, const Quad& b, F f) {
    SHARED(double, sums, [2 * 4 * MAX_THREADS]);
    double acc[2][4] = {};
    u32 end = steps.width(p.walk) > 0 ? steps.end : 0;
    for (u32 first = steps.row; first < end; first += AHEAD) {
        Raw x[AHEAD], v[AHEAD];
        u32 n[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 row = first + i;
            n[i] = row < end ? steps.entries(p.walk, row) : 0;
            x[i] = load_raw(p.x, steps.at(p.walk, row), n[i]);
            if (PAIR) v[i] = load_raw(p.v, steps.at(p.walk, row), n[i]);
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            Quad xs = quad(x[i], p.x.half), vs = PAIR ? quad(v[i], p.v.half) : xs;
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                if (k < n[i]) {
                    double terms[2];
                    f(xs.v[k], vs.v[k], double(a.v[k]), double(b.v[k]), terms);
                    acc[0][k] += terms[0];
                    acc[1][k] += terms[1];
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
    for (u32 q = 0; q < 2; q++) {
        double* sum = sums + q * 4 * MAX_THREADS;
        fold(sum, p.c, p.beside);
        double* partial = reinterpret_cast<double*>(p.partials) + (u64(steps.block) * 2 + q) * p.c + from;
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) partial[i] = sum[i];
    }
}

/// out = f(x, v, four numbers of the column).
template <bool PAIR, class F>
__device__ __forceinline__ void map_columns(const Norm& p, const Steps& steps, F f) {
    if (steps.width(p.walk) == 0) return;
    for (u32 row = steps.row; row < steps.end; row++) {
        u32 at = steps.at(p.walk, row), n = steps.entries(p.walk, row);
        Quad x = load_quad(p.x, at, n), v = PAIR ? load_quad(p.v, at, n) : x;
#pragma unroll
        for (u32 k = 0; k < 4; k++) x.v[k] = f(x.v[k], v.v[k], k);
        store_quad(p.out, at, n, x);
    }
}

} // namespace

KERNEL_BOUNDS(moments, Norm, 256, 2) {
    Steps steps(p.walk);
    u32 column = steps.column % p.c;
    Quad shift, none = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        shift.v[k] = load(p.x, column);
        column = column + 1 == p.c ? 0 : column + 1;
    }
    column_sums<false>(p, steps, shift, none, [](float x, float, double shift, double, double (&terms)[2]) {
        double d = double(x) - shift;
        terms[0] = d;
        terms[1] = d * d;
    });
}

KERNEL_BOUNDS(moments_total, MomentsTotal, 512, 2) { total_moments(p); }

KERNEL_BOUNDS(normalise, Norm, 256, 2) {
    Steps steps(p.walk);
    const float* moments = reinterpret_cast<const float*>(p.moments);
    Quad mean = of_columns(p, steps, moments), r = of_columns(p, steps, moments + p.c);
    map_columns<false>(p, steps, [&](float x, float, u32 k) { return (x - mean.v[k]) * r.v[k]; });
}

KERNEL_BOUNDS(projections, Norm, 256, 2) {
    Steps steps(p.walk);
    const float* moments = reinterpret_cast<const float*>(p.moments);
    Quad mean = of_columns(p, steps, moments), r = of_columns(p, steps, moments + p.c);
    column_sums<true>(p, steps, mean, r, [](float x, float v, double mean, double r, double (&terms)[2]) {
        terms[0] = double(v);
        terms[1] = (double(x) - mean) * r * double(v);
    });
}

KERNEL_BOUNDS(projections_total, Norm, 512, 2) {
    double total[2];
    column_totals(p.partials, p.blocks, p.c, total);
    u32 column = blockIdx.x * 32 + LANE;
    if (WARP > 0 || column >= p.c) return;
    double r = double(reinterpret_cast<const float*>(p.moments)[p.c + column]);
    float* coefficients = reinterpret_cast<float*>(p.coefficients);
    coefficients[column] = float(r * total[0] / p.rows);
    coefficients[p.c + column] = float(r * r * total[1] / p.rows);
}

KERNEL_BOUNDS(apply_jacobian, Norm, 256, 2) {
    Steps steps(p.walk);
    const float* moments = reinterpret_cast<const float*>(p.moments);
    const float* coefficients = reinterpret_cast<const float*>(p.coefficients);
    Quad mean = of_columns(p, steps, moments), r = of_columns(p, steps, moments + p.c);
    Quad a = of_columns(p, steps, coefficients), b = of_columns(p, steps, coefficients + p.c);
    map_columns<true>(p, steps, [&](float x, float v, u32 k) { return r.v[k] * v - a.v[k] - (x - mean.v[k]) * b.v[k]; });
}
