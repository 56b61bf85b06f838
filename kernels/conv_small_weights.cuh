// The weight gradient of conv_small.cuh.
//
// M = 16 channels of x, N = 16 of y, K = slots: a block has one such tile of the weights, all nine
// taps of it in the registers of each of its warps. It goes through several bands of images, the
// next one on its way meanwhile where there is room, and adds its warps' sums: a part of the
// tile's, which its last block adds up. Grid: (1, tiles, parts of the bands).
#pragma once
#include "conv_small.cuh"

namespace small {

/// A warp's part of a tile of 16 channels by 16 columns, all taps, on the matrix units. tf32 takes
/// half a strip a warp: its operands are half as deep, and its pixels twice as long.
template <class S_, int STRIDE_> struct MatrixWeights {
    using S = S_;
    static constexpr int STRIDE = STRIDE_;
    static constexpr bool HALF = sizeof(S) == 2;
    static constexpr int PIXEL_GROUPS = HALF ? WARPS : WARPS / 2;
    /// Bytes of 16 channels of a pixel. f32 is read in pairs, for which 32 bytes more are right.
    static constexpr int PITCH = HALF ? 48 : 96;
    /// Where this lane reads: matrices of channels by slots, or pairs of channels at two slots.
    i32 at_x[2], at_y[2], line, y_line;

    __device__ __forceinline__ MatrixWeights(const SmallParams& p, i32 slot0, i32 row0, i32 x_bytes) {
        int l = LANE, g = l >> 2, t = l & 3;
        Band none(p, 0);
        line = p.line() * PITCH;
        y_line = (STRIP << p.strip_shift) * PITCH;
        if constexpr (HALF) {
            Slot slot(p, none, slot0 + (l >> 4) * 8 + (l & 7));
            at_x[0] = slot.template bordered<STRIDE>(p, row0) * PITCH + ((l >> 3) & 1) * 16;
            at_y[0] = x_bytes + row0 * y_line + (slot0 + (l & 15)) * PITCH + (l >> 4) * 16;
        } else {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                i32 slot = slot0 + t + 4 * e;
                at_x[e] = Slot(p, none, slot).template bordered<STRIDE>(p, row0) * PITCH + g * 8;
                at_y[e] = x_bytes + row0 * y_line + slot * PITCH + g * 8;
            }
        }
    }
    /// Registers of 16 channels (or columns) at two places of a reduction of 8: see `load_left`.
    /// Pairs of neighbours: rows g and g + 8 of the operand are channels 2g and 2g + 1.
    static __device__ __forceinline__ void load(u32 (&r)[4], const u8* from, const i32 (&at)[2]) {
        if constexpr (HALF) {
            load_matrices_x4_transposed(r, from + at[0]);
        } else {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                Vec<float, 2> pair = load_vec<2>(reinterpret_cast<const float*>(from + at[e]));
                r[2 * e] = tf32_bits(pair.v[0]);
                r[2 * e + 1] = tf32_bits(pair.v[1]);
            }
        }
    }
    __device__ __forceinline__ void add(float (&sums)[TAPS][2][4], const u8* stage) const {
        u32 right[3][4];
#pragma unroll
        for (int s = 0; s < LINES<STRIDE>; s++) {
            constexpr int LAST = STRIDE * (ROWS - 1);
            if (s % STRIDE == 0 && s <= LAST) load(right[s / STRIDE % 3], stage + s / STRIDE * y_line, at_y);
#pragma unroll
            for (int b = 0; b < 3; b++) {
                u32 left[4];
                load(left, stage + s * line + b * PITCH, at_x);
#pragma unroll
                for (int a = 0; a < 3; a++) {
                    if (!reaches<STRIDE>(s, a)) continue;
                    // Two n8 operands; those of f32 are the even and the odd columns.
                    const u32(&y)[4] = right[(s - a) / STRIDE % 3];
                    multiply<S>(sums[3 * a + b][0], left, y[0], y[HALF ? 1 : 2]);
                    multiply<S>(sums[3 * a + b][1], left, y[HALF ? 2 : 1], y[3]);
                }
            }
        }
    }
};

