// The simulator behind cuda_sim.h: fibers, barriers, memory checks. Compiled without hooks, linked into the shared object of each kernel file.
#include "cuda_sim.h"

#include <cstdio>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

// The loaded object's own image: constants may be read.
extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));
extern "C" const char _end[] __attribute__((visibility("hidden")));

namespace metatape_sim {
namespace {

// A power of two, and each stack begins at a multiple of it: so a thread's own addresses are known
// by the stack pointer alone.
constexpr size_t STACK = 256 << 10;
constexpr unsigned MAX_THREADS = 1024, WARP_LANES = 32, WARPGROUP = 128;
// Where shared memory begins for those who see its addresses: 128 bytes past a multiple of 1024.
constexpr uint32_t SHARED_BEGIN = 1024 + 128;
// What registers hold whose sums are under way.
constexpr uint32_t UNDER_WAY = 0x7fbadbadu;
// Of an H100; sm_80 has 163 KB.
constexpr size_t MAX_SHARED = 227 << 10, MAX_STATIC_SHARED = 48 << 10, MAX_PARAMS = 4096;
// Static arrays lie this far from each other, so that running over an end is seen.
constexpr size_t GAP = 256;
// Bytes of memory per shadow.
constexpr size_t GRAIN = 2;

enum class Status : uint8_t { Ready, AtBlock, AtWarp, Done };

#if defined(__x86_64__) || defined(__aarch64__)
using Context = void*;
#else
using Context = ucontext_t;
#endif

struct Copy {
    void* to;
    const void* from;
    unsigned bytes, valid;
    Place place;
};

// A product of a warpgroup from its start until all have waited for it.
struct Product {
    uint64_t a = 0, b = 0;
    unsigned n = 0, arrived = 0;
    bool transpose_a = false, transpose_b = false;
    bool waited[4] = {}; // which warps
    uint32_t epoch = 0;
    std::vector<float> left, right; // [64][16], [n][16]
};
struct Started {
    std::shared_ptr<Product> product;
    float* d;
};

struct Fiber {
    Context context;
    uintptr_t stack = 0;
    unsigned thread = 0, warp = 0, lane = 0;
    Status status = Status::Done;
    unsigned collectives = 0;
    Place at;
    std::vector<std::vector<Copy>> async; // groups under way, oldest first; the last one is open
    std::vector<std::vector<Started>> products; // likewise
    std::vector<std::pair<float*, std::vector<float>>> sums; // of products under way; registers hold UNDER_WAY instead
    uint64_t started = 0; // products
    bool registers_fenced = false;
    std::vector<uint32_t> proxy_fences; // epochs
};

// A warpgroup's products that not all of its threads have started.
struct Warpgroup {
    uint64_t first = 0; // number of the first in the list
    std::vector<std::shared_ptr<Product>> products;
};

struct Warp {
    unsigned lanes = 0, waiting = 0;
    uint32_t epoch = 0; // of memory: syncwarp and syncthreads begin a new one
    // What lanes hand to each other; two sets in turn, so that one barrier an exchange is enough.
    struct Slot {
        alignas(16) unsigned char bytes[48];
        const char* file;
        unsigned line;
    } slots[2][WARP_LANES];
};

// Who touched a grain last. Epochs grow over the whole life of the state, so old ones need no clearing.
struct Shadow {
    uint32_t write_epoch, write_warp_epoch;
    uint32_t read_epoch, read_warp_epoch;
    uint16_t writer, reader;
    uint16_t proxy_fences; // of the writer, before it wrote
    uint8_t many_lanes, many_warps, pending, unused;
};

struct Region {
    uint64_t address = 0, bytes = 0;
    Shadow* shadow = nullptr;
};

struct StaticArray {
    const void* key;
    size_t offset, bytes;
};

struct State {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<Warpgroup> warpgroups;
    std::vector<unsigned> ready;
    char* stacks = nullptr;
    Context scheduler;
    Fiber* current = nullptr;
    uint64_t random = 1;

    // Block memory: dynamic part, then static arrays with gaps.
    unsigned char* shared = nullptr;
    Shadow* shared_shadow = nullptr;
    size_t dynamic_bytes = 0, static_end = 0, static_bytes = 0;
    std::vector<StaticArray> statics;

    std::vector<Region> regions;
    Region* last_region = nullptr;

