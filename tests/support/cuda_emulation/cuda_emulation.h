// Runs a CUDA kernel on the CPU: a fiber for each thread of a block, blocks one after another.
//
// What it is for: the logic of a kernel, tested on every machine. It stops with a message at a barrier or a warp
// operation that not all threads reach, fills shared memory with rubbish before each block (0xff: NaN, -1), and runs
// the threads in the order asked for, so that a missing barrier shows as a result that depends on the order.
// It has: threadIdx and the like, static and dynamic shared memory, barriers and their votes, warp shuffles, ballots and
// votes, atomics, FP16 conversion. It has not: textures, cooperative groups, tensor cores, streams.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __constant__ static const
#define __shared__ static __attribute__((section("emulated_shared")))  // all in one place, to be filled with rubbish
extern "C" char __start_emulated_shared[] __attribute__((weak));
extern "C" char __stop_emulated_shared[] __attribute__((weak));

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

constexpr int FAILED = 70;  // the exit status of a kernel that broke a rule
constexpr size_t STACK_BYTES = 64 * 1024;

struct Fiber {
    dim3 index;
    int thread;
    jmp_buf resume;
    std::vector<char> stack = std::vector<char>(STACK_BYTES);
    bool started, done;
    int barrier_line;  // 0 when it waits at none
    int warp_line;
};

struct Warp {
    uint64_t values[32];
    unsigned alive, arrived, mask;
    int line, generation;
};

struct Block {
    dim3 index, size, grid;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::function<void()> body;
    char* dynamic_shared = nullptr;
    int alive, arrived, votes, last_votes, generation, barrier_line;
    Fiber* current = nullptr;
    jmp_buf scheduler;
};
inline Block* block = nullptr;
inline const char* kernel_name = "";

[[noreturn]] inline void fail(const char* what, int thread, int line) {
    std::fprintf(stderr, "emulation: %s: block (%u, %u, %u), thread %d: %s", kernel_name, block->index.x,
                 block->index.y, block->index.z, thread, what);
    if (line) std::fprintf(stderr, " (line %d)", line);
    std::fprintf(stderr, "\n");
    _exit(FAILED);
}

inline void yield() {
    Fiber* self = block->current;
    if (!_setjmp(self->resume)) _longjmp(block->scheduler, 1);
}

inline void fiber_main() {
    for (;;) {  // a fiber runs one thread of each block
        block->body();
        Fiber& self = *block->current;
        self.done = true;
        --block->alive;
        block->warps[self.thread / 32].alive &= ~(1u << self.thread % 32);
        yield();
    }
}

// Waits for all threads of the block; how many of them had `vote` set. All must come to the same line.
inline int barrier(int line, bool vote = false) {
    Block& b = *block;
    Fiber& self = *b.current;
    self.barrier_line = line;
    if (b.arrived && b.barrier_line != line) fail("threads of a block wait at different barriers", self.thread, line);
    b.barrier_line = line;
    b.votes += vote;
    const int generation = b.generation;
    if (++b.arrived == static_cast<int>(b.fibers.size())) {
        b.last_votes = b.votes;
        b.arrived = b.votes = 0;
        ++b.generation;
        for (Fiber& fiber : b.fibers) fiber.barrier_line = 0;
    }
    while (b.generation == generation) yield();
    return b.last_votes;
}

// Waits for the lanes in `mask`, all of which must come to the same line.
inline Warp& warp_barrier(unsigned mask, int line) {
    Fiber& self = *block->current;
    Warp& warp = block->warps[self.thread / 32];
    const unsigned lane = 1u << self.thread % 32;
    if (!(mask & lane)) fail("a lane is not in the mask of its own warp operation", self.thread, line);
    if (warp.arrived && (warp.mask != mask || warp.line != line))
        fail("lanes of a warp wait at different warp operations", self.thread, line);
    warp.mask = mask;
    warp.line = self.warp_line = line;
    warp.arrived |= lane;
    const int generation = warp.generation;
    if (warp.arrived == mask) {
        warp.arrived = 0;
        ++warp.generation;
    }
    while (warp.generation == generation) yield();
    self.warp_line = 0;
    return warp;
}

