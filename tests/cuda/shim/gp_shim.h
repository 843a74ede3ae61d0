// CUDA C++ for g++: included before a source of gpubp so that it builds and runs on the CPU.
//
// Comes in: a source that follows the convention in gpubp/backends/cupy/driver.py. Goes out: one
// `gp_entry` for each kernel, which the runtime (runtime.cpp) calls for every thread of a grid.
// In between: one OS thread runs all CUDA threads, and switches only at barriers, warp
// operations, and where a thread pauses for other blocks. So memory needs no atomics here; kernels may use those on integers only, because
// gpubp adds floats in a fixed order.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GP_SHIM 1

// Function and variable qualifiers. Shared variables are thread-local ones of the library, so the
// runtime finds them all in one place (and templates may have them).
#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local

#include "gp_vectors.h"

extern "C" {
// Where the running CUDA thread is; written by the runtime at every switch.
struct gp_position {
    uint3 thread, block;
    dim3 block_size, grid_size;
    unsigned linear;  // of the thread in its block
};
extern gp_position gp_now;
extern char *gp_dynamic_shared;

struct gp_site {
    const char *what;
    const char *file;
    int line;
};

// Each returns when all threads that take part have called it.
int gp_barrier(int predicate, gp_site site);
uint64_t gp_shuffle(unsigned mask, uint64_t value, int source, gp_site site);
unsigned gp_ballot(unsigned mask, int predicate, gp_site site);
// Returns when other blocks have had their turn: for loops that wait for what these do.
void gp_pause(gp_site site);
// cp.async, cp.async.commit_group, cp.async.wait_group.
void gp_copy_async(void *to, const void *from, size_t bytes, size_t taken);
void gp_copies_commit();
void gp_copies_wait(unsigned left);
[[noreturn]] void gp_fail(const char *format, ...);

struct gp_entry {
    const char *name;
    size_t params_size;
    void (*run)(const void *params);
    void *(*shared)(void);  // an address among the library's shared variables
};
}

#define threadIdx (gp_now.thread)
#define blockIdx (gp_now.block)
#define blockDim (gp_now.block_size)
#define gridDim (gp_now.grid_size)
#define warpSize 32

static thread_local char gp_anchor;

#define GP_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(gp_dynamic_shared)

#define GP_KERNEL(kernel, Params)                                                                 \
    static_assert(__is_trivially_copyable(Params), "parameters are copied as bytes");             \
    extern "C" __attribute__((visibility("default"))) const gp_entry gp_kernel_##kernel;          \
    const gp_entry gp_kernel_##kernel = {                                                         \
        #kernel, sizeof(Params),                                                                  \
        [](const void *params) { kernel(*static_cast<const Params *>(params)); },                 \
        []() -> void * { return &gp_anchor; }};

#define GP_PAUSE() gp_pause({"a loop that waits for other blocks", __FILE__, __LINE__})

#include "gp_intrinsics.h"
#include "gp_threads.h"

#define __trap() gp_fail("__trap() at %s:%d", __FILE__, __LINE__)
#undef assert
#define assert(x) \
    ((x) ? (void)0 : gp_fail("assertion `%s` failed at %s:%d", #x, __FILE__, __LINE__))