    uint32_t epoch = 0, launch_epoch = 0, block_epoch = 0, warp_epochs = 0;
    // Of the last block that came to `last_to_arrive`, and whether it was the last one of all.
    uint32_t arrived = 0;
    bool last = false;
    Index block{}, block_extent{}, grid{};
    unsigned at_block = 0, alive = 0;
    Body body = nullptr;
    const char* kernel = "";
    std::vector<std::max_align_t> params;
    size_t params_bytes = 0;
    std::string error;
};

constexpr size_t SHARED_SPAN = MAX_SHARED + MAX_STATIC_SHARED + 64 * GAP;

thread_local State* state = nullptr;

void* reserve(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        std::fputs("simulator: out of address space\n", stderr);
        std::abort();
    }
    return p;
}

// A thread's state ends with it. Every library of kernels has states of its own, and the system's list of mappings is short: so no stack has a guard
// page (see fiber_main).
struct Owner {
    ~Owner() {
        if (!state) return;
        munmap(state->stacks, (MAX_THREADS + 1) * STACK);
        munmap(state->shared, SHARED_SPAN);
        munmap(state->shared_shadow, SHARED_SPAN / GRAIN * sizeof(Shadow));
        for (Region& r : state->regions) munmap(r.shadow, (r.bytes / GRAIN + 2) * sizeof(Shadow));
        delete state;
        state = nullptr;
    }
};

State& this_state() {
    thread_local Owner owner;
    if (!state) {
        (void)owner; // makes it, and with it the end of the state
        state = new State;
        state->fibers.resize(MAX_THREADS);
        state->warps.resize(MAX_THREADS / WARP_LANES);
        state->warpgroups.resize(MAX_THREADS / WARPGROUP);
        state->stacks = static_cast<char*>(reserve((MAX_THREADS + 1) * STACK));
        uintptr_t first = (reinterpret_cast<uintptr_t>(state->stacks) + STACK - 1) / STACK * STACK;
        for (unsigned i = 0; i < MAX_THREADS; i++) state->fibers[i].stack = first + i * STACK;
        state->shared = static_cast<unsigned char*>(reserve(SHARED_SPAN));
        state->shared_shadow = static_cast<Shadow*>(reserve(SHARED_SPAN / GRAIN * sizeof(Shadow)));
    }
    return *state;
}

uint32_t next_random(State& s) {
    s.random ^= s.random << 13;
    s.random ^= s.random >> 7;
    s.random ^= s.random << 17;
    return uint32_t(s.random >> 32);
}

// ---- switching ---------------------------------------------------------------------------------------------------------------

void fiber_main();

#if defined(__x86_64__)
extern "C" void metatape_sim_switch(void** save, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.globl metatape_sim_switch
.hidden metatape_sim_switch
.type metatape_sim_switch,@function
metatape_sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size metatape_sim_switch,.-metatape_sim_switch
)");
void prepare(Fiber& f) {
    void** top = reinterpret_cast<void**>(f.stack + STACK);
    *--top = nullptr; // where fiber_main would return to; also aligns the stack as a call would
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.context = top;
}
void switch_to(Context& save, Context& to) { metatape_sim_switch(&save, to); }
#elif defined(__aarch64__)
extern "C" void metatape_sim_switch(void** save, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.globl metatape_sim_switch
.hidden metatape_sim_switch
.type metatape_sim_switch,%function
metatape_sim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size metatape_sim_switch,.-metatape_sim_switch
)");
void prepare(Fiber& f) {
    void** top = reinterpret_cast<void**>(f.stack + STACK) - 20;
    for (int i = 0; i < 20; i++) top[i] = nullptr;
    top[11] = reinterpret_cast<void*>(&fiber_main); // x30
    f.context = top;
}
void switch_to(Context& save, Context& to) { metatape_sim_switch(&save, to); }
#else
void prepare(Fiber& f) {
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = reinterpret_cast<void*>(f.stack + 4096);
    f.context.uc_stack.ss_size = STACK - 4096;
    f.context.uc_link = nullptr;
    makecontext(&f.context, fiber_main, 0);
}
void switch_to(Context& save, Context& to) { swapcontext(&save, &to); }
#endif

void to_scheduler() {
    State& s = *state;
    Fiber& f = *s.current;
    switch_to(f.context, s.scheduler);
}

[[noreturn]] void stop(const std::string& what);

void fiber_main() {
    State& s = *state;
    s.body(s.params.data());
    // Zero as the system gave it, unless the stack grew over all of its memory.
    uintptr_t* lowest = reinterpret_cast<uintptr_t*>(s.current->stack);
    if (*lowest != 0) {
        *lowest = 0;
        stop("the thread's stack grew over its " + std::to_string(STACK) + " bytes");
    }
    s.current->status = Status::Done;
    to_scheduler();
    __builtin_unreachable();
}

// ---- errors ------------------------------------------------------------------------------------------------------------------

const char* base_name(const char* file) {
    const char* slash = std::strrchr(file, '/');
    return slash ? slash + 1 : file;
}

std::string where(const char* file, unsigned line) { return std::string(base_name(file)) + ":" + std::to_string(line); }

void record(const std::string& what) {
    State& s = *state;
    if (!s.error.empty()) return;
    char text[256];
    if (s.current)
        std::snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u), thread %u: ", s.kernel, s.block.x, s.block.y, s.block.z,
                      s.current->thread);
    else
        std::snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u): ", s.kernel, s.block.x, s.block.y, s.block.z);
    s.error = text + what;
    if (s.current && s.current->at.line()) s.error += " (thread's last barrier or warp operation: " + where(s.current->at.file_name(), s.current->at.line()) + ")";
}

[[noreturn]] void stop(const std::string& what) {
    record(what);
    // The launch ends here; its fibers are never run again.
    to_scheduler();
    __builtin_unreachable();
}

// ---- memory ------------------------------------------------------------------------------------------------------------------

std::string hex(uintptr_t address) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
    return text;
}

std::string access_text(bool write, size_t size) { return std::string(write ? "store" : "load") + " of " + std::to_string(size) + " bytes"; }

Region* region_of(State& s, uintptr_t address) {
    if (s.last_region && address - s.last_region->address < s.last_region->bytes) return s.last_region;
    auto after = std::upper_bound(s.regions.begin(), s.regions.end(), address, [](uintptr_t a, const Region& r) { return a < r.address; });
    if (after == s.regions.begin()) return nullptr;
    Region& r = *(after - 1);
    if (address - r.address >= r.bytes) return nullptr;
    s.last_region = &r;
    return &r;
}

