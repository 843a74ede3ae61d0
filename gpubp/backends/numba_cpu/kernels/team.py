"""How threads wait for the next run: awake for a moment, then asleep.

Waking a thread takes longer than a step of a small network, so one that has just worked first waits
here, outside Python. The team's memory, by `words.TEAM_*`: the last run, a number and how many work
on it in one word, for those who are not among them read it at any time; its context; whether one is
about to begin; the address of `kernels.loop`; whether the leader is in a run; helpers that have
left the run; a line for each worker: asleep, to be woken (in Python, by the leader's thread).

Nobody is missed: a helper says that it is asleep before it looks for a run for the last time, and
the leader says that one begins before it looks for sleepers. Whoever clears a sleeper's word first,
the helper itself or the leader, decides.
"""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native

load_i64, store_i64 = low.load_i64, low.store_i64
RUN, WANTED, DONE = 8 * words.TEAM_RUN, 8 * words.TEAM_WANTED, 8 * words.TEAM_DONE


@native
def sleepers(team, workers):
    """Mark those who must be woken; returns how many."""
    low.atomic_swap(team + WANTED, 1)
    found = np.int64(0)
    for worker in range(1, workers):
        line = team + 8 * words.TEAM_LINES + 64 * worker
        if low.atomic_swap(line, 0) == 1:
            store_i64(line, 1, 1)
        found += load_i64(line, 1)
    return found


@native
def lead(team, context, workers, _unused0, _unused1, _unused2):
    """Run a job as worker 0, together with the helpers, once no one has to be woken.

    Returns how many have to be: then nothing has been done.
    """
    found = sleepers(team, workers)
    if found > 0:
        return found
    store_i64(team, words.TEAM_CONTEXT, context)
    run = load_i64(team, words.TEAM_RUN) // words.TEAM_MOST + 1
    low.atomic_swap(team + RUN, run * words.TEAM_MOST + workers)
    low.store_release(team + WANTED, 0)
    store_i64(team, words.TEAM_BUSY, 1)
    low.call_kernel(load_i64(team, words.TEAM_LOOP), context, 0, 0, 0, 0, 0)
    waited = 0
    while low.load_acquire(team + DONE) < workers - 1:
        waited += 1
        if waited > words.SPINS:
            low.yield_thread()
    store_i64(team, words.TEAM_DONE, 0)
    store_i64(team, words.TEAM_BUSY, 0)
    return np.int64(0)


@native
def may_sleep(team, worker, seen):
    """Nobody needs this helper, and who does from now on will wake it."""
    line = team + 8 * words.TEAM_LINES + 64 * worker
    low.atomic_swap(line, 1)
    # In this order: once the word says that no run is about to begin, the run that was is visible.
    needed = low.atomic_add(team + WANTED, 0) != 0
    needed = needed or low.atomic_add(team + RUN, 0) != seen
    return not needed or low.atomic_swap(line, 0) == 0


@native
def serve(team, worker, seen, _unused0, _unused1, _unused2):
    """Take part in runs after the one `seen`, until none has come for a while.

    Returns the last run; then the helper's thread must sleep until it is woken, which may have
    happened already.
    """
    waited = 0
    while True:
        run = low.load_acquire(team + RUN)
        if run != seen:
            seen, waited = run, 0
            if worker < run % words.TEAM_MOST:
                context = load_i64(team, words.TEAM_CONTEXT)
                low.call_kernel(load_i64(team, words.TEAM_LOOP), context, worker, 0, 0, 0, 0)
                low.atomic_add(team + DONE, 1)
            continue
        waited += 1
        if waited > words.SPINS:
            low.yield_thread()
        if waited > words.SPINS + words.LINGER and may_sleep(team, worker, seen):
            return seen
