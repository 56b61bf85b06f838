// Entrywise groups: a small straight-line program, run for every entry of an index space.
//
// Computes: registers <- operands (full-size, repeated along an axis, or one number); registers <- functions of registers; then stores of
//   registers, and sums of registers over all but the last axes ([1, mid, post] summed over mid).
// Fuses: everything entrywise that a step's program does between two contractions (batch norm's normalisation, scale, shift, ReLU, shortcut
//   and their derivatives with the sums these need; an optimiser's update of a parameter), so that each operand is read once and each result
//   written once.
// Why an interpreter: groups are made when a program is planned, some hundreds of different ones a program; compiling each would take minutes
//   where decoding costs a few instructions for eight entries of a thread, while memory is waited for.
// How: all full-size operands are loaded first, several under way at once, four entries each; registers lie in shared memory as [register]
//   [row][thread], 16 bytes each, so that neighbouring threads use neighbouring banks; the host has allotted them by liveness. A result may lie
//   over an operand of its own (an update in place): all loads of an entry come before its stores, and no other thread touches it.
//   Sums: a thread's four columns are the same in every row of its walk (tensor.cuh); it adds them up in f32 over at most 64 rows, the block
//   adds its threads pairwise, and blocks are added in f64 in a fixed order by `totals` (reduce.cu), or written straight where there is one.
//   Groups that do not depend on each other and are small (the updates of a network's parameters) go into one launch, `entrywise_1_many`: alone,
//   each would take longer to start than to run.
// Shapes: see `Group` (src/program/kernel.rs). CPU twin: src/backend/cpu/entrywise.rs. Host: src/backend/cuda/launch/entrywise.rs.
#include "tensor.cuh"

namespace {

/// Twin: `Code` of the host (src/backend/cuda/launch/assemble.rs), number for number, which a test there checks.
enum Code : u32 {
    ADD = 0,
    MUL = 1,
    MASK = 2,
    MAX = 3,
    SCALE = 4,
    OFFSET = 5,
    SIGMOID = 6,
    RECIP = 7,
    SQRT = 8,
    EXP = 9,
    LOG = 10,
    TANH = 11,
    SOFTPLUS = 12,
    ERF = 13,
    POW = 14,
    FILL = 15,
    NUMBER = 16,
    REPEAT = 17,
    STORE = 18,
    SUM = 19,
};

/// Words of the program that fit into the parameters; longer programs lie in device memory.
constexpr u32 INLINE_WORDS = 512;

struct Group {
    Walk walk;
    /// Loads of full-size operands, then steps; how many sums; registers.
    u32 loads, ops, sums, registers;
    /// Columns of a sum; rows of it that lie beside each other in a row of the walk; whether sums are written straight to their tensors.
    u32 post, beside, direct;
    /// First of the sums' tensors in the table.
    u32 sum_tensors;
    /// Where in the words repeats and ops begin; the table of tensors is at 0.
    u32 repeats_at, ops_at;
    /// Device memory: the words, if they do not come with the parameters; partial sums, f64 [block][sum][post].
    u64 program, partials;
};

/// A group whose words are in the parameters (constant memory).
struct Inline : Group {
    u32 words[INLINE_WORDS];

