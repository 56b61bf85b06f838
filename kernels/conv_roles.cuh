// The three roles of a convolution: which tiles each one copies into shared memory, and how. See
// conv.cuh.
#pragma once
#include "conv.cuh"

/// A place in the reduction of a gather: tap (a, b) of `taps_y` × `taps_x`, and channel. Moves
/// forward only, so no division.
struct Cursor {
    i32 channel, a, b;

    /// On by `by` channels, through all of a tap's before the next tap's.
    __device__ __forceinline__ void move(i32 by, i32 channels, i32 taps_x) {
        channel += by;
        while (channel >= channels) {
            channel -= channels;
            if (++b == taps_x) {
                b = 0;
                a++;
            }
        }
    }
    /// To the next tap, after the last one to the first and `by` channels on.
    __device__ __forceinline__ void hop(i32 by, i32 taps_y, i32 taps_x) {
        if (++b < taps_x) return;
        b = 0;
        if (++a < taps_y) return;
        a = 0;
        channel += by;
    }
};

/// Copies this thread's part of BK lines of a matrix into a tile by columns, from column `n0` on. A
/// thread stays in its line of the tile, which is line `at` of the matrix if there is one; lines
/// are `pitch` apart.
template <class Math, class Tile, int V, class T>
__device__ __forceinline__ void fill_line(T* tile, const T* matrix, i32 at, bool there, i32 n0, i32 columns, i32 pitch) {
    constexpr int LANES = Math::THREADS / Math::BK, CHUNKS = Math::BN / V;
    static_assert(Math::THREADS % Math::BK == 0, "as many threads for each line");
    int line, lane;
    Tile::template share<LANES>(line, lane);
    i32 column = n0 + lane * V;
    const T* from = matrix + (at * pitch + column);
#pragma unroll
    for (int c = 0; c < (CHUNKS + LANES - 1) / LANES; c++) {
        if (CHUNKS % LANES != 0 && lane + c * LANES >= CHUNKS) break;
        fill<T, V, false>(tile + Tile::place((lane + c * LANES) * V, line), from + c * LANES * V, there && column + c * LANES * V < columns);
    }
}

