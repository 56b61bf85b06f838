// CUDA's built-ins for a CPU: kernels/*.cu compile as C++20 against this header and run under cuda_sim.cpp.
//
// One fiber per thread of a block; between barriers fibers run in a shuffled order (seeded), blocks one after another in a shuffled
// order. What is reported as an error, with the kernel's file and line where they are known:
//  - a barrier or warp operation that some threads never reach, or that they reach at different places;
//  - every load and store of the kernel goes through the hooks that `-fsanitize=thread` inserts (the sanitizer's own library is not
//    linked; cuda_sim.cpp defines the hooks): accesses outside of device memory, of the block's shared memory and of the thread's own
//    stack; reads of shared memory that was never written in this block, or that an asynchronous copy has not delivered yet; two
//    threads that touch the same bytes, one of them writing, with no barrier between them (shared and device memory, also
//    across blocks); misaligned vectors;
//  - products of warpgroups (wgmma): descriptors that are not the same for all of a warpgroup, or do not begin where their swizzle does; factors that
//    were not written, waited for, fenced (fence.proxy.async) and separated by a barrier; shared memory that is written, and sums that are touched,
//    before the product has been waited for; no wgmma.fence before the first product;
//  - a parameter struct of another size than the host's, too much shared memory, a block that is not made of whole warps.
// Granularity of these checks is 2 bytes: two threads must not write neighbouring bytes of one such pair.
//
// Build (three steps; the last makes one shared object per .cu file):
//   g++ -std=c++20 -O2 -fPIC -c tests/simulator/cuda_sim.cpp -o sim.o
//   g++ -std=c++20 -O1 -fPIC -fsanitize=thread --param tsan-instrument-func-entry-exit=0 -DMETATAPE_SIMULATOR
//       -I kernels -include tests/simulator/cuda_sim.h -x c++ -c kernels/NAME.cu -o NAME.o
//   g++ -shared NAME.o sim.o -o NAME.so
// (clang++: leave out the --param.) For each KERNEL(name, Params) the shared object exports
//   extern "C" const char* sim_NAME(const metatape_sim::Launch*);   // null when all went well, else what went wrong
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

namespace metatape_sim {

/// A piece of device memory; addresses are the host's.
struct Allocation {
    uint64_t address, bytes;
};

/// What the driver asks for; twin of a #[repr(C)] struct in tests/common/simulator.rs.
struct Launch {
    uint32_t grid[3], block;
    uint32_t shared_bytes, params_bytes;
    uint64_t seed;
    const void* params;
    const Allocation* allocations; // sorted by address
    uint64_t allocation_count;
};

struct Index {
    unsigned x, y, z;
};

using Place = std::source_location;
using Body = void (*)(const void* params);

// Defined in cuda_sim.cpp, which is compiled without hooks.
const char* launch(const char* name, const Launch& launch, size_t params_bytes, Body body);
Index thread_index();
Index block_index();
Index block_extent();
Index grid_extent();
[[noreturn]] void fail(const char* what, const Place& place);
void block_barrier(const Place& place);
void warp_barrier(const Place& place);
/// `ticket` counts blocks; the last of so many sees what all others did before, and sets it back to zero.
bool last_to_arrive(uint32_t* ticket, uint32_t of, const Place& place);
void* dynamic_shared();
void* static_shared(const void* key, size_t bytes, size_t alignment);
void aligned(const void* pointer, size_t bytes, const Place& place);
/// Bits of `value` of the lane `from` of the same warp.
uint64_t exchange(uint64_t value, int from, const Place& place);
void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid_bytes, const Place& place);
void commit_async();
void wait_async(unsigned groups_left);
struct Four {
    uint32_t v[4];
};
struct FourFloats {
    float v[4];
};
struct Two {
    uint32_t v[2];
};
/// `count` 8x8 matrices of 16-bit entries; `row` is this lane's row address.
Four load_matrices(const void* row, int count, bool transposed, const Place& place);
FourFloats mma_tf32(FourFloats c, Four a, Two b, const Place& place);
FourFloats mma_bf16(FourFloats c, Four a, Two b, const Place& place);

// Products of warpgroups (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate").
/// Where in the block's shared memory; the window begins at a multiple of 128 bytes and no more.
uint32_t shared_address(const void* shared);
void fence_async_proxy();
void fence_products();
void commit_products();
void wait_products(unsigned groups_left);
/// d [n / 2 numbers of a thread] += a [64, 16] · b [16, n], factors described by 64 bits. Until it is waited for, d is filled with a NaN of its own.
void wgmma_bf16(float* d, unsigned n, uint64_t a, uint64_t b, bool transpose_a, bool transpose_b, const Place& place);

template <class T> uint64_t to_bits(T value) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T> T from_bits(uint64_t bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

} // namespace metatape_sim

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define threadIdx (metatape_sim::thread_index())
#define blockIdx (metatape_sim::block_index())
#define blockDim (metatape_sim::block_extent())
#define gridDim (metatape_sim::grid_extent())

inline void __syncthreads(const metatape_sim::Place& place = metatape_sim::Place::current()) { metatape_sim::block_barrier(place); }

// Full masks only: our kernels use no others.
#define METATAPE_FULL(mask) ((mask) == 0xffffffffu ? void() : metatape_sim::fail("warp operation without the full mask", place))
inline void __syncwarp(unsigned mask = 0xffffffffu, const metatape_sim::Place& place = metatape_sim::Place::current()) {
    METATAPE_FULL(mask);
    metatape_sim::warp_barrier(place);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int from, const metatape_sim::Place& place = metatape_sim::Place::current()) {
    METATAPE_FULL(mask);
    return metatape_sim::from_bits<T>(metatape_sim::exchange(metatape_sim::to_bits(v), from & 31, place));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int with, const metatape_sim::Place& place = metatape_sim::Place::current()) {
    return __shfl_sync(mask, v, int(threadIdx.x & 31) ^ with, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, const metatape_sim::Place& place = metatape_sim::Place::current()) {
    int lane = int(threadIdx.x & 31), from = lane + int(by);
    return __shfl_sync(mask, v, from < 32 ? from : lane, place);
}
template <class T> T __ldg(const T* p) { return *p; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
using std::max;
using std::min;
using std::isfinite;
