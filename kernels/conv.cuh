// Convolution as one trilinear form, each role an implicit matrix product over NHWC: no patch
// matrix is ever in device memory.
//
//     y[n,p,q,o] = Σ_{a,b,i} x[n, p·s + a − pad, q·s + b − pad, i] · w[a,b,i,o]
// (zero outside the image; i of o's group)
//  - forward:         y [m = (n,p,q), o]  = Σ_k X[m, k] · w[k, o],        k = (a,b,i),
//                     in an order of its own; or the sum of two such products, as a tangent is
//  - data gradient:   x [m = (n,h,w), i]  = Σ_k Y[m, k] · w[tap, i, o],   k = (tap,o):
//                     a gather as well, so no sum has two writers. With stride s the pixels of x
//                     fall into s² classes, in each of which the same taps count; a class is a
//                     product of its own (blockIdx.z)
//  - weight gradient: w [m = (a,b,i), o]  = Σ_k X[k, m] · y[k, o],        k = (n,p,q),
//                     split over blockIdx.z into parts that the last block of each tile adds in a
//                     fixed order (`add_parts`)
//
// A block computes a BM × BN tile in steps of BK, through STAGES tiles of both factors in shared
// memory that cp.async fills ahead. Factors come gathered or padded with zeros by the copy itself.
// The arithmetic is a policy (conv_f32.cu, conv_tf32.cu, conv_bf16.cu, conv_wgmma.cu):
//  - Ffma: f32 on the ordinary units, TM × TN outputs a thread, read from shared memory by fours;
//  - Mma:  tf32 (m16n8k8) or bf16 (m16n8k16) on the matrix units, f32 sums. f32 factors are rounded
//    on the way into registers, by every warp that reads them; large tiles of bf16 take weights
//    that were cast before the launch: they are half as long, and not rounded in every block;
//  - Wgmma (conv_wgmma.cuh): bf16 on Hopper's matrix units, for wide tiles, straight out of shared
//    memory; in it, chunks are swizzled instead of padded.
// Shared tiles lie with the reduction contiguous ("rows": [free][BK]) or the free index contiguous
// ("columns": [BK][free]), as they come from memory; the leading dimension is padded so that no
// read has bank conflicts.
//
// CPU twin: src/backend/cpu/conv.
#pragma once
#include "common.cuh"

/// Twin of `launch::conv::Params`.
struct ConvParams {
    /// Gathered factor (x, or y for the data gradient), the other factor (w; y for the weight
    /// gradient), result; where a weight gradient has several parts, those, f32 [parts][weight].
    u64 source, other;
    /// Forward: a second pair of factors, whose product is added, or nulls.
    u64 second_source, second_other;
    u64 out, partial;
    Parts parts;
    /// Gathered images: [n, source_h, source_w, channels]; grid of the product's pixels: forward
    /// and weight gradient y's, else x's.
    i32 n, source_h, source_w, channels, grid_h, grid_w;
    i32 kernel_h, kernel_w, stride, pad;
    /// Columns of the product: co, or ci for the data gradient.
    i32 columns;
    /// Storage of the result is bf16; the product is added to it.
    i32 out_half, accumulate;
    /// Weight gradient: steps of BK pixels a split takes.
    i32 steps_per_split;
    /// Forward and data gradient where blocks are in one row (`IN_ROW`): how many of the tile's
    /// rows come first, and how many rows each of the others has.
    i32 whole, rest;
    FastDiv by_image, by_row;
    /// Groups of channels: `channels` and `columns` are one's, memory has all of them side by side.
    i32 groups, unused;
};

/// The group that a block computes: where its channels and columns are in lines of memory, and how
/// long those are. The group runs fastest in blockIdx.z; `z` is what else that counts. Nothing is
/// kept, so that without groups nothing of this is left.
template <bool GROUPED> struct GroupOf {
    const ConvParams& p;
    __device__ __forceinline__ u32 z() const { return GROUPED ? blockIdx.z / u32(p.groups) : blockIdx.z; }
    __device__ __forceinline__ i32 channel() const { return GROUPED ? i32(blockIdx.z) % p.groups * p.channels : 0; }
    __device__ __forceinline__ i32 column() const { return GROUPED ? i32(blockIdx.z) % p.groups * p.columns : 0; }
    __device__ __forceinline__ i32 channels() const { return GROUPED ? p.channels * p.groups : p.channels; }
    __device__ __forceinline__ i32 columns() const { return GROUPED ? p.columns * p.groups : p.columns; }
};

