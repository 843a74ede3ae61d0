// Runs a grid of CUDA threads on one OS thread.
//
// Comes in: a kernel's entry, the launch, an order. Goes out: 0, or 1 and what went wrong, where.
// In between: blocks run one after the other. In a block, every thread runs until it ends or must
// wait (a barrier, a warp operation); sweeps over all threads that can run go on until all have
// ended. A thread that never waits costs a call: the stack it ran on takes the next one. In a
// cooperative launch blocks take turns: one goes on until nothing is left to do but to wait for
// others.

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <ctime>
#include <numeric>
#include <utility>
#include <vector>

#include "gp_fiber.h"
#include "gp_memory.h"
#include "gp_shim.h"

extern "C" struct gp_failure {
    int has_thread;
    unsigned block[3], thread[3];
    char text[400];
};

namespace {

enum Order { forward, reverse, shuffled };
enum class State : unsigned char { ready, barrier, shuffle, vote, pause, done };

// A copy that goes on beside; `taken`: bytes that are read, the rest is 0.
struct Copy {
    void *to;
    const void *from;
    size_t bytes, taken;
    uint64_t group;
};

struct Thread {
    void *sp;  // null until it has started
    State state;
    gp_site site;
    unsigned mask;
    int source;  // lane that a shuffle reads
    uint64_t value, result;
    std::vector<Copy> copies;  // that have not arrived
    uint64_t groups;           // of copies, that it has closed
};

struct Warp {
    unsigned live, waiting;
};

const gp_entry *entry;
const void *params;
Order order;
uint64_t random_state;
size_t shared_bytes;
unsigned count, live, at_barrier;
int predicates, barrier_result;
bool someone_ended;
bool together;      // all blocks are alive
uint64_t progress;  // of all blocks: what happened, but for looks at what others do
std::vector<Thread> threads;
std::vector<uint3> indices;
std::vector<Warp> warps;
std::vector<unsigned> turns;  // threads in the order of the sweep
unsigned next_turn;
std::vector<uint64_t> blocks;
std::vector<Fiber> fibers;
unsigned made;               // fibers that this launch has needed so far
std::vector<unsigned> idle;  // those of them that have no thread
unsigned chosen;             // the fiber that is about to start
void *main_sp;
gp_failure *failure;
sigjmp_buf escape;
thread_local volatile bool running;

uint64_t random_below(uint64_t bound) {  // splitmix64
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

template <class T>
void arrange(std::vector<T> &items, size_t n) {
    items.resize(n);
    std::iota(items.begin(), items.end(), T(0));
    if (order == reverse)
        for (size_t i = 0; i < n; ++i) items[i] = T(n - 1 - i);
    if (order == shuffled)
        for (size_t i = n; i > 1; --i) std::swap(items[i - 1], items[random_below(i)]);
}

void note(const char *format, va_list arguments) {
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    failure->has_thread = gp_now.linear < count;
    memcpy(failure->block, &gp_now.block, sizeof failure->block);
    if (failure->has_thread) memcpy(failure->thread, &gp_now.thread, sizeof failure->thread);
}

void become(unsigned thread) {
    gp_now.linear = thread;
    gp_now.thread = indices[thread];
}

// The next thread of this sweep that can run; `count` when there is none.
unsigned next_thread() {
    while (next_turn < count) {
        unsigned thread = turns[next_turn++];
        if (threads[thread].state == State::ready) return thread;
    }
    return count;
}

void fiber_body();

// Where to switch to for a thread's sake; a thread that has not started gets an idle fiber.
void *place_of(unsigned thread) {
    if (thread == count) return main_sp;
    become(thread);
    if (threads[thread].sp) return threads[thread].sp;
    if (!idle.empty()) {
        chosen = idle.back();
        idle.pop_back();
    } else {
        chosen = made++;
        if (!fibers[chosen].make(chosen, fiber_body)) gp_fail("no memory for the threads' stacks");
    }
    return fibers[chosen].sp;
}

void end_thread() {
    threads[gp_now.linear].state = State::done;
    warps[gp_now.linear / 32].live &= ~(1u << gp_now.linear % 32);
    --live;
    ++progress;
    someone_ended = true;
}

void fiber_body() {
    const unsigned self = chosen;
    for (;;) {
        entry->run(params);
        end_thread();
        unsigned thread = next_thread();
        if (thread < count && !threads[thread].sp) {
            become(thread);
            continue;
        }
        idle.push_back(self);
        gp_switch(&fibers[self].sp, place_of(thread));
    }
}

void wait(State state, gp_site site) {
    unsigned self = gp_now.linear;
    threads[self].state = state;
    threads[self].site = site;
    void *place = place_of(next_thread());
    gp_switch(&threads[self].sp, place);
}

// Lets the lanes of a mask go on once all that have not ended came with the same call.
void finish_warp(unsigned base, unsigned lane) {
    Warp &warp = warps[base / 32];
    const Thread &one = threads[base + lane];
    unsigned taking_part = one.mask & warp.live, ballot = 0;
    if (taking_part & ~warp.waiting) return;
    for (unsigned i = 0; i < 32; ++i) {
        if (!(taking_part >> i & 1)) continue;
        const Thread &other = threads[base + i];
        bool same = other.mask == one.mask && other.state == one.state;
        if (!same || other.site.line != one.site.line || strcmp(other.site.what, one.site.what) ||
            strcmp(other.site.file, one.site.file))
            return;
        ballot |= unsigned(other.value != 0) << i;
    }
    for (unsigned i = 0; i < 32; ++i) {
        if (!(taking_part >> i & 1)) continue;
        Thread &thread = threads[base + i];
        bool readable = taking_part >> (thread.source & 31) & 1;
        uint64_t read = readable ? threads[base + thread.source].value : ~uint64_t(0);
        thread.result = thread.state == State::vote ? ballot : read;
    }
    for (unsigned i = 0; i < 32; ++i)
        if (taking_part >> i & 1) threads[base + i].state = State::ready;
    warp.waiting &= ~taking_part;
}

uint64_t meet_warp(State state, unsigned mask, uint64_t value, int source, gp_site site) {
    ++progress;
    Thread &self = threads[gp_now.linear];
    unsigned lane = gp_now.linear % 32, base = gp_now.linear - lane;
    if (!(mask >> lane & 1))
        gp_fail("lane %u calls %s at %s:%d with a mask (0x%08x) that leaves it out", lane,
                site.what, site.file, site.line, mask);
    self.mask = mask;
    self.value = value;
    self.source = source;
    self.state = state;
    self.site = site;
    warps[base / 32].waiting |= 1u << lane;
    finish_warp(base, lane);
    // Also the last one to come stands in line: the order of the sweep holds everywhere.
    wait(self.state, site);
    return self.result;
}

bool waits(const Thread &thread) {
    return thread.state != State::ready && thread.state != State::done;
}

// Two threads that wait at different places, or all at one that nobody else can reach.
[[noreturn]] void fail_waiting() {
    unsigned first = 0, other = 0;
    while (!waits(threads[first])) ++first;
    const gp_site &site = threads[first].site;
    for (unsigned i = first + 1; i < count && !other; ++i) {
        const gp_site &there = threads[i].site;
        if (waits(threads[i]) && (there.line != site.line || strcmp(there.what, site.what) ||
                                  strcmp(there.file, site.file)))
            other = i;
    }
    become(first);
    if (!other)
        gp_fail("waits forever in %s at %s:%d (mask 0x%08x): a lane of the mask never comes with it",
                site.what, site.file, site.line, threads[first].mask);
    const gp_site &there = threads[other].site;
    gp_fail("waits in %s at %s:%d, but thread (%u, %u, %u) waits in %s at %s:%d", site.what,
            site.file, site.line, indices[other].x, indices[other].y, indices[other].z, there.what,
            there.file, there.line);
}

void release_barrier() {
    const gp_site *site = nullptr;
    for (Thread &thread : threads) {
        if (thread.state != State::barrier) continue;
        if (site && (thread.site.line != site->line || strcmp(thread.site.file, site->file)))
            fail_waiting();
        site = &thread.site;
    }
    for (Thread &thread : threads)
        if (thread.state == State::barrier) thread.state = State::ready;
    barrier_result = predicates;
    predicates = 0;
    at_barrier = 0;
}

void finish_warps() {
    for (unsigned i = 0; i < count; ++i)
        if (threads[i].state == State::shuffle || threads[i].state == State::vote)
            finish_warp(i - i % 32, i % 32);
}

void begin_block() {
    threads.assign(count, Thread{});
    for (unsigned i = 0; i < warps.size(); ++i) {
        unsigned lanes = count - i * 32 < 32 ? count - i * 32 : 32;
        warps[i] = {~0u >> (32 - lanes), 0};
    }
    poison_shared(entry, shared_bytes);
    live = count;
    at_barrier = predicates = 0;
}

bool pauses() {
    for (const Thread &thread : threads)
        if (thread.state == State::pause) return true;
    return false;
}

// Until all threads have ended, or wait for other blocks.
void go_on() {
    for (Thread &thread : threads)
        if (thread.state == State::pause) thread.state = State::ready;
    while (live) {
        if (order == shuffled) arrange(turns, count);
        next_turn = 0;
        someone_ended = false;
        unsigned thread = next_thread();
        bool moved = thread < count;
        if (moved) {
            void *place = place_of(thread);
            gp_switch(&main_sp, place);
        }
        gp_now.linear = count;
        if (someone_ended) finish_warps();
        if (live && at_barrier == live) release_barrier();
        else if (live && !moved && pauses()) break;
        else if (live && !moved) fail_waiting();
    }
    if (const char *where = shared_damage(shared_bytes))
        gp_fail("the block wrote %s its dynamic shared memory", where);
}

// What is a block's own, while others have their turn.
struct Block {
    uint64_t number;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    unsigned live, at_barrier;
    int predicates, barrier_result;
    gp_shared_copy shared;

    void swap() {
        std::swap(threads, ::threads);
        std::swap(warps, ::warps);
        std::swap(live, ::live);
        std::swap(at_barrier, ::at_barrier);
        std::swap(predicates, ::predicates);
        std::swap(barrier_result, ::barrier_result);
    }
};

void place_block(uint64_t i) {
    const dim3 &grid = gp_now.grid_size;
    gp_now.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                    unsigned(i / grid.x / grid.y)};
}

[[noreturn]] void fail_pausing() {
    unsigned first = 0;
    while (threads[first].state != State::pause) ++first;
    become(first);
    const gp_site &site = threads[first].site;
    gp_fail("waits forever in %s at %s:%d", site.what, site.file, site.line);
}

// All blocks of a cooperative launch, in turns.
void run_together() {
    std::vector<Block> all;
    for (uint64_t i : blocks) all.push_back({i, {}, {}, 0, 0, 0, 0, {}});
    for (Block &block : all) {
        block.warps.resize(warps.size());
        place_block(block.number);
        block.swap();
        begin_block();
        block.shared.save(entry, shared_bytes);
        block.swap();
    }
    for (uint64_t left = all.size(); left;) {
        const uint64_t before = progress;
        for (Block &block : all) {
            if (!block.live) continue;
            place_block(block.number);
            block.swap();
            block.shared.restore(entry);
            go_on();
            left -= live == 0;
            block.shared.save(entry, shared_bytes);
            block.swap();
        }
        for (Block &block : all) {
            if (progress != before || !block.live) continue;
            place_block(block.number);
            block.swap();
            fail_pausing();
        }
    }
}

void run_grid() {
    const dim3 &grid = gp_now.grid_size;
    arrange(blocks, uint64_t(grid.x) * grid.y * grid.z);
    if (together) return run_together();
    for (uint64_t i : blocks) {
        place_block(i);
        begin_block();
        go_on();
    }
}

void prepare(const dim3 &block) {
    count = block.x * block.y * block.z;
    indices.resize(count);
    for (unsigned i = 0; i < count; ++i)
        indices[i] = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    warps.resize((count + 31) / 32);
    arrange(turns, count);
    // A thread needs a stack while it waits, and one more runs the others.
    const dim3 &grid = gp_now.grid_size;
    size_t alive = together ? size_t(grid.x) * grid.y * grid.z : 1;
    if (fibers.size() < alive * count + 1) fibers.resize(alive * count + 1);
    idle.clear();
    made = 0;
}

const int caught_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGXCPU};
struct sigaction old_actions[5];

