// Shared by all kernels: how a kernel is declared, storage types, vectors, warp and block
// reductions, asynchronous copies, matrix units.
//
// Conventions of this folder:
//  - every kernel is declared by KERNEL(name, Params) { … p … }: an `extern "C" __global__`
//    function that takes one parameter struct `p` by value, twin of a #[repr(C)] Pod struct in
//    src/backend/cuda/launch/<family>.rs (8-byte pointers there as u64; explicit padding);
//  - compiled by NVRTC without any include but this file, and as C++ by the tests' simulator
//    (tests/simulator/cuda_sim.h). PTX is in this file and wgmma.cuh only; all else is the same
//    source in both worlds;
//  - shared memory is declared by SHARED(type, name, [extents]) (static, up to 48 KB a kernel) or
//    SHARED_MEMORY(name) (dynamic, bytes);
//  - blocks are whole warps, one axis; warp operations take the full mask; no thread returns before
//    a barrier;
//  - no atomics but on the tickets of blocks that wait for each other: sums have a fixed order, so
//    two runs give the same bits.
//
// What is here:
//   KERNEL(name, P), KERNEL_BOUNDS(name, P, threads, blocks_per_sm), SHARED, SHARED_MEMORY
//   LANE, WARP, FULL_MASK
//   GATED_KERNEL(name, P, threads, first, second)   all blocks run `second` behind the one whose
//                                                   `first` is true
//   u8 i32 u16 u32 u64, bf16; to_f32(T), from_f32<T>(float), pack_bf16(lo, hi)
//   Vec<T, N>, load_vec<N>(p), store_vec(p, vec)    one aligned access of N entries (p must be
//                                                   aligned to the vector's size)
//   load_f32<N>(p, float[N]), store_f32<N>(p, float[N])   the same for f32 or bf16 storage, as
//                                                         floats
//   FastDiv {divisor, magic, shift}: divide(n), split(n, remainder)   division by a number known to
//                                                                     the host, n < 2^31
//   warp_sum(v)                   a fixed tree; all lanes get the result
//   last_to_arrive(ticket, of)    whether so many blocks have come here
//   Parts, add_parts(p, part, each, sum, add)   sums that blocks share, added by the last of them
//   copy_async<16|8|4, near>(shared, global, valid), commit_async(), wait_async<N>()
//   tf32_bits(float), mma_tf32(d[4], a[4], b[2]) m16n8k8, mma_bf16(d[4], a[4], b[2]) m16n8k16
//   load_matrices_x4(r[4], row), load_matrices_x4_transposed(r[4], row)  (ldmatrix, 16-bit entries)
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;

#define FULL_MASK 0xffffffffu
#define LANE (threadIdx.x & 31)
#define WARP (threadIdx.x >> 5)

#ifdef METATAPE_SIMULATOR

#define KERNEL(NAME, P)                                                                                            \
    static void NAME##_body(const P& p);                                                                           \
    extern "C" const char* sim_##NAME(const metatape_sim::Launch* launch) {                                        \
        return metatape_sim::launch(#NAME, *launch, sizeof(P), [](const void* p) { NAME##_body(*static_cast<const P*>(p)); }); \
    }                                                                                                              \
    static void NAME##_body(const P& p)
