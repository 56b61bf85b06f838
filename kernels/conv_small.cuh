// 3x3 convolutions with a border of one, of 16, 32 or 64 channels, on the matrix units: the roles
// of conv.cuh for layers in which a block's pixels fit into shared memory. Stride 1, and 2 but for
// data gradients.
//
// A block takes `images` images and the same `rows` rows of each, at their full width. It copies
// the pixels that these read, with their border of one, into shared memory once, and all nine taps
// read them there. The width of all its images together is cut into strips of 16 slots (slot =
// image · width + x): the 16 rows of an mma operand, or the 16 entries of a weight gradient's
// reduction, are the slots of one strip in one row of pixels. So whatever moves by a tap, or by a
// row, is an address that moves by a constant, for any width.
//
// A warp takes ROWS = 4 rows of one strip. Each row of the source that it loads, shifted by one
// tap's b, serves the taps a in up to three rows of the result:
//
//     source row   0   1   2   3   4   5        result row r, tap a: source row stride · r + a
//     result rows  0   01  012 123 23  3
//
//  - forward and data gradient: M = slots, N = 16 columns, K = channels; a pass goes over K_STEP
//    channels with nine taps of weights in registers. The data gradient is the same sum over y with
//    the taps mirrored and the weights transposed. Weights are rounded on their way into shared
//    memory. Where warps share out the channels, their sums are added through shared memory.
//  - weight gradient: conv_small_weights.cuh. f32, on the ordinary units: conv_small_f32.cuh.
//
// Pixels outside of the image, images after the last and slots after the last are zero, or are not
// written. Which block takes what is a function of the shape alone, so the bits are, too.
// Host: src/backend/cuda/launch/conv/small.rs.
// CPU twin: src/backend/cpu/conv.
#pragma once
#include "conv.cuh"

/// Twin of `launch::conv::small::Params`.
struct SmallParams {
    /// Pixels with a border, the other factor (weights; y for the weight gradient), the result;
    /// a weight gradient's parts, f32 [parts][weight], where there are several.
    u64 source, other;
    /// Forward: a second pair, whose product is added, or nulls.
    u64 second_source, second_other;
    u64 out, partial;
    Parts parts;
    /// Images of the source, with `channels`, and the result's (or y's) pixels, with `columns`.
    i32 n, source_h, source_w, height, width, channels, columns;
    /// A block's: images, rows of the result in each, strips, and threads that copy a line of
    /// pixels together; all but the first are powers of two.
    i32 images, row_shift, strip_shift, lane_shift;
    i32 out_half, accumulate;
    /// Weight gradient: bands of all images, how many of them a block goes through, and whether the
    /// next one has room beside the present one (1, else 0).
    i32 bands, bands_per_part, ahead, unused;
    /// By bands of an image, by the source's lines of an image in a band, by width.
    FastDiv by_band, by_image, by_slot;

    __device__ __forceinline__ i32 rows() const { return 1 << row_shift; }
    /// Of the source, with the border.
    __device__ __forceinline__ i32 lines() const { return i32(by_image.divisor); }
    __device__ __forceinline__ i32 line() const { return source_w + 2; }
};

namespace small {

constexpr int THREADS = 256, WARPS = 8, ROWS = 4, STRIP = 16, TAPS = 9;

/// The source's lines that ROWS rows of a result read.
template <int STRIDE> constexpr int LINES = STRIDE * (ROWS - 1) + 3;

/// Whether tap `a` of one of the rows reads line `s`; it is row (s − a) / STRIDE.
template <int STRIDE> __device__ constexpr bool reaches(int s, int a) {
    return s >= a && (s - a) % STRIDE == 0 && (s - a) / STRIDE < ROWS;
}

/// Where a block's pixels begin.
struct Band {
    i32 image, y;

    __device__ __forceinline__ Band(const SmallParams& p, i32 at) {
        u32 band;
        image = i32(p.by_band.split(u32(at), band)) * p.images;
        y = i32(band) * p.rows();
    }
};

/// A slot's image within the block and column; those after the last are at (0, 0).
struct Slot {
    u32 image, x;
    bool valid;