// Forward and data gradient: rows are pixels of a grid, the reduction runs over taps and the
// source's channels. TRANSPOSED: data gradient. VECTOR: channels and columns come in whole aligned
// vectors of 16 bytes.
template <class Math, bool TRANSPOSED, bool VECTOR, bool GROUPED = false> __device__ __forceinline__ void correlate(const ConvParams& p) {
    using S = typename Math::Source;
    using O = typename Math::Other;
    constexpr int VA = VECTOR ? 16 / int(sizeof(S)) : 1, VB = VECTOR ? 16 / int(sizeof(O)) : 1;
    constexpr int BM = Math::BM, BN = Math::BN, BK = Math::BK, THREADS = Math::THREADS;
    using TileA = typename Math::template SourceTile<true>;
    using TileB = typename Math::template OtherTile<TRANSPOSED>;
    SHARED_MEMORY(shared);

    // The class of pixels: those that are (y0, x0) modulo `step`, and the taps (tap_y + step·a,
    // tap_x + step·b) that reach them.
    GroupOf<GROUPED> group{p};
    i32 step = TRANSPOSED ? p.stride : 1;
    i32 y0 = i32(group.z()) / step, x0 = i32(group.z()) - y0 * step;
    i32 tap_y = TRANSPOSED ? (y0 + p.pad) % step : 0, tap_x = TRANSPOSED ? (x0 + p.pad) % step : 0;
    i32 taps_y = (p.kernel_h - tap_y + step - 1) / step, taps_x = (p.kernel_w - tap_x + step - 1) / step;
    i32 class_h = (p.grid_h - y0 + step - 1) / step, class_w = (p.grid_w - x0 + step - 1) / step;
    i32 rows = p.n * class_h * class_w;
    i32 block_m = i32(blockIdx.x), block_n = i32(blockIdx.y);
    if constexpr (Math::IN_ROW) {
        i32 side_by_side = (p.columns + BN - 1) / BN;
        block_m = i32(blockIdx.x) / side_by_side, block_n = i32(blockIdx.x) - block_m * side_by_side;
    }
    i32 m0 = block_m * BM, n0 = block_n * BN;
    if (Math::IN_ROW && block_m >= p.whole) {
        m0 = p.whole * BM + (block_m - p.whole) * p.rest;
        rows = min(rows, m0 + p.rest);
    }
    if (m0 >= rows) return; // the whole block: classes differ in size
    if (taps_y <= 0 || taps_x <= 0) taps_y = 0, taps_x = 1;
    i32 steps = (taps_y * taps_x * p.channels + BK - 1) / BK;
    const S* source = reinterpret_cast<const S*>(p.source) + group.channel();
    const O* weights = reinterpret_cast<const O*>(p.other) + (TRANSPOSED ? group.channel() : group.column());

    // Source pixels of this thread's rows at tap (0, 0), which may lie outside of the image. An
    // offset of what is not there may be anything: it is not read.
    constexpr int CA = BK / VA, LINES_A = THREADS / CA, ROWS_A = (BM + LINES_A - 1) / LINES_A;
    static_assert(THREADS % CA == 0, "a thread keeps its column");
    i32 column_a = i32(threadIdx.x) % CA * VA, line_a = i32(threadIdx.x) / CA;
    i32 pixel[ROWS_A], sy[ROWS_A], sx[ROWS_A];
#pragma unroll
    for (int r = 0; r < ROWS_A; r++) {
        i32 m = m0 + line_a + r * LINES_A;
        u32 in_image, column;
        i32 n = i32(p.by_image.split(u32(m), in_image)), y = i32(p.by_row.split(in_image, column)), x = i32(column);
        if (TRANSPOSED && step > 1) { // of a class's images and rows, which only the device knows
            i32 line = m / class_w;
            x = m - line * class_w, n = line / class_h, y = line - n * class_h;
        }
        // Forward: p·s − pad. Data gradient: y0 + pad − tap_y is a multiple of the step.
        sy[r] = TRANSPOSED ? y + (y0 + p.pad - tap_y) / step : y * p.stride - p.pad;
        sx[r] = TRANSPOSED ? x + (x0 + p.pad - tap_x) / step : x * p.stride - p.pad;
        pixel[r] = ((n * p.source_h + sy[r]) * p.source_w + sx[r]) * group.channels();
        if (m >= rows) sy[r] = -(1 << 30);
    }
    // Where channels are many, all taps of a part of the channels come one after another: they read
    // nearly the same pixels, which the first-level cache then holds. Else, and where a part
    // reaches into the next tap's channels, a tap's channels do.
    constexpr int PART = Math::PART, PARTS = BK / PART;
    bool by_taps = BN >= 128 && p.channels % PART == 0;
    auto begin = [&](int k) {
        Cursor at = {0, 0, 0};
        if (PARTS > 1 && by_taps) {
            for (int part = k / PART; part > 0; part--) at.hop(PART, taps_y, taps_x);
            at.channel += k % PART;
        } else {
            at.move(k, p.channels, taps_x);
        }
        return at;
    };
    auto advance = [&](Cursor& at) {
        if (by_taps) {
#pragma unroll
            for (int part = 0; part < PARTS; part++) at.hop(PART, taps_y, taps_x);
        } else {
            at.move(BK, p.channels, taps_x);
        }
    };
    // The last step may have more parts than there are.
    auto exists = [&](const Cursor& at) { return at.a < taps_y && (PARTS == 1 || at.channel < p.channels); };
    Cursor at_a = begin(column_a);

    // Data gradient: a thread keeps its column of the weights' tile, too, and the place in the
    // reduction is the source's where chunks are equally long.
    constexpr int CB = BK / VB, LINES_B = THREADS / CB;
    static_assert(!TRANSPOSED || THREADS % CB == 0, "a thread keeps its column");
    i32 column_b = i32(threadIdx.x) % CB * VB, line_b = i32(threadIdx.x) / CB;
    // Forward: a thread keeps its line, whose place is known from the source's but where a step has
    // several parts.
    int line_k, lane_k;
    TileB::template share<THREADS / BK>(line_k, lane_k);
    constexpr bool APART = TRANSPOSED ? VA != VB : PARTS > 1;
    Cursor apart = {0, 0, 0};
    if constexpr (APART) apart = begin(TRANSPOSED ? column_b : line_k);
    Cursor& at_b = APART ? apart : at_a;
    i32 k0 = 0, k_end = taps_y * taps_x * p.channels;

    auto load = [&](u8* stage) {
        S* a = reinterpret_cast<S*>(stage);
        O* b = reinterpret_cast<O*>(stage + TileA::BYTES);
        i32 dy = TRANSPOSED ? -at_a.a : at_a.a, dx = TRANSPOSED ? -at_a.b : at_a.b;
        bool tap = exists(at_a);
        i32 ahead = (dy * p.source_w + dx) * group.channels() + at_a.channel;
#pragma unroll
        for (int r = 0; r < ROWS_A; r++) {
            int line = line_a + r * LINES_A;
            if (BM % LINES_A != 0 && line >= BM) break;
            bool valid = tap && u32(sy[r] + dy) < u32(p.source_h) && u32(sx[r] + dx) < u32(p.source_w);
            fill<S, VA, true>(a + TileA::place(line, column_a), source + (pixel[r] + ahead), valid);
        }
        if constexpr (TRANSPOSED) {
            bool reached = exists(at_b);
            i32 tap_at = (tap_y + step * at_b.a) * p.kernel_w + tap_x + step * at_b.b, n = n0 + line_b;
            i32 from = (tap_at * p.columns + n) * group.channels() + at_b.channel;
#pragma unroll
            for (int r = 0; r < (BN + LINES_B - 1) / LINES_B; r++) {
                if (BN % LINES_B != 0 && line_b + r * LINES_B >= BN) break;
                fill<O, VB, false>(b + TileB::place(line_b + r * LINES_B, column_b), weights + (from + r * LINES_B * group.channels()),
                                   reached && n + r * LINES_B < p.columns);
            }
        } else if constexpr (APART) {
            fill_line<Math, TileB, VB>(b, weights, (at_b.a * taps_x + at_b.b) * p.channels + at_b.channel, exists(at_b), n0, p.columns, group.columns());
        } else {
            i32 k = line_k + (by_taps ? (at_a.a * taps_x + at_a.b) * p.channels + at_a.channel - column_a : k0);
            fill_line<Math, TileB, VB>(b, weights, k, k < k_end, n0, p.columns, group.columns());
            k0 += BK;
        }
        advance(at_a);
        if constexpr (APART) advance(apart);
    };
    Math math;
    if constexpr (Math::IN_ROW) math.rows = rows - m0;
#pragma unroll 1
    for (int pair = 0;; pair++) {
        pipeline<TileA, TileB>(math, shared, steps, load);
        if (TRANSPOSED || pair > 0 || !p.second_source) break;
        source = reinterpret_cast<const S*>(p.second_source) + group.channel();
        weights = reinterpret_cast<const O*>(p.second_other) + group.column();
        at_a = begin(column_a), k0 = 0;
        if constexpr (APART) apart = begin(line_k);
        __syncthreads(); // everybody has read the last stage
    }
    math.template results<TileA, TileB>(PutPixels<VECTOR, GROUPED>{p, m0, n0, rows, class_h, class_w, y0, x0, step});
}