/// Copies V entries, or zeros. NEAR: the neighbouring taps read them again soon.
template <class T, int V, bool NEAR> __device__ __forceinline__ void fill(T* to, const T* from, bool valid) {
    if constexpr (sizeof(T) * V >= 4) {
        copy_async<sizeof(T) * V, NEAR>(to, from, valid);
    } else {
        // cp.async copies no single bf16.
        *to = valid ? *from : T{};
    }
}

/// A tile of a factor in shared memory: `rows` = [FREE][BK], else [BK][FREE].
template <class T, bool ROWS, int FREE, int BK, int PAD> struct SharedTile {
    static constexpr int LD = (ROWS ? BK : FREE) + PAD;
    static constexpr int LINES = ROWS ? FREE : BK;
    static constexpr int BYTES = LINES * LD * int(sizeof(T));
    static constexpr bool BY_ROWS = ROWS;
    using Entry = T;
    const T* at;
    static __device__ __forceinline__ int place(int free, int k) { return ROWS ? free * LD + k : k * LD + free; }
    __device__ __forceinline__ const T* entry(int free, int k) const { return at + place(free, k); }
    /// The thread's line of a tile by columns and first chunk in it; LANES threads fill a line.
    template <int LANES> static __device__ __forceinline__ void share(int& line, int& lane) {
        line = int(threadIdx.x) / LANES, lane = int(threadIdx.x) % LANES;
    }
};

// ---- arithmetic ---------------------------------------------------------------------------------

/// f32 on the ordinary units. Lanes are LN × 32/LN over the tile, warps lie along m; a thread has
/// TM × TN outputs.
template <int BM_, int BN_, int WARPS_, int LN, int STAGES_> struct Ffma {
    static constexpr int BM = BM_, BN = BN_, BK = 16, STAGES = STAGES_, THREADS = WARPS_ * 32;
    static constexpr int BLOCKS = 1, LM = 32 / LN, TM = BM / (WARPS_ * LM), TN = BN / LN;
    using Source = float;
    using Other = float;
    static __device__ constexpr int pad_source(bool rows) { return rows ? 4 : 0; }
    static __device__ constexpr int pad_other(bool rows) { return rows ? 4 : 0; }
    static constexpr int PART = BK, WEIGHTS_PART = 16;
    static constexpr bool IN_ROW = false;
    template <bool ROWS> using SourceTile = SharedTile<float, ROWS, BM, BK, pad_source(ROWS)>;
    template <bool ROWS> using OtherTile = SharedTile<float, ROWS, BN, BK, pad_other(ROWS)>;
    float sums[TM][TN] = {};

    // Interleaved so that the lanes of a read are neighbours.
    template <bool ROWS> static __device__ __forceinline__ int m_of(int i) {
        int first = WARP * (LM * TM), lane = LANE / LN;
        return first + (ROWS ? lane + LM * i : 4 * lane + 4 * LM * (i / 4) + i % 4);
    }
    template <bool ROWS> static __device__ __forceinline__ int n_of(int j) {
        int lane = LANE % LN;
        return ROWS ? lane + LN * j : 4 * lane + 4 * LN * (j / 4) + j % 4;
    }

    template <class TileA, class TileB> __device__ __forceinline__ void step(const TileA& a, const TileB& b) {
#pragma unroll
        for (int k = 0; k < BK; k += 4) {
            float bs[4][TN];
            if constexpr (TileB::BY_ROWS) {
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    Vec<float, 4> v = load_vec<4>(b.entry(n_of<true>(j), k));
#pragma unroll
                    for (int e = 0; e < 4; e++) bs[e][j] = v.v[e];
                }
            } else {
#pragma unroll
                for (int e = 0; e < 4; e++)
#pragma unroll
                    for (int j = 0; j < TN; j += 4) {
                        Vec<float, 4> v = load_vec<4>(b.entry(n_of<false>(j), k + e));
#pragma unroll
                        for (int f = 0; f < 4; f++) bs[e][j + f] = v.v[f];
                    }
            }
            if constexpr (TileA::BY_ROWS) {
#pragma unroll
                for (int i = 0; i < TM; i++) {
                    Vec<float, 4> v = load_vec<4>(a.entry(m_of<true>(i), k));
#pragma unroll
                    for (int e = 0; e < 4; e++)
#pragma unroll
                        for (int j = 0; j < TN; j++) sums[i][j] += v.v[e] * bs[e][j];
                }
            } else {
#pragma unroll
                for (int e = 0; e < 4; e++)
#pragma unroll
                    for (int i = 0; i < TM; i += 4) {
                        Vec<float, 4> v = load_vec<4>(a.entry(m_of<false>(i), k + e));
#pragma unroll
                        for (int f = 0; f < 4; f++)
#pragma unroll
                            for (int j = 0; j < TN; j++) sums[i + f][j] += v.v[f] * bs[e][j];
                    }
            }
        }
    }

    /// Calls `put(row, column, values)` with neighbouring columns.
    template <class TileA, class TileB, class Put> __device__ __forceinline__ void results(const Put& put) const {
#pragma unroll
        for (int i = 0; i < TM; i++) {
            auto row = put.row(m_of<TileA::BY_ROWS>(i));
            if constexpr (TileB::BY_ROWS) {
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    float v[1] = {sums[i][j]};
                    put(row, n_of<true>(j), v);
                }
            } else {
#pragma unroll
                for (int j = 0; j < TN; j += 4) {
                    float v[4] = {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]};
                    put(row, n_of<false>(j), v);
                }
            }
        }
    }
};