    __device__ __forceinline__ Slot(const SmallParams& p, Band band, i32 slot) {
        image = p.by_slot.split(u32(slot), x);
        valid = slot < p.images * p.width && band.image + i32(image) < p.n;
        if (slot >= p.images * p.width) image = x = 0;
    }
    /// Its pixel in an image of so many channels, at the block's row `y`.
    __device__ __forceinline__ i32 pixel(const SmallParams& p, Band band, i32 y) const {
        return ((band.image + i32(image)) * p.height + band.y + y) * p.width + i32(x);
    }
    /// The source's pixel in shared memory at tap (0, 0) of the block's row `y`.
    template <int STRIDE> __device__ __forceinline__ i32 bordered(const SmallParams& p, i32 y) const {
        return (i32(image) * p.lines() + STRIDE * y) * p.line() + STRIDE * i32(x);
    }
};

/// Zeros in CHUNKS times 16 bytes of a pixel, the chunk at `e % CHUNKS`.
template <int CHUNKS> __device__ __forceinline__ void clear_chunk(u8* pixel, u32 e) {
    store_vec(reinterpret_cast<u32*>(pixel + e % CHUNKS * 16), Vec<u32, 4>{});
}

/// Copies lines of pixels: CHUNKS times 16 bytes of each, `stride` entries from pixel to pixel
/// there and PITCH bytes here. `place(line, there, here)` says where a line begins, and whether
/// there is such a line. `1 << lane_shift` threads share one.
template <class S, int CHUNKS, int PITCH, class Place>
__device__ __forceinline__ void fill_lines(u8* to, const S* from, const SmallParams& p, i32 lines, i32 width, i32 stride, Place&& place) {
    i32 lanes = 1 << p.lane_shift, count = width * CHUNKS, lane = i32(threadIdx.x) & (lanes - 1);
    auto there = [&](u32 e) { return i32(e / CHUNKS) * stride + i32(e % CHUNKS * (16 / sizeof(S))); };
    auto here = [&](u32 e) { return i32(e / CHUNKS * PITCH + e % CHUNKS * 16); };
    // Mostly one chunk a thread, at a place that is the same in all lines.
    i32 there0 = there(u32(lane)), here0 = here(u32(lane));
#pragma unroll 1
    for (i32 line = i32(threadIdx.x) >> p.lane_shift; line < lines; line += THREADS >> p.lane_shift) {
        i32 line_there, line_here;
        bool valid = place(line, line_there, line_here);
        if (lane < count) copy_async<16>(to + (line_here + here0), from + (line_there + there0), valid);
#pragma unroll 1
        for (i32 e = lane + lanes; e < count; e += lanes)
            copy_async<16>(to + (line_here + here(u32(e))), from + (line_there + there(u32(e))), valid);
    }
}

/// Copies a band's pixels with their border, CHANNELS from `first` on, PITCH bytes from pixel to
/// pixel.
template <class S, int STRIDE, int CHANNELS, int PITCH>
__device__ __forceinline__ void fill_bordered(u8* to, u64 source, const SmallParams& p, Band band, i32 first) {
    constexpr int CHUNKS = CHANNELS * int(sizeof(S)) / 16;
    i32 lines = p.images * p.lines(), y0 = STRIDE * band.y - 1, line_pitch = p.line() * PITCH, line_stride = p.source_w * p.channels;
    auto place = [&](i32 line, i32& there, i32& here) {
        u32 row, image = p.by_image.split(u32(line), row);
        i32 in_image = band.image + i32(image), y = y0 + i32(row);
        there = (in_image * p.source_h + y) * line_stride;
        here = line * line_pitch + PITCH;
        return in_image < p.n && u32(y) < u32(p.source_h);
    };
    fill_lines<S, CHUNKS, PITCH>(to, reinterpret_cast<const S*>(source) + first, p, lines, p.source_w, p.channels, place);
#pragma unroll 1
    for (u32 e = threadIdx.x; e < u32(2 * lines * CHUNKS); e += THREADS) {
        i32 side = i32(e / CHUNKS), line = i32(e / (2 * CHUNKS));
        clear_chunk<CHUNKS>(to + (line * p.line() + (side & 1) * (p.source_w + 1)) * PITCH, e);
    }
}

template <class S> __device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 b[2] = {b0, b1};
    if constexpr (sizeof(S) == 2) mma_bf16(d, a, b);
    else mma_tf32(d, a, b);
}

/// f32 factors as the matrix units take them.
template <class S> __device__ __forceinline__ void round_factors(u32 (&r)[4]) {
    if constexpr (sizeof(S) == 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = tf32_bits(__uint_as_float(r[i]));
    }
}

// ---- forward and data gradient -----------------------------------------------------------------

