// Arithmetic of wide bf16 convolutions on Hopper: products of warpgroups (wgmma.cuh) straight out
// of the tiles that cp.async fills. Its place among the others: conv.cuh.
//
// A block of four warpgroups fills a processor. Each has 64 rows of the tile and all of its
// columns. Tiles are as large as registers allow, as all that limits these products is how fast
// factors come: from shared memory to the matrix units, and from device to shared memory.
#pragma once
#include "conv.cuh"
#include "wgmma.cuh"

#ifdef HAS_WGMMA

/// A tile of bf16 in shared memory as products of warpgroups want it. `ROWS` = [FREE][64], else
/// [64][FREE] in parts of so many columns that a line of a part has 128 bytes, or 64 where FREE
/// leaves no other choice; parts lie one after another.
template <bool ROWS, int FREE> struct SwizzledTile {
    static constexpr bool BY_ROWS = ROWS;
    static constexpr int BK = 64, LINE = ROWS || FREE % 64 == 0 ? 128 : 64, COLUMNS = LINE / 2, BYTES = FREE * BK * 2;
    static_assert(ROWS ? FREE % 8 == 0 : FREE % COLUMNS == 0, "whole parts");
    using Entry = bf16;
    u32 at;

    /// Of the first of eight entries that a copy writes, in entries.
    static __device__ __forceinline__ int place(int free, int k) {
        int part = ROWS ? 0 : free / COLUMNS, row = ROWS ? free : k, column = ROWS ? k : free % COLUMNS;
        int turn = LINE == 128 ? row & 7 : row >> 1 & 3;
        return part * (BK * COLUMNS) + row * COLUMNS + (column / 8 ^ turn) * 8 + column % 8;
    }
    /// Of the factor from entry (free, k) on: k a multiple of 16, `free` of 64.
    __device__ __forceinline__ u64 descriptor(int free, int k) const {
        // An address has 18 bits, as its field has: nothing is carried.
        int from = ROWS ? free * LINE + k * 2 : free / COLUMNS * (BK * LINE) + k * LINE;
        return matrix_descriptor<LINE>(at, ROWS ? 16 : BK * LINE, 8 * LINE) + (from >> 4);
    }
    /// The thread's line of a tile by columns and first chunk in it, where LANES threads fill a
    /// line. A quarter of a warp writes 128 bytes in eight banks of 16: short lines two at a time.
    template <int LANES> static __device__ __forceinline__ void share(int& line, int& lane) {
        int thread = int(threadIdx.x);
        line = thread / LANES, lane = thread % LANES;
        if constexpr (LINE == 64) {
            static_assert(LANES == 8, "two quarters of a line");
            line = thread / 16 * 2 + (thread >> 2 & 1);
            lane = (thread & 3) + (thread >> 3 & 1) * 4;
        }
    }
};