// Another thread's access, no earlier than `since`, that no barrier separates from this one.
bool concurrent(const State& s, uint32_t since, uint32_t epoch, uint32_t warp_epoch, unsigned thread) {
    const Fiber& f = *s.current;
    if (epoch < since) return false;
    if (epoch < s.block_epoch) return true; // another block of this launch
    if (thread == f.thread || epoch != s.epoch) return false;
    return thread / WARP_LANES != f.warp || warp_epoch == s.warps[f.warp].epoch;
}

std::string race_text(const State& s, const Shadow& shadow, bool theirs_is_write, const char* space, bool write, size_t size) {
    uint32_t epoch = theirs_is_write ? shadow.write_epoch : shadow.read_epoch;
    std::string who = epoch < s.block_epoch ? "another block" : "thread " + std::to_string(theirs_is_write ? shadow.writer : shadow.reader);
    return std::string("race in ") + space + " memory: " + access_text(write, size) + ", and " + who + (theirs_is_write ? " wrote" : " read") +
           " there with no barrier between";
}

void touch(State& s, Shadow* first, size_t grains, bool write, bool block_memory, size_t size) {
    const Fiber& f = *s.current;
    const Warp& w = s.warps[f.warp];
    const char* space = block_memory ? "shared" : "device";
    // Each block has its own shared memory; device memory is everybody's.
    uint32_t since = block_memory ? s.block_epoch : s.launch_epoch;
    for (size_t i = 0; i < grains; i++) {
        Shadow& at = first[i];
#if defined(__x86_64__)
        // The first access to a page is a write: one that reads first is given the page of zeros, and a second fault, with news to all
        // processors, when it writes.
        asm volatile("addl $0, %0" : "+m"(at.write_epoch));
#endif
        if (block_memory && !write) {
            if (at.write_epoch < s.block_epoch) stop("uninitialised shared memory: " + access_text(false, size));
            if (at.pending) stop("an asynchronous copy to shared memory was not waited for: " + access_text(false, size));
        }
        if (concurrent(s, since, at.write_epoch, at.write_warp_epoch, at.writer)) stop(race_text(s, at, true, space, write, size));
        if (write) {
            bool read = at.read_epoch >= since;
            if (read && at.read_epoch < s.block_epoch) stop(race_text(s, at, false, space, true, size));
            if (read && at.read_epoch == s.epoch) {
                bool others = at.many_warps || (at.many_lanes && (at.reader / WARP_LANES != f.warp || at.read_warp_epoch == w.epoch)) ||
                              concurrent(s, since, at.read_epoch, at.read_warp_epoch, at.reader);
                if (others) stop(race_text(s, at, false, space, true, size));
            }
            at.write_epoch = s.epoch;
            at.write_warp_epoch = w.epoch;
            at.writer = uint16_t(f.thread);
            at.proxy_fences = uint16_t(f.proxy_fences.size());
            at.pending = 0;
        } else {
            if (at.read_epoch != s.epoch) {
                at.many_lanes = at.many_warps = 0;
            } else if (at.reader / WARP_LANES != f.warp) {
                at.many_warps = 1;
            } else if (at.read_warp_epoch != w.epoch) {
                at.many_lanes = 0;
            } else if (at.reader != f.thread) {
                at.many_lanes = 1;
            }
            at.read_epoch = s.epoch;
            at.read_warp_epoch = w.epoch;
            at.reader = uint16_t(f.thread);
        }
    }
}

// Beyond the thread's own stack.
__attribute__((noinline)) void far_access(uintptr_t address, size_t size, bool write) {
    State* sp = state;
    if (!sp || !sp->current) return;
    State& s = *sp;
    size_t grains = (address % GRAIN + size + GRAIN - 1) / GRAIN;
    uintptr_t in_shared = address - reinterpret_cast<uintptr_t>(s.shared);
    if (in_shared < SHARED_SPAN) {
        bool inside = in_shared + size <= s.dynamic_bytes;
        for (const StaticArray& a : s.statics) inside |= in_shared >= a.offset && in_shared + size <= a.offset + a.bytes;
        if (!inside) stop("out of bounds of shared memory: " + access_text(write, size) + " at byte " + std::to_string(in_shared) + " of " + std::to_string(s.dynamic_bytes));
        touch(s, s.shared_shadow + in_shared / GRAIN, grains, write, true, size);
        return;
    }
    if (Region* r = region_of(s, address)) {
        uint64_t offset = address - r->address;
        if (offset + size > r->bytes) stop("out of bounds of device memory: " + access_text(write, size) + " ends past an allocation of " + std::to_string(r->bytes) + " bytes");
        touch(s, r->shadow + offset / GRAIN, grains, write, false, size);
        return;
    }
    if (!write) {
        if (address - reinterpret_cast<uintptr_t>(s.params.data()) < s.params_bytes) return;
        if (address >= reinterpret_cast<uintptr_t>(__ehdr_start) && address < reinterpret_cast<uintptr_t>(_end)) return;
    }
    stop("out of bounds: " + access_text(write, size) + " at " + hex(address) + ", which is no device memory");
}

// Most are on the thread's own stack, and a look at a thread_local costs more than all else that
// they need.
inline __attribute__((always_inline)) void access(uintptr_t address, size_t size, bool write) {
    if ((address ^ reinterpret_cast<uintptr_t>(__builtin_frame_address(0))) >= STACK) far_access(address, size, write);
}

// ---- the scheduler -----------------------------------------------------------------------------------------------------------