#define KERNEL_BOUNDS(NAME, P, THREADS, BLOCKS) KERNEL(NAME, P)
// Nothing but memory goes from the first half to the second, so two launches are the same.
#define GATED_KERNEL(NAME, P, THREADS, FIRST, SECOND)                                                              \
    extern "C" const char* sim_##NAME(const metatape_sim::Launch* launch) {                                        \
        auto first = [](const void* p) { FIRST(*static_cast<const P*>(p)); };                                      \
        auto second = [](const void* p) { SECOND(*static_cast<const P*>(p)); };                                    \
        const char* wrong = metatape_sim::launch(#NAME, *launch, sizeof(P), first);                                \
        return wrong ? wrong : metatape_sim::launch(#NAME, *launch, sizeof(P), second);                            \
    }
#define SHARED(T, NAME, ...)                                                                                       \
    typedef T NAME##_shared __VA_ARGS__;                                                                           \
    static char NAME##_key;                                                                                        \
    NAME##_shared& NAME = *static_cast<NAME##_shared*>(metatape_sim::static_shared(&NAME##_key, sizeof(NAME##_shared), alignof(T)))
#define SHARED_MEMORY(NAME) u8* NAME = static_cast<u8*>(metatape_sim::dynamic_shared())
#define ALIGNED_TO(p, bytes, place) metatape_sim::aligned(p, bytes, place)
#define PLACE , const metatape_sim::Place& place = metatape_sim::Place::current()

#else

#define KERNEL(NAME, P) extern "C" __global__ void NAME(const __grid_constant__ P p)
#define KERNEL_BOUNDS(NAME, P, THREADS, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const __grid_constant__ P p)
#define GATED_KERNEL(NAME, P, THREADS, FIRST, SECOND)                           \
    KERNEL_BOUNDS(NAME, P, THREADS, 1) {                                        \
        u32* gate = reinterpret_cast<u32*>(p.gate);                             \
        u32 closed = threadIdx.x == 0 ? *static_cast<volatile u32*>(gate) : 0;  \
        pass_gate(gate, closed, FIRST(p));                                      \
        SECOND(p);                                                              \
    }
#define SHARED(T, NAME, ...) __shared__ T NAME __VA_ARGS__
#define SHARED_MEMORY(NAME) extern __shared__ __align__(128) u8 NAME[]
#define ALIGNED_TO(p, bytes, place)
#define PLACE

#endif

// ---- storage ------------------------------------------------------------------------------------

/// The upper half of an f32.
struct __align__(2) bf16 {
    u16 bits;
};

/// Two bf16 in a word, `lo` in the lower half. Rounded to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u32 pack_bf16(float lo, float hi) {
#ifdef METATAPE_SIMULATOR
    auto rounded = [](float v) {
        u32 bits = __float_as_uint(v);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
        return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    };
    return rounded(lo) | (rounded(hi) << 16);
#else
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
#endif
}

__device__ __forceinline__ float to_f32(float v) { return v; }
__device__ __forceinline__ float to_f32(bf16 v) { return __uint_as_float(u32(v.bits) << 16); }

template <class T> __device__ __forceinline__ T from_f32(float v);
template <> __device__ __forceinline__ float from_f32<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float v) { return bf16{u16(pack_bf16(v, 0.0f))}; }

/// N entries that are read and written at once.
template <class T, int N> struct __align__(sizeof(T) * N) Vec {
    T v[N];
};

template <int N, class T> __device__ __forceinline__ Vec<T, N> load_vec(const T* p PLACE) {
    ALIGNED_TO(p, sizeof(T) * N, place);
    return *reinterpret_cast<const Vec<T, N>*>(p);
}

template <int N, class T> __device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& v PLACE) {
    ALIGNED_TO(p, sizeof(T) * N, place);
    *reinterpret_cast<Vec<T, N>*>(p) = v;
}

template <int N, class T> __device__ __forceinline__ void load_f32(const T* p, float (&out)[N]) {
    Vec<T, N> v = load_vec<N>(p);
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_f32(v.v[i]);
}

template <int N, class T> __device__ __forceinline__ void store_f32(T* p, const float (&in)[N]) {
    Vec<T, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) v.v[i] = from_f32<T>(in[i]);
    store_vec<N>(p, v);
}

// ---- integers -----------------------------------------------------------------------------------

/// n / divisor = (umulhi(n, magic) + n) >> shift for n < 2^31; the host's twin is `FastDiv` of
/// src/backend/cuda/divide.rs.
struct FastDiv {
    u32 divisor, magic, shift;