/// A tile of words whose free index is contiguous: read two at a time, so that the matrix units
/// take neighbours for rows 8 apart, or for columns of two operands. Sums then belong to other rows
/// or columns than those of `mma_tf32` and `mma_bf16`.
template <class Tile> constexpr bool PAIRED = !Tile::BY_ROWS && sizeof(typename Tile::Entry) == 4;

/// Registers of one m16 operand for the k-step at `k`: see `mma_tf32`, `mma_bf16`.
template <class Tile> __device__ __forceinline__ void load_left(u32 (&r)[4], const Tile& a, int m, int k) {
    using T = typename Tile::Entry;
    int l = LANE, g = l >> 2, t = l & 3;
    if constexpr (Tile::BY_ROWS) {
        // Matrices of 8 rows by 16 bytes: (m, k) (m + 8, k) (m, k + half a step) (m + 8, …). For
        // f32 they are rows of 4 entries.
        load_matrices_x4(r, a.entry(m + (l & 15), k + (l >> 4) * int(16 / sizeof(T))));
    } else if constexpr (sizeof(T) == 2) {
        load_matrices_x4_transposed(r, a.entry(m + ((l >> 3) & 1) * 8, k + (l >> 4) * 8 + (l & 7)));
    } else {
        Vec<float, 2> low = load_vec<2>(a.entry(m + 2 * g, k + t)), high = load_vec<2>(a.entry(m + 2 * g, k + t + 4));
        r[0] = __float_as_uint(low.v[0]);
        r[1] = __float_as_uint(low.v[1]);
        r[2] = __float_as_uint(high.v[0]);
        r[3] = __float_as_uint(high.v[1]);
    }
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = tf32_bits(__uint_as_float(r[i]));
    }
}