/// Tile `in_y` of the weight, part `in_z` of the sum.
template <class K> __device__ __forceinline__ void weight_gradient(const SmallParams& p, i32 in_y, i32 in_z) {
    using S = typename K::S;
    constexpr int PITCH = K::PITCH, CHUNKS = int(sizeof(S));
    SHARED_MEMORY(shared);
    i32 slots = STRIP << p.strip_shift, row_tiles = p.channels / 16;
    i32 i0 = in_y % row_tiles * 16, o0 = in_y / row_tiles * 16;
    i32 x_bytes = p.images * p.lines() * p.line() * PITCH, stage_bytes = x_bytes + p.rows() * slots * PITCH;
    i32 begin = in_z * p.bands_per_part, count = min(p.bands_per_part, p.bands - begin);

    auto fill_stage = [&](i32 at) {
        Band band(p, begin + at);
        u8* x = shared + (at & p.ahead) * stage_bytes;
        u8* y = x + x_bytes;
        fill_bordered<S, K::STRIDE, 16, PITCH>(x, p.source, p, band, i0);
        auto place = [&](i32 line, i32& there, i32& here) {
            i32 image = line >> p.row_shift, row = line & (p.rows() - 1);
            there = ((band.image + image) * p.height + band.y + row) * (p.width * p.columns);
            here = (row * slots + image * p.width) * PITCH;
            return band.image + image < p.n && band.y + row < p.height;
        };
        fill_lines<S, CHUNKS, PITCH>(y, reinterpret_cast<const S*>(p.other) + o0, p, p.images * p.rows(), p.width, p.columns, place);
        i32 used = p.images * p.width;
        if (used < slots)
            for (i32 row = 0; row < p.rows(); row++)
                for (u32 e = threadIdx.x; e < u32(slots - used) * CHUNKS; e += THREADS)
                    clear_chunk<CHUNKS>(y + (row * slots + used + i32(e / CHUNKS)) * PITCH, e);
    };

    int pixel_group = int(WARP) % K::PIXEL_GROUPS, part = int(WARP) / K::PIXEL_GROUPS;
    i32 strip = pixel_group & ((1 << p.strip_shift) - 1), row0 = (pixel_group >> p.strip_shift) * ROWS;
    const K math(p, strip * STRIP + part * (STRIP / 2), row0, x_bytes);
    float sums[TAPS][2][4] = {};
    fill_stage(0);
    commit_async();
    if (count > 1 && p.ahead) fill_stage(1);
    commit_async();
#pragma unroll 1
    for (i32 i = 0; i < count; i++) {
        wait_async<1>();
        __syncthreads();
        math.add(sums, shared + (i & p.ahead) * stage_bytes);
        __syncthreads();
        i32 next = i + 1 + p.ahead;
        if (next < count) fill_stage(next);
        commit_async();
        if (!p.ahead) commit_async(); // so that the next wait is for what was just asked for
    }

    // Sums of all warps: 4 neighbouring columns, or two pairs of them, of a row at a time.
    int l = LANE, g = l >> 2, t = l & 3;
    Vec<float, 4>* all = reinterpret_cast<Vec<float, 4>*>(shared);
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float *even = sums[tap][0] + 2 * h, *odd = sums[tap][1] + 2 * h;
            Vec<float, 4> v = {{even[0], K::HALF ? even[1] : odd[0], K::HALF ? odd[0] : even[1], odd[1]}};
            all[((WARP * TAPS + tap) * 2 + h) * 32 + l] = v;
        }
    __syncthreads();
    bool alone = p.parts.count == 1, accumulate = alone && p.accumulate;
    u64 size = u64(TAPS) * p.channels * p.columns;
    float* out = alone ? reinterpret_cast<float*>(p.out) : reinterpret_cast<float*>(p.partial) + u32(in_z) * size;
#pragma unroll 1
    for (int e = int(threadIdx.x); e < TAPS * 2 * 32; e += THREADS) {
        Vec<float, 4> sum = all[e];
#pragma unroll
        for (int w = 1; w < WARPS; w++) {
            Vec<float, 4> v = all[w * (TAPS * 2 * 32) + e];
#pragma unroll
            for (int j = 0; j < 4; j++) sum.v[j] += v.v[j];
        }
        int tap = e / 64, h = e / 32 % 2; // e % 32 is the lane
        i32 row = i0 + (K::HALF ? g + 8 * h : 2 * g + h);
        float* to = out + (tap * p.channels + row) * p.columns + o0;
        if constexpr (K::HALF) {
            float v[2] = {sum.v[0], sum.v[1]}, w[2] = {sum.v[2], sum.v[3]};
            write_entries<true>(to + 2 * t, 1, accumulate, v);
            write_entries<true>(to + 8 + 2 * t, 1, accumulate, w);
        } else {
            write_entries<true>(to + 4 * t, 1, accumulate, sum.v);
        }
    }
    if (alone) return;
    add_parts(p.parts, in_z, 1, in_y, [&](u32 first, u32 count, u32 step, bool last) {
        float *partial = reinterpret_cast<float*>(p.partial) + first * size, *to = last ? reinterpret_cast<float*>(p.out) : partial;
        for (int e = int(threadIdx.x); e < TAPS * 16 * 4; e += THREADS) {
            int tap = e / 64, row = e / 4 % 16;
            i32 at = (tap * p.channels + i0 + row) * p.columns + o0 + e % 4 * 4;
            write_sum<4>(to + at, partial + at, count, step * size, last && p.accumulate);
        }
    });
}

} // namespace small