// Weight gradient: the reduction runs over y's pixels.
template <class Math, bool VECTOR, bool GROUPED = false> __device__ __forceinline__ void weight_gradient(const ConvParams& p) {
    using S = typename Math::Source;
    using O = typename Math::Other;
    constexpr int VA = VECTOR ? 16 / int(sizeof(S)) : 1, VB = VECTOR ? 16 / int(sizeof(O)) : 1;
    constexpr int BM = Math::BM, BN = Math::BN, BK = Math::BK, THREADS = Math::THREADS;
    using TileA = typename Math::template SourceTile<false>;
    using TileB = typename Math::template OtherTile<false>;
    SHARED_MEMORY(shared);

    i32 rows = p.kernel_h * p.kernel_w * p.channels, pixels = p.n * p.grid_h * p.grid_w;
    i32 m0 = i32(blockIdx.x) * BM, n0 = i32(blockIdx.y) * BN;
    GroupOf<GROUPED> group{p};
    i32 all = (pixels + BK - 1) / BK, first = min(i32(group.z()) * p.steps_per_split, all);
    i32 steps = min(p.steps_per_split, all - first);
    const S* source = reinterpret_cast<const S*>(p.source) + group.channel();
    const O* other = reinterpret_cast<const O*>(p.other) + group.column();

    // Chunks of the gathered tile, [BK pixels][BM]: a thread stays in its line, so that a step is
    // one pixel to it; taps and channels of its chunks stay.
    constexpr int CA = BM / VA, LANES = THREADS / BK, EACH_A = (CA + LANES - 1) / LANES;
    static_assert(THREADS % BK == 0, "as many threads for each line");
    int line, lane;
    TileA::template share<LANES>(line, lane);
    i32 dy[EACH_A], dx[EACH_A], ahead[EACH_A];
#pragma unroll
    for (int c = 0; c < EACH_A; c++) {
        i32 m = m0 + (lane + c * LANES) * VA, entry = weight_entry<Math::WEIGHTS_PART>(p, m), tap = entry / p.channels, a = tap / p.kernel_w;
        dx[c] = tap - a * p.kernel_w - p.pad;
        dy[c] = m < rows ? a - p.pad : -(1 << 30);
        ahead[c] = ((a - p.pad) * p.source_w + dx[c]) * group.channels() + entry - tap * p.channels;
    }
    int line_b, lane_b;
    TileB::template share<LANES>(line_b, lane_b);
    i32 at = first * BK + line;

    auto load = [&](u8* stage) {
        S* a = reinterpret_cast<S*>(stage);
        O* b = reinterpret_cast<O*>(stage + TileA::BYTES);
        u32 in_image, x;
        u32 n = p.by_image.split(u32(at), in_image), y = p.by_row.split(in_image, x);
        i32 sy = i32(y) * p.stride, sx = i32(x) * p.stride;
        i32 here = ((i32(n) * p.source_h + sy) * p.source_w + sx) * group.channels();
#pragma unroll
        for (int c = 0; c < EACH_A; c++) {
            if (CA % LANES != 0 && lane + c * LANES >= CA) break;
            bool valid = at < pixels && u32(sy + dy[c]) < u32(p.source_h) && u32(sx + dx[c]) < u32(p.source_w);
            fill<S, VA, true>(a + TileA::place((lane + c * LANES) * VA, line), source + (here + ahead[c]), valid);
        }
        i32 at_b = at - line + line_b;
        fill_line<Math, TileB, VB>(b, other, at_b, at_b < pixels, n0, p.columns, group.columns());
        at += BK;
    };
    Math math;
    if constexpr (Math::IN_ROW) math.rows = rows - m0;
    pipeline<TileA, TileB>(math, shared, steps, load);
    PutWeights<VECTOR, Math::WEIGHTS_PART, GROUPED> put{p, m0, n0, rows};
    math.template results<TileA, TileB>(put);
    if (p.parts.count == 1) return;
    u32 tile = (blockIdx.y * gridDim.x + blockIdx.x) * u32(p.groups) + (GROUPED ? blockIdx.z % u32(p.groups) : 0);
    add_parts(p.parts, group.z(), 1, tile, [&](u32 first, u32 count, u32 step, bool last) { put.template add<BM, BN, THREADS>(first, count, step, last); });
}