/// Registers of two n8 operands for the k-step at `k`, one after the other. HALF: the product is
/// bf16's, whatever the storage.
template <bool HALF, class Tile> __device__ __forceinline__ void load_right(u32 (&r)[4], const Tile& b, int n, int k) {
    using T = typename Tile::Entry;
    int l = LANE, g = l >> 2, t = l & 3;
    if constexpr (sizeof(T) == 2 && !Tile::BY_ROWS) {
        load_matrices_x4_transposed(r, b.entry(n + (l >> 4) * 8, k + (l & 15)));
    } else if constexpr (sizeof(T) == 2 || (!HALF && Tile::BY_ROWS)) {
        load_matrices_x4(r, b.entry(n + (l >> 4) * 8 + (l & 7), k + ((l >> 3) & 1) * int(16 / sizeof(T))));
    } else if constexpr (!HALF) {
        // Not as pairs: an operand's two registers are neighbours.
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = __float_as_uint(*b.entry(n + g + i / 2 * 8, k + t + i % 2 * 4));
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = k + 8 * i + 2 * t;
            if constexpr (Tile::BY_ROWS) {
                Vec<float, 2> first = load_vec<2>(b.entry(n + g, at)), second = load_vec<2>(b.entry(n + g + 8, at));
                r[i] = pack_bf16(first.v[0], first.v[1]);
                r[2 + i] = pack_bf16(second.v[0], second.v[1]);
            } else {
                Vec<float, 2> low = load_vec<2>(b.entry(n + 2 * g, at)), high = load_vec<2>(b.entry(n + 2 * g, at + 1));
                r[i] = pack_bf16(low.v[0], high.v[0]);
                r[2 + i] = pack_bf16(low.v[1], high.v[1]);
            }
        }
    }
    if constexpr (!HALF) {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = tf32_bits(__uint_as_float(r[i]));
    }
}

/// tf32 or bf16 on the matrix units: warps of WM × WN outputs, made of m16n8 pieces, BK entries of
/// the reduction between barriers. `OtherT`: storage of the second factor; f32 is rounded as it is
/// read.
template <class SourceT, class OtherT, int BM_, int BN_, int WM, int WN, int BK_, int STAGES_> struct Mma {
    static constexpr bool HALF = sizeof(SourceT) == 2;
    static constexpr int BM = BM_, BN = BN_, BK = BK_, STAGES = STAGES_;
    static constexpr int WARPS_M = BM / WM, THREADS = WARPS_M * (BN / WN) * 32;
    // Two blocks share a processor: one computes while the other waits for copies.
    static constexpr int BLOCKS = 2;
    static constexpr int MF = WM / 16, NF = WN / 8, K_STEP = HALF ? 16 : 8;
    static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 16 == 0, "whole pieces");
    using Source = SourceT;
    using Other = OtherT;
    static __device__ constexpr int pad_source(bool rows) { return HALF ? 8 : rows ? 4 : 8; }
    // f32 read as pairs of rows (bf16 products) wants another padding than f32 read as single ones.
    static __device__ constexpr int pad_other(bool rows) {
        if (sizeof(OtherT) == 2) return 8;
        return HALF ? (rows ? 8 : 4) : (rows ? 4 : 8);
    }
    static constexpr int PART = BK, WEIGHTS_PART = 16;
    static constexpr bool IN_ROW = false;
    template <bool ROWS> using SourceTile = SharedTile<Source, ROWS, BM, BK, pad_source(ROWS)>;
    template <bool ROWS> using OtherTile = SharedTile<Other, ROWS, BN, BK, pad_other(ROWS)>;
    float sums[MF][NF][4] = {};

    static __device__ __forceinline__ int first_m() { return int(WARP) % WARPS_M * WM; }
    static __device__ __forceinline__ int first_n() { return int(WARP) / WARPS_M * WN; }

    template <class TileA, class TileB> __device__ __forceinline__ void step(const TileA& a, const TileB& b) {
        // Lanes go apart where they fetch, and both kinds of instructions below want all of a warp.
        __syncwarp();
#pragma unroll
        for (int k = 0; k < BK; k += K_STEP) {
            u32 left[MF][4];
#pragma unroll
            for (int i = 0; i < MF; i++) load_left(left[i], a, first_m() + 16 * i, k);
#pragma unroll
            for (int j = 0; j < NF; j += 2) {
                u32 right[4];
                load_right<HALF>(right, b, first_n() + 8 * j, k);
#pragma unroll
                for (int i = 0; i < 2 * MF; i++) {
                    u32 one[2] = {right[i % 2 * 2], right[i % 2 * 2 + 1]};
                    if constexpr (HALF) mma_bf16(sums[i / 2][j + i % 2], left[i / 2], one);
                    else mma_tf32(sums[i / 2][j + i % 2], left[i / 2], one);
                }
            }
        }
    }

    template <class TileA, class TileB, class Put> __device__ __forceinline__ void results(const Put& put) const {
        int g = LANE >> 2, t = LANE & 3;
#pragma unroll
        for (int i = 0; i < MF; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                auto row = put.row(first_m() + 16 * i + (PAIRED<TileA> ? 2 * g + h : 8 * h + g));
#pragma unroll
                for (int j = 0; j < NF; j += 2) {
                    int n = first_n() + 8 * j;
                    const float *first = sums[i][j] + 2 * h, *second = sums[i][j + 1] + 2 * h;
                    if constexpr (HALF && PAIRED<TileB>) {
                        float v[4] = {first[0], second[0], first[1], second[1]};
                        put(row, n + 4 * t, v);
                    } else {
                        float v[2] = {first[0], first[1]}, w[2] = {second[0], second[1]};
                        put(row, n + 2 * t, v);
                        put(row, n + 8 + 2 * t, w);
                    }
                }
            }
    }
};