/// How a block of 8 warps shares out BN columns of a result that sums over C channels. MATRIX: on
/// the matrix units, 16 columns a warp; else on the ordinary ones, 8 columns
/// (conv_small_f32.cuh). SUM: of two pairs of factors, each in the place of the one before.
template <class S_, bool MATRIX_, int C_, int BN_, bool TRANSPOSED_, int STRIDE_, bool SUM_ = false> struct Correlation {
    using S = S_;
    static constexpr bool SUM = SUM_;
    static constexpr int C = C_, BN = BN_, STRIDE = STRIDE_;
    static constexpr bool MATRIX = MATRIX_, TRANSPOSED = TRANSPOSED_, HALF = sizeof(S) == 2;
    static constexpr int COLUMNS = MATRIX ? 16 : 8, COLUMN_GROUPS = BN / COLUMNS;
    static constexpr int CHANNEL_GROUPS = C * STRIDE >= 64 ? 2 : 1;
    static constexpr int PIXEL_GROUPS = WARPS / (COLUMN_GROUPS * CHANNEL_GROUPS);
    static constexpr int K_STEP = MATRIX ? 32 / int(sizeof(S)) : 4, STEPS = C / K_STEP / CHANNEL_GROUPS;
    /// Bytes of a pixel in shared memory; no eight neighbours share a bank.
    static constexpr int PITCH = C * int(sizeof(S)) + 16;
    /// Weights lie as they come: [tap][channel][column], or [tap][column][channel] transposed.
    static constexpr int LINE = TRANSPOSED ? C : BN, LINES = TRANSPOSED ? BN : C;
    static constexpr int LD = LINE + (HALF || !TRANSPOSED ? 8 : 4);
    static constexpr int WEIGHT_BYTES = TAPS * LINES * LD * int(sizeof(S));
    /// A warp's results in bf16, on their way to stores of 16 bytes.
    static constexpr int LINE_BYTES = 48, STAGING_BYTES = HALF ? WARPS * ROWS * STRIP * LINE_BYTES : 0;
    /// Rows whose sums a warp completes.
    static constexpr int OWN = ROWS / CHANNEL_GROUPS;
};

/// Weights of the block's columns, rounded, four at a time through registers.
template <class K> struct WeightLoader {
    using S = typename K::S;
    static constexpr int QUADS = K::LINE / 4, COUNT = TAPS * K::LINES * QUADS;
    static constexpr int EACH = (COUNT + THREADS - 1) / THREADS;
    /// Lines that all threads load at once: whole taps, or whole parts of a tap.
    static constexpr int STEP = THREADS / QUADS;
    static_assert(STEP % K::LINES == 0 || K::LINES % STEP == 0, "a thread stays in its part");
    const float* from;
    S* to;
    i32 columns;
    bool last;
    Vec<float, 4> held[EACH];

    __device__ __forceinline__ WeightLoader(u64 other, i32 columns, i32 n0, S* weights) : columns(columns) {
        i32 line = i32(threadIdx.x) / QUADS, at = i32(threadIdx.x) % QUADS * 4, tap = line / K::LINES, free = line % K::LINES;
        from = reinterpret_cast<const float*>(other) +
               (K::TRANSPOSED ? (tap * columns + n0 + free) * K::C + at : line * columns + n0 + at);
        // The data gradient reads pixel p + 1 − a where forward reads p − 1 + a.
        if (K::TRANSPOSED) line = (TAPS - 1 - tap) * K::LINES + free;
        to = weights + line * K::LD + at;
        last = i32(threadIdx.x) + (EACH - 1) * THREADS < COUNT;
    }
    __device__ __forceinline__ void load() {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int tap = i * STEP / K::LINES, free = i * STEP % K::LINES;
            if (COUNT % THREADS != 0 && i == EACH - 1 && !last) break;
            held[i] = load_vec<4>(from + (K::TRANSPOSED ? tap * K::C * columns + free * K::C : i * STEP * columns));
        }
    }
    __device__ __forceinline__ void store() const {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int tap = i * STEP / K::LINES, free = i * STEP % K::LINES;
            if (COUNT % THREADS != 0 && i == EACH - 1 && !last) break;
            u32* at = reinterpret_cast<u32*>(to + ((K::TRANSPOSED ? -tap : tap) * K::LINES + free) * K::LD);
            const float* v = held[i].v;
            if constexpr (K::HALF) {
                store_vec(at, Vec<u32, 2>{{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])}});
            } else if constexpr (K::MATRIX) {
                store_vec(at, Vec<u32, 4>{{tf32_bits(v[0]), tf32_bits(v[1]), tf32_bits(v[2]), tf32_bits(v[3])}});
            } else {
                store_vec(reinterpret_cast<float*>(at), held[i]);
            }
        }
    }
};

