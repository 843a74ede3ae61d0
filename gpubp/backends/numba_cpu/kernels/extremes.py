"""Extremes along an axis: max, min, argmax and argmin, for `reduce`."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.lanes import make_extreme_of_eights
from gpubp.backends.numba_cpu.kernels.language import native


def make_extremes(kind: Any, item: Any, own: int) -> Any:
    """`extreme_block(code, source, dtype, op, first, count, out, narrow)`.

    Args:
        kind: of the arithmetic.
        item: `item(source, dtype, i)`, element i as one of the kind.
        own: the code of the kind's dtype.
    """
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    largest, least = (make_extreme_of_eights(kind, top) for top in (True, False))

    @native
    def extreme(code, source, dtype, which, op):
        """(value, position) of output `which` for max, min, argmax, argmin."""
        red, inner = load_i64(code, words.RED_RED), load_i64(code, words.RED_INNER)
        o = which // inner
        at = o * red * inner + (which - o * inner)
        best, where = item(source, dtype, at), 0
        largest = op == 1 or op == 3
        for r in range(1, red):
            x = item(source, dtype, at + r * inner)
            better = x > best if largest else x < best
            if (better or x != x) and best == best:
                best, where = x, r
        return best, where

    @native
    def extreme_row(source, n, op):
        """The largest (op 1) or least of n >= 8 elements of the kernel's own type."""
        whole = n // 8
        best = largest(source, whole) if op == 1 else least(source, whole)
        for i in range(8 * whole, n):
            x = load(source, i)
            better = x > best if op == 1 else x < best
            best = x if better or x != x else best
        return best

    @native
    def extreme_block(code, source, dtype, op, first, count, out, narrow):
        """Outputs [first, first + count) of max, min, argmax or argmin.

        `narrow`: the dtype code of an output narrower than the arithmetic (bool, int32), else -1.
        """
        red = load_i64(code, words.RED_RED)
        if op < 3 and load_i64(code, words.RED_INNER) == 1 and red >= 8 and dtype == own:
            for j in range(count):
                store(out, j, extreme_row(source + (first + j) * red * size, red, op))
            return 0
        for j in range(count):
            best, where = extreme(code, source, dtype, first + j, op)
            if op >= 3:
                store_i64(out, j, where)
            elif narrow == 0:
                low.store_u8(out, j, np.uint8(best))
            elif narrow == 1:
                low.store_i32(out, j, np.int32(best))
            else:
                store(out, j, best)
        return 0

    return extreme_block