// ---- results ------------------------------------------------------------------------------------

/// Writes `W` neighbouring entries, of which those below `columns` exist. VECTOR: all or none do,
/// and they are aligned.
template <bool VECTOR, class T, int W> __device__ __forceinline__ void write_entries(T* to, int left, bool accumulate, const float (&v)[W]) {
    if (left <= 0) return;
    if constexpr (VECTOR) {
        float old[W] = {};
        if (accumulate) load_f32<W>(to, old);
#pragma unroll
        for (int e = 0; e < W; e++) old[e] += v[e];
        store_f32<W>(to, old);
    } else {
#pragma unroll
        for (int e = 0; e < W; e++)
            if (e < left) to[e] = from_f32<T>(accumulate ? to_f32(to[e]) + v[e] : v[e]);
    }
}

/// to (+)= the sum of `count` aligned vectors that are `stride` entries apart.
template <int W> __device__ __forceinline__ void write_sum(float* to, const float* from, u32 count, u64 stride, bool accumulate) {
    Vec<double, W> sum = sum_of_parts<W>(from, count, stride);
    float v[W];
#pragma unroll
    for (int e = 0; e < W; e++) v[e] = float(sum.v[e]);
    write_entries<true>(to, W, accumulate, v);
}

/// Rows of the product that are pixels: of the whole grid, or of one class of it.
template <bool VECTOR, bool GROUPED> struct PutPixels {
    const ConvParams& p;
    i32 m0, n0, rows, class_h, class_w, y0, x0, step;

    __device__ __forceinline__ long long row(int m) const {
        GroupOf<GROUPED> group{p};
        i32 at = m0 + m;
        if (at >= rows) return -1;
        if (step == 1) return (long long)at * group.columns() + group.column();
        i32 line = at / class_w, x = at - line * class_w, image = line / class_h, y = line - image * class_h;
        return (((long long)image * p.grid_h + y * step + y0) * p.grid_w + x * step + x0) * group.columns() + group.column();
    }
    /// Results in bf16 may be written eight at once, rounded already, by who has added what `old`
    /// gives: what is there, or zeros.
    __device__ __forceinline__ bool half() const { return p.out_half; }
    __device__ __forceinline__ u32* eight(long long row, int n) const {
        static_assert(VECTOR, "all eight exist, or none");
        return row < 0 || n0 + n >= p.columns ? nullptr : reinterpret_cast<u32*>(reinterpret_cast<bf16*>(p.out) + row + n0 + n);
    }
    __device__ __forceinline__ Vec<u32, 4> old(long long row, int n) const {
        const u32* from = p.accumulate ? eight(row, n) : nullptr;
        return from ? load_vec<4>(from) : Vec<u32, 4>{{0, 0, 0, 0}};
    }
    __device__ __forceinline__ void write(long long row, int n, const Vec<u32, 4>& words) const {
        if (u32* to = eight(row, n)) store_vec(to, words);
    }
    template <int W> __device__ __forceinline__ void operator()(long long row, int n, const float (&v)[W]) const {
        if (row < 0) return;
        i32 left = p.columns - (n0 + n);
        if (p.out_half) write_entries<VECTOR>(reinterpret_cast<bf16*>(p.out) + row + n0 + n, left, p.accumulate, v);
        else write_entries<VECTOR>(reinterpret_cast<float*>(p.out) + row + n0 + n, left, p.accumulate, v);
    }
};