    __device__ __forceinline__ u32 divide(u32 n) const { return (__umulhi(n, magic) + n) >> shift; }
    __device__ __forceinline__ u32 split(u32 n, u32& remainder) const {
        u32 quotient = divide(n);
        remainder = n - quotient * divisor;
        return quotient;
    }
};

// ---- sums ---------------------------------------------------------------------------------------

template <class T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int by = 16; by > 0; by >>= 1) v += __shfl_xor_sync(FULL_MASK, v, by);
    return v;
}

// ---- blocks -------------------------------------------------------------------------------------

/// Whether this block is the last of `of` blocks to get here: it may then read what the others
/// wrote before. All threads of all of them call it. `ticket` is zero between launches.
__device__ __forceinline__ bool last_to_arrive(u32* ticket, u32 of PLACE) {
#ifdef METATAPE_SIMULATOR
    return metatape_sim::last_to_arrive(ticket, of, place);
#else
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = of == 1 || atomicAdd(ticket, 1u) + 1 == of;
        if (last && of > 1) *ticket = 0;
        __threadfence();
    }
    __syncthreads();
    __threadfence();
    return last;
#endif
}

/// Parts of sums that blocks leave in memory, one after another: how many, and how many are added
/// first. Twin: `launch::parts::Parts`.
struct Parts {
    /// Zeros between launches: for every sum, one word and one more for each `side` parts.
    u64 tickets;
    u32 count, side;
};

/// To be called by all blocks of sum number `sum` when each has left its share of part number
/// `part`; there are `each` of them to a part. Every `side` parts are added by the last of their
/// blocks, and these sums by the last of those: in an order that does not depend on which blocks
/// those are, and none has many to add. `add(first, count, step, last)` adds `count` parts, from
/// `first` on in steps of `step`: the last time to the result, else in the place of the first one.
/// Returns whether this block has made the result.
template <class Add> __device__ __forceinline__ bool add_parts(const Parts& p, u32 part, u32 each, u32 sum, const Add& add) {
    u32 sides = (p.count + p.side - 1) / p.side, side = part / p.side;
    u32 first = side * p.side, count = min(p.side, p.count - first), step = 1, of = count * each;
    u32 *all = reinterpret_cast<u32*>(p.tickets) + sum * (sides + 1), *ticket = all + 1 + side;
    bool last = sides == 1;
#pragma unroll 1
    while (last_to_arrive(ticket, of)) {
        add(first, count, step, last);
        if (last) return true;
        ticket = all, of = count = sides, first = 0, step = p.side, last = true;
    }
    return false;
}

/// The sum of `count` aligned vectors that are `stride` entries apart, many under way at once.
template <int N, class T> __device__ __forceinline__ Vec<double, N> sum_of_parts(const T* from, u32 count, u64 stride) {
    constexpr u32 AHEAD = 8;
    Vec<double, N> sum = {};
    for (u32 first = 0; first < count; first += AHEAD) {
        Vec<T, N> v[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) v[i] = first + i < count ? load_vec<N>(from + (first + i) * stride) : Vec<T, N>{};
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++)
#pragma unroll
            for (int e = 0; e < N; e++) sum.v[e] += double(v[i].v[e]);
    }
    return sum;
}

#ifndef METATAPE_SIMULATOR
/// All blocks of a launch wait here until the one that `opens` comes, and see what it and those
/// before it wrote. They must be few enough to run at the same time. `closed`: what thread 0 found
/// in the gate before the block left anything for others.
__device__ __forceinline__ void pass_gate(u32* gate, u32 closed, bool opens) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile u32* word = gate;
        if (opens) {
            __threadfence();
            *word = closed + 1;
        } else {
            while (*word == closed) __nanosleep(20);
        }
        __threadfence();
    }
    __syncthreads();
}
#endif

// ---- asynchronous copies ------------------------------------------------------------------------

