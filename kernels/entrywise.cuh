// Entrywise groups: what their generated kernels are made of.
//
// Computes: a small straight-line program for every entry of an index space: operands (full-size,
// repeated along an axis, or one number), steps, then stores of values, and sums of values over all
// but the last axes ([1, mid, post] summed over mid).
// Fuses: everything entrywise that a step's program does between two contractions (batch norm's
// normalisation, scale, shift, ReLU, shortcut and their derivatives with the sums these need; an
// optimiser's update of a parameter), so that each operand is read once and each result written
// once.
// How: src/backend/cuda/launch/entrywise/write.rs writes a struct E for each group that is made
// otherwise than the ones before; sizes, addresses and constants are parameters, so that few are. E
// has ROWS, SUMS, and
//     begin(column, width)  reads what is the same in every row: one number, or a vector along the
//                           columns that a thread keeps
//     rows<FULL>(at)        ROWS rows of the walk (tensor.cuh), four entries of each: loads, steps,
//                           stores, additions to `sums`. All loads come before the first store: a
//                           result may lie over an operand of its own (an update in place)
//     put(q, i, v)          entry i of the q-th sum, where one block sees all of it
//   Sums: a thread adds up its four columns in f32 over at most 64 rows, the block adds its threads
//   pairwise, and the last block adds the blocks in f64 in a fixed order (`add_parts`). It then
//   goes on with the small groups that come next.
//   Groups that do not depend on each other and are small (the updates of a network's parameters)
//   go into one launch: alone, each would take longer to start than to run.
// Shapes: see `Group` (src/program/kernel.rs). CPU twin: src/backend/cpu/entrywise.rs.
// Host: src/backend/cuda/launch/entrywise.
#pragma once
#include "tensor.cuh"

#define INLINE __device__ __forceinline__

/// What every group's parameters begin with; twin: `Head`.
struct Head {
    Walk walk;
    /// Columns of a sum; rows of it that lie beside each other in a row of the walk.
    u32 post, beside;
    /// f64 [parts][sums][post]; not where a sum has but one part.
    u64 partials;
    Parts parts;
};

/// How entries find their value in an operand of shape [pre, post] that is repeated along mid.
struct Repeat {
    FastDiv post, row;
};

/// Groups in one launch: addresses of the table of them, and of a word a block: its group's number
/// << 16 | its own number among the group's.
struct Many {
    u64 groups, blocks;
};

/// A group of a launch of several: its parameters, and which of the launch's kinds it is.
struct Member {
    u64 params;
    u32 kind, pad;
};

/// Four entries in each of R rows.
template <u32 R> struct Rows {
    Quad row[R];
};

/// First entry in each row, and how many there are.
template <u32 R> struct At {
    u32 at[R], n[R];
};

// ---- loads and stores ---------------------------------------------------------------------------

/// n entries from a place on, zeros after them. WHOLE: n is 4 and the place aligned.
template <class T, bool WHOLE> INLINE Quad entries(const T* from, u32 n) {
    Quad q = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if constexpr (WHOLE) {
        load_f32<4>(from, q.v);
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++)
            if (k < n) q.v[k] = to_f32(from[k]);
    }
    return q;
}

/// The one entry of an operand.
template <class T> INLINE float number(u64 base) { return to_f32(*reinterpret_cast<const T*>(base)); }

/// A full-size operand. VECTOR: four entries from a multiple of 4 on may be read at once; FULL: all
/// rows have four.
template <class T, bool VECTOR, bool FULL, u32 R> INLINE Rows<R> full(u64 base, const At<R>& at) {
    Rows<R> x;
#pragma unroll
    for (u32 r = 0; r < R; r++) x.row[r] = entries<T, VECTOR && FULL>(reinterpret_cast<const T*>(base) + at.at[r], FULL ? 4 : at.n[r]);
    return x;
}

/// A vector of `post` entries, repeated, in the columns that a thread keeps. VECTOR: it is aligned
/// and post a multiple of 4.
template <class T, bool VECTOR> INLINE Quad kept(u64 base, const FastDiv& post, u32 column, u32 width) {
    const T* from = reinterpret_cast<const T*>(base);
    u32 c;
    post.split(column, c);
    if (VECTOR && width == 4) return entries<T, true>(from + c, 4);
    Quad q = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        if (k < width) q.v[k] = to_f32(from[c]);
        c = c + 1 == post.divisor ? 0 : c + 1;
    }
    return q;
}

/// Any operand that is repeated. VECTOR: four entries from a multiple of 4 on are neighbours here,
/// too, and aligned.
template <class T, bool VECTOR, bool FULL, u32 R> INLINE Rows<R> repeated(u64 base, const Repeat& how, const At<R>& at) {
    const T* from = reinterpret_cast<const T*>(base);
    Rows<R> x;
#pragma unroll
    for (u32 r = 0; r < R; r++) {
        u32 i = at.at[r], n = FULL ? 4 : at.n[r], c, row = how.row.divide(i);
        how.post.split(i, c);
        u32 post = how.post.divisor;
        if constexpr (VECTOR) {
            x.row[r] = entries<T, FULL>(from + row * post + c, n);
        } else {
            Quad q = {{0.0f, 0.0f, 0.0f, 0.0f}};
            u32 left = how.row.divisor - (i - row * how.row.divisor);
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                if (k < n) q.v[k] = to_f32(from[row * post + c]);
                c = c + 1 == post ? 0 : c + 1;
                if (--left == 0) {
                    left = how.row.divisor;
                    row++;
                }
            }
            x.row[r] = q;
        }
    }
    return x;
}

