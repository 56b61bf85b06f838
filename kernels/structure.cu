// What only moves numbers: the parameter-free shortcut of residual networks, parts put together,
// casts, and the loading of a batch.
//
//   subsample   out [n, ⌈h/s⌉, ⌈w/s⌉, before + c + after] = every s-th pixel of x [n, h, w, c],
//               zeros in the other channels
//   embed       its transpose: out [n, h, w, c] from x [n, ⌈h/s⌉, ⌈w/s⌉, before + c + after]
//   place       out [length] = x put in at entry `from`, zeros elsewhere (the tape's Unrow)
//   join        out = equally long tensors one after another (Stack); with one tensor a copy that
//               may change the width (a cast)
//   gather      out [m, h, w, c] = a normalised, cropped and flipped batch of the data set [N, h,
//               w, c], which lies there as bytes
// A thread takes one entry of the result, or four (_4) where these are neighbours in all tensors.
// Nothing is fused: these feed convolutions and matrix products, or are a few numbers.
// Host: src/backend/cuda/launch/structure.rs.
// CPU twin: src/backend/cpu/structure.rs.
#include "tensor.cuh"

namespace {

struct Strided {
    Tensor x, out;
    /// The result's groups of channels, columns and rows.
    FastDiv groups, columns, rows, stride;
    u32 count;
    /// Of the long tensor, and of the subsampled one.
    u32 h, w, c, p, q, o, before;
};

struct Place {
    Tensor x, out;
    u32 length, from, end, pad;
};

/// Most tensors that one launch joins.
constexpr u32 MAX_JOINED = 64;

struct Join {
    Tensor out;
    /// Entries of one tensor, in units of a thread's.
    FastDiv each;
    u32 count;
    Tensor xs[MAX_JOINED];
};

/// Most channels of a launch of gather.
constexpr u32 MAX_CHANNELS = 64;

struct Gather {
    Tensor out;
    /// u8 [N, h, w, c]; i32 [m, 4], each (index, dx, dy, flip).
    u64 pixels, picks;
    /// Channels of this launch, from `first` on; columns, rows.
    FastDiv channels, columns, rows;
    u32 count, first, images, h, w, c;
    i32 pad;
    /// Per channel: out = pixel·scale + offset.
    double scale[MAX_CHANNELS], offset[MAX_CHANNELS];
};

/// Index `i` of a line of `n`, reflected into it at its ends.
__device__ __forceinline__ i32 reflect(i32 i, i32 n) {
    i = abs(i);
    return i < n ? i : 2 * (n - 1) - i;
}

template <u32 V> __device__ __forceinline__ void subsample(const Strided& p) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 group, column, row, rest = p.groups.split(i, group);
    rest = p.columns.split(rest, column);
    // c wraps around below `before`.
    u32 n = p.rows.split(rest, row), c = group * V - p.before, stride = p.stride.divisor;
    Lanes<V> out;
#pragma unroll
    for (u32 l = 0; l < V; l++) out.v[l] = 0.0f;
    if (c < p.c) out = load_lanes<V>(p.x, ((n * p.h + row * stride) * p.w + column * stride) * p.c + c);
    store_lanes<V>(p.out, i * V, out);
}

template <u32 V> __device__ __forceinline__ void embed(const Strided& p) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 group, column, row, off, down, rest = p.groups.split(i, group);
    rest = p.columns.split(rest, column);
    u32 n = p.rows.split(rest, row), a = p.stride.split(row, down), b = p.stride.split(column, off);
    Lanes<V> out;
#pragma unroll
    for (u32 l = 0; l < V; l++) out.v[l] = 0.0f;
    if (down == 0 && off == 0) out = load_lanes<V>(p.x, ((n * p.p + a) * p.q + b) * p.o + p.before + group * V);
    store_lanes<V>(p.out, i * V, out);
}

template <u32 V> __device__ __forceinline__ void place(const Place& p) {
    u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= p.length) return;
    Lanes<V> out;
#pragma unroll
    for (u32 l = 0; l < V; l++) out.v[l] = 0.0f;
    if (p.from <= i && i < p.end) out = load_lanes<V>(p.x, i - p.from);
    store_lanes<V>(p.out, i, out);
}

template <u32 V> __device__ __forceinline__ void join(const Join& p) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 at, which = p.each.split(i, at);
    store_lanes<V>(p.out, i * V, load_lanes<V>(p.xs[which], at * V));
}

} // namespace

KERNEL_BOUNDS(subsample_1, Strided, 256, 4) { subsample<1>(p); }
KERNEL_BOUNDS(subsample_4, Strided, 256, 4) { subsample<4>(p); }
KERNEL_BOUNDS(embed_1, Strided, 256, 4) { embed<1>(p); }
KERNEL_BOUNDS(embed_4, Strided, 256, 4) { embed<4>(p); }
KERNEL_BOUNDS(place_1, Place, 256, 4) { place<1>(p); }
KERNEL_BOUNDS(place_4, Place, 256, 4) { place<4>(p); }
KERNEL_BOUNDS(join_1, Join, 256, 4) { join<1>(p); }
KERNEL_BOUNDS(join_4, Join, 256, 4) { join<4>(p); }

/// The image is reflected outwards by `pad` pixels (edge pixels are not repeated), the window that
/// is shifted by dx columns and dy rows is cut out, and mirrored left to right if flip ≠ 0. An
/// index or shift out of range (the CPU refuses it) makes NaN.
KERNEL_BOUNDS(gather, Gather, 256, 4) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    u32 channel, column, row, rest = p.channels.split(i, channel);
    rest = p.columns.split(rest, column);
    u32 n = p.rows.split(rest, row), to = ((n * p.h + row) * p.w + column) * p.c + p.first + channel;
    Vec<i32, 4> pick = load_vec<4>(reinterpret_cast<const i32*>(p.picks) + 4 * n);
    i32 index = pick.v[0], dx = pick.v[1], dy = pick.v[2];
    float out = __uint_as_float(0x7fc00000u);
    if (u32(index) < p.images && abs(dx) <= p.pad && abs(dy) <= p.pad) {
        i32 x = reflect(i32(pick.v[3] ? p.w - 1 - column : column) + dx, i32(p.w)), y = reflect(i32(row) + dy, i32(p.h));
        u64 from = ((u64(index) * p.h + u32(y)) * p.w + u32(x)) * p.c + p.first + channel;
        out = float(double(reinterpret_cast<const u8*>(p.pixels)[from]) * p.scale[channel] + p.offset[channel]);
    }
    store(p.out, to, out);
}