void on_signal(int number, siginfo_t *info, void *) {
    if (!running) {  // not ours: let it happen again to whoever handled it before
        for (int i = 0; i < 5; ++i) sigaction(caught_signals[i], &old_actions[i], nullptr);
        return;
    }
    uintptr_t address = number == SIGXCPU ? 0 : reinterpret_cast<uintptr_t>(info->si_addr);
    for (const Fiber &fiber : fibers)
        if (fiber.overflowed(address))
            gp_fail("stack overflow: more than %zu kB of local variables", Fiber::stack_bytes >> 10);
    if (number == SIGXCPU) gp_fail("does not end: the time for a launch is over");
    if (number != SIGSEGV && number != SIGBUS) gp_fail("signal %d (%s)", number, strsignal(number));
    char place[200];
    describe(address, shared_bytes, place, sizeof place);
    gp_fail("access to address 0x%llx, %s", (unsigned long long)address, place);
}

// Handlers run on a stack of their own: the thread's may be the one that overflowed. A timer of
// this thread's processor time ends what never ends, such as waiting for a block that comes later.
struct Handlers {
    stack_t old_stack;
    std::vector<char> memory = std::vector<char>(64 << 10);
    timer_t timer;
    bool has_timer;

    explicit Handlers(double seconds) {
        stack_t stack{};
        stack.ss_sp = memory.data();
        stack.ss_size = memory.size();
        sigaltstack(&stack, &old_stack);
        struct sigaction action {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 5; ++i) sigaction(caught_signals[i], &action, &old_actions[i]);
        running = true;
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGXCPU;
        event._sigev_un._tid = gettid();
        has_timer = !timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
        itimerspec limit{};
        limit.it_value = {time_t(seconds), long((seconds - double(time_t(seconds))) * 1e9)};
        if (has_timer) timer_settime(timer, 0, &limit, nullptr);
    }
    ~Handlers() {
        if (has_timer) timer_delete(timer);
        running = false;
        for (int i = 0; i < 5; ++i) sigaction(caught_signals[i], &old_actions[i], nullptr);
        sigaltstack(&old_stack, nullptr);
    }
};

}  // namespace

