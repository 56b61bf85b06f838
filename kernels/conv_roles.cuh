// The three roles of a convolution: which tiles each one copies into shared memory, and how. See conv.cuh.
#pragma once
#include "conv.cuh"

/// A place in the reduction of a gather: tap (a, b) of `taps_y` × `taps_x`, then channel. Moves forward only, so no division.
struct Cursor {
    i32 channel, a, b;

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
};

// Forward and data gradient: rows are pixels of a grid, the reduction runs over taps and the source's channels. TRANSPOSED: data gradient.
// VECTOR: channels and columns come in whole aligned vectors of 16 bytes.
template <class Math, bool TRANSPOSED, bool VECTOR> __device__ __forceinline__ void correlate(const ConvParams& p) {
    using S = typename Math::Source;
    using O = typename Math::Other;
    constexpr int VA = VECTOR ? 16 / int(sizeof(S)) : 1, VB = VECTOR ? 16 / int(sizeof(O)) : 1;
    constexpr int BM = Math::BM, BN = Math::BN, BK = Math::BK, THREADS = Math::THREADS;
    using TileA = SharedTile<S, true, BM, BK, Math::pad_source(true)>;
    using TileB = SharedTile<O, TRANSPOSED, BN, BK, Math::pad_other(TRANSPOSED)>;
    SHARED_MEMORY(shared);

    // The class of pixels: those that are (y0, x0) modulo `step`, and the taps (tap_y + step·a, tap_x + step·b) that reach them.
    i32 step = TRANSPOSED ? p.stride : 1;
    i32 y0 = i32(blockIdx.z) / step, x0 = i32(blockIdx.z) - y0 * step;
    i32 tap_y = TRANSPOSED ? (y0 + p.pad) % step : 0, tap_x = TRANSPOSED ? (x0 + p.pad) % step : 0;
    i32 taps_y = (p.kernel_h - tap_y + step - 1) / step, taps_x = (p.kernel_w - tap_x + step - 1) / step;
    i32 class_h = (p.grid_h - y0 + step - 1) / step, class_w = (p.grid_w - x0 + step - 1) / step;
    i32 rows = p.n * class_h * class_w;
    i32 m0 = i32(blockIdx.x) * BM, n0 = i32(blockIdx.y) * BN;
    if (m0 >= rows) return; // the whole block: classes differ in size
    if (taps_y <= 0 || taps_x <= 0) taps_y = 0, taps_x = 1;
    i32 steps = (taps_y * taps_x * p.channels + BK - 1) / BK;
    const S* source = reinterpret_cast<const S*>(p.source);
    const O* weights = reinterpret_cast<const O*>(p.other);

    // Source pixels of this thread's rows at tap (0, 0), which may lie outside of the image.
    constexpr int CA = BK / VA, LINES_A = THREADS / CA, ROWS_A = (BM + LINES_A - 1) / LINES_A;
    static_assert(THREADS % CA == 0, "a thread keeps its column");
    i32 column_a = i32(threadIdx.x) % CA * VA, line_a = i32(threadIdx.x) / CA;
    i32 pixel[ROWS_A];
    i32 sy[ROWS_A], sx[ROWS_A];
#pragma unroll
    for (int r = 0; r < ROWS_A; r++) {
        i32 m = m0 + line_a + r * LINES_A;
        i32 line = m / class_w, x = m - line * class_w, n = line / class_h, y = line - n * class_h;
        // Forward: p·s − pad. Data gradient: y0 + pad − tap_y is a multiple of the step.
        sy[r] = TRANSPOSED ? y + (y0 + p.pad - tap_y) / step : y * p.stride - p.pad;
        sx[r] = TRANSPOSED ? x + (x0 + p.pad - tap_x) / step : x * p.stride - p.pad;
        pixel[r] = ((n * p.source_h + sy[r]) * p.source_w + sx[r]) * p.channels;
        if (m >= rows) sy[r] = -(1 << 30);
    }
    Cursor at_a = {0, 0, 0};
    at_a.move(column_a, p.channels, taps_x);

    // This thread's chunks of the weights' tile: their entries from the place of the step on, and the lines they are in, of which those that are
    // no column of the product lie behind every end. Loops over chunks count to a number that the compiler knows: one that began at the thread's
    // own would not be unrolled, and its divisions would come again at every step.
    constexpr int CB = (TRANSPOSED ? BK : BN) / VB, CHUNKS_B = TileB::LINES * CB, EACH_B = (CHUNKS_B + THREADS - 1) / THREADS;
    static_assert(!TRANSPOSED || THREADS % CB == 0, "a thread keeps its column");
    i32 from_b[EACH_B], line_b[EACH_B];
#pragma unroll
    for (int i = 0; i < EACH_B; i++) {
        i32 chunk = i32(threadIdx.x) + i * THREADS, line = chunk / CB, n = n0 + (TRANSPOSED ? line : chunk % CB * VB);
        from_b[i] = TRANSPOSED ? n * p.channels : line * p.columns + n;
        line_b[i] = n < p.columns ? line : 1 << 30;
    }
    // Data gradient: the place of a chunk's column in the reduction, which is that of the source's where chunks are equally long.
    Cursor apart = {0, 0, 0};
    if constexpr (TRANSPOSED && VA != VB) apart.move(i32(threadIdx.x) % CB * VB, p.channels, taps_x);
    Cursor& at_b = VA == VB ? at_a : apart;
    i32 k0 = 0;

    auto load = [&](u8* stage) {
        S* a = reinterpret_cast<S*>(stage);
        O* b = reinterpret_cast<O*>(stage + TileA::BYTES);
        i32 dy = TRANSPOSED ? -at_a.a : at_a.a, dx = TRANSPOSED ? -at_a.b : at_a.b;
        bool tap = at_a.a < taps_y;
        i32 ahead = (dy * p.source_w + dx) * p.channels + at_a.channel;
#pragma unroll
        for (int r = 0; r < ROWS_A; r++) {
            int line = line_a + r * LINES_A;
            if (BM % LINES_A != 0 && line >= BM) break;
            bool valid = tap && u32(sy[r] + dy) < u32(p.source_h) && u32(sx[r] + dx) < u32(p.source_w);
            fill<S, VA, true>(a + line * TileA::LD + column_a, source + (pixel[r] + ahead), valid);
        }
        // Lines up to `end` are there, `here` is where the first one begins.
        i32 here, end;
        if constexpr (TRANSPOSED) {
            i32 tap_at = (tap_y + step * at_b.a) * p.kernel_w + tap_x + step * at_b.b;
            here = tap_at * p.columns * p.channels + at_b.channel;
            end = at_b.a < taps_y ? BN : 0;
        } else {
            here = k0 * p.columns;
            end = taps_y * taps_x * p.channels - k0;
        }
#pragma unroll
        for (int i = 0; i < EACH_B; i++) {
            int chunk = int(threadIdx.x) + i * THREADS;
            if (CHUNKS_B % THREADS != 0 && chunk >= CHUNKS_B) break;
            fill<O, VB, false>(b + chunk / CB * TileB::LD + chunk % CB * VB, weights + (here + from_b[i]), line_b[i] < end);
        }
        at_a.move(BK, p.channels, taps_x);
        if constexpr (TRANSPOSED && VA != VB) apart.move(BK, p.channels, taps_x);
        k0 += BK;
    };
    Math math;
    pipeline<Math, TileA, TileB>(math, shared, steps, load);
    math.template results<TileA, TileB>(PutPixels<VECTOR>{p, m0, n0, rows, class_h, class_w, y0, x0, step});
}

