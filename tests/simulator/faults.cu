// Kernels with mistakes, for the test that the simulator reports them (tests/simulator_faults.rs),
// and what looks like one but is none.
#include "wgmma.cuh"

struct FaultParams {
    u64 x, y;
    u32 mode, unused;
};

/// A product of ones by a warpgroup: both factors are the same 64 or 128 rows of 128 bytes from a
/// multiple of 1024 on. What is left out, or done too early, is the mistake.
__device__ float product_of_ones(u32 mode) {
    SHARED(u32, room, [5 * 1024]);
    u32 skip = (-shared_address(room) & 1023) / 4;
    u32* rows = room + skip;
    float sums[64] = {};
    for (u32 i = threadIdx.x; i < 4096; i += blockDim.x) rows[i] = 0x3f803f80u;
    if (mode != 24) fence_async_proxy();
    if (mode != 25) __syncthreads();
    if (mode == 26) rows[threadIdx.x] = 0x3f803f80u;
    u64 factor = matrix_descriptor<128>(shared_address(rows) + (mode == 27 ? 512 : 0), 16, 1024);
    if (mode == 28) factor += WARP;
    if (mode != 29) fence_products();
    if (mode != 30 || WARP < 3) wgmma_bf16<128, true, true>(sums, factor, factor);
    if (mode == 31) sums[0] = 0.0f;
    commit_products();
    if (mode == 32) {
        __syncthreads();
        rows[threadIdx.x] = 0;
    }
    if (mode != 33) wait_products<0>();
    return sums[0] + sums[63];
}

KERNEL(fault, FaultParams) {
    SHARED(float, s, [4][32]);
    SHARED_MEMORY(raw);
    const float* x = reinterpret_cast<const float*>(p.x);
    float* y = reinterpret_cast<float*>(p.y);
    float* d = reinterpret_cast<float*>(raw);
    u32 t = threadIdx.x, all = blockIdx.x * blockDim.x + t;
    float v = 0.0f;
    switch (p.mode) {
    // Right.
    case 0: // through shared memory and back
        s[WARP][LANE] = x[t];
        __syncthreads();
        v = s[3 - WARP][LANE];
        break;
    case 1: // within a warp only
        s[WARP][LANE] = x[t];
        __syncwarp();
        v = s[WARP][LANE ^ 1];
        __syncwarp();
        s[WARP][LANE] = v;
        break;
    case 2: // copied behind the thread's back
        copy_async<4>(d + t, x + t, t != 5);
        commit_async();
        wait_async<0>();
        __syncthreads();
        v = d[t ^ 1];
        break;
    case 3: // by a warpgroup
        v = product_of_ones(p.mode);
        if (v == 32.0f) break;
        y[all + 4096] = v;
        return;
    // Wrong.
    case 10: // no barrier between a store and another thread's load
        s[WARP][LANE] = x[t];
        __syncwarp();
        v = s[3 - WARP][LANE];
        break;
    case 11: // none between a load and another thread's store
        s[WARP][LANE] = x[t];
        __syncwarp();
        v = s[WARP][LANE ^ 1];
        s[WARP][LANE] = v;
        break;
    case 12: // never written
        if (t != 7) s[WARP][LANE] = x[t];
        __syncthreads();
        v = s[WARP][LANE];
        break;
    case 13: // behind the end of shared memory
        d[t + 1] = 1.0f;
        break;
    case 14: // a barrier that some skip
        if (t < 40) __syncthreads();
        break;
    case 15: // a warp operation that some lanes skip
        if (LANE < 5) v = warp_sum(1.0f);
        break;
    case 16: // behind the end of device memory
        v = x[all + 1];
        break;
    case 17: // two threads, one place
        y[all / 2] = 1.0f;
        return;
    case 18: // two blocks, one place
        y[t] = 1.0f;
        return;
    case 19: // a block reads what another one writes
        y[all] = y[255 - all];
        return;
    case 20: // between two alignments
        v = load_vec<4>(x + t).v[0];
        break;
    case 21: // a copy that is not waited for
        copy_async<4>(d + t, x + t, true);
        commit_async();
        v = d[t];
        wait_async<0>();
        break;
    case 22: // a factor that was not rounded
    {
        float sums[4] = {};
        u32 a[4] = {0x3f800001u, 0, 0, 0}, b[2] = {0, 0};
        mma_tf32(sums, a, b);
        break;
    }
    case 23: // what is no memory at all
        v = *reinterpret_cast<const float*>(u64(64));
        break;
    case 24: // no fence between what threads wrote and a product
    case 25: // no barrier
    case 26: // written by others after the barrier
    case 27: // a factor that begins in the middle of its swizzle
    case 28: // warps that describe different factors
    case 29: // no fence before the first product
    case 30: // a warp that skips it
    case 31: // sums touched while it is under way
    case 32: // its factors written while it is under way
    case 33: // it is never waited for
        v = product_of_ones(p.mode);
        break;
    }
    y[all] = v;
}
