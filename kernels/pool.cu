// Max-pooling as a linear map: the entries at the places of the maxima, and its transpose.
//
//   select      out [n, p, q, c] = v [n, h, w, c] at the place of x's maximum in each window (the
//               first in row-major order, or the first NaN); select(x, x) is max-pooling itself
//   unselect    out [n, h, w, c] = Σ v [n, p, q, c] over the windows that have their maximum there
// Windows are k × k, `stride` apart, those that fit whole; they may overlap. A thread takes one
// entry of the result, or four neighbouring channels (_4, where 4 divides c); it reads all of a
// window. unselect gathers: for each entry, the windows that hold it, in row-major order, so
// nothing is added by two threads.
// Host: src/backend/cuda/launch/pool.rs.
// CPU twin: src/backend/cpu/pool.rs.
#include "tensor.cuh"

namespace {

struct Pool {
    Tensor v, x, out;
    /// The result's groups of channels, columns and rows.
    FastDiv groups, columns, rows;
    /// Threads at work.
    u32 count;
    u32 h, w, c, p, q, k, stride;
};

/// Whether `v` takes the place of `max`: larger, or the first NaN.
__device__ __forceinline__ bool takes(float v, float max) { return v > max || (v != v && max == max); }

/// Place in [n, h, w, c] of a window's first entry.
__device__ __forceinline__ u32 window_at(const Pool& p, u32 n, u32 row, u32 column, u32 c) {
    return ((n * p.h + row * p.stride) * p.w + column * p.stride) * p.c + c;
}

template <u32 V> __device__ __forceinline__ void select(const Pool& p) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 group, column, row, rest = p.groups.split(i, group);
    rest = p.columns.split(rest, column);
    u32 n = p.rows.split(rest, row), from = window_at(p, n, row, column, group * V);
    Lanes<V> max = load_lanes<V>(p.x, from), best = load_lanes<V>(p.v, from);
    bool same = p.v.at == p.x.at; // max-pooling itself
    for (u32 a = 0; a < p.k; a++) {
        for (u32 b = 0; b < p.k; b++) {
            u32 at = from + (a * p.w + b) * p.c;
            Lanes<V> x = load_lanes<V>(p.x, at), v = same ? x : load_lanes<V>(p.v, at);
#pragma unroll
            for (u32 l = 0; l < V; l++) {
                if (takes(x.v[l], max.v[l])) {
                    max.v[l] = x.v[l];
                    best.v[l] = v.v[l];
                }
            }
        }
    }
    store_lanes<V>(p.out, i * V, best);
}

template <u32 V> __device__ __forceinline__ void unselect(const Pool& p) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 group, column, row, rest = p.groups.split(i, group);
    rest = p.columns.split(rest, column);
    u32 n = p.rows.split(rest, row);
    Lanes<V> sum;
#pragma unroll
    for (u32 l = 0; l < V; l++) sum.v[l] = 0.0f;
    // Windows a·stride .. a·stride + k that hold the row, and the column.
    u32 first_p = row < p.k ? 0 : (row - p.k) / p.stride + 1, end_p = min(row / p.stride + 1, p.p);
    u32 first_q = column < p.k ? 0 : (column - p.k) / p.stride + 1, end_q = min(column / p.stride + 1, p.q);
    for (u32 a = first_p; a < end_p; a++) {
        for (u32 b = first_q; b < end_q; b++) {
            u32 from = window_at(p, n, a, b, group * V), own = (row - a * p.stride) * p.k + (column - b * p.stride), place[V];
            Lanes<V> max = load_lanes<V>(p.x, from);
#pragma unroll
            for (u32 l = 0; l < V; l++) place[l] = 0;
            for (u32 t = 1; t < p.k * p.k; t++) {
                Lanes<V> x = load_lanes<V>(p.x, from + (t / p.k * p.w + t % p.k) * p.c);
#pragma unroll
                for (u32 l = 0; l < V; l++) {
                    if (takes(x.v[l], max.v[l])) {
                        max.v[l] = x.v[l];
                        place[l] = t;
                    }
                }
            }
            Lanes<V> v = load_lanes<V>(p.v, ((n * p.p + a) * p.q + b) * p.c + group * V);
#pragma unroll
            for (u32 l = 0; l < V; l++)
                if (place[l] == own) sum.v[l] += v.v[l];
        }
    }
    store_lanes<V>(p.out, i * V, sum);
}

} // namespace

KERNEL_BOUNDS(select_1, Pool, 256, 4) { select<1>(p); }
KERNEL_BOUNDS(select_4, Pool, 256, 4) { select<4>(p); }
KERNEL_BOUNDS(unselect_1, Pool, 256, 4) { unselect<1>(p); }
KERNEL_BOUNDS(unselect_4, Pool, 256, 4) { unselect<4>(p); }
