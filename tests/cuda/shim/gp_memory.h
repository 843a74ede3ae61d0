// Memory whose ends are watched: every allocation of the tests' device, and shared memory.
//
// An allocation's size is rounded up to 256 bytes, and its end lies at a forbidden page: what
// reaches further stops the kernel. Up to a page before the start, and from the asked size to the
// rounded one, there are canaries, which must not change. A canary is a signalling NaN of float
// (a huge double) that differs from place to place: so arithmetic in place changes it as well as
// a copy from elsewhere does.
#pragma once

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "gp_shim.h"

constexpr unsigned char gp_poison = 0xff;  // NaN as float and double, and -1
constexpr size_t gp_alignment = 256;
constexpr size_t gp_watched = 1024;  // bytes before an allocation, where there are as many
constexpr size_t gp_most_shared = 256 << 10;
constexpr size_t gp_shared_guard = 256;

struct Allocation {
    char *mapping, *start;
    size_t mapped, asked, rounded, owner;
};

static std::map<uintptr_t, Allocation> gp_allocations;

static inline size_t gp_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Pages that may be used, between two that may not.
static char *gp_map(size_t bytes) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *all = mmap(nullptr, bytes + 2 * page, PROT_NONE, flags, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    char *usable = static_cast<char *>(all) + page;
    if (mprotect(usable, bytes, PROT_READ | PROT_WRITE)) {
        munmap(all, bytes + 2 * page);
        return nullptr;
    }
    return usable;
}

// The word that a canary has around an address; bytes of it where a range starts or ends inside.
static inline uint32_t gp_canary(uintptr_t address) {
    uint64_t mixed = (address >> 2) * 0x9e3779b97f4a7c15u;
    return 0x7f800001u | (uint32_t(mixed >> 40) & 0x3fffffu);
}

static void gp_fill(char *from, char *to) {
    for (; from < to; ++from) {
        uintptr_t at = reinterpret_cast<uintptr_t>(from);
        *from = char(gp_canary(at) >> 8 * (at & 3));
    }
}

static bool gp_intact(const char *from, const char *to) {
    while (from < to) {
        uintptr_t at = reinterpret_cast<uintptr_t>(from);
        uint32_t word, expected = gp_canary(at);
        if (at % 4 == 0 && to - from >= 4) {
            memcpy(&word, from, 4);
            if (word != expected) return false;
            from += 4;
        } else if (*from++ != char(expected >> 8 * (at & 3))) {
            return false;
        }
    }
    return true;
}

static inline char *gp_first_watched(const Allocation &a) {
    return size_t(a.start - a.mapping) > gp_watched ? a.start - gp_watched : a.mapping;
}

static void gp_watch(const Allocation &a) {
    gp_fill(a.mapping, a.start);
    gp_fill(a.start + a.asked, a.start + a.rounded);
}

static const char *gp_damage(const Allocation &a) {
    if (!gp_intact(gp_first_watched(a), a.start)) return "before";
    return gp_intact(a.start + a.asked, a.start + a.rounded) ? nullptr : "past the end of";
}

// In words, for a fault: which allocation, or shared memory, is nearest, and by how much it was
// missed. The system may map them side by side, in any order.
static void describe(uintptr_t address, size_t shared, char *text, size_t size) {
    snprintf(text, size, "which is in no allocation");
    size_t nearest = 1 << 20;
    auto after = gp_allocations.upper_bound(address);
    if (after != gp_allocations.end() && after->first - address < nearest) {
        nearest = after->first - address;
        snprintf(text, size, "%zu bytes before an allocation of %zu bytes", nearest,
                 after->second.asked);
    }
    if (after != gp_allocations.begin()) {
        const Allocation &before = (--after)->second;
        size_t past = address - after->first - before.asked;
        if (past < nearest) {
            nearest = past;
            snprintf(text, size, "%zu bytes past the end of an allocation of %zu bytes", past,
                     before.asked);
        }
    }
    uintptr_t shared_at = reinterpret_cast<uintptr_t>(gp_dynamic_shared);
    size_t past = address - shared_at - shared;
    if (address >= shared_at + gp_round_up(shared, 16) && past < nearest)
        snprintf(text, size, "%zu bytes past the end of %zu bytes of dynamic shared memory", past,
                 shared);
}

// Dynamic shared memory ends at a forbidden page, too; it is aligned to 16 bytes, no more.
static char *place_shared(size_t bytes) {
    static const size_t mapped =
        gp_round_up(gp_shared_guard + gp_most_shared, size_t(sysconf(_SC_PAGESIZE)));
    static char *memory = gp_map(mapped);
    if (!memory || bytes > gp_most_shared) return nullptr;
    return memory + mapped - gp_round_up(bytes, 16);
}

