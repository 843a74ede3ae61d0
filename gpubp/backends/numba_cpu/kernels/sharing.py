"""How workers meet, and how rows are shared between them.

Cores are not equally fast: clocks differ, hosts take time from virtual ones, and some processors
have cores of two kinds. So each worker notes what it does between meetings, and how long that
takes, and the last one to arrive changes the shares from time to time. All others wait then: within
a phase, where parts rely on meeting the same worker, shares never change. Results do not depend on
them.

Shared memory, by `words.SHARED_*`: workers that have arrived, generation, work of one worker since
the shares changed; the bounds of the shares (`gpubp.compiler.shares.share_of`); a line for each
worker: time worked, cost of what it did.
"""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native

load_i64, store_i64 = low.load_i64, low.store_i64
LEAST = 4  # no share is less than an equal one divided by this
SMALL = 0.05  # changes of less than this part of an equal share are not worth it


@native(inline=True)
def share(rows, grain, first, stop, workers):
    """The rows of a worker with these bounds: the rule of `gpubp.compiler.shares.share_of`."""
    if rows == 0:
        return (0, 1) if first == 0 else (0, 0)
    grain = min(grain, 16 if rows >= 32 * workers else 8 if rows >= 16 * workers else 1)
    unit = grain * words.WHOLE
    end = rows if stop == words.WHOLE else (rows * stop + unit // 2) // unit * grain
    return (rows * first + unit // 2) // unit * grain, end


@native(inline=True)
def speed(line, unknown):
    """Of a worker, from its line: work by time; `unknown`, if it has noted nothing."""
    work, time = load_i64(line, 1), load_i64(line, 0)
    return np.float64(work) / np.float64(time) if work > 0 and time > 0 else unknown


@native
def change_shares(shared, workers):
    """As large as the speeds that were measured; equal where these hardly differ.

    A worker whose share was too small for any work is taken for as fast as the others are in the
    mean. Differences too small to be worth the exchange of lines change nothing.
    """
    bounds = shared + 8 * words.SHARED_BOUNDS
    lines = shared + load_i64(shared, words.SHARED_WORKED)
    known, total = 0, 0.0
    for w in range(workers):
        one = speed(lines + 64 * w, 0.0)
        known += int(one > 0.0)
        total += one
    if known == 0:
        return 0
    mean = total / known
    uneven, change = 0.0, 0.0
    for w in range(workers):
        size = np.float64(load_i64(bounds, w + 1) - load_i64(bounds, w)) / words.WHOLE
        wanted = speed(lines + 64 * w, mean) / mean
        uneven = max(uneven, abs(wanted - 1.0))
        change = max(change, abs(wanted - size * workers))
    least, end = 1.0 / (LEAST * workers), 0.0
    for w in range(workers):
        line = lines + 64 * w
        wanted = 1.0 if uneven < SMALL else speed(line, mean) / mean
        end = min(end + max(wanted / workers, least), 1.0 - least * (workers - 1 - w))
        if change > SMALL and w < workers - 1:
            store_i64(bounds, w + 1, np.int64(words.WHOLE * end))
        store_i64(line, 0, 0)
        store_i64(line, 1, 0)
    return 0


@native
def wait(shared, generation):
    """Until the workers' meeting of this generation is over."""
    waited = 0
    while low.load_acquire(shared + 8) == generation:
        waited += 1
        if waited > words.SPINS:
            low.yield_thread()
    return 0


@native
def meet(shared, worker, workers, every, started, work):
    """Wait until all workers are here; returns when that was, if anybody wants to know.

    `every`: how much a worker does from one change of the shares to the next, 0: they stay.
    `started`: when this one left the last meeting. `work`: what it has done since, by its cost.
    """
    if every > 0:
        mine = shared + load_i64(shared, words.SHARED_WORKED) + 64 * worker
        store_i64(mine, 0, load_i64(mine, 0) + low.ticks() - started)
        store_i64(mine, 1, load_i64(mine, 1) + work)
    generation = low.load_acquire(shared + 8)
    if low.atomic_add(shared, 1) < workers - 1:
        wait(shared, generation)
    else:
        done = load_i64(shared, words.SHARED_WORK) + work
        if every > 0 and done >= every:
            change_shares(shared, workers)
            done = 0
        store_i64(shared, words.SHARED_WORK, done)
        store_i64(shared, 0, 0)
        low.store_release(shared + 8, generation + 1)
    return low.ticks() if every > 0 else np.int64(0)
