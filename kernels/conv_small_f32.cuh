// The 3x3 convolutions of conv_small.cuh in f32 on the ordinary units.
//
//  - forward and data gradient: lanes 0 to 15 of a warp have a slot of a strip each, in ROWS rows,
//    and lanes 16 to 31 the same slots in the next ROWS rows; all of them 8 columns. Pixels come
//    from shared memory four channels at a time, weights four columns (or channels) at a time and
//    the same for all lanes: 16 products a load.
//  - weight gradient: a lane has 2 channels by 4 columns of all taps, a warp half a strip's slots,
//    one after another: 72 products for 4 loads.
#pragma once
#include "conv_small_weights.cuh"

namespace small {

template <class K> __device__ __forceinline__ void correlate_f32(const SmallParams& p, i32 in_x, i32 in_y) {
    SHARED_MEMORY(shared);
    i32 n0 = in_y * K::BN;
    Band band(p, in_x);
    float* weights = reinterpret_cast<float*>(shared);
    u8* pixels = shared + K::WEIGHT_BYTES;

    WeightLoader<K> loader(p.other, p.columns, n0, weights);
    loader.load();
    fill_bordered<float, K::STRIDE, K::C, K::PITCH>(pixels, p.source, p, band, 0);
    commit_async();

    int l = LANE, pixel_group = int(WARP) % K::PIXEL_GROUPS, others = int(WARP) / K::PIXEL_GROUPS;
    int n = others % K::COLUMN_GROUPS * K::COLUMNS, channel_group = others / K::COLUMN_GROUPS;
    i32 strip = pixel_group & ((1 << p.strip_shift) - 1), y = ((pixel_group >> p.strip_shift) * 2 + (l >> 4)) * ROWS;
    Slot slot(p, band, strip * STRIP + (l & 15));
    i32 stride = p.width * p.columns, left = p.height - band.y - y;
    float* out = reinterpret_cast<float*>(p.out) + slot.pixel(p, band, y) * p.columns + n0 + n;
    float sums[ROWS][2][4] = {};
    if (p.accumulate && channel_group == 0) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (!slot.valid || r >= left) continue;
            load_f32<4>(out + r * stride, sums[r][0]);
            load_f32<4>(out + r * stride + 4, sums[r][1]);
        }
    }
    i32 line = p.line() * K::PITCH, k0 = channel_group * K::STEPS * K::K_STEP;
#pragma unroll 1
    for (int pair = 0; pair <= int(K::SUM); pair++) {
        if (pair > 0) ask_for_second(loader, pixels, p, band, n0, weights);
        loader.store();
        const u8* from = pixels + slot.template bordered<K::STRIDE>(p, y) * K::PITCH + k0 * 4;
        const float* filter = weights + (K::TRANSPOSED ? n * K::LD + k0 : k0 * K::LD + n);
        wait_async<0>();
        __syncthreads();

#pragma unroll 1
        for (int step = 0; step < K::STEPS; step++) {
#pragma unroll 1
            for (int b = 0; b < 3; b++) {
                float x[LINES<K::STRIDE>][4];
#pragma unroll
                for (int s = 0; s < LINES<K::STRIDE>; s++) load_f32<4>(reinterpret_cast<const float*>(from + b * K::PITCH + s * line), x[s]);
#pragma unroll
                for (int a = 0; a < 3; a++) {
                    const float* tap = filter + (3 * a + b) * (K::LINES * K::LD);
#pragma unroll
                    for (int e = 0; e < 8; e++) {
                        // Transposed: four channels of column e; else four columns of channel e /
                        // 2.
                        float w[4];
                        load_f32<4>(K::TRANSPOSED ? tap + e * K::LD : tap + e / 2 * K::LD + e % 2 * 4, w);
#pragma unroll
                        for (int r = 0; r < ROWS; r++)
#pragma unroll
                            for (int i = 0; i < 4; i++) {
                                if (K::TRANSPOSED) sums[r][e / 4][e % 4] += x[K::STRIDE * r + a][i] * w[i];
                                else sums[r][e % 2][i] += x[K::STRIDE * r + a][e / 2] * w[i];
                            }
                    }
                }
            }
            from += K::K_STEP * 4;
            filter += K::TRANSPOSED ? K::K_STEP : K::K_STEP * K::LD;
        }
    }

    float own[K::OWN][2][4];
    int first = channel_group * K::OWN;
    complete(own, sums, reinterpret_cast<float*>(pixels), channel_group);
#pragma unroll
    for (int r = 0; r < K::OWN; r++) {
        if (!slot.valid || first + r >= left) continue;
        store_f32<4>(out + (first + r) * stride, own[r][0]);
        store_f32<4>(out + (first + r) * stride + 4, own[r][1]);
    }
}

/// A warp's part of a tile of 16 channels by 16 columns: as `MatrixWeights<float>`, with the same
/// sums in the same places.
template <int STRIDE_> struct OrdinaryWeights {
    using S = float;
    static constexpr int STRIDE = STRIDE_;
    static constexpr bool HALF = false;
    static constexpr int PIXEL_GROUPS = WARPS / 2, PITCH = 96;
    const SmallParams& p;
    i32 slot0, row0, x_bytes;

    __device__ __forceinline__ OrdinaryWeights(const SmallParams& params, i32 slot, i32 row, i32 bytes)
        : p(params), slot0(slot), row0(row), x_bytes(bytes) {}

    __device__ __forceinline__ void add(float (&sums)[TAPS][2][4], const u8* stage) const {
        int l = LANE, g = l >> 2, t = l & 3;
        i32 line = p.line() * PITCH, y_line = (STRIP << p.strip_shift) * PITCH;
        Band none(p, 0);
#pragma unroll 1
        for (i32 i = 0; i < STRIP / 2; i++) {
            const u8* xs = stage + Slot(p, none, slot0 + i).template bordered<STRIDE>(p, row0) * PITCH + g * 8;
            const u8* ys = stage + x_bytes + row0 * y_line + (slot0 + i) * PITCH + t * 16;
            float y[3][4];
#pragma unroll
            for (int s = 0; s < LINES<STRIDE>; s++) {
                constexpr int LAST = STRIDE * (ROWS - 1);
                if (s % STRIDE == 0 && s <= LAST) load_f32<4>(reinterpret_cast<const float*>(ys + s / STRIDE * y_line), y[s / STRIDE % 3]);
#pragma unroll
                for (int b = 0; b < 3; b++) {
                    float x[2];
                    load_f32<2>(reinterpret_cast<const float*>(xs + s * line + b * PITCH), x);
#pragma unroll
                    for (int a = 0; a < 3; a++) {
                        if (!reaches<STRIDE>(s, a)) continue;
#pragma unroll
                        for (int h = 0; h < 2; h++)
#pragma unroll
                            for (int c = 0; c < 4; c++) sums[3 * a + b][c % 2][2 * h + c / 2] += x[h] * y[(s - a) / STRIDE % 3][c];
                    }
                }
            }
        }
    }
};

} // namespace small