    __device__ __forceinline__ u32 word(u32 i) const { return words[i]; }
};

/// A group whose words are in device memory.
struct Stored : Group {
    __device__ __forceinline__ u32 word(u32 i) const { return __ldg(reinterpret_cast<const u32*>(program) + i); }
};

/// Groups that do not depend on each other, in one launch: addresses of the groups, `Stored`, and of a word a block: its group's number
/// << 16 | its own number among the group's blocks.
struct Many {
    u64 groups, blocks;
};

/// How entries find their value in an operand of shape [pre, post] that is repeated along mid.
struct Repeat {
    FastDiv post, row;
};

struct Op {
    u32 code, to, a, b;
    float c;
};

/// What the words of a group mean.
template <class G> struct Words {
    const G& p;

    __device__ __forceinline__ u32 at(u32 i) const { return p.word(i); }
    __device__ __forceinline__ Tensor tensor(u32 i) const {
        return {at(4 * i) | u64(at(4 * i + 1)) << 32, at(4 * i + 2), at(4 * i + 3)};
    }
    __device__ __forceinline__ FastDiv divisor(u32 i) const { return {at(i), at(i + 1), at(i + 2)}; }
    __device__ __forceinline__ Repeat repeat(u32 i) const {
        u32 from = p.repeats_at + 6 * i;
        return {divisor(from), divisor(from + 3)};
    }
    __device__ __forceinline__ Op op(u32 i) const {
        u32 word = at(p.ops_at + 2 * i);
        return {word & 255, word >> 8 & 255, word >> 16 & 255, word >> 24, __uint_as_float(at(p.ops_at + 2 * i + 1))};
    }
};

/// Entries i .. i + n of the index space, from an operand that is repeated.
__device__ __forceinline__ Quad load_repeated(const Tensor& t, const Repeat& how, u32 i, u32 n) {
    u32 column, row = how.row.divide(i);
    how.post.split(i, column);
    u32 post = how.post.divisor;
    // `vector` says that four entries from a multiple of 4 on are neighbours here, too.
    if (t.vector && n == 4) return load_quad(t, row * post + column, 4);
    Quad q = {{0.0f, 0.0f, 0.0f, 0.0f}};
    u32 left = how.row.divisor - (i - row * how.row.divisor);
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        if (k < n) q.v[k] = load(t, row * post + column);
        column = column + 1 == post ? 0 : column + 1;
        if (--left == 0) {
            left = how.row.divisor;
            row++;
        }
    }
    return q;
}

/// `1/(1+e^{−x})` without overflow.
__device__ __forceinline__ float sigmoid(float x) {
    float e = expf(-fabsf(x));
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

/// `ln(1+e^x)` without overflow.
__device__ __forceinline__ float softplus(float x) { return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))); }

/// A thread's registers.
template <u32 ROWS> struct Registers {
    Quad* base;

    __device__ __forceinline__ Quad& at(u32 r, u32 row) const { return base[(r * ROWS + row) * blockDim.x + threadIdx.x]; }
    template <class F> __device__ __forceinline__ void unary(const Op& op, F f) const {
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            Quad x = at(op.a, row);
#pragma unroll
            for (u32 k = 0; k < 4; k++) x.v[k] = f(x.v[k]);
            at(op.to, row) = x;
        }
    }
    template <class F> __device__ __forceinline__ void binary(const Op& op, F f) const {
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            Quad x = at(op.a, row), y = at(op.b, row);
#pragma unroll
            for (u32 k = 0; k < 4; k++) x.v[k] = f(x.v[k], y.v[k]);
            at(op.to, row) = x;
        }
    }
};