void make_ready(State& s, unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        s.fibers[i].status = Status::Ready;
        s.ready.push_back(i);
    }
}

void run_block(State& s) {
    unsigned threads = s.block_extent.x;
    s.epoch++;
    s.block_epoch = s.epoch;
    s.static_end = s.dynamic_bytes + GAP;
    s.static_bytes = 0;
    s.statics.clear();
    // NaNs, so that numbers show what the checks let through.
    std::memset(s.shared, 0xff, s.dynamic_bytes);
    s.at_block = 0;
    s.alive = threads;
    s.ready.clear();
    for (unsigned i = 0; i < threads; i++) {
        Fiber& f = s.fibers[i];
        f.thread = i;
        f.warp = i / WARP_LANES;
        f.lane = i % WARP_LANES;
        f.collectives = 0;
        f.at = Place{};
        f.async.clear();
        f.products.clear();
        f.sums.clear();
        f.started = 0;
        f.registers_fenced = false;
        f.proxy_fences.clear();
        prepare(f);
    }
    for (unsigned w = 0; w < threads / WARP_LANES; w++) {
        s.warps[w].lanes = WARP_LANES;
        s.warps[w].waiting = 0;
        s.warps[w].epoch = ++s.warp_epochs;
    }
    for (Warpgroup& g : s.warpgroups) g = {};
    make_ready(s, 0, threads);
    while (!s.ready.empty()) {
        unsigned pick = next_random(s) % s.ready.size();
        unsigned thread = s.ready[pick];
        s.ready[pick] = s.ready.back();
        s.ready.pop_back();
        Fiber& f = s.fibers[thread];
        Warp& w = s.warps[f.warp];
        s.current = &f;
        switch_to(s.scheduler, f.context);
        s.current = nullptr;
        if (!s.error.empty()) return;
        switch (f.status) {
        case Status::Ready: s.ready.push_back(thread); break;
        case Status::Done:
            for (auto& group : f.async) {
                if (!group.empty()) {
                    s.current = &f;
                    record("ended with asynchronous copies that it never waited for");
                    s.current = nullptr;
                    return;
                }
            }
            if (!f.sums.empty()) {
                s.current = &f;
                record("ended with products of its warpgroup that it never waited for");
                s.current = nullptr;
                return;
            }
            s.alive--;
            w.lanes--;
            break;
        case Status::AtWarp: w.waiting++; break;
        case Status::AtBlock: s.at_block++; break;
        }
        if (w.waiting == WARP_LANES) {
            w.waiting = 0;
            make_ready(s, f.warp * WARP_LANES, (f.warp + 1) * WARP_LANES);
        }
        if (s.at_block == threads) {
            for (unsigned i = 1; i < threads; i++) {
                const Place &a = s.fibers[0].at, &b = s.fibers[i].at;
                if (a.line() != b.line() || std::strcmp(a.file_name(), b.file_name()) != 0) {
                    record("threads wait at different barriers: " + where(a.file_name(), a.line()) + " and " + where(b.file_name(), b.line()));
                    return;
                }
            }
            s.at_block = 0;
            s.epoch++;
            for (unsigned i = 0; i < threads / WARP_LANES; i++) s.warps[i].epoch = ++s.warp_epochs;
            make_ready(s, 0, threads);
        }
    }
    for (const Warpgroup& g : s.warpgroups) {
        if (s.alive || g.products.empty()) continue;
        record("a product of a warpgroup was started by " + std::to_string(g.products[0]->arrived) + " of its 128 threads");
        return;
    }
    if (s.alive) {
        // Nobody can go on: name one that waits and one that does not come.
        const Fiber *waits = nullptr, *elsewhere = nullptr;
        for (unsigned i = 0; i < threads; i++) {
            const Fiber& f = s.fibers[i];
            if (f.status != Status::Done && !waits) waits = &f;
        }
        for (unsigned i = 0; i < threads; i++) {
            const Fiber& f = s.fibers[i];
            bool same_warp = waits->status != Status::AtWarp || f.warp == waits->warp;
            if (same_warp && f.status != waits->status) elsewhere = &f;
        }
        std::string text = "thread " + std::to_string(waits->thread) + " waits at " + where(waits->at.file_name(), waits->at.line());
        if (elsewhere)
            text += ", but thread " + std::to_string(elsewhere->thread) +
                    (elsewhere->status == Status::Done ? " has ended" : " waits at " + where(elsewhere->at.file_name(), elsewhere->at.line()));
        record(text);
    }
}

} // namespace

// ---- what kernels and their driver call --------------------------------------------------------------------------------------

[[noreturn]] void fail(const char* what, const Place& place) {
    if (state && state->current) state->current->at = place;
    stop(what);
}

Index thread_index() { return {state->current->thread, 0, 0}; }
Index block_index() { return state->block; }
Index block_extent() { return state->block_extent; }
Index grid_extent() { return state->grid; }

void block_barrier(const Place& place) {
    Fiber& f = *state->current;
    f.at = place;
    f.status = Status::AtBlock;
    to_scheduler();
}

bool last_to_arrive(uint32_t* ticket, uint32_t of, const Place& place) {
    block_barrier(place);
    State& s = *state;
    // The first thread that leaves the barrier counts for its block.
    if (s.arrived != s.epoch) {
        s.arrived = s.epoch;
        s.last = of == 1 || ++*ticket == of;
        if (s.last) {
            if (of > 1) *ticket = 0;
            s.launch_epoch = s.epoch;
        }
    }
    bool last = s.last;
    block_barrier(place);
    return last;
}