/// The same numbers in every row.
template <u32 R> INLINE Rows<R> every(const Quad& q) {
    Rows<R> x;
#pragma unroll
    for (u32 r = 0; r < R; r++) x.row[r] = q;
    return x;
}
template <u32 R> INLINE Rows<R> every(float v) { return every<R>(Quad{{v, v, v, v}}); }

template <class T, bool VECTOR, bool FULL, u32 R> INLINE void write(u64 base, const At<R>& at, const Rows<R>& x) {
#pragma unroll
    for (u32 r = 0; r < R; r++) {
        T* to = reinterpret_cast<T*>(base) + at.at[r];
        if constexpr (VECTOR && FULL) {
            store_f32<4>(to, x.row[r].v);
        } else {
#pragma unroll
            for (u32 k = 0; k < 4; k++)
                if (FULL || k < at.n[r]) to[k] = from_f32<T>(x.row[r].v[k]);
        }
    }
}

template <bool FULL, u32 R> INLINE void add(Quad& sum, const At<R>& at, const Rows<R>& x) {
#pragma unroll
    for (u32 r = 0; r < R; r++)
#pragma unroll
        for (u32 k = 0; k < 4; k++)
            if (FULL || k < at.n[r]) sum.v[k] += x.row[r].v[k];
}

// ---- steps --------------------------------------------------------------------------------------

struct Add {
    static INLINE float of(float a, float b) { return a + b; }
};
struct Mul {
    static INLINE float of(float a, float b) { return a * b; }
};
struct Mask {
    static INLINE float of(float a, float b) { return b <= 0.0f ? 0.0f : a; }
};
struct Max {
    static INLINE float of(float a, float b) { return b > a || b != b ? b : a; }
};
struct Pow {
    static INLINE float of(float a, float b) { return powf(a, b); }
};
/// `1/(1+e^{−x})` without overflow.
struct Sigmoid {
    static INLINE float of(float x) {
        float e = expf(-fabsf(x));
        return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
    }
};
struct Recip {
    static INLINE float of(float a) { return a == 0.0f ? 0.0f : 1.0f / a; }
};
struct Sqrt {
    static INLINE float of(float a) { return sqrtf(a); }
};
struct Exp {
    static INLINE float of(float a) { return expf(a); }
};
struct Log {
    static INLINE float of(float a) { return logf(a); }
};
struct Tanh {
    static INLINE float of(float a) { return tanhf(a); }
};
/// `ln(1+e^x)` without overflow.
struct Softplus {
    static INLINE float of(float x) { return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))); }
};
struct Erf {
    static INLINE float of(float a) { return erff(a); }
};

template <class F, u32 R> INLINE Rows<R> map(const Rows<R>& a) {
    Rows<R> x;
#pragma unroll
    for (u32 r = 0; r < R; r++)
#pragma unroll
        for (u32 k = 0; k < 4; k++) x.row[r].v[k] = F::of(a.row[r].v[k]);
    return x;
}
template <class F, u32 R> INLINE Rows<R> map(const Rows<R>& a, const Rows<R>& b) {
    Rows<R> x;
#pragma unroll
    for (u32 r = 0; r < R; r++)
#pragma unroll
        for (u32 k = 0; k < 4; k++) x.row[r].v[k] = F::of(a.row[r].v[k], b.row[r].v[k]);
    return x;
}
template <class F, u32 R> INLINE Rows<R> map(const Rows<R>& a, float b) { return map<F>(a, every<R>(b)); }

// ---- the walk -----------------------------------------------------------------------------------

/// Block number `block` of a group. Returns whether it is the one that has made the sums.
template <class E, class P> INLINE bool entrywise(const P& p, u32 block) {
    constexpr u32 R = E::ROWS;
    Steps steps(p.walk, block);
    u32 width = steps.width(p.walk), end = width > 0 ? steps.end : 0;
    E e(p);
    e.begin(steps.column, width);
    for (u32 r = steps.row; r < end; r += R) {
        At<R> at;
        bool whole = true;
#pragma unroll
        for (u32 i = 0; i < R; i++) {
            at.at[i] = steps.at(p.walk, r + i);
            at.n[i] = r + i < end ? steps.entries(p.walk, r + i) : 0;
            whole = whole && at.n[i] == 4;
        }
        if (whole) e.template rows<true>(at);
        else e.template rows<false>(at);
    }
    if constexpr (E::SUMS > 0) {
        SHARED_MEMORY(memory);
        Quad* sums = reinterpret_cast<Quad*>(memory);
#pragma unroll
        for (u32 q = 0; q < E::SUMS; q++) sums[q * blockDim.x + threadIdx.x] = e.sums[q];
        __syncthreads();
        u32 from = steps.strip * blockDim.x * 4, columns = min(blockDim.x * 4, p.post - from), length = E::SUMS * p.post;
        bool alone = p.parts.count == 1;
        double* partials = reinterpret_cast<double*>(p.partials);
        for (u32 q = 0; q < E::SUMS; q++) {
            float* sum = reinterpret_cast<float*>(sums + q * blockDim.x);
            fold(sum, p.post, p.beside);
            double* partial = partials + u64(steps.block) * length + q * p.post + from;
            for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
                if (alone) e.put(q, from + i, sum[i]);
                else partial[i] = double(sum[i]);
            }
        }
        if (alone) return true;
        return add_parts(p.parts, steps.block, p.walk.strips, 0, [&](u32 first, u32 count, u32 step, bool last) {
            double* to = partials + u64(first) * length;
            for (u32 i = threadIdx.x; i < length; i += blockDim.x) {
                double sum = sum_of_parts<1>(to + i, count, u64(step) * length).v[0];
                if (last) e.put(i / p.post, i % p.post, float(sum));
                else to[i] = sum;
            }
        });
    }
    return true;
}
