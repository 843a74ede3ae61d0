"""The loops of `races.py`, lane by lane, compiled for this CPU.

In the language of the CPU kernels (`numba_cpu/kernels/language.py`): all numbers are int64, arrays
are addresses. What entries are, and when two accesses are in order, is told in `races.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.lowlevel import load_i64, load_u8, store_i64

ATOMIC = 1 << 62
PLAIN = ATOMIC - 1
THREAD = (1 << 31) - 1
MANY_BLOCKS = THREAD  # accesses of several blocks


@native(inline=True)
def warp_of(number, each, threads):
    """Of a thread, within its block; -1 for several of the block."""
    own = number % each
    if own < threads:
        return own // 32
    if own == each - 1:
        return -1
    return own - threads


@native(inline=True)
def unordered(found, number, block_since, warp_since, since, each, threads, free, atomic):
    """1: an entry is another thread's, with nothing between it and this access; else 0.

    `since`: what is older is in order for everybody; `free`: blocks may be in an order that is not
    seen here.
    """
    plain = found & PLAIN
    thread = plain & THREAD
    if plain < since or thread == number or (atomic != 0 and found != plain):
        return 0
    if thread == MANY_BLOCKS or thread // each != number // each:
        return 1 - free
    if plain < block_since:
        return 0
    if warp_of(thread, each, threads) != warp_of(number, each, threads) or plain >= warp_since:
        return 1
    return 0


@native(inline=True)
def meets(table, place, i, numbers, blocks, warps, launch, each, threads, shared, free, atomic):
    """1: lane i meets in a table what is another thread's, with nothing between; else 0."""
    block_since = load_i64(blocks, i)
    since = block_since if shared != 0 else launch
    number = load_i64(numbers, i)
    warp_since = load_i64(warps, i)
    found = load_i64(table, place)
    return unordered(found, number, block_since, warp_since, since, each, threads, free, atomic)


@native(inline=True)
def joined(found, mine, each, threads):
    """The entry of two readers."""
    one = found & THREAD
    two = mine & THREAD
    time = mine - two
    block = two // each
    if one == MANY_BLOCKS or two == MANY_BLOCKS or one // each != block:
        return time + MANY_BLOCKS
    warp = warp_of(two, each, threads)
    if warp >= 0 and warp_of(one, each, threads) == warp:
        return time + block * each + threads + warp
    return time + block * each + each - 1


@native
def watch_reads(
    n, places, parts, writers, readers, numbers, blocks, warps, now, launch, each, threads, shared,
    free, atomic,
):  # fmt: skip
    """Lanes read `parts` entries each, from `places` on; -1, or `part * n + lane` of one that meets
    another thread's write. Notes who reads.
    """
    for part in range(parts):
        for i in range(n):
            place = load_i64(places, i) + part
            if meets(
                writers, place, i, numbers, blocks, warps, launch, each, threads, shared, free,
                atomic,
            ):  # fmt: skip
                return part * n + i
            if atomic == 0:
                mine = now + load_i64(numbers, i)
                if meets(
                    readers, place, i, numbers, blocks, warps, launch, each, threads, shared, free,
                    0,
                ):  # fmt: skip
                    mine = joined(load_i64(readers, place), mine, each, threads)
                store_i64(readers, place, mine)
    return -1


@native
def watch_writes(
    n, places, parts, writers, readers, numbers, blocks, warps, changes, now, launch, each, threads,
    shared, free, atomic,
):  # fmt: skip
    """Lanes are about to write; -1, or `2 * (part * n + lane)` of one that meets another thread's
    write, and one more for a read. Notes who writes, behind all that was looked for.
    """
    for part in range(parts):
        for i in range(n):
            if load_u8(changes, i) != 0:
                place = load_i64(places, i) + part
                if meets(
                    writers, place, i, numbers, blocks, warps, launch, each, threads, shared, free,
                    atomic,
                ):  # fmt: skip
                    return 2 * (part * n + i)
                if meets(
                    readers, place, i, numbers, blocks, warps, launch, each, threads, shared, free,
                    atomic,
                ):  # fmt: skip
                    return 2 * (part * n + i) + 1
    for part in range(parts):
        for i in range(n):
            entry = now + load_i64(numbers, i)
            if atomic != 0:
                entry = entry | ATOMIC
            store_i64(writers, load_i64(places, i) + part, entry)
    return -1


@cache
def loops() -> tuple[Any, Any]:
    """`watch_reads` and `watch_writes`, compiled when races are first looked for."""
    from gpubp.backends.numba_cpu.native_call import native_call

    return native_call(watch_reads), native_call(watch_writes)
