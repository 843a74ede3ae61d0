// CUDA's device functions that make threads meet: barriers, warp shuffles and votes.
//
// Every call carries the place it was made from: threads that meet must come from the same one.
#pragma once

#define GP_HERE(what) {what, file, line}
#define GP_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(GP_CALLER) { gp_barrier(0, GP_HERE("__syncthreads")); }
static inline int __syncthreads_count(int predicate, GP_CALLER) {
    return gp_barrier(predicate, GP_HERE("__syncthreads_count"));
}
static inline int __syncthreads_or(int predicate, GP_CALLER) {
    return gp_barrier(predicate, GP_HERE("__syncthreads_or")) != 0;
}
static inline int __syncthreads_and(int predicate, GP_CALLER) {
    return gp_barrier(!predicate, GP_HERE("__syncthreads_and")) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, GP_CALLER) {
    gp_ballot(mask, 0, GP_HERE("__syncwarp"));
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, GP_CALLER) {
    return gp_ballot(mask, predicate, GP_HERE("__ballot_sync"));
}
static inline int __any_sync(unsigned mask, int predicate, GP_CALLER) {
    return gp_ballot(mask, predicate, GP_HERE("__any_sync")) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, GP_CALLER) {
    return gp_ballot(mask, !predicate, GP_HERE("__all_sync")) == 0;
}

// Which lane a shuffle reads, after the "Warp Shuffle Functions" of the CUDA C++ Programming
// Guide; `width` splits a warp into groups, and a lane outside the group means the own one
// (except that __shfl_xor_sync may read from groups before).
static inline int gp_shfl_lane(int lane, int source, int width) {
    return (lane & -width) | (source & (width - 1));
}
static inline int gp_up_lane(int lane, int delta, int width) {
    return lane - delta < (lane & -width) ? lane : lane - delta;
}
static inline int gp_down_lane(int lane, int delta, int width) {
    return (lane & (width - 1)) + delta >= width ? lane : lane + delta;
}
static inline int gp_xor_lane(int lane, int mask, int width) {
    return (lane ^ mask) >= (lane & -width) + width ? lane : lane ^ mask;
}

template <class T>
static inline T gp_exchange(unsigned mask, T value, int source, gp_site site) {
    static_assert(sizeof(T) <= 8 && __is_trivially_copyable(T), "one register or two");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = gp_shuffle(mask, bits, source, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define GP_SHUFFLE(name, argument, lane)                                                          \
    template <class T>                                                                            \
    static inline T name(unsigned mask, T value, argument by, int width = 32, GP_CALLER) {        \
        if (width < 1 || width > 32 || (width & (width - 1)))                                     \
            gp_fail("width %d of " #name " is not a power of two up to 32", width);               \
        int source = lane(int(gp_now.linear & 31), int(by), width);                               \
        return gp_exchange(mask, value, source, GP_HERE(#name));                                  \
    }
GP_SHUFFLE(__shfl_sync, int, gp_shfl_lane)
GP_SHUFFLE(__shfl_up_sync, unsigned, gp_up_lane)
GP_SHUFFLE(__shfl_down_sync, unsigned, gp_down_lane)
GP_SHUFFLE(__shfl_xor_sync, int, gp_xor_lane)
#undef GP_SHUFFLE
#undef GP_HERE
#undef GP_CALLER

// One OS thread runs all: what the compiler may not reorder is enough.
static inline void __threadfence() { __asm__ volatile("" ::: "memory"); }
static inline void __threadfence_block() { __asm__ volatile("" ::: "memory"); }
static inline void __threadfence_system() { __asm__ volatile("" ::: "memory"); }