namespace {

// Hands `bytes` to the lanes of the warp and gives what all of them handed over.
const Warp::Slot* gather(const void* bytes, size_t size, const Place& place) {
    State& s = *state;
    Fiber& f = *s.current;
    Warp& w = s.warps[f.warp];
    Warp::Slot* slots = w.slots[f.collectives++ & 1];
    if (size) std::memcpy(slots[f.lane].bytes, bytes, size);
    slots[f.lane].file = place.file_name();
    slots[f.lane].line = place.line();
    f.at = place;
    f.status = Status::AtWarp;
    to_scheduler();
    const Warp::Slot& first = slots[0];
    if (first.line != place.line() || (first.file != place.file_name() && std::strcmp(first.file, place.file_name()) != 0))
        stop("lanes of a warp are at different warp operations: " + where(first.file, first.line) + " and " + where(place.file_name(), place.line()));
    return slots;
}

} // namespace

void warp_barrier(const Place& place) {
    // The first lane that leaves begins the new epoch for all of them.
    Fiber& f = *state->current;
    Warp& w = state->warps[f.warp];
    uint32_t before = w.epoch;
    gather(&before, sizeof before, place);
    if (w.epoch == before) w.epoch = ++state->warp_epochs;
}

uint64_t exchange(uint64_t value, int from, const Place& place) {
    uint64_t got;
    std::memcpy(&got, gather(&value, sizeof value, place)[from].bytes, sizeof got);
    return got;
}

void* dynamic_shared() { return state->shared; }

void* static_shared(const void* key, size_t bytes, size_t alignment) {
    State& s = *state;
    for (const StaticArray& a : s.statics)
        if (a.key == key) return s.shared + a.offset;
    alignment = std::max<size_t>(alignment, 16);
    s.static_bytes += bytes;
    if (s.static_bytes > MAX_STATIC_SHARED) stop("more than 48 KB of static shared memory");
    size_t offset = (s.static_end + alignment - 1) / alignment * alignment;
    if (offset + bytes + GAP > SHARED_SPAN) stop("too many static shared arrays");
    s.statics.push_back({key, offset, bytes});
    s.static_end = offset + bytes + GAP;
    std::memset(s.shared + offset, 0xff, bytes);
    return s.shared + offset;
}

void aligned(const void* pointer, size_t bytes, const Place& place) {
    if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) fail("vector access that is not aligned to its size", place);
}

void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, const Place& place) {
    State& s = *state;
    Fiber& f = *s.current;
    f.at = place;
    uintptr_t to = reinterpret_cast<uintptr_t>(shared);
    if (to - reinterpret_cast<uintptr_t>(s.shared) >= SHARED_SPAN) stop("asynchronous copy to what is no shared memory");
    if (to % bytes || reinterpret_cast<uintptr_t>(global) % bytes) stop("asynchronous copy that is not aligned to its size");
    if (valid) {
        if (!region_of(s, reinterpret_cast<uintptr_t>(global))) stop("out of bounds: asynchronous copy from " + hex(reinterpret_cast<uintptr_t>(global)) + ", which is no device memory");
        access(reinterpret_cast<uintptr_t>(global), valid, false);
    }
    // The copy may land at any time from now on.
    access(to, bytes, true);
    std::memset(shared, 0xff, bytes);
    for (size_t i = 0; i < bytes / GRAIN; i++) s.shared_shadow[(to - reinterpret_cast<uintptr_t>(s.shared)) / GRAIN + i].pending = 1;
    if (f.async.empty()) f.async.emplace_back();
    f.async.back().push_back({shared, global, bytes, valid, place});
}

void commit_async() {
    Fiber& f = *state->current;
    if (f.async.empty()) f.async.emplace_back();
    f.async.emplace_back();
}

void wait_async(unsigned groups_left) {
    State& s = *state;
    Fiber& f = *s.current;
    // The last group is open, so it is not counted.
    while (f.async.size() > groups_left + 1) {
        for (const Copy& copy : f.async.front()) {
            access(reinterpret_cast<uintptr_t>(copy.to), copy.bytes, true);
            std::memset(copy.to, 0, copy.bytes);
            if (copy.valid) std::memcpy(copy.to, copy.from, copy.valid);
        }
        f.async.erase(f.async.begin());
    }
}

Four load_matrices(const void* row, int count, bool transposed, const Place& place) {
    State& s = *state;
    Fiber& f = *s.current;
    uintptr_t address = reinterpret_cast<uintptr_t>(row);
    if (int(f.lane) < 8 * count) {
        if (address % 16) fail("matrix row that is not aligned to 16 bytes", place);
        if (address - reinterpret_cast<uintptr_t>(s.shared) >= SHARED_SPAN) fail("matrix row outside of shared memory", place);
        access(address, 16, false);
    }
    const Warp::Slot* slots = gather(&row, sizeof row, place);
    unsigned g = f.lane / 4, t = f.lane % 4;
    Four result{};
    for (int m = 0; m < count; m++) {
        uint16_t pair[2];
        for (unsigned e = 0; e < 2; e++) {
            unsigned r = transposed ? 2 * t + e : g, c = transposed ? g : 2 * t + e;
            const uint16_t* from;
            std::memcpy(&from, slots[8 * m + r].bytes, sizeof from);
            pair[e] = from[c];
        }
        result.v[m] = pair[0] | uint32_t(pair[1]) << 16;
    }
    return result;
}