/// Copies BYTES (4, 8 or 16; both pointers aligned to that) from device to shared memory behind the
/// thread's back; zeros where not `valid` (`global` is not read then, whatever it is). NEAR: by way
/// of the first-level cache, for what this processor reads again; fewer bytes than 16 always go
/// that way.
template <int BYTES, bool NEAR = false> __device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid PLACE) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#ifdef METATAPE_SIMULATOR
    metatape_sim::copy_async(shared, global, BYTES, valid ? BYTES : 0, place);
#else
    u32 to = u32(__cvta_generic_to_shared(shared));
    int bytes = valid ? BYTES : 0;
    if constexpr (BYTES == 16 && !NEAR)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(BYTES), "r"(bytes) : "memory");
#endif
}

/// Ends a group of copies.
__device__ __forceinline__ void commit_async() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::commit_async();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most N of the thread's groups are under way. Other threads see the copies after a
/// barrier.
template <int N> __device__ __forceinline__ void wait_async() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::wait_async(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ---- matrix units -------------------------------------------------------------------------------

/// Rounded to tf32: 10 bits of mantissa, to nearest, ties away from zero. In the lower 13 bits is
/// rubbish, which the matrix units ignore. `cvt.rna` gives the same in two instructions; this is
/// one (add, then maximum) since sm_90, and tensors are rounded once for every warp that reads
/// them.
__device__ __forceinline__ u32 tf32_bits(float v) {
    u32 bits = __float_as_uint(v);
    // The maximum keeps 0x7fffffff, the NaN that arithmetic gives: the sum would be -0.
    u32 rounded = u32(max(i32(bits + 0x1000u), i32(bits)));
#ifdef METATAPE_SIMULATOR
    rounded &= ~0x1fffu; // it takes rubbish for a factor that was not rounded
#endif
    return rounded;
}

/// d += a·b with a [16, 8], b [8, 8] in tf32. With g = lane / 4, t = lane % 4 a lane holds a =
/// (g,t) (g+8,t) (g,t+4) (g+8,t+4), b = (t,g) (t+4,g), d = (g,2t) (g,2t+1) (g+8,2t) (g+8,2t+1).
__device__ __forceinline__ void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2] PLACE) {
#ifdef METATAPE_SIMULATOR
    metatape_sim::FourFloats r = metatape_sim::mma_tf32({d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, place);
    for (int i = 0; i < 4; i++) d[i] = r.v[i];
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// d += a·b with a [16, 16], b [16, 8] in bf16, two to a register, the lower index in the lower
/// half. A lane holds a = (g,2t) (g+8,2t) (g,2t+8) (g+8,2t+8), each with its right neighbour, b =
/// (2t,g) (2t+8,g), each with its lower neighbour, d as above.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2] PLACE) {
#ifdef METATAPE_SIMULATOR
    metatape_sim::FourFloats r = metatape_sim::mma_bf16({d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, place);
    for (int i = 0; i < 4; i++) d[i] = r.v[i];
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// Four 8x8 matrices of 16-bit entries from shared memory: lane 8i + r gives the address of row r
/// of matrix i (16 bytes, aligned); register i then holds entries (g, 2t) (g, 2t+1) of matrix i, or
/// of its transpose.
__device__ __forceinline__ void load_matrices_x4(u32 (&r)[4], const void* row PLACE) {
#ifdef METATAPE_SIMULATOR
    metatape_sim::Four v = metatape_sim::load_matrices(row, 4, false, place);
    for (int i = 0; i < 4; i++) r[i] = v.v[i];
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(u32(__cvta_generic_to_shared(row)))
                 : "memory");
#endif
}

__device__ __forceinline__ void load_matrices_x4_transposed(u32 (&r)[4], const void* row PLACE) {
#ifdef METATAPE_SIMULATOR
    metatape_sim::Four v = metatape_sim::load_matrices(row, 4, true, place);
    for (int i = 0; i < 4; i++) r[i] = v.v[i];
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(u32(__cvta_generic_to_shared(row)))
                 : "memory");
#endif
}