/// ROWS rows of the walk are worked on at a time, so that decoding serves 4·ROWS entries.
template <u32 ROWS, class G> __device__ __forceinline__ void entrywise(const G& p, u32 block = blockIdx.x) {
    SHARED_MEMORY(memory);
    Registers<ROWS> registers = {reinterpret_cast<Quad*>(memory)};
    Quad* sums = registers.base + p.registers * ROWS * blockDim.x;
    Words<G> words = {p};
    Steps steps(p.walk, block);
    for (u32 q = 0; q < p.sums; q++) sums[q * blockDim.x + threadIdx.x] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    u32 end = steps.width(p.walk) > 0 ? steps.end : 0;
    for (u32 r = steps.row; r < end; r += ROWS) {
        u32 at[ROWS], n[ROWS];
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            at[row] = steps.at(p.walk, r + row);
            n[row] = r + row < end ? steps.entries(p.walk, r + row) : 0;
        }
        constexpr u32 BATCH = 8 / ROWS;
        for (u32 first = 0; first < p.loads; first += BATCH) {
            Raw raw[BATCH][ROWS];
            u32 to[BATCH], half[BATCH];
#pragma unroll
            for (u32 i = 0; i < BATCH; i++) {
                if (first + i < p.loads) {
                    Op op = words.op(first + i);
                    Tensor t = words.tensor(op.a);
                    to[i] = op.to;
                    half[i] = t.half;
#pragma unroll
                    for (u32 row = 0; row < ROWS; row++) raw[i][row] = load_raw(t, at[row], n[row]);
                }
            }
#pragma unroll
            for (u32 i = 0; i < BATCH; i++) {
                if (first + i < p.loads) {
#pragma unroll
                    for (u32 row = 0; row < ROWS; row++) registers.at(to[i], row) = quad(raw[i][row], half[i]);
                }
            }
        }
        for (u32 i = p.loads; i < p.loads + p.ops; i++) {
            Op op = words.op(i);
            float c = op.c;
            switch (op.code) {
            case ADD: registers.binary(op, [](float a, float b) { return a + b; }); break;
            case MUL: registers.binary(op, [](float a, float b) { return a * b; }); break;
            case MASK: registers.binary(op, [](float a, float b) { return b > 0.0f ? a : 0.0f; }); break;
            case MAX: registers.binary(op, [](float a, float b) { return b > a || b != b ? b : a; }); break;
            case SCALE: registers.unary(op, [c](float a) { return c * a; }); break;
            case OFFSET: registers.unary(op, [c](float a) { return a + c; }); break;
            case SIGMOID: registers.unary(op, [](float a) { return sigmoid(a); }); break;
            case RECIP: registers.unary(op, [](float a) { return a == 0.0f ? 0.0f : 1.0f / a; }); break;
            case SQRT: registers.unary(op, [](float a) { return sqrtf(a); }); break;
            case EXP: registers.unary(op, [](float a) { return expf(a); }); break;
            case LOG: registers.unary(op, [](float a) { return logf(a); }); break;
            case TANH: registers.unary(op, [](float a) { return tanhf(a); }); break;
            case SOFTPLUS: registers.unary(op, [](float a) { return softplus(a); }); break;
            case ERF: registers.unary(op, [](float a) { return erff(a); }); break;
            case POW: registers.unary(op, [c](float a) { return powf(a, c); }); break;
            case FILL: {
#pragma unroll
                for (u32 row = 0; row < ROWS; row++) registers.at(op.to, row) = {{c, c, c, c}};
                break;
            }
            case NUMBER: {
                float v = load(words.tensor(op.a), 0);
#pragma unroll
                for (u32 row = 0; row < ROWS; row++) registers.at(op.to, row) = {{v, v, v, v}};
                break;
            }
            case REPEAT: {
                Tensor t = words.tensor(op.a);
                Repeat how = words.repeat(op.b);
#pragma unroll
                for (u32 row = 0; row < ROWS; row++) registers.at(op.to, row) = load_repeated(t, how, at[row], n[row]);
                break;
            }
            case STORE: {
                Tensor t = words.tensor(op.b);
#pragma unroll
                for (u32 row = 0; row < ROWS; row++) store_quad(t, at[row], n[row], registers.at(op.a, row));
                break;
            }
            case SUM: {
                Quad sum = sums[op.to * blockDim.x + threadIdx.x];
#pragma unroll
                for (u32 row = 0; row < ROWS; row++) {
                    Quad x = registers.at(op.a, row);
#pragma unroll
                    for (u32 k = 0; k < 4; k++)
                        if (k < n[row]) sum.v[k] += x.v[k];
                }
                sums[op.to * blockDim.x + threadIdx.x] = sum;
                break;
            }
            }
        }
    }
    if (p.sums == 0) return; // of the whole block: no barrier is left out by some
    __syncthreads();
    u32 from = steps.strip * blockDim.x * 4, width = min(blockDim.x * 4, p.post - from);
    for (u32 q = 0; q < p.sums; q++) {
        float* sum = reinterpret_cast<float*>(sums + q * blockDim.x);
        fold(sum, p.post, p.beside);
        Tensor to = words.tensor(p.sum_tensors + q);
        double* partial = reinterpret_cast<double*>(p.partials) + (u64(steps.block) * p.sums + q) * p.post + from;
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
            if (p.direct) {
                store(to, from + i, sum[i]);
            } else {
                partial[i] = double(sum[i]);
            }
        }
    }
}

} // namespace

KERNEL_BOUNDS(entrywise_1, Inline, 256, 2) { entrywise<1>(p); }
KERNEL_BOUNDS(entrywise_2, Inline, 256, 2) { entrywise<2>(p); }
KERNEL_BOUNDS(entrywise_1_long, Stored, 256, 2) { entrywise<1>(p); }
KERNEL_BOUNDS(entrywise_2_long, Stored, 256, 2) { entrywise<2>(p); }
KERNEL_BOUNDS(entrywise_1_many, Many, 256, 2) {
    u32 word = __ldg(reinterpret_cast<const u32*>(p.blocks) + blockIdx.x);
    Stored group = reinterpret_cast<const Stored*>(p.groups)[word >> 16];
    entrywise<1>(group, word & 0xffff);
}