namespace {

struct Factors {
    Four a;
    Two b;
};

float half_of(uint32_t word, unsigned half) { return std::bit_cast<float>(half ? word & 0xffff0000u : word << 16); }

// Rows g and g + 8 by columns 2t and 2t + 1, summed over K in order. A word has K / 8 numbers, which `entry` takes out of it.
template <unsigned K, typename Entry> FourFloats product(FourFloats c, const Factors& mine, const Place& place, Entry entry) {
    constexpr unsigned EACH = K / 8;
    const Warp::Slot* slots = gather(&mine, sizeof mine, place);
    unsigned g = state->current->lane / 4, t = state->current->lane % 4;
    auto word = [&](unsigned lane, size_t at) {
        uint32_t v;
        std::memcpy(&v, slots[lane].bytes + at, sizeof v);
        return v;
    };
    double sums[4] = {c.v[0], c.v[1], c.v[2], c.v[3]};
    for (unsigned k = 0; k < K; k++) {
        unsigned lane = k / EACH % 4, half = k / (K / 2);
        size_t in_a = offsetof(Factors, a) + 8 * half, in_b = offsetof(Factors, b) + 4 * half;
        double a[2] = {entry(word(4 * g + lane, in_a), k % 2), entry(word(4 * g + lane, in_a + 4), k % 2)};
        double b[2] = {entry(word(8 * t + lane, in_b), k % 2), entry(word(8 * t + 4 + lane, in_b), k % 2)};
        for (unsigned e = 0; e < 4; e++) sums[e] += a[e / 2] * b[e % 2];
    }
    for (unsigned e = 0; e < 4; e++) c.v[e] = float(sums[e]);
    return c;
}

} // namespace

FourFloats mma_tf32(FourFloats c, Four a, Two b, const Place& place) {
    for (uint32_t v : {a.v[0], a.v[1], a.v[2], a.v[3], b.v[0], b.v[1]})
        if (v & 0x1fffu) fail("a factor of a tf32 product was not rounded to tf32", place);
    return product<8>(c, {a, b}, place, [](uint32_t word, unsigned) { return std::bit_cast<float>(word); });
}

FourFloats mma_bf16(FourFloats c, Four a, Two b, const Place& place) {
    return product<16>(c, {a, b}, place, half_of);
}

// ---- products of warpgroups ----------------------------------------------------------------------------------------------------

uint32_t shared_address(const void* shared) {
    uintptr_t at = reinterpret_cast<uintptr_t>(shared) - reinterpret_cast<uintptr_t>(state->shared);
    if (at >= SHARED_SPAN) stop("a shared address of what is no shared memory");
    return SHARED_BEGIN + uint32_t(at);
}

void fence_async_proxy() { state->current->proxy_fences.push_back(state->epoch); }

void fence_products() { state->current->registers_fenced = true; }

void commit_products() {
    Fiber& f = *state->current;
    if (f.products.empty()) f.products.emplace_back();
    f.products.emplace_back();
}

namespace {

// Where entry (free, k) of a factor lies, out of the bits of its descriptor alone. `transposed`: MN-major.
// PTX ISA, "Shared Memory Matrix Layout", "Strides" and "Matrix Descriptor Format", for entries of 16 bits, T = 8 to a chunk of 16 bytes, W chunks to
// a row of a swizzle atom, which is W chunks by 8:
//   K-major   ((8, m), (T, 2)) : ((W T, stride), (1, T))
//   MN-major  ((T, W, m), (8, k)) : ((1, T, leading), (W T, stride))
// Address bits 4, 5, 6 (as many as W has) are then turned by bits 7, 8, 9.
uint32_t address_of(uint64_t descriptor, bool transposed, unsigned free, unsigned k) {
    uint32_t start = uint32_t(descriptor & 0x3fff) << 4, leading = uint32_t(descriptor >> 16 & 0x3fff) << 4, stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
    unsigned mode = unsigned(descriptor >> 62);
    unsigned width = mode == 1 ? 8 : mode == 2 ? 4 : 2, bits = mode == 1 ? 3 : mode == 2 ? 2 : 1;
    uint32_t linear;
    if (transposed)
        linear = free % 8 * 2 + free / 8 % width * 16 + free / (8 * width) * leading + k % 8 * (width * 16) + k / 8 * stride;
    else
        linear = free % 8 * (width * 16) + free / 8 * stride + k % 8 * 2 + k / 8 * 16;
    uint32_t address = start + linear;
    return address ^ (address >> 7 & ((1u << bits) - 1)) << 4;
}

// Checks the bytes of a factor: at the start of its product, that they can be read; at a wait for it (`since`: the start's epoch), that they are
// the same. Gives its entries when they are wanted.
void read_factor(std::vector<float>* out, uint64_t descriptor, bool transposed, unsigned count, bool check, uint32_t since) {
    State& s = *state;
    if (unsigned mode = unsigned(descriptor >> 62); mode == 0) stop("a factor without swizzle, which the simulator does not know");
    if (descriptor & 0x3ff1c000c000c000ull) stop("bits of a matrix descriptor that mean nothing are set");
    if (descriptor >> 49 & 7) stop("a matrix descriptor with a base offset, which the simulator does not know");
    unsigned mode = unsigned(descriptor >> 62);
    uint32_t pattern = mode == 1 ? 1024 : mode == 2 ? 512 : 256, row = pattern / 8;
    // Along a row a factor may begin in the middle, down the rows only where the pattern does.
    uint32_t start = uint32_t(descriptor & 0x3fff) << 4;
    if ((start & (pattern - 1)) >= row) stop("a factor does not begin where its swizzle does");
    if (out) out->resize(count * 16);
    // Eight neighbours of the contiguous index lie in one chunk.
    unsigned chunks = count * 2;
    for (unsigned chunk = 0; chunk < chunks; chunk++) {
        unsigned free = transposed ? chunk / 16 * 8 : chunk / 2, k = transposed ? chunk % 16 : chunk % 2 * 8;
        uint32_t at = address_of(descriptor, transposed, free, k) - SHARED_BEGIN;
        if (at >= SHARED_SPAN) stop("a factor of a product lies outside of shared memory");
        if (check) access(reinterpret_cast<uintptr_t>(s.shared) + at, 16, false);
        for (unsigned grain = 0; grain < 16 / GRAIN; grain++) {
            const Shadow& shadow = s.shared_shadow[at / GRAIN + grain];
            const std::vector<uint32_t>& fences = s.fibers[shadow.writer].proxy_fences;
            if (check && (shadow.proxy_fences >= fences.size() || fences[shadow.proxy_fences] >= s.epoch))
                stop("a factor of a product was written with no fence.proxy.async and barrier before it is read");
            if (!check && shadow.write_epoch >= since) stop("shared memory was written while a product that reads it was under way");
        }
        for (unsigned i = 0; out && i < 8; i++) {
            uint16_t bits;
            std::memcpy(&bits, s.shared + at + 2 * i, sizeof bits);
            (*out)[transposed ? (free + i) * 16 + k : free * 16 + k + i] = std::bit_cast<float>(uint32_t(bits) << 16);
        }
    }
}

bool under_way(const float* d, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (std::bit_cast<uint32_t>(d[i]) != UNDER_WAY) return false;
    return true;
}

} // namespace

