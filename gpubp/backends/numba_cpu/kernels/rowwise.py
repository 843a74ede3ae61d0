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
    def cross_entropy(code, bases, row0, row1, tile, scratch):
        """Code: columns, rows a row of work, what to write (1 loss, 2 gradient, 3 both), label
        bytes, stride of the loss cotangent, then logits, labels, cotangent, loss, gradient.

        A label out of range makes the loss NaN and a zero gradient; the status is then 1.
        """
        n, per_row, what = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
        wide, g_step = load_i64(code, 3) == 8, load_i64(code, 4)
        status = 0
        for r in range(row0 * per_row, row1 * per_row):
            x = address(code, bases, 5) + r * n * size
            labels = address(code, bases, 7)
            label = load_i64(labels, r) if wide else np.int64(load_i32(labels, r))
            valid = 0 <= label < n
            status = status if valid else 1
            top = row_max(x, n)
            out = address(code, bases, 13) + r * n * size if what >= 2 else scratch
            total = exponentials(x, n, top, out)
            if what != 2:
                picked = load(x, label) if valid else C(np.nan)
                loss = C(math.log(total)) - (picked - top)
                store(address(code, bases, 11), r, loss)
            if what >= 2:
                g = load(address(code, bases, 9), r * g_step)
                scale = C(1.0 / total) if valid else C(0)
                for j in range(n):
                    store(out, j, load(out, j) * scale * g)
                if valid:
                    p = C(exp(load(x, label) - top)) * scale
                    store(out, label, (p - C(1)) * g)
        return status

    return SimpleNamespace(softmax=softmax, cross_entropy=cross_entropy)
