"""The run loop: each worker enters once and runs all steps, meeting the others at barriers.

The context is described by `words.CONTEXT_*`, what the workers share by `kernels.sharing`.
A check looks at elements of an array, see `words.CHECK_*`. All are done before any work.
Program table, a row of 9 words each: 0 records, 1 their number, 2 buffers, 3 first address table
(one a worker, of `buffers` words), 4 the order's address, 5 number of outputs, 6 list of outputs
(buffer, address, bytes a step), 7 scratch bytes a worker, 8 scratch of worker 0.
The last buffer of each address table is the index order at the step's position.
"""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import denormals
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.sharing import meet, share

load_i64, store_i64, load_i32 = low.load_i64, low.store_i64, low.load_i32
_EXPONENT32 = np.int32(0x7F800000)
_EXPONENT64 = np.int64(0x7FF0000000000000)
TABLE_WORDS = 9


@native
def run_step(table, bases, scratch, context, worker, workers, phase):
    """Returns the phase that comes next, or -1: all workers must stop.

    A phase ends at a barrier. A worker that has met a problem notes it under the phase's parity,
    and all look there after the barrier: the word is written again two barriers later, when all
    have looked. So all stop at the same place.
    """
    shared, every = load_i64(context, words.CONTEXT_SHARED), load_i64(context, words.CONTEXT_WORK)
    statuses, bounds = shared + 8 * words.SHARED_STATUS, shared + 8 * words.SHARED_BOUNDS
    record = load_i64(table, 0)
    failed, first, stop = np.int64(0), np.int64(0), np.int64(words.WHOLE)
    started, work = low.ticks() if every > 0 else np.int64(0), np.int64(0)
    if workers > 1:
        first, stop = load_i64(bounds, worker), load_i64(bounds, worker + 1)
    for _ in range(load_i64(table, 1)):
        if load_i64(record, words.RECORD_SYNC) == 1:
            if workers > 1:
                started = meet(shared, worker, workers, every, started, work)
                work = np.int64(0)
                first, stop = load_i64(bounds, worker), load_i64(bounds, worker + 1)
            if load_i64(statuses, phase & 1) != 0:
                return np.int64(-1)
            phase += 1
        rows, grain = load_i64(record, words.RECORD_ROWS), load_i64(record, words.RECORD_GRAIN)
        row0, row1 = share(rows, grain, first, stop, workers)
        work += (row1 - row0) * load_i64(record, words.RECORD_COST)
        if row0 < row1 and failed == 0:
            kernel = load_i64(record, words.RECORD_KERNEL)
            code = load_i64(record, words.RECORD_CODE)
            failed = low.call_kernel(kernel, code, bases, row0, row1, 0, scratch)
            if failed != 0:
                store_i64(statuses, phase & 1, failed)
                store_i64(statuses, 2, failed)
        record += 8 * words.RECORD_WORDS
    if workers > 1:
        meet(shared, worker, workers, every, started, work)
    return np.int64(-1) if load_i64(statuses, phase & 1) != 0 else phase + 1


@native
def in_range(what, address, count, limit):
    """Integers are all from 0 to limit - 1, or floats all finite."""
    bad = np.int64(0)
    if what == words.CHECK_INT32:
        for i in range(count):
            bad |= np.int64(np.uint32(load_i32(address, i)) >= np.uint32(limit))
    elif what == words.CHECK_INT64:
        for i in range(count):
            bad |= np.int64(np.uint64(load_i64(address, i)) >= np.uint64(limit))
    elif what == words.CHECK_FLOAT32:
        for i in range(count):
            bad |= np.int64((load_i32(address, i) & _EXPONENT32) == _EXPONENT32)
    else:
        for i in range(count):
            bad |= np.int64((load_i64(address, i) & _EXPONENT64) == _EXPONENT64)
    return bad == 0


@native
def accepted(context, worker, workers):
    """This worker's shares of the inputs are what they must be."""
    check = load_i64(context, words.CONTEXT_CHECK_LIST)
    for _ in range(load_i64(context, words.CONTEXT_CHECKS)):
        what, count = load_i64(check, words.CHECK_WHAT), load_i64(check, words.CHECK_COUNT)
        address = load_i64(check, words.CHECK_ADDRESS) + load_i64(check, words.CHECK_OFFSET)
        stride, limit = load_i64(check, words.CHECK_STRIDE), load_i64(check, words.CHECK_LIMIT)
        size = 4 if what == words.CHECK_INT32 or what == words.CHECK_FLOAT32 else 8
        first, stop = count * worker // workers, count * (worker + 1) // workers
        if stride == 1:
            if not in_range(what, address + first * size, stop - first, limit):
                return False
        else:
            for i in range(first, stop):
                if not in_range(what, address + i * stride * size, 1, limit):
                    return False
        check += 8 * words.CHECK_WORDS
    return True


@native
def refused(context, worker, workers):
    """Look at the inputs, together; all workers come to the same answer."""
    shared = load_i64(context, words.CONTEXT_SHARED)
    if load_i64(context, words.CONTEXT_CHECKS) == 0:
        return False
    if not accepted(context, worker, workers):
        store_i64(shared, words.SHARED_REFUSED, 1)
    if workers > 1:
        meet(shared, worker, workers, 0, 0, 0)
    if load_i64(shared, words.SHARED_REFUSED) == 0:
        return False
    store_i64(shared, words.SHARED_STATUS + 2, -1)
    return True


@native
def run_schedule(context, worker):
    """Run the whole schedule as one of the workers; status -1: the inputs are refused."""
    workers = load_i64(context, words.CONTEXT_WORKERS)
    if refused(context, worker, workers):
        return 0
    schedule = load_i64(context, words.CONTEXT_SCHEDULE)
    phase = np.int64(0)
    first, stop = load_i64(context, words.CONTEXT_FIRST), load_i64(context, words.CONTEXT_STOP)
    for step in range(first, stop):
        table = load_i64(schedule, 2 * step) * (8 * TABLE_WORDS)
        table += load_i64(context, words.CONTEXT_PROGRAMS)
        buffers = load_i64(table, 2)
        bases = load_i64(table, 3) + worker * buffers * 8
        position = load_i64(schedule, 2 * step + 1)
        store_i64(bases, buffers - 1, load_i64(table, 4) + 8 * position)
        output = load_i64(table, 6)
        for _ in range(load_i64(table, 5)):
            address = load_i64(output, 1) + step * load_i64(output, 2)
            store_i64(bases, load_i64(output, 0), address)
            output += 24
        scratch = load_i64(table, 8) + worker * load_i64(table, 7)
        phase = run_step(table, bases, scratch, context, worker, workers, phase)
        if phase < 0:
            return 0
    return 0


@native
def loop(context, worker, _unused0, _unused1, _unused2, _unused3):
    """The same, with denormal numbers as 0 where the context says so; in this thread, meanwhile."""
    before = denormals.float_control()
    if load_i64(context, words.CONTEXT_FLUSH) == 1:
        denormals.set_float_control(before | denormals.FLUSH)
    run_schedule(context, worker)
    denormals.set_float_control(before)
    return 0