void wgmma_bf16(float* d, unsigned n, uint64_t a, uint64_t b, bool transpose_a, bool transpose_b, const Place& place) {
    State& s = *state;
    Fiber& f = *s.current;
    uint64_t both[2] = {a, b};
    const Warp::Slot* slots = gather(both, sizeof both, place);
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (std::memcmp(slots[lane].bytes, both, sizeof both) != 0) fail("lanes of a warp describe the factors of a product differently", place);
    Warpgroup& group = s.warpgroups[f.thread / WARPGROUP];
    if (s.block_extent.x < (f.thread / WARPGROUP + 1) * WARPGROUP) fail("a product of a warpgroup that is not whole", place);
    uint64_t index = f.started++ - group.first;
    if (index == group.products.size()) {
        auto product = std::make_shared<Product>();
        product->a = a, product->b = b, product->n = n, product->transpose_a = transpose_a, product->transpose_b = transpose_b, product->epoch = s.epoch;
        group.products.push_back(product);
        read_factor(nullptr, a, transpose_a, 64, true, 0);
        read_factor(nullptr, b, transpose_b, n, true, 0);
    }
    std::shared_ptr<Product> product = group.products[index];
    if (product->a != a || product->b != b || product->n != n || product->transpose_a != transpose_a || product->transpose_b != transpose_b)
        fail("warps of a warpgroup start different products", place);
    if (product->epoch != s.epoch) fail("a barrier lies between the warps of a warpgroup that start a product", place);
    if (++product->arrived == WARPGROUP) {
        group.products.erase(group.products.begin());
        group.first++;
    }
    auto held = std::find_if(f.sums.begin(), f.sums.end(), [&](const auto& sums) { return sums.first == d; });
    if (held == f.sums.end()) {
        if (!f.registers_fenced) fail("no wgmma.fence between what a thread did with its sums and a product", place);
        f.sums.push_back({d, std::vector<float>(d, d + n / 2)});
        for (unsigned i = 0; i < n / 2; i++) d[i] = std::bit_cast<float>(UNDER_WAY);
    } else if (held->second.size() != n / 2 || !under_way(d, n / 2)) {
        fail("sums of a product under way were touched", place);
    }
    if (f.products.empty()) f.products.emplace_back();
    f.products.back().push_back({product, d});
}

void wait_products(unsigned groups_left) {
    State& s = *state;
    Fiber& f = *s.current;
    unsigned g = f.lane / 4, t = f.lane % 4, warp = f.warp % 4;
    f.registers_fenced = false;
    while (f.products.size() > groups_left + 1) {
        for (const Started& started : f.products.front()) {
            Product& p = *started.product;
            if (!p.waited[warp]) {
                bool first = p.left.empty(); // as late as they may be read
                read_factor(first ? &p.left : nullptr, p.a, p.transpose_a, 64, false, p.epoch);
                read_factor(first ? &p.right : nullptr, p.b, p.transpose_b, p.n, false, p.epoch);
                p.waited[warp] = true;
            }
            auto held = std::find_if(f.sums.begin(), f.sums.end(), [&](const auto& sums) { return sums.first == started.d; });
            // Four at once: rows g and g + 8 of the warp's by two neighbouring columns.
            const float* left = &p.left[(16 * warp + g) * 16];
            for (unsigned i = 0; i < p.n / 2; i += 4) {
                const float* right = &p.right[(i * 2 + 2 * t) * 16];
                float* held_four = &held->second[i];
                double sums[4] = {held_four[0], held_four[1], held_four[2], held_four[3]};
                for (unsigned k = 0; k < 16; k++)
                    for (unsigned e = 0; e < 4; e++) sums[e] += double(left[e / 2 * 8 * 16 + k]) * right[e % 2 * 16 + k];
                for (unsigned e = 0; e < 4; e++) held_four[e] = float(sums[e]);
            }
        }
        f.products.erase(f.products.begin());
    }
    for (auto held = f.sums.begin(); held != f.sums.end();) {
        bool more = false;
        for (const auto& group : f.products)
            for (const Started& started : group) more |= started.d == held->first;
        unsigned count = unsigned(held->second.size());
        if (!under_way(held->first, count)) stop("sums of a product under way were touched");
        if (more) {
            held++;
            continue;
        }
        std::copy(held->second.begin(), held->second.end(), held->first);
        held = f.sums.erase(held);
    }
}