// Weight gradient: rows are entries (a,b,i) of the weight, the reduction runs over y's pixels.
template <class Math, bool VECTOR> __device__ __forceinline__ void weight_gradient(const ConvParams& p) {
    using S = typename Math::Source;
    using O = typename Math::Other;
    constexpr int VA = VECTOR ? 16 / int(sizeof(S)) : 1, VB = VECTOR ? 16 / int(sizeof(O)) : 1;
    constexpr int BM = Math::BM, BN = Math::BN, BK = Math::BK, THREADS = Math::THREADS;
    using TileA = SharedTile<S, false, BM, BK, Math::pad_source(false)>;
    using TileB = SharedTile<O, false, BN, BK, Math::pad_other(false)>;
    SHARED_MEMORY(shared);

    i32 rows = p.kernel_h * p.kernel_w * p.channels, pixels = p.n * p.grid_h * p.grid_w;
    i32 m0 = i32(blockIdx.x) * BM, n0 = i32(blockIdx.y) * BN;
    i32 all = (pixels + BK - 1) / BK, first = min(i32(blockIdx.z) * p.steps_per_split, all);
    i32 steps = min(p.steps_per_split, all - first);
    const S* source = reinterpret_cast<const S*>(p.source);
    const O* other = reinterpret_cast<const O*>(p.other);

    // Chunks of both tiles, [BK pixels][BM] and [BK pixels][BN]: a thread stays in its line, so that a step is one pixel to it; taps and channels
    // of its chunks stay.
    constexpr int LANES = THREADS / BK, CA = BM / VA, EACH_A = (CA + LANES - 1) / LANES, CB = BN / VB, EACH_B = (CB + LANES - 1) / LANES;
    static_assert(THREADS % BK == 0, "as many threads for each line");
    i32 line = i32(threadIdx.x) / LANES, lane = i32(threadIdx.x) % LANES;
    i32 dy[EACH_A], dx[EACH_A], ahead[EACH_A];
#pragma unroll
    for (int c = 0; c < EACH_A; c++) {
        i32 k = m0 + (lane + c * LANES) * VA;
        i32 tap = k / p.channels, a = tap / p.kernel_w;
        dx[c] = tap - a * p.kernel_w - p.pad;
        dy[c] = k < rows ? a - p.pad : -(1 << 30);
        ahead[c] = k < rows ? ((a - p.pad) * p.source_w + dx[c]) * p.channels + k - tap * p.channels : 0;
    }
    i32 at = first * BK + line;

    auto load = [&](u8* stage) {
        S* a = reinterpret_cast<S*>(stage) + line * TileA::LD + lane * VA;
        O* b = reinterpret_cast<O*>(stage + TileA::BYTES) + line * TileB::LD + lane * VB;
        u32 in_image, x;
        u32 n = p.by_image.split(u32(at), in_image), y = p.by_row.split(in_image, x);
        i32 sy = i32(y) * p.stride, sx = i32(x) * p.stride;
        i32 here = ((i32(n) * p.source_h + sy) * p.source_w + sx) * p.channels;
#pragma unroll
        for (int c = 0; c < EACH_A; c++) {
            if (CA % LANES != 0 && lane + c * LANES >= CA) break;
            bool valid = at < pixels && u32(sy + dy[c]) < u32(p.source_h) && u32(sx + dx[c]) < u32(p.source_w);
            fill<S, VA, true>(a + c * LANES * VA, source + (here + ahead[c]), valid);
        }
        i32 column = n0 + lane * VB;
        const O* from = other + (at * p.columns + column);
#pragma unroll
        for (int c = 0; c < EACH_B; c++) {
            if (CB % LANES != 0 && lane + c * LANES >= CB) break;
            fill<O, VB, false>(b + c * LANES * VB, from + c * LANES * VB, at < pixels && column + c * LANES * VB < p.columns);
        }
        at += BK;
    };
    Math math;
    pipeline<Math, TileA, TileB>(math, shared, steps, load);
    math.template results<TileA, TileB>(PutWeights<VECTOR>{p, m0, n0, rows});
}

// ---- kernels of one precision ------------------------------------------------------------------------------------------------

// Tiles by name; launch/conv.rs chooses among them. `odd` takes any channels, entry by entry.
#define CONV_KERNEL(NAME, MATH, CALL)                              \
    KERNEL_BOUNDS(NAME, ConvParams, MATH::THREADS, MATH::BLOCKS) { CALL; }
#define CORRELATE_KERNELS(TILE, MATH, VECTOR)                                                     \
    CONV_KERNEL(forward_##TILE, MATH, (correlate<MATH, false, VECTOR>(p)))                        \
    CONV_KERNEL(data_gradient_##TILE, MATH, (correlate<MATH, true, VECTOR>(p)))
#define WEIGHT_GRADIENT_KERNEL(TILE, MATH, VECTOR) CONV_KERNEL(weight_gradient_##TILE, MATH, (weight_gradient<MATH, VECTOR>(p)))
