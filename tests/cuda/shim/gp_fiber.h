// Stacks that are switched by hand. `gp_switch(&from, to)` leaves the running stack, notes in
// `from` where to come back to, and goes on at `to`: what a switch noted, or what `Fiber` made.
//
// A switch costs a few nanoseconds on x86-64 and aarch64 (saves what the calling convention says
// a call must keep); elsewhere, or with GP_UCONTEXT, it goes through ucontext, which asks the
// system for the signal mask each time.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#if !defined(GP_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define GP_UCONTEXT
#endif

#if defined(GP_UCONTEXT)
#include <ucontext.h>
static void gp_switch(void **from, void *to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, static_cast<ucontext_t *>(to));
}
#else
extern "C" void gp_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
    .text
    .hidden gp_switch
    .globl gp_switch
    .type gp_switch, @function
gp_switch:
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
    .size gp_switch, . - gp_switch
)");
#else
asm(R"(
    .text
    .hidden gp_switch
    .globl gp_switch
    .type gp_switch, %function
gp_switch:
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
    .size gp_switch, . - gp_switch
)");
#endif
#endif

// A stack with forbidden memory below it, so that an overflow is seen.
struct Fiber {
    static constexpr size_t stack_bytes = 64 << 10, guard_bytes = 1 << 20;
    char *stack = nullptr;
    void *sp = nullptr;  // where to go on
#if defined(GP_UCONTEXT)
    ucontext_t context;
#endif

    // Tops of stacks lie apart in the cache's sets: many of them are touched in turn.
    bool make(unsigned number, void (*body)()) {
        if (!stack) {
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            void *all = mmap(nullptr, guard_bytes + stack_bytes, PROT_NONE, flags, -1, 0);
            if (all == MAP_FAILED) return false;
            char *usable = static_cast<char *>(all) + guard_bytes;
            if (mprotect(usable, stack_bytes, PROT_READ | PROT_WRITE)) return false;
            stack = usable;
        }
        begin(stack + stack_bytes - number * 192 % 4096, body);
        return true;
    }

    bool overflowed(uintptr_t address) const {
        uintptr_t low = reinterpret_cast<uintptr_t>(stack);
        return stack && address < low && low - address <= guard_bytes;
    }

   private:
    void begin(char *top, void (*body)()) {
#if defined(GP_UCONTEXT)
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = size_t(top - stack);
        context.uc_link = nullptr;
        makecontext(&context, body, 0);
        sp = &context;
#elif defined(__x86_64__)
        // As if `body` had been called: its address where `ret` finds it, six registers below.
        void **words = reinterpret_cast<void **>(top) - 2;
        words[0] = reinterpret_cast<void *>(body);
        words[1] = nullptr;
        sp = words - 6;
        memset(sp, 0, 6 * sizeof(void *));
#else
        void **words = reinterpret_cast<void **>(top) - 20;
        memset(words, 0, 20 * sizeof(void *));
        words[11] = reinterpret_cast<void *>(body);  // x30, the link register
        sp = words;
#endif
    }
};
