"""Reductions: sum or mean (with elementwise ops before and after it), max, min, argmax, argmin.

The input is (outer, red, inner), reduced over the middle; rows of a matrix that is summed over its
rows may be farther apart than they are long. Each output is made by one worker, in an
order that depends on its place alone: sums run in float64, over pieces that start at the first
element of the reduced range (columns: four rows are added as a tree first), so results do not
depend on how the work is shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.extremes import make_extremes
from gpubp.backends.numba_cpu.kernels.lanes import make_add_eights
from gpubp.backends.numba_cpu.kernels.language import native, types
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR

_LANES = 8
SHORT = 8  # rows of which so many fit into a strip are short
FOLDED, ASIDE = 64, 128  # columns to which shorter rows are joined, and where their sums stand


def make_reduce(kind: Any) -> Any:
    """The reduce kernel for float32, float64 or int64 arithmetic."""
    load_i64 = low.load_i64
    load, store = low.make_load(kind), low.make_store(kind)
    load_u8, load_i32 = low.load_u8, low.load_i32
    integer = kind is types.int64
    Wide = np.int64 if integer else np.float64
    load_wide, store_wide = (
        (low.load_i64, low.store_i64) if integer else (low.load_f64, low.store_f64)
    )
    strip_load, _ = low.make_strip_access(kind)
    strip_load_wide, strip_store_wide = low.make_strip_access(
        types.int64 if integer else types.float64
    )
    C = CONSTRUCTOR[kind]
    size = low.ITEMSIZE[kind]
    strip, many = words.STRIP_BYTES // size, words.RED_MADE // size
    own = {types.float32: 3, types.float64: 4, types.int64: 2}[kind]
    add_eights = make_add_eights(kind)

    @native
    def run_chain(code, chain, bases, first, stop, tile, scratch):
        kernel = load_i64(code, words.RED_CHAIN_KERNEL)
        return low.call_kernel(kernel, code + 8 * chain, bases, first, stop, tile, scratch)

    @native(inline=True)
    def divisor(code):
        """What a sum is divided by: 1, or for a mean the number of its terms."""
        return Wide(load_i64(code, words.RED_RED) if load_i64(code, words.RED_MEAN) == 1 else 1)

    @native(inline=True)
    def rounded(total, by):
        """A sum (means are of floats), divided and rounded once."""
        return C(total) if integer else C(total / by)

    @native(inline=True)
    def item(source, dtype, i):
        """Element i; integers may be stored as bool or int32."""
        if integer and dtype == 0:
            return C(load_u8(source, i))
        if integer and dtype == 1:
            return C(load_i32(source, i))
        return load(source, i)

    @native
    def add_row(source, dtype, n, sums):
        """Add n elements to eight running sums, element i to sum i % 8."""
        whole = n - n % _LANES
        if dtype == own:
            add_eights(source, whole // _LANES, sums)
        else:
            for i in range(0, whole, _LANES):
                for lane in range(_LANES):
                    x = Wide(item(source, dtype, i + lane))
                    store_wide(sums, lane, load_wide(sums, lane) + x)
        for i in range(whole, n):
            lane = i - whole
            store_wide(sums, lane, load_wide(sums, lane) + Wide(item(source, dtype, i)))
        return 0

    @native(inline=True)
    def total_of(sums):
        """The eight running sums in order."""
        total = load_wide(sums, 0)
        for lane in range(1, _LANES):
            total += load_wide(sums, lane)
        return total

    @native
    def sum_of_made(row, n, sums):
        """The sum of a row that a prologue has written, or that lies in memory as it is."""
        for lane in range(_LANES):
            store_wide(sums, lane, Wide(0))
        add_row(row, own, n, sums)
        return total_of(sums)

    @native
    def short_rows(code, bases, first, count, out, scratch):
        """Outputs [first, first + count), whose rows a prologue makes many at a time."""
        red, prologue = load_i64(code, words.RED_RED), load_i64(code, words.RED_PROLOGUE)
        made, after = scratch + 64, scratch + 64 + words.RED_MADE
        together = many // red
        for j in range(0, count, together):
            rows = min(together, count - j)
            at = (first + j) * red
            run_chain(code, prologue, bases, at, at + rows * red, made - at * size, after)
            for q in range(rows):
                total = sum_of_made(made + q * red * size, red, scratch)
                store(out, j + q, rounded(total, divisor(code)))
        return 0

    @native
    def sum_of_row(code, bases, source, dtype, start, n, scratch):
        """The sum of elements [start, start + n) of the input."""
        sums, made, after = scratch, scratch + 64, scratch + 64 + words.RED_MADE
        for lane in range(_LANES):
            store_wide(sums, lane, Wide(0))
        prologue = load_i64(code, words.RED_PROLOGUE)
        width = 1 if dtype == 0 else (4 if dtype == 1 or dtype == 3 else 8)
        for first in range(0, n, many):
            count = min(many, n - first)
            if prologue != 0:
                at = start + first
                tile = made - at * size
                run_chain(code, prologue, bases, at, at + count, tile, after)
                add_row(made, own, count, sums)
            else:
                add_row(source + (start + first) * width, dtype, count, sums)
        return total_of(sums)

    @native
    def add_fours(source, step, rows, count, sums):
        """Add rows to the running sums of columns: four at a time as a tree, then in float64."""
        for r in range(0, rows, 4):
            a = source + r * step
            b, c, d = a + step, a + 2 * step, a + 3 * step
            for j in range(count):
                low_pair = strip_load(a, j) + strip_load(b, j)
                high_pair = strip_load(c, j) + strip_load(d, j)
                strip_store_wide(sums, j, strip_load_wide(sums, j) + Wide(low_pair + high_pair))
        return 0

    @native(inline=True)
    def joined(step):
        """How many rows are added side by side, as one; 0: not worth it."""
        return FOLDED // step if step * 2 <= FOLDED else 0

    @native
    def add_joined(source, step, rows, sums):
        """Add whole rows, several as one, to the sums aside; returns how many were added."""
        fold = joined(step)
        if fold == 0:
            return 0
        whole = rows - rows % (4 * fold)
        add_fours(source, fold * step * size, whole // fold, fold * step, sums + 8 * ASIDE)
        return whole

    @native
    def add_rows(top, step, i0, count, rows, most, sums):
        """Add columns [i0, i0 + count) of rows, of which `most` may be joined."""
        done = add_joined(top, step, most, sums)
        fours = (rows - done) // 4 * 4
        top += i0 * size
        add_fours(top + done * step * size, step * size, fours, count, sums)
        for q in range(done + fours, rows):
            row = top + q * step * size
            for j in range(count):
                total = strip_load_wide(sums, j) + Wide(strip_load(row, j))
                strip_store_wide(sums, j, total)
        return 0

    @native
    def add_aside(step, i0, count, sums):
        """What stands aside belongs to columns [i0, i0 + count)."""
        aside = sums + 8 * ASIDE
        for q in range(joined(step)):
            for j in range(count):
                x = load_wide(aside, q * step + i0 + j)
                store_wide(sums, j, load_wide(sums, j) + x)
        return 0

    @native
    def sum_columns(code, bases, source, dtype, o, i0, count, out, scratch):
        """Sums over the middle axis for columns [i0, i0 + count) of one outer index."""
        red, step = load_i64(code, words.RED_RED), load_i64(code, words.RED_STEP)
        sums = scratch
        made = scratch + 8 * words.RED_BLOCK
        after = made + words.RED_MADE
        prologue = load_i64(code, words.RED_PROLOGUE)
        width = 1 if dtype == 0 else (4 if dtype == 1 or dtype == 3 else 8)
        for j in range(count):
            store_wide(sums, j, Wide(0))
        for j in range(FOLDED if joined(step) > 0 else 0):
            store_wide(sums, ASIDE + j, Wide(0))
        start = 0
        if prologue == 0 and dtype == own:
            most = red if load_i64(code, words.RED_INNER) == step else 0
            add_rows(source + o * red * step * size, step, i0, count, red, most, sums)
            start = red
        whole = step * SHORT <= strip  # short rows are made several at a time, all columns
        together = many // step if prologue != 0 and whole else 1
        for r in range(start, red, together):
            at = (o * red + r) * step + (0 if together > 1 else i0)
            if prologue != 0:
                rows = min(together, red - r)
                stop = at + (rows * step if together > 1 else count)
                run_chain(code, prologue, bases, at, stop, made - at * size, after)
                add_rows(made, step, i0 if together > 1 else 0, count, rows, rows, sums)
            else:
                row = source + at * width
                for j in range(count):
                    store_wide(sums, j, load_wide(sums, j) + Wide(item(row, dtype, j)))
        add_aside(step, i0, count, sums)
        by = divisor(code)
        for j in range(count):
            store(out, j, rounded(load_wide(sums, j), by))
        return 0

    @native
    def sum_block(code, bases, source, dtype, first, count, out, scratch):
        """Outputs [first, first + count) of a sum, written to `out`."""
        red, inner = load_i64(code, words.RED_RED), load_i64(code, words.RED_INNER)
        if inner == 1 and load_i64(code, words.RED_PROLOGUE) != 0 and 0 < red <= strip // SHORT:
            return short_rows(code, bases, first, count, out, scratch)
        if inner == 1 and load_i64(code, words.RED_PROLOGUE) == 0 and dtype == own:
            for j in range(count):
                total = sum_of_made(source + (first + j) * red * size, red, scratch)
                store(out, j, rounded(total, divisor(code)))
            return 0
        if inner == 1:
            for j in range(count):
                start = (first + j) * red
                total = sum_of_row(code, bases, source, dtype, start, red, scratch)
                store(out, j, rounded(total, divisor(code)))
            return 0
        done = 0
        while done < count:
            o = (first + done) // inner
            i0 = (first + done) - o * inner
            some = min(inner - i0, count - done)
            at = out + done * size
            sum_columns(code, bases, source, dtype, o, i0, some, at, scratch)
            done += some
        return 0

    extreme_block = make_extremes(kind, item, own)

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        op = load_i64(code, words.RED_OP)
        per_row = load_i64(code, words.RED_PER_ROW)
        source = load_i64(bases, load_i64(code, words.RED_IN)) + load_i64(code, words.RED_IN + 1)
        dtype = load_i64(code, words.RED_IN_DTYPE)
        in_scratch = load_i64(code, words.RED_OUT_SCRATCH) == 1
        memory = 0
        if not in_scratch:
            memory = load_i64(bases, load_i64(code, words.RED_OUT))
            memory += load_i64(code, words.RED_OUT + 1)
        narrow = -1
        width = 8 if op >= 3 else size
        if integer and not in_scratch and load_i64(code, words.RED_OUT_DTYPE) < 2:
            narrow = load_i64(code, words.RED_OUT_DTYPE)
            width = 1 if narrow == 0 else 4
        block = words.RED_BLOCK
        tile_at, rest = scratch, scratch + 8 * words.RED_BLOCK
        for first in range(row0 * per_row, row1 * per_row, block):
            count = min(block, row1 * per_row - first)
            out = tile_at if in_scratch else memory + first * width
            if op == 0:
                sum_block(code, bases, source, dtype, first, count, out, rest)
            else:
                extreme_block(code, source, dtype, op, first, count, out, narrow)
            epilogue = load_i64(code, words.RED_EPILOGUE)
            if epilogue != 0:
                made = out - first * size
                run_chain(code, epilogue, bases, first, first + count, made, rest)
        return 0

    return kernel