// ---- kernels of one precision -------------------------------------------------------------------

// Tiles by name; launch/conv/tiles.rs chooses among them. `odd` takes any channels, entry by entry.
#define CONV_KERNEL(NAME, MATH, CALL)                              \
    KERNEL_BOUNDS(NAME, ConvParams, MATH::THREADS, MATH::BLOCKS) { CALL; }
#define CORRELATE_KERNELS(TILE, MATH, VECTOR)                                                     \
    CONV_KERNEL(forward_##TILE, MATH, (correlate<MATH, false, VECTOR>(p)))                        \
    CONV_KERNEL(data_gradient_##TILE, MATH, (correlate<MATH, true, VECTOR>(p)))
#define WEIGHT_GRADIENT_KERNEL(TILE, MATH, VECTOR) CONV_KERNEL(weight_gradient_##TILE, MATH, (weight_gradient<MATH, VECTOR>(p)))
// As `odd`, in groups of channels.
#define GROUPED_KERNELS(MATH, WEIGHTS)                                                            \
    CONV_KERNEL(forward_grouped, MATH, (correlate<MATH, false, false, true>(p)))                  \
    CONV_KERNEL(data_gradient_grouped, MATH, (correlate<MATH, true, false, true>(p)))             \
    CONV_KERNEL(weight_gradient_grouped, WEIGHTS, (weight_gradient<WEIGHTS, false, true>(p)))
