// Kernels with mistakes, for the test that the simulator reports them (tests/simulator_faults.rs), and what looks like one but is none.
#include "common.cuh"

struct FaultParams {
    u64 x, y;
    u32 mode, unused;
};

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
    }
    y[all] = v;
}