/// The entry (a,b,i) of a weight that is row `m` of a weight gradient's product: all taps of the
/// first PART channels, then of the next ones. They read nearly the same pixels, which the
/// first-level cache then holds. Other channels go as they lie in memory.
template <i32 PART> __device__ __forceinline__ i32 weight_entry(const ConvParams& p, i32 m) {
    if (p.channels == PART || p.channels % PART != 0) return m;
    i32 taps = p.kernel_h * p.kernel_w, group = m / PART, part = group / taps, tap = group - part * taps;
    return tap * p.channels + part * PART + m % PART;
}

/// Rows of the product that are entries of a weight, of which each part has one of its own.
template <bool VECTOR, i32 PART, bool GROUPED> struct PutWeights {
    const ConvParams& p;
    i32 m0, n0, rows;

    __device__ __forceinline__ float* out() const {
        GroupOf<GROUPED> group{p};
        return p.parts.count > 1 ? reinterpret_cast<float*>(p.partial) + group.z() * size() : reinterpret_cast<float*>(p.out);
    }
    __device__ __forceinline__ u64 size() const { return u64(rows) * GroupOf<GROUPED>{p}.columns(); }
    __device__ __forceinline__ long long row(int m) const {
        GroupOf<GROUPED> group{p};
        i32 at = m0 + m;
        return at < rows ? (long long)weight_entry<PART>(p, at) * group.columns() + group.column() : -1;
    }
    __device__ __forceinline__ bool half() const { return false; }
    __device__ __forceinline__ Vec<u32, 4> old(long long, int) const { return {}; }
    __device__ __forceinline__ void write(long long, int, const Vec<u32, 4>&) const {}
    template <int W> __device__ __forceinline__ void operator()(long long row, int n, const float (&v)[W]) const {
        if (row < 0) return;
        write_entries<VECTOR>(out() + row + n0 + n, p.columns - (n0 + n), p.accumulate && p.parts.count == 1, v);
    }
    /// Adds parts of a tile of BM × BN: see `add_parts`.
    template <int BM, int BN, int THREADS> __device__ __forceinline__ void add(u32 first, u32 count, u32 step, bool last) const {
        constexpr int W = VECTOR ? 4 : 1, LINE = BN / W;
        float *partial = reinterpret_cast<float*>(p.partial) + first * size(), *to = last ? reinterpret_cast<float*>(p.out) : partial;
        for (int e = int(threadIdx.x); e < BM * LINE; e += THREADS) {
            int m = e / LINE, n = e % LINE * W;
            long long at = row(m) + n0 + n;
            if (m0 + m < rows && n0 + n < p.columns) write_sum<W>(to + at, partial + at, count, step * size(), last && p.accumulate);
        }
    }
};

// ---- the pipeline -------------------------------------------------------------------------------

/// Runs `steps` steps: `load(stage)` starts the copies of the next one, in order.
template <class TileA, class TileB, class Math, class Load> __device__ __forceinline__ void pipeline(Math& math, u8* shared, i32 steps, Load&& load) {
    constexpr int STAGES = Math::STAGES, BYTES = TileA::BYTES + TileB::BYTES;
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(shared + s * BYTES);
        commit_async();
    }
    int read = 0, write = STAGES - 1;
#pragma unroll 1
    for (i32 i = 0; i < steps; i++) {
        wait_async<STAGES - 2>();
        // Also: everybody has read the stage that is filled next.
        __syncthreads();
        if (i + STAGES - 1 < steps) load(shared + write * BYTES);
        commit_async();
        const u8* stage = shared + read * BYTES;
        math.step(TileA{reinterpret_cast<const typename TileA::Entry*>(stage)},
                  TileB{reinterpret_cast<const typename TileB::Entry*>(stage + TileA::BYTES)});
        read = read + 1 == STAGES ? 0 : read + 1;
        write = write + 1 == STAGES ? 0 : write + 1;
    }
    wait_async<0>();
}