/// Asks for the second pair of factors, in the place of the first.
template <class K>
__device__ __forceinline__ void ask_for_second(WeightLoader<K>& loader, u8* pixels, const SmallParams& p, Band band, i32 n0, typename K::S* weights) {
    __syncthreads(); // everybody has read the first pair
    loader = WeightLoader<K>(p.second_other, p.columns, n0, weights);
    loader.load();
    fill_bordered<typename K::S, K::STRIDE, K::C, K::PITCH>(pixels, p.second_source, p, band, 0);
    commit_async();
}

/// Registers of a tap's 16 columns for the channels from `k` on: two n8 operands.
template <class K> __device__ __forceinline__ void load_weights(u32 (&r)[4], const typename K::S* tap, int n, int k) {
    int l = LANE, g = l >> 2, t = l & 3;
    if constexpr (K::TRANSPOSED) {
        load_matrices_x4(r, tap + (n + (l >> 4) * 8 + (l & 7)) * K::LD + k + ((l >> 3) & 1) * (K::K_STEP / 2));
    } else if constexpr (K::HALF) {
        load_matrices_x4_transposed(r, tap + (k + (l & 15)) * K::LD + n + (l >> 4) * 8);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = __float_as_uint(tap[(k + t + i % 2 * 4) * K::LD + n + g + i / 2 * 8]);
    }
}

/// The sums of a warp's OWN rows. Where two groups of warps have half of the channels each, they
/// hand each other two rows for two, through the memory of the pixels.
template <int OWN>
__device__ __forceinline__ void complete(float (&own)[OWN][2][4], const float (&sums)[ROWS][2][4], float* shared, int group) {
    float* mine = shared + (WARP * OWN * 8) * 32 + LANE;
    const float* theirs = shared + ((WARP ^ (WARPS / 2)) * OWN * 8) * 32 + LANE;
    if (OWN < ROWS) {
        __syncthreads(); // everybody has read the pixels
#pragma unroll
        for (int e = 0; e < OWN * 8; e++) {
            int r = e / 8, f = e / 4 % 2, i = e % 4;
            mine[e * 32] = group == 0 ? sums[ROWS - OWN + r][f][i] : sums[r][f][i];
        }
        __syncthreads();
    }
#pragma unroll
    for (int e = 0; e < OWN * 8; e++) {
        int r = e / 8, f = e / 4 % 2, i = e % 4;
        own[r][f][i] = group == 0 ? sums[r][f][i] : sums[ROWS - OWN + r][f][i];
        if (OWN < ROWS) own[r][f][i] += theirs[e * 32];
    }
}

/// Band `in_x`, columns `in_y` of a block.
template <class K> __device__ __forceinline__ void correlate(const SmallParams& p, i32 in_x, i32 in_y) {
    using S = typename K::S;
    SHARED_MEMORY(shared);
    i32 n0 = in_y * K::BN;
    Band band(p, in_x);
    S* weights = reinterpret_cast<S*>(shared);
    u8* staging = shared + K::WEIGHT_BYTES;
    u8* pixels = staging + K::STAGING_BYTES;

    int l = LANE, g = l >> 2, t = l & 3, warp = int(WARP);
    int pixel_group = warp % K::PIXEL_GROUPS, others = warp / K::PIXEL_GROUPS;
    int n = others % K::COLUMN_GROUPS * 16, channel_group = others / K::COLUMN_GROUPS, first = channel_group * K::OWN;
    i32 strip = pixel_group & ((1 << p.strip_shift) - 1), y = (pixel_group >> p.strip_shift) * ROWS;
    i32 stride = p.width * p.columns, left = p.height - band.y - y;
    // A lane's part of a row of results in bf16: 8 columns of a slot.
    Slot half_slot(p, band, strip * STRIP + (l >> 1));
    bf16* half_out = reinterpret_cast<bf16*>(p.out) + half_slot.pixel(p, band, y + first) * p.columns + n0 + n + (l & 1) * 8;
    u8* mine = staging + warp * (ROWS * STRIP * K::LINE_BYTES);
    u8* half_staging = mine + (l >> 1) * K::LINE_BYTES + (l & 1) * 16;
    bool half = K::HALF && p.out_half;

    // All that comes from memory is asked for before anything is waited for.
    WeightLoader<K> loader(p.other, p.columns, n0, weights);
    loader.load();
    fill_bordered<S, K::STRIDE, K::C, K::PITCH>(pixels, p.source, p, band, 0);
    float sums[ROWS][2][4] = {};
    if (half && p.accumulate) {
#pragma unroll
        for (int r = 0; r < K::OWN; r++)
            copy_async<16>(half_staging + r * STRIP * K::LINE_BYTES, half_out + r * stride, half_slot.valid && first + r < left);
    }
    commit_async();
    if (!half && p.accumulate && channel_group == 0) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            Slot slot(p, band, strip * STRIP + g + 8 * h);
            const float* out = reinterpret_cast<const float*>(p.out) + slot.pixel(p, band, y) * p.columns + n0 + n + 2 * t;
#pragma unroll
            for (int e = 0; e < ROWS * 2; e++) {
                Vec<float, 2> old = {};
                if (slot.valid && e / 2 < left) old = load_vec<2>(out + e / 2 * stride + e % 2 * 8);
                sums[e / 2][e % 2][2 * h] = old.v[0];
                sums[e / 2][e % 2][2 * h + 1] = old.v[1];
            }
        }
    }
    i32 line = p.line() * K::PITCH;
    const u8* from = pixels + Slot(p, band, strip * STRIP + (l & 15)).template bordered<K::STRIDE>(p, y) * K::PITCH + (l >> 4) * 16;