const char* launch(const char* name, const Launch& l, size_t params_bytes, Body body) {
    State& s = this_state();
    s.error.clear();
    s.kernel = name;
    s.current = nullptr;
    s.block = {};
    auto refuse = [&](const std::string& what) {
        record(what);
        return s.error.c_str();
    };
    if (l.params_bytes != params_bytes)
        return refuse("its parameter struct has " + std::to_string(params_bytes) + " bytes here and " + std::to_string(l.params_bytes) + " on the host");
    if (params_bytes > MAX_PARAMS) return refuse("more than 4096 bytes of parameters");
    if (l.block == 0 || l.block > MAX_THREADS || l.block % WARP_LANES) return refuse("a block of " + std::to_string(l.block) + " threads");
    if (!l.grid[0] || !l.grid[1] || !l.grid[2] || l.grid[0] > 0x7fffffffu || l.grid[1] > 65535 || l.grid[2] > 65535)
        return refuse("a grid of " + std::to_string(l.grid[0]) + " x " + std::to_string(l.grid[1]) + " x " + std::to_string(l.grid[2]) + " blocks");
    if (l.shared_bytes > MAX_SHARED) return refuse(std::to_string(l.shared_bytes) + " bytes of shared memory");

    // Shadows stay with allocations that are still the same.
    std::vector<Region> regions(l.allocation_count);
    for (uint64_t i = 0; i < l.allocation_count; i++) regions[i] = {l.allocations[i].address, l.allocations[i].bytes, nullptr};
    for (Region& old : s.regions) {
        auto same = std::find_if(regions.begin(), regions.end(), [&](const Region& r) { return r.address == old.address && r.bytes == old.bytes; });
        if (same != regions.end()) same->shadow = old.shadow;
        else munmap(old.shadow, (old.bytes / GRAIN + 2) * sizeof(Shadow));
    }
    for (Region& r : regions)
        if (!r.shadow) r.shadow = static_cast<Shadow*>(reserve((r.bytes / GRAIN + 2) * sizeof(Shadow)));
    s.regions = std::move(regions);
    s.last_region = nullptr;

    s.random = (l.seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    // The first numbers of neighbouring seeds are alike.
    for (int i = 0; i < 8; i++) next_random(s);
    s.body = body;
    s.params.resize(params_bytes / sizeof(std::max_align_t) + 1);
    std::memcpy(s.params.data(), l.params, params_bytes);
    s.params_bytes = params_bytes;
    s.block_extent = {l.block, 1, 1};
    s.grid = {l.grid[0], l.grid[1], l.grid[2]};
    s.dynamic_bytes = l.shared_bytes;
    s.launch_epoch = s.epoch + 1;
    uint64_t blocks = uint64_t(l.grid[0]) * l.grid[1] * l.grid[2];
    std::vector<uint32_t> order(blocks);
    for (uint64_t i = 0; i < blocks; i++) order[i] = uint32_t(i);
    for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[next_random(s) % i]);
    for (uint32_t b : order) {
        s.block = {b % l.grid[0], b / l.grid[0] % l.grid[1], b / l.grid[0] / l.grid[1]};
        run_block(s);
        if (!s.error.empty()) return s.error.c_str();
    }
    return nullptr;
}

} // namespace metatape_sim

// ---- hooks that -fsanitize=thread calls ----------------------------------------------------------------------------------------

extern "C" {
#define HOOK(SIZE)                                                                                                         \
    void __tsan_read##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, false); }                                   \
    void __tsan_write##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, true); }                                   \
    void __tsan_unaligned_read##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, false); }                         \
    void __tsan_unaligned_write##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, true); }                         \
    void __tsan_volatile_read##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, false); }                          \
    void __tsan_volatile_write##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, true); }                          \
    void __tsan_read_write##SIZE(void* p) { metatape_sim::access(uintptr_t(p), SIZE, false), metatape_sim::access(uintptr_t(p), SIZE, true); }
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
void __tsan_read_range(void* p, size_t size) { metatape_sim::access(uintptr_t(p), size, false); }
void __tsan_write_range(void* p, size_t size) { metatape_sim::access(uintptr_t(p), size, true); }
// What clang puts in the place of memory functions.
void* __tsan_memcpy(void* to, const void* from, size_t size) {
    metatape_sim::access(uintptr_t(from), size, false), metatape_sim::access(uintptr_t(to), size, true);
    return std::memcpy(to, from, size);
}
void* __tsan_memmove(void* to, const void* from, size_t size) {
    metatape_sim::access(uintptr_t(from), size, false), metatape_sim::access(uintptr_t(to), size, true);
    return std::memmove(to, from, size);
}
void* __tsan_memset(void* to, int value, size_t size) {
    metatape_sim::access(uintptr_t(to), size, true);
    return std::memset(to, value, size);
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
