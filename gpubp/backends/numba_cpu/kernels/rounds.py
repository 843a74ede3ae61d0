"""Loops in a program: the parts of a body, round after round, by one worker for its own rows.

The body has a table of addresses of its own, in the worker's scratch, which is filled in anew for
each round: what stands still, what moves on by an element, and carries, of which two copies take
turns where not all are kept.
"""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.move import copy_bytes

load_i64, store_i64, load_u8 = low.load_i64, low.store_i64, low.load_u8
L, A, R, C = words.LOOP.at, words.ADDRESS.at, words.ROUND_RECORD.at, words.COPIED.at
ADDRESS_BYTES, RECORD_BYTES = 8 * len(words.ADDRESS), 8 * len(words.ROUND_RECORD)
COPIED_BYTES = 8 * len(words.COPIED)


@native(inline=True)
def place(bases, buffer, offset):
    """The address of a place; of buffer -1, the offset itself."""
    return offset if buffer < 0 else load_i64(bases, buffer) + offset


@native
def fill(code, bases, table, t, turn):
    """The body's table of addresses for element t; `turn`: of odd rounds 1."""
    entry = code + 8 * load_i64(code, L.buffers)
    for b in range(load_i64(code, L.many_buffers)):
        other = load_i64(entry, A.other)
        if other != 0 and turn == 1:
            store_i64(table, b, other)
        else:
            start = place(bases, load_i64(entry, A.place), load_i64(entry, A.place + 1))
            store_i64(table, b, start + t * load_i64(entry, A.step))
        entry += ADDRESS_BYTES
    return 0


@native
def copy_rows(entry, many, bases, row0, row1, turn):
    """Rows of carries, from where they are to where they belong."""
    for _ in range(many):
        nbytes = load_i64(entry, C.bytes)
        source = place(bases, load_i64(entry, C.source), load_i64(entry, C.source + 1))
        if turn == 1 and load_i64(entry, C.other) != 0:
            source = load_i64(entry, C.other)
        target = place(bases, load_i64(entry, C.target), load_i64(entry, C.target + 1))
        copy_bytes(source + row0 * nbytes, target + row0 * nbytes, (row1 - row0) * nbytes)
        entry += COPIED_BYTES
    return 0


@native
def run_round(code, table, row0, row1, scratch, later):
    """The parts of the body, one after the other; `later`: of all rounds but the first 1."""
    by_rows = load_i64(code, L.by_rows)
    record = code + 8 * load_i64(code, L.records)
    for _ in range(load_i64(code, L.many_records)):
        first, stop = row0, row1
        if by_rows == 0:
            first, stop = np.int64(0), max(load_i64(record, R.rows), 1)
        kernel, start = load_i64(record, R.kernel), code + 8 * load_i64(record, R.code)
        kept = later * load_i64(record, R.keeps)
        at = scratch + load_i64(record, R.scratch)
        failed = low.call_kernel(kernel, start, table, first, stop, kept, at)
        if failed != 0:
            return failed
        record += RECORD_BYTES
    return np.int64(0)


@native
def rounds(code, bases, row0, row1, tile, scratch):
    """Code: see `words.LOOP`."""
    length, until = load_i64(code, L.rounds), load_i64(code, L.until)
    entry, many = code + 8 * load_i64(code, L.before), load_i64(code, L.many_before)
    copy_rows(entry, many, bases, row0, row1, 0)
    done = np.int64(0)
    while done < length:
        t = length - 1 - done if load_i64(code, L.reverse) == 1 else done
        fill(code, bases, scratch, t, done & 1)
        if until >= 0 and load_u8(load_i64(scratch, until), 0) == 0:
            break
        later = np.int64(done > 0)
        failed = run_round(code, scratch, row0, row1, scratch + load_i64(code, L.inner), later)
        if failed != 0:
            return failed
        done += 1
    entry, many = code + 8 * load_i64(code, L.after), load_i64(code, L.many_after)
    copy_rows(entry, many, bases, row0, row1, done & 1)
    return np.int64(0)
