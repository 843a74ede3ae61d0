"""Softmax, log-softmax, and softmax cross-entropy with its gradient in one pass.

Formulas in `gpubp.ops.loss`. Row sums run in float64, in order.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import njit

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.fastmath import fast_functions
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR


def make_rowwise(kind: Any) -> SimpleNamespace:
    """Row kernels for float32 or float64."""
    load_i64, load_i32 = low.load_i64, low.load_i32
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    C = CONSTRUCTOR[kind]
    exp = fast_functions(kind).exp
    strip_load, strip_store = low.make_strip_access(kind)

    @njit(error_model="numpy", inline="always")
    def address(code, bases, at):
        return load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)

    @njit(error_model="numpy", inline="always")
    def row_max(x, n):
        top = load(x, 0)
        for j in range(1, n):
            v = load(x, j)
            top = v if v > top or v != v else top
        return top

    @njit(error_model="numpy", inline="always")
    def exponentials(x, n, top, out):
        """Write exp(x - top) to out; returns their sum."""
        for j in range(n):
            strip_store(out, j, exp(strip_load(x, j) - top))
        total = 0.0
        for j in range(n):
            total += np.float64(load(out, j))
        return total

    @njit(error_model="numpy")
    def softmax(code, bases, row0, row1, tile, scratch):
        """Code: columns, rows a row of work, 1 for log_softmax, input, output."""
        n, per_row, logarithm = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
        for r in range(row0 * per_row, row1 * per_row):
            x = address(code, bases, 3) + r * n * size
            y = address(code, bases, 5) + r * n * size
            top = row_max(x, n)
            total = exponentials(x, n, top, y)
            if logarithm == 1:
                shift = C(math.log(total))
                for j in range(n):
                    store(y, j, (load(x, j) - top) - shift)
            else:
                scale = C(1.0 / total)
                for j in range(n):
                    store(y, j, load(y, j) * scale)
        return 0

    @njit(error_model="numpy")
    def shifted_exponentials(x, rows, n, out):
        """exp(x - the row's maximum) for some rows: one loop over all of them, for short rows."""
        for r in range(rows):
            top = row_max(x + r * n * size, n)
            for j in range(r * n, (r + 1) * n):
                store(out, j, load(x, j) - top)
        for i in range(rows * n):
            strip_store(out, i, exp(strip_load(out, i)))
        return 0

    @njit(error_model="numpy")
    def one_row(code, bases, r, x, e):
        """Loss and gradient of row r from its logits x and their shifted exponentials e."""
        n, what, wide = load_i64(code, 0), load_i64(code, 2), load_i64(code, 3) == 8
        labels = address(code, bases, 8)
        label = load_i64(labels, r) if wide else np.int64(load_i32(labels, r))
        valid = 0 <= label < n
        total = 0.0
        for j in range(n):
            total += np.float64(load(e, j))
        if what != 2:
            picked = load(x, label) - row_max(x, n) if valid else C(np.nan)
            store(address(code, bases, 12), r, C(math.log(total)) - picked)
        if what >= 2:
            g = load(address(code, bases, 10), r * load_i64(code, 4))
            out = address(code, bases, 14) + r * n * size
            scale = C(1.0 / total) if valid else C(0)
            for j in range(n):
                strip_store(out, j, strip_load(e, j) * scale * g)
            if valid:
                store(out, label, (load(e, label) * scale - C(1)) * g)
        return 0 if valid else 1

    @njit(error_model="numpy")
    def cross_entropy(code, bases, row0, row1, tile, scratch):
        """Code: columns, rows a row of work, what to write (1 loss, 2 gradient, 3 both), label
        bytes, stride of the loss cotangent, rows a block, then logits, labels, cotangent, loss,
        gradient.

        A label out of range makes the loss NaN and a zero gradient; the status is then 1.
        """
        n, per_row, block = load_i64(code, 0), load_i64(code, 1), load_i64(code, 5)
        status = 0
        stop = row1 * per_row
        for first in range(row0 * per_row, stop, block):
            x = address(code, bases, 6) + first * n * size
            rows = min(block, stop - first)
            shifted_exponentials(x, rows, n, scratch)
            for r in range(rows):
                at = r * n * size
                if one_row(code, bases, first + r, x + at, scratch + at) != 0:
                    status = 1
        return status

    return SimpleNamespace(softmax=softmax, cross_entropy=cross_entropy)
