// Tensors as all kernels but convolutions and matrix products see them: entries in f32 or bf16,
// four at a time; and the walk over them.
//
// Widths are flags of an operand, not template parameters: these kernels wait for memory, a branch
// that all threads take alike costs nothing beside that, and any mix of widths is one kernel.
#pragma once
#include "common.cuh"

/// Entries in device memory. Twin: `launch::tensor::Operand`.
struct Tensor {
    u64 at;
    /// 2-byte entries (bf16) instead of 4-byte ones (f32).
    u32 half;
    /// Four entries from any multiple of 4 on may be read and written at once.
    u32 vector;
};

/// Four neighbouring entries.
struct __align__(16) Quad {
    float v[4];
};

__device__ __forceinline__ float load(const Tensor& t, u32 i) {
    if (t.half) return to_f32(reinterpret_cast<const bf16*>(t.at)[i]);
    return reinterpret_cast<const float*>(t.at)[i];
}

__device__ __forceinline__ void store(const Tensor& t, u32 i, float v) {
    if (t.half) {
        reinterpret_cast<bf16*>(t.at)[i] = from_f32<bf16>(v);
    } else {
        reinterpret_cast<float*>(t.at)[i] = v;
    }
}

/// Four entries as they lie in memory: bf16 ones are in the first two words. Taking them apart is
/// left to `quad`, so that many loads can be under way before the first is waited for.
struct __align__(16) Raw {
    u32 v[4];
};

/// Entries i .. i + n (n ≤ 4), zeros after them.
__device__ __forceinline__ Raw load_raw(const Tensor& t, u32 i, u32 n) {
    Raw r = {{0, 0, 0, 0}};
    if (t.half) {
        const u16* p = reinterpret_cast<const u16*>(t.at) + i;
        if (t.vector && n == 4) {
            Vec<u32, 2> words = load_vec<2>(reinterpret_cast<const u32*>(p));
            r.v[0] = words.v[0];
            r.v[1] = words.v[1];
        } else {
            if (n > 0) r.v[0] = p[0];
            if (n > 1) r.v[0] |= u32(p[1]) << 16;
            if (n > 2) r.v[1] = p[2];
            if (n > 3) r.v[1] |= u32(p[3]) << 16;
        }
    } else {
        const u32* p = reinterpret_cast<const u32*>(t.at) + i;
        if (t.vector && n == 4) {
            Vec<u32, 4> words = load_vec<4>(p);
#pragma unroll
            for (u32 k = 0; k < 4; k++) r.v[k] = words.v[k];
        } else {
#pragma unroll
            for (u32 k = 0; k < 4; k++)
                if (k < n) r.v[k] = p[k];
        }
    }
    return r;
}

__device__ __forceinline__ Quad quad(const Raw& r, bool half) {
    if (half) {
        return {{__uint_as_float(r.v[0] << 16), __uint_as_float(r.v[0] & 0xffff0000u), __uint_as_float(r.v[1] << 16),
                 __uint_as_float(r.v[1] & 0xffff0000u)}};
    }
    return {{__uint_as_float(r.v[0]), __uint_as_float(r.v[1]), __uint_as_float(r.v[2]), __uint_as_float(r.v[3])}};
}

__device__ __forceinline__ Quad load_quad(const Tensor& t, u32 i, u32 n) { return quad(load_raw(t, i, n), t.half); }

/// Entries i .. i + n (n ≤ 4).
__device__ __forceinline__ void store_quad(const Tensor& t, u32 i, u32 n, const Quad& q) {
    if (t.vector && n == 4) {
        if (t.half) {
            store_vec(reinterpret_cast<u32*>(t.at) + i / 2, Vec<u32, 2>{{pack_bf16(q.v[0], q.v[1]), pack_bf16(q.v[2], q.v[3])}});
        } else {
            store_vec(reinterpret_cast<float*>(t.at) + i, Vec<float, 4>{{q.v[0], q.v[1], q.v[2], q.v[3]}});
        }
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++)
            if (k < n) store(t, i + k, q.v[k]);
    }
}

/// V neighbouring entries, 1 or 4.
template <u32 V> struct Lanes {
    float v[V];
};

template <u32 V> __device__ __forceinline__ Lanes<V> load_lanes(const Tensor& t, u32 i) {
    if constexpr (V == 1) {
        return {{load(t, i)}};
    } else {
        Quad q = load_quad(t, i, 4);
        return {{q.v[0], q.v[1], q.v[2], q.v[3]}};
    }
}

template <u32 V> __device__ __forceinline__ void store_lanes(const Tensor& t, u32 i, const Lanes<V>& lanes) {
    if constexpr (V == 1) {
        store(t, i, lanes.v[0]);
    } else {
        store_quad(t, i, 4, {{lanes.v[0], lanes.v[1], lanes.v[2], lanes.v[3]}});
    }
}

/// How threads go through `count` entries. They are seen as rows of `step` entries; a block takes
/// `each` neighbouring rows of a strip of 4·blockDim.x columns; a thread takes four neighbouring
/// columns, the same in every row. Where columns are summed, `step` is a multiple of their number
/// (narrow) or their number itself (wide), so that a thread's four entries belong to the same
/// columns of the sum in every row. Blocks: strips · (rows / each), strips first. Twin:
/// `launch::walk::Walk`.
struct Walk {
    u32 count, step, rows, each, strips, pad;
};

/// A thread's part of a walk.
struct Steps {
    u32 strip, block, column, row, end;

    /// Of block number `of_walk` of those that the walk has.
    __device__ __forceinline__ explicit Steps(const Walk& w, u32 of_walk = blockIdx.x) {
        block = of_walk / w.strips;
        strip = of_walk - block * w.strips;
        column = (strip * blockDim.x + threadIdx.x) * 4;
        row = block * w.each;
        end = min(row + w.each, w.rows);
    }
    /// How many of the thread's four columns there are in a row.
    __device__ __forceinline__ u32 width(const Walk& w) const { return column < w.step ? min(4u, w.step - column) : 0; }
    /// First entry in row r.
    __device__ __forceinline__ u32 at(const Walk& w, u32 r) const { return r * w.step + column; }
    /// How many of the thread's four entries there are in row r.
    __device__ __forceinline__ u32 entries(const Walk& w, u32 r) const {
        u32 from = at(w, r);
        return from < w.count ? min(width(w), w.count - from) : 0;
    }
};

/// Sums of every `post`-th of the first rows·post numbers in shared memory, into the first `post`:
/// halves are added while there is more than one row. All threads must call it, after a barrier;
/// ends with one.
template <class T> __device__ __forceinline__ void fold(T* sums, u32 post, u32 rows) {
    while (rows > 1) {
        u32 half = rows / 2, kept = rows - half;
        for (u32 i = threadIdx.x; i < half * post; i += blockDim.x) sums[i] += sums[kept * post + i];
        __syncthreads();
        rows = kept;
    }
}