// ---- kernels of one precision ------------------------------------------------------------------

#define SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, C, BN, TRANSPOSED, STRIDE)                     \
    KERNEL_BOUNDS(ROLE##_small_##C##x##BN, SmallParams, small::THREADS, 2) {                       \
        small::CORRELATE<small::Correlation<S, MATRIX, C, BN, TRANSPOSED, STRIDE>>(                \
            p, i32(blockIdx.x), i32(blockIdx.y));                                                  \
    }
// Channels of the source by columns of a block.
#define SMALL_ROLE(ROLE, CORRELATE, S, MATRIX, TRANSPOSED)                                         \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 16, 16, TRANSPOSED, 1)                             \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 16, 32, TRANSPOSED, 1)                             \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 32, 16, TRANSPOSED, 1)                             \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 32, 32, TRANSPOSED, 1)                             \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 64, 16, TRANSPOSED, 1)                             \
    SMALL_CORRELATE(ROLE, CORRELATE, S, MATRIX, 64, 32, TRANSPOSED, 1)
#define SMALL_KERNELS(CORRELATE, S, MATRIX)                                                        \
    SMALL_ROLE(forward, CORRELATE, S, MATRIX, false)                                               \
    SMALL_ROLE(data_gradient, CORRELATE, S, MATRIX, true)                                          \
    SMALL_CORRELATE(forward_2, CORRELATE, S, MATRIX, 16, 32, false, 2)                             \
    SMALL_CORRELATE(forward_2, CORRELATE, S, MATRIX, 32, 32, false, 2)
// As forward, of two pairs of factors. More channels want more registers than two blocks have.
#define SMALL_SUM(NAME, CORRELATE, S, MATRIX, C, BN, STRIDE, BLOCKS)                               \
    KERNEL_BOUNDS(NAME##_small_##C##x##BN, SmallParams, small::THREADS, BLOCKS) {                  \
        small::CORRELATE<small::Correlation<S, MATRIX, C, BN, false, STRIDE, true>>(               \
            p, i32(blockIdx.x), i32(blockIdx.y));                                                  \
    }
#define SMALL_SUMS(CORRELATE, S, MATRIX)                                                           \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 16, 16, 1, 2)                                     \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 16, 32, 1, 1)                                     \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 32, 16, 1, 1)                                     \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 32, 32, 1, 1)                                     \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 64, 16, 1, 1)                                     \
    SMALL_SUM(forward_sum, CORRELATE, S, MATRIX, 64, 32, 1, 1)                                     \
    SMALL_SUM(forward_sum_2, CORRELATE, S, MATRIX, 16, 32, 2, 1)                                   \
    SMALL_SUM(forward_sum_2, CORRELATE, S, MATRIX, 32, 32, 2, 1)
#define SMALL_WEIGHTS(NAME, ...)                                                                   \
    KERNEL_BOUNDS(NAME, SmallParams, small::THREADS, 1) {                                          \
        small::weight_gradient<small::__VA_ARGS__>(p, i32(blockIdx.y), i32(blockIdx.z));           \
    }

/// Both gradients of a convolution in one launch: neither keeps a card busy by itself. Twin of
/// `small::PairParams`.
struct SmallPair {
    SmallParams weights, data;
    /// Blocks of the weight gradient, which come first as they take longer, and its tiles; bands of
    /// the data gradient.
    i32 blocks, tiles, bands, unused;
};

// Two blocks a processor, where the compiler finds registers for both parts.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define SMALL_PAIR_BLOCKS 2
#else
#define SMALL_PAIR_BLOCKS 1
#endif

// Of both: channels of the source by columns of a block of the data gradient.
#define SMALL_PAIR(CORRELATE, S, MATRIX, C, BN, ...)                                               \
    KERNEL_BOUNDS(gradients_small_##C##x##BN, SmallPair, small::THREADS, SMALL_PAIR_BLOCKS) {      \
        i32 block = i32(blockIdx.x), rest = block - p.blocks;                                      \
        if (rest < 0)                                                                              \
            small::weight_gradient<small::__VA_ARGS__>(p.weights, block % p.tiles, block / p.tiles); \
        else                                                                                       \
            small::CORRELATE<small::Correlation<S, MATRIX, C, BN, true, 1>>(                       \
                p.data, rest % p.bands, rest / p.bands);                                           \
    }
#define SMALL_PAIRS(CORRELATE, S, MATRIX, ...)                                                     \
    SMALL_PAIR(CORRELATE, S, MATRIX, 16, 16, __VA_ARGS__)                                          \
    SMALL_PAIR(CORRELATE, S, MATRIX, 32, 32, __VA_ARGS__)                                          \
    SMALL_PAIR(CORRELATE, S, MATRIX, 64, 32, __VA_ARGS__)