template <class T>
T exchange(unsigned mask, T value, int source, bool valid, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
    Fiber& self = *block->current;
    std::memcpy(&block->warps[self.thread / 32].values[self.thread % 32], &value, sizeof(T));
    Warp& warp = warp_barrier(mask, line);
    T result = value;
    if (valid) {
        if (!(mask >> source & 1)) fail("a shuffle reads a lane outside its mask", self.thread, line);
        std::memcpy(&result, &warp.values[source], sizeof(T));
    }
    warp_barrier(mask, line);
    return result;
}

inline int lane() { return block->current->thread % 32; }

template <class T>
T shuffle(unsigned mask, T value, int source, int width, int line) {
    return exchange(mask, value, (lane() & ~(width - 1)) + (source & (width - 1)), true, line);
}
template <class T>
T shuffle_down(unsigned mask, T value, int by, int width, int line) {
    return exchange(mask, value, lane() + by, (lane() & (width - 1)) + by < width, line);
}
template <class T>
T shuffle_up(unsigned mask, T value, int by, int width, int line) {
    return exchange(mask, value, lane() - by, (lane() & (width - 1)) >= by, line);
}
template <class T>
T shuffle_xor(unsigned mask, T value, int bits, int width, int line) {
    return exchange(mask, value, lane() ^ bits, ((lane() ^ bits) & ~(width - 1)) <= (lane() & ~(width - 1)), line);
}
inline unsigned ballot(unsigned mask, int vote, int line) {
    block->warps[block->current->thread / 32].values[lane()] = vote != 0;
    Warp& warp = warp_barrier(mask, line);
    unsigned result = 0;
    for (int i = 0; i < 32; ++i)
        if (mask >> i & 1) result |= static_cast<unsigned>(warp.values[i]) << i;
    warp_barrier(mask, line);
    return result;
}

inline float half_to_float(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    return bits >> 15 ? -value : value;
}

// Blocks end only when every thread has ended; a round in which no thread can go on is a barrier not all reach.
inline void run_block(Block& b, const std::vector<int>& order) {
    b.alive = static_cast<int>(b.fibers.size());
    b.arrived = b.votes = b.generation = 0;
    b.warps.assign((b.fibers.size() + 31) / 32, Warp{});
    for (Fiber& fiber : b.fibers) {
        fiber.done = false;
        fiber.barrier_line = fiber.warp_line = 0;
        b.warps[fiber.thread / 32].alive |= 1u << fiber.thread % 32;
    }
    while (b.alive) {
        for (const Fiber& fiber : b.fibers) {  // whoever waits, waits in vain once another has ended
            const Warp& warp = b.warps[fiber.thread / 32];
            if (fiber.done) continue;
            if (fiber.barrier_line && b.alive < static_cast<int>(b.fibers.size()))
                fail("a barrier that not all threads of the block reach", fiber.thread, fiber.barrier_line);
            if (fiber.warp_line && (warp.mask & ~warp.alive))
                fail("a warp operation that not all lanes of its mask reach", fiber.thread, fiber.warp_line);
        }
        if (b.arrived) {
            bool stuck = true;
            for (const Fiber& fiber : b.fibers) stuck &= fiber.done || fiber.barrier_line || fiber.warp_line;
            for (const Fiber& fiber : b.fibers)
                if (stuck && fiber.warp_line && b.warps[fiber.thread / 32].arrived)
                    fail("a warp operation that not all lanes of its mask reach", fiber.thread, fiber.warp_line);
        }
        for (const int thread : order) {
            Fiber* volatile fiber = &b.fibers[thread];
            if (fiber->done) continue;
            b.current = fiber;
            if (_setjmp(b.scheduler)) continue;  // it waits, or has ended
            if (fiber->started) _longjmp(fiber->resume, 1);
            fiber->started = true;
            ucontext_t context;
            getcontext(&context);
            context.uc_stack.ss_sp = fiber->stack.data();
            context.uc_stack.ss_size = fiber->stack.size();
            context.uc_link = nullptr;
            makecontext(&context, fiber_main, 0);
            setcontext(&context);
        }
    }
}