extern "C" {

gp_position gp_now;
char *gp_dynamic_shared;

// Copies arrive as late as they may: when their thread waits for them. Until then what they fill
// holds the pattern of memory that nobody wrote.
void gp_copy_async(void *to, const void *from, size_t bytes, size_t taken) {
    Thread &thread = threads[gp_now.linear];
    if (uintptr_t(to) % bytes || uintptr_t(from) % bytes)
        gp_fail("cp.async of %zu bytes from or to an address that is no multiple", bytes);
    memset(to, gp_poison, bytes);
    thread.copies.push_back({to, from, bytes, taken, thread.groups});
}

void gp_copies_commit() { ++threads[gp_now.linear].groups; }

void gp_copies_wait(unsigned left) {
    Thread &thread = threads[gp_now.linear];
    size_t kept = 0;
    for (const Copy &copy : thread.copies)
        if (copy.group + left >= thread.groups) thread.copies[kept++] = copy;
        else {
            memcpy(copy.to, copy.from, copy.taken);
            memset(static_cast<char *>(copy.to) + copy.taken, 0, copy.bytes - copy.taken);
        }
    thread.copies.resize(kept);
}

void gp_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    note(format, arguments);
    va_end(arguments);
    siglongjmp(escape, 1);
}

void gp_pause(gp_site site) {
    if (!together)
        gp_fail("waits for another block at %s:%d, in a launch whose blocks need not be alive "
                "together", site.file, site.line);
    wait(State::pause, site);
}

