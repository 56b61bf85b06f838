// Hopper's products of warpgroups (wgmma) of bf16 factors in shared memory, for compute capability
// 9.0 alone (sm_90a).
//
// A warpgroup is four warps from a multiple of four on. Its product d += a·b, a [64, 16], b [16,
// N], runs behind the threads' back: d must not be touched, nor the shared memory of the factors
// written, before the group that the product was committed in has been waited for. What threads
// have written to shared memory reaches it after `fence_async_proxy` in every thread that wrote and
// then a barrier.
//
// A factor is described by 64 bits: begin, two strides, and how 16-byte chunks are swizzled (PTX
// ISA, "Asynchronous warpgroup level matrix shared memory layout"). Rows of BYTES (64 or 128) lie
// one after another in groups of eight, which begin at multiples of 8·BYTES; within a row, chunk c
// of row r lies at c ^ (r mod 8) for 128 bytes, at c ^ (r / 2 mod 4) for 64.
//  - reduction contiguous: rows are the free index; the next eight rows are `stride` on; `leading`
//    is not used;
//  - free index contiguous: rows are the reduction; the next eight rows are `stride` on, the next
//    BYTES of the free index `leading`.
#pragma once
#include "common.cuh"

#if defined(METATAPE_SIMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA
#endif

/// Where in the block's shared memory.
__device__ __forceinline__ u32 shared_address(const void* shared) {
#ifdef METATAPE_SIMULATOR
    return metatape_sim::shared_address(shared);
#else
    return u32(__cvta_generic_to_shared(shared));
#endif
}

/// A factor that begins at `address`, strides in bytes, chunks swizzled over rows of BYTES.
template <int BYTES> __device__ __forceinline__ u64 matrix_descriptor(u32 address, int leading, int stride) {
    static_assert(BYTES == 64 || BYTES == 128, "as long as rows of our tiles are");
    return u64(BYTES == 128 ? 1 : 2) << 62 | u64(stride >> 4) << 32 | u64(leading >> 4) << 16 | (address & 0x3ffffu) >> 4;
}

#ifdef HAS_WGMMA

/// What this thread has written to shared memory (copies that it waited for, too) becomes visible
/// to products behind a barrier.
__device__ __forceinline__ void fence_async_proxy() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::fence_async_proxy();
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// Before products, where threads have touched their registers.
__device__ __forceinline__ void fence_products() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::fence_products();
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

/// Ends a group of products.
__device__ __forceinline__ void commit_products() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::commit_products();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/// Waits until at most LEFT of the warpgroup's groups are under way.
template <int LEFT> __device__ __forceinline__ void wait_products() {
#ifdef METATAPE_SIMULATOR
    metatape_sim::wait_products(LEFT);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#endif
}

/// After the last wait: keeps the compiler from reading sums before it.
template <int COUNT> __device__ __forceinline__ void sums_are_there(float (&d)[COUNT]) {
#ifndef METATAPE_SIMULATOR
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

#define SUMS_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_32(d, i) SUMS_8(d, i), SUMS_8(d, i + 8), SUMS_8(d, i + 16), SUMS_8(d, i + 24)
#define WGMMA(N, REGISTERS, A, B, YES, TRANSPOSE_A, TRANSPOSE_B, ...)                                                                  \
    asm volatile("{ .reg .pred yes; setp.ne.b32 yes, " YES ", 0;"                                                                      \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" REGISTERS "}, " A ", " B ", yes, 1, 1, " TRANSPOSE_A ", " \
                 TRANSPOSE_B "; }"                                                                                                     \
                 : __VA_ARGS__                                                                                                         \
                 : "l"(a), "l"(b), "r"(1), "n"(A_BY_ROWS ? 0 : 1), "n"(B_BY_ROWS ? 0 : 1))

/// Starts d += a·b. `BY_ROWS`: the factor's reduction is contiguous. Of warp w of the warpgroup a
/// lane holds, for every j, d[4j] to d[4j + 3] = entries (16w + g, 8j + 2t), its right neighbour,
/// (16w + g + 8, 8j + 2t), its right neighbour; g = lane / 4, t = lane % 4.
template <int N, bool A_BY_ROWS, bool B_BY_ROWS> __device__ __forceinline__ void wgmma_bf16(float (&d)[N / 2], u64 a, u64 b PLACE) {
    static_assert(N == 128 || N == 160, "the ones we need");
#ifdef METATAPE_SIMULATOR
    metatape_sim::wgmma_bf16(d, N, a, b, !A_BY_ROWS, !B_BY_ROWS, place);
#else
    if constexpr (N == 128) {
        WGMMA("128",
              "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
              "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
              "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
              "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63",
              "%64", "%65", "%66", "%67", "%68", SUMS_32(d, 0), SUMS_32(d, 32));
    } else {
        WGMMA("160",
              "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
              "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
              "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
              "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
              "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79",
              "%80", "%81", "%82", "%83", "%84", SUMS_32(d, 0), SUMS_32(d, 32), SUMS_8(d, 64), SUMS_8(d, 72));
    }
#endif
}

#undef WGMMA
#undef SUMS_32
#undef SUMS_8

#endif