// `schedule`: 0 runs a block's threads in their order, 1 in the reverse, any other number shuffles them by that seed.
inline void launch(dim3 grid, dim3 size, char* dynamic_shared, size_t shared_bytes, unsigned schedule,
                   std::function<void()> body) {
    Block b;
    block = &b;
    b.size = size;
    b.grid = grid;
    b.body = std::move(body);
    b.dynamic_shared = dynamic_shared;
    b.fibers.resize(size.x * size.y * size.z);
    std::vector<int> order(b.fibers.size());
    for (size_t i = 0; i < order.size(); ++i) {
        const unsigned thread = order[i] = static_cast<int>(i);
        b.fibers[i].started = false;
        b.fibers[i].thread = order[i];
        b.fibers[i].index = dim3{thread % size.x, thread / size.x % size.y, thread / (size.x * size.y)};
    }
    std::mt19937 random(schedule);
    if (schedule == 1) std::reverse(order.begin(), order.end());
    if (schedule > 1) std::shuffle(order.begin(), order.end(), random);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                b.index = dim3{x, y, z};
                if (__start_emulated_shared)
                    std::memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
                std::memset(dynamic_shared, 0xff, shared_bytes);
                run_block(b, order);
            }
}

template <class T>
T add(T* address, T value) {
    const T old = *address;
    *address = old + value;
    return old;
}

}  // namespace emulation

#define threadIdx (emulation::block->current->index)
#define blockIdx (emulation::block->index)
#define blockDim (emulation::block->size)
#define gridDim (emulation::block->grid)
#define warpSize 32
#define __syncthreads() ((void)emulation::barrier(__LINE__))
#define __syncthreads_count(vote) emulation::barrier(__LINE__, vote)
#define __syncthreads_or(vote) (emulation::barrier(__LINE__, vote) != 0)
#define __syncthreads_and(vote) (emulation::barrier(__LINE__, !(vote)) == 0)
#define __syncwarp() ((void)emulation::warp_barrier(~0u, __LINE__))
#define __shfl_sync(mask, value, source) emulation::shuffle(mask, value, source, 32, __LINE__)
#define __shfl_down_sync(mask, value, by) emulation::shuffle_down(mask, value, by, 32, __LINE__)
#define __shfl_up_sync(mask, value, by) emulation::shuffle_up(mask, value, by, 32, __LINE__)
#define __shfl_xor_sync(mask, value, bits) emulation::shuffle_xor(mask, value, bits, 32, __LINE__)
#define __ballot_sync(mask, vote) emulation::ballot(mask, vote, __LINE__)
#define __any_sync(mask, vote) (emulation::ballot(mask, vote, __LINE__) != 0)
#define __all_sync(mask, vote) (emulation::ballot(mask, !(vote), __LINE__) == 0)

// One thread runs at a time and none is interrupted, so an atomic is a plain operation.
inline int atomicAdd(int* address, int value) { return emulation::add(address, value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulation::add(address, value); }
inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
    return emulation::add(address, value);
}
inline unsigned atomicOr(unsigned* address, unsigned value) {
    const unsigned old = *address;
    *address = old | value;
    return old;
}
inline int atomicMax(int* address, int value) {
    const int old = *address;
    *address = std::max(old, value);
    return old;
}
inline unsigned long long atomicMax(unsigned long long* address, unsigned long long value) {
    const unsigned long long old = *address;
    *address = std::max(old, value);
    return old;
}

using std::max;
using std::min;
inline float __expf(float x) { return std::exp(x); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