int gp_barrier(int predicate, gp_site site) {
    ++at_barrier;
    ++progress;
    predicates += predicate != 0;
    wait(State::barrier, site);
    return barrier_result;
}

uint64_t gp_shuffle(unsigned mask, uint64_t value, int source, gp_site site) {
    return meet_warp(State::shuffle, mask, value, source, site);
}

unsigned gp_ballot(unsigned mask, int predicate, gp_site site) {
    return unsigned(meet_warp(State::vote, mask, predicate != 0, 0, site));
}

int gp_run(const gp_entry *kernel, const unsigned *grid, const unsigned *block, size_t shared,
           const void *parameters, int how, int cooperative, uint64_t seed, double seconds,
           gp_failure *result) {
    entry = kernel;
    params = parameters;
    order = Order(how);
    together = cooperative;
    random_state = seed;
    shared_bytes = shared;
    failure = result;
    gp_now.grid_size = dim3(grid[0], grid[1], grid[2]);
    gp_now.block_size = dim3(block[0], block[1], block[2]);
    gp_dynamic_shared = place_shared(shared);
    if (!gp_dynamic_shared) return 2;
    prepare(gp_now.block_size);
    Handlers handlers(seconds);
    if (!handlers.has_timer) return 2;
    if (sigsetjmp(escape, 1)) return 1;
    run_grid();
    return 0;
}

// What -fsanitize asks for. The location comes first in the data of each.
struct gp_location {
    const char *file;
    unsigned line, column;
};
void __ubsan_handle_out_of_bounds(const gp_location *at, uintptr_t index) {
    gp_fail("index %lld is outside the array at %s:%u", (long long)index, at->file, at->line);
}
void __ubsan_handle_type_mismatch_v1(const gp_location *at, uintptr_t address) {
    gp_fail("misaligned access to 0x%llx at %s:%u", (unsigned long long)address, at->file,
            at->line);
}
void __ubsan_handle_divrem_overflow(const gp_location *at, uintptr_t, uintptr_t) {
    gp_fail("integer division by zero, or overflow, at %s:%u", at->file, at->line);
}
}