struct gp_tls_search {
    uintptr_t inside;
    char *start;
    size_t size;
};

static int gp_find_tls(dl_phdr_info *info, size_t, void *data) {
    gp_tls_search &search = *static_cast<gp_tls_search *>(data);
    bool found = false;
    size_t size = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) &part = info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + part.p_vaddr;
        if (part.p_type == PT_LOAD && at <= search.inside && search.inside < at + part.p_memsz)
            found = true;
        if (part.p_type == PT_TLS) size = part.p_memsz;
    }
    if (found) search = {search.inside, static_cast<char *>(info->dlpi_tls_data), size};
    return found;
}

// Where the shared variables of a kernel's library are.
static const gp_tls_search &shared_variables(const gp_entry *entry) {
    static thread_local gp_tls_search last;
    uintptr_t inside = reinterpret_cast<uintptr_t>(entry);
    if (last.inside != inside) {
        entry->shared();  // the library's shared variables exist from the first access on
        last = {inside, nullptr, 0};
        dl_iterate_phdr(gp_find_tls, &last);
    }
    return last;
}

// Everything that is shared reads as NaN, or -1, until the block has written it.
static void poison_shared(const gp_entry *entry, size_t dynamic) {
    const gp_tls_search &found = shared_variables(entry);
    if (found.start) memset(found.start, gp_poison, found.size);
    memset(gp_dynamic_shared, gp_poison, dynamic);
    gp_fill(gp_dynamic_shared - gp_shared_guard, gp_dynamic_shared);
    gp_fill(gp_dynamic_shared + dynamic, gp_dynamic_shared + gp_round_up(dynamic, 16));
}

// What a block has in shared memory, while another one has its turn there.
struct gp_shared_copy {
    std::vector<char> variables, dynamic;

    void save(const gp_entry *entry, size_t bytes) {
        const gp_tls_search &found = shared_variables(entry);
        if (found.start) variables.assign(found.start, found.start + found.size);
        dynamic.assign(gp_dynamic_shared, gp_dynamic_shared + bytes);
    }
    void restore(const gp_entry *entry) const {
        const gp_tls_search &found = shared_variables(entry);
        if (found.start) memcpy(found.start, variables.data(), variables.size());
        if (!dynamic.empty()) memcpy(gp_dynamic_shared, dynamic.data(), dynamic.size());
    }
};

static const char *shared_damage(size_t dynamic) {
    if (!gp_intact(gp_dynamic_shared - gp_shared_guard, gp_dynamic_shared)) return "before";
    char *end = gp_dynamic_shared + dynamic;
    return gp_intact(end, gp_dynamic_shared + gp_round_up(dynamic, 16)) ? nullptr
                                                                        : "past the end of";
}

extern "C" {

// Zeroed; null when there is not enough. `owner`: whose it is, for gp_check.
void *gp_allocate(size_t bytes, size_t owner) {
    size_t rounded = gp_round_up(bytes ? bytes : 1, gp_alignment);
    size_t mapped = gp_round_up(rounded, size_t(sysconf(_SC_PAGESIZE)));
    char *mapping = gp_map(mapped);
    if (!mapping) return nullptr;
    char *start = mapping + mapped - rounded;
    Allocation made = {mapping, start, mapped, bytes, rounded, owner};
    gp_watch(made);
    gp_allocations[reinterpret_cast<uintptr_t>(start)] = made;
    return start;
}

// What was damaged, in words; null if nothing was.
const char *gp_free(void *start) {
    auto found = gp_allocations.find(reinterpret_cast<uintptr_t>(start));
    if (found == gp_allocations.end()) return "freed twice:";
    const char *damage = gp_damage(found->second);
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    munmap(found->second.mapping - page, found->second.mapped + 2 * page);
    gp_allocations.erase(found);
    return damage;
}

// Whether all of [address, address + bytes) lies in one allocation.
int gp_holds(uintptr_t address, size_t bytes) {
    auto after = gp_allocations.upper_bound(address);
    if (after == gp_allocations.begin()) return 0;
    const Allocation &a = (--after)->second;
    size_t offset = address - after->first;
    return offset <= a.asked && bytes <= a.asked - offset;
}

// An owner's first damaged allocation: its size, and where it was damaged, which is told once;
// null if all are whole.
const char *gp_check(size_t owner, size_t *size) {
    for (auto &[address, allocation] : gp_allocations) {
        if (allocation.owner != owner) continue;
        *size = allocation.asked;
        if (const char *damage = gp_damage(allocation)) {
            gp_watch(allocation);
            return damage;
        }
    }
    return nullptr;
}
}