#pragma unroll 1
    for (int pair = 0; pair <= int(K::SUM); pair++) {
        if (pair > 0) ask_for_second(loader, pixels, p, band, n0, weights);
        loader.store();
        wait_async<0>();
        __syncthreads();

#pragma unroll
        for (int step = 0; step < K::STEPS; step++) {
            int k = (channel_group * K::STEPS + step) * K::K_STEP;
            u32 right[TAPS][4];
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) load_weights<K>(right[tap], weights + tap * K::LINES * K::LD, n, k);
            const u8* row = from + k * int(sizeof(S));
#pragma unroll
            for (int s = 0; s < LINES<K::STRIDE>; s++) {
#pragma unroll
                for (int b = 0; b < 3; b++) {
                    u32 left_side[4];
                    load_matrices_x4(left_side, row + b * K::PITCH);
                    round_factors<S>(left_side);
#pragma unroll
                    for (int a = 0; a < 3; a++) {
                        constexpr int STRIDE = K::STRIDE;
                        if (!reaches<STRIDE>(s, a)) continue;
                        const u32(&w)[4] = right[3 * a + b];
                        multiply<S>(sums[(s - a) / STRIDE][0], left_side, w[0], w[1]);
                        multiply<S>(sums[(s - a) / STRIDE][1], left_side, w[2], w[3]);
                    }
                }
                row += line;
            }
        }
    }

    float own[K::OWN][2][4];
    complete(own, sums, reinterpret_cast<float*>(pixels), channel_group);

    if (half) {
#pragma unroll
        for (int e = 0; e < K::OWN * 4; e++) {
            int r = e / 4, f = e / 2 % 2, h = e % 2;
            u32* to = reinterpret_cast<u32*>(mine + (r * STRIP + g + 8 * h) * K::LINE_BYTES + f * 16 + t * 4);
            float low = own[r][f][2 * h], high = own[r][f][2 * h + 1];
            if (p.accumulate) {
                low += __uint_as_float(*to << 16);
                high += __uint_as_float(*to & 0xffff0000u);
            }
            *to = pack_bf16(low, high);
        }
        __syncwarp();
#pragma unroll
        for (int r = 0; r < K::OWN; r++) {
            Vec<bf16, 8> v = load_vec<8>(reinterpret_cast<const bf16*>(half_staging + r * STRIP * K::LINE_BYTES));
            if (half_slot.valid && first + r < left) store_vec(half_out + r * stride, v);
        }
    } else {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            Slot slot(p, band, strip * STRIP + g + 8 * h);
            i32 at = slot.pixel(p, band, y + first) * p.columns + n0 + n + 2 * t;
#pragma unroll
            for (int r = 0; r < K::OWN; r++) {
                if (!slot.valid || first + r >= left) continue;
#pragma unroll
                for (int f = 0; f < 2; f++) {
                    float v[2] = {own[r][f][2 * h], own[r][f][2 * h + 1]};
                    store_f32<2>(reinterpret_cast<float*>(p.out) + at + r * stride + 8 * f, v);
                }
            }
        }
    }
}

} // namespace small