/// 256 × BN outputs by four warpgroups.
template <int BN_, int STAGES_> struct Wgmma {
    static constexpr int BM = 256, BN = BN_, BK = 64, STAGES = STAGES_, THREADS = 512, BLOCKS = 1;
    // Where all taps of some channels come one after another: of how many.
    static constexpr int PART = 32, WEIGHTS_PART = 32;
    // Blocks in one row, those of the same rows side by side: they read the same pixels.
    static constexpr bool IN_ROW = true;
    using Source = bf16;
    using Other = bf16;
    template <bool ROWS> using SourceTile = SwizzledTile<ROWS, BM>;
    template <bool ROWS> using OtherTile = SwizzledTile<ROWS, BN>;
    /// Of the tile, from its first on; a warpgroup without any computes nothing.
    i32 rows = BM;
    float sums[BN / 2] = {};

    template <class TileA, class TileB> __device__ __forceinline__ void step(const TileA& a, const TileB& b) {
        int group = int(WARP) / 4;
        if (group * 64 >= rows) return;
        fence_products();
#pragma unroll
        for (int k = 0; k < BK; k += 16)
            wgmma_bf16<BN, TileA::BY_ROWS, TileB::BY_ROWS>(sums, a.descriptor(group * 64, k), b.descriptor(0, k));
        commit_products();
    }

    template <class TileA, class TileB, class Put> __device__ __forceinline__ void results(const Put& put) const {
        int g = LANE >> 2, t = LANE & 3;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            auto row = put.row(int(WARP) * 16 + 8 * h + g);
            if (put.half()) {
                // Of four chunks a lane has two neighbours each; it reads and writes one whole
                // chunk. All are read before the first is written.
                Vec<u32, 4> old[BN / 32];
#pragma unroll
                for (int j = 0; j < BN / 8; j += 4) old[j / 4] = put.old(row, 8 * (j + t));
#pragma unroll
                for (int j = 0; j < BN / 8; j += 4) {
                    Vec<u32, 4> words = old[j / 4];
                    transpose(words.v, t);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float* two = sums + 4 * (j + i) + 2 * h;
                        words.v[i] = pack_bf16(__uint_as_float(words.v[i] << 16) + two[0], __uint_as_float(words.v[i] & 0xffff0000u) + two[1]);
                    }
                    transpose(words.v, t);
                    put.write(row, 8 * (j + t), words);
                }
            } else {
#pragma unroll
                for (int j = 0; j < BN / 8; j++) {
                    float v[2] = {sums[4 * j + 2 * h], sums[4 * j + 2 * h + 1]};
                    put(row, 8 * j + 2 * t, v);
                }
            }
        }
    }

    /// Word i of lane t of every four lanes becomes word t of lane i.
    static __device__ __forceinline__ void transpose(u32 (&words)[4], int t) {
#pragma unroll
        for (int by = 1; by < 4; by *= 2) {
            bool upper = t & by;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i & by) continue;
                u32 got = __shfl_xor_sync(FULL_MASK, upper ? words[i] : words[i + by], by);
                if (upper) words[i] = got;
                else words[i + by] = got;
            }
        }
    }
};

/// As the others' `pipeline`, but while the products of a step run, those of the step before may
/// still do so. Two barriers a step: a stage is filled again as soon as all warpgroups are done
/// with it, and what it is filled with need not be there before the step after the next.
template <class TileA, class TileB, int BN, int STAGES, class Load>
__device__ __forceinline__ void pipeline(Wgmma<BN, STAGES>& math, u8* shared, i32 steps, Load&& load) {
    static_assert(STAGES >= 3, "two whose products run, one that is filled");
    constexpr int BYTES = TileA::BYTES + TileB::BYTES;
    static_assert(TileA::BYTES % 1024 == 0 && TileB::BYTES % 1024 == 0, "tiles begin where the swizzle does");
    shared += -shared_address(shared) & 1023;
#pragma unroll 1
    for (int s = 0; s < STAGES; s++) {
        if (s < steps) load(shared + s * BYTES);
        commit_async();
    }
    u32 first = shared_address(shared);
    int read = 0, write = 0;
#pragma unroll 1
    for (i32 i = 0; i < steps; i++) {
        // All stages were filled before the first step, and the first two fill none.
        if (i < 2) {
            if (i == 0) wait_async<STAGES - 1>();
            else wait_async<STAGES - 2>();
        } else {
            __syncthreads(); // nobody's products read the stage any more
            if (i + STAGES - 2 < steps) load(shared + write * BYTES);
            commit_async();
            write = write + 1 == STAGES ? 0 : write + 1;
            wait_async<STAGES - 2>();
        }
        fence_async_proxy();
        __syncthreads();
        u32 stage = first + read * BYTES;
        math.step(TileA{stage}, TileB{stage + TileA::BYTES});
        read = read + 1 == STAGES ? 0 : read + 1;
        wait_products<1>();
    }
    wait_products<0>();
    sums_are_there(math.sums);
    wait_async<0>();
}

#endif
