"""Operands of elementwise chains that do not lie as their results do: copied into strips.

Any dtype and strides; rows that repeat, and rows of one number each, have ways of their own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native, types
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR

_SHORT = 8  # rows of fewer elements are read many at a time


def make_strided(kind: Any) -> SimpleNamespace:
    """`converted`, `gather` and `repeat` for one arithmetic type."""
    C = CONSTRUCTOR[kind]
    load, store = low.make_load(kind), low.make_store(kind)
    strip_load, strip_store = low.make_strip_access(kind)
    size = low.ITEMSIZE[kind]
    load_i64, load_i32, load_u8 = low.load_i64, low.load_i32, low.load_u8
    load_f32, load_f64 = low.load_f32, low.load_f64
    own = {types.float32: 3, types.float64: 4, types.int64: 2}[kind]

    @native
    def converted(source, dtype, i):
        """Element i of an array of some dtype."""
        if dtype == 0:
            return C(load_u8(source, i))
        if dtype == 1:
            return C(load_i32(source, i))
        if dtype == 2:
            return C(load_i64(source, i))
        if dtype == 3:
            return C(load_f32(source, i))
        return C(load_f64(source, i))

    @native
    def read(source, dtype, stride, out, at, n):
        """Copy n elements of some dtype and stride into a strip."""
        if dtype == own and stride == 1:
            for i in range(n):
                strip_store(out, at + i, strip_load(source, i))
        elif stride == 0:  # one number for a row, such as its mean
            value = converted(source, dtype, 0)
            for i in range(n):
                strip_store(out, at + i, value)
        elif dtype == own:
            for i in range(n):
                store(out, at + i, load(source, i * stride))
        else:
            for i in range(n):
                store(out, at + i, converted(source, dtype, i * stride))
        return 0

    @native
    def read_rows(source, dtype, steps, rows, inner, out, at):
        """Copy rows of few elements into a strip, one column after the other.

        `steps`: where the strides of the two innermost axes stand.
        """
        down, across = load_i64(steps, 0), load_i64(steps, 1)
        for j in range(inner):
            if dtype == own and down == 1:
                column = source + j * across * size
                for i in range(rows):
                    strip_store(out, at + i * inner + j, strip_load(column, i))
            else:
                for i in range(rows):
                    value = converted(source, dtype, i * down + j * across)
                    store(out, at + i * inner + j, value)
        return 0

    @native
    def spread_rows(source, down, rows, inner, out, at):
        """Fill rows of a strip with one number each, such as their means."""
        for i in range(rows):
            value = load(source, i * down)
            for j in range(inner):
                strip_store(out, at + i * inner + j, value)
        return 0

    @native
    def gather(chain, x, base, first, n, out):
        """Fill a strip from a strided operand, one run of the innermost axis after the other."""
        ndim = load_i64(chain, words.CHAIN_NDIM)
        inner = load_i64(chain, words.CHAIN_DIMS + ndim - 1)
        step = load_i64(x, words.INPUT_STRIDES + ndim - 1)
        item = load_i64(x, words.INPUT_SIZE)
        dtype = load_i64(x, words.INPUT_DTYPE)
        done = 0
        while done < n:
            outer = (first + done) // inner
            within = (first + done) - outer * inner
            count = min(inner - within, n - done)
            offset = within * step
            rows = 0  # whole ones that are short, or of one number each: side by side
            spread = step == 0 and dtype == own
            if (inner < _SHORT or spread) and ndim > 1 and within == 0:
                below = load_i64(chain, words.CHAIN_DIMS + ndim - 2)
                rows = min(below - outer % below, (n - done) // inner)
            for d in range(ndim - 2, -1, -1):
                dim = load_i64(chain, words.CHAIN_DIMS + d)
                offset += (outer % dim) * load_i64(x, words.INPUT_STRIDES + d)
                outer //= dim
            if rows > 1 and spread:
                down = load_i64(x, words.INPUT_STRIDES + ndim - 2)
                spread_rows(base + offset * item, down, rows, inner, out, done)
                count = rows * inner
            elif rows > 1:
                steps = x + 8 * (words.INPUT_STRIDES + ndim - 2)
                read_rows(base + offset * item, dtype, steps, rows, inner, out, done)
                count = rows * inner
            else:
                read(base + offset * item, dtype, step, out, done, count)
            done += count
        return 0

    @native
    def repeat(chain, x, base, first, n, out):
        """Fill a strip with the one row of an operand, over and over: twice as many each time."""
        row = load_i64(chain, words.CHAIN_DIMS + load_i64(chain, words.CHAIN_NDIM) - 1)
        done = min(row, n)
        gather(chain, x, base, first, done, out)
        while done < n:
            count = min(done, n - done)
            for i in range(count):
                strip_store(out, done + i, strip_load(out, i))
            done += count
        return 0

    return SimpleNamespace(converted=converted, gather=gather, repeat=repeat)
