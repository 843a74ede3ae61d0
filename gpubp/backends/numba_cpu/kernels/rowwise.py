"""Softmax, log-softmax, and softmax cross-entropy with its gradient in one pass.

Formulas in `gpubp.ops.loss`. Row sums run in float64: of softmax in eight lanes, which are then
added in order; of cross-entropy in order.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.fastmath import fast_functions
from gpubp.backends.numba_cpu.kernels.lanes import make_add_eights, make_extreme_of_eights
from gpubp.backends.numba_cpu.kernels.language import native, types
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR
from gpubp.backends.numba_cpu.kernels.transpose import make_transpose
from gpubp.backends.numba_cpu.target import lanes


def make_rowwise(kind: Any) -> SimpleNamespace:
    """Row kernels for float32 or float64."""
    load_i64, load_i32 = low.load_i64, low.load_i32
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    C = CONSTRUCTOR[kind]
    fast = fast_functions(kind)
    exp, log = fast.exp_below, fast.log_of_sum
    width, transpose = lanes(kind), make_transpose(kind)
    wide_load, wide_store = low.make_strip_access(types.float64)
    load_f64 = low.load_f64
    strip_load, strip_store = low.make_strip_access(kind)
    add_eights, largest = make_add_eights(kind), make_extreme_of_eights(kind, largest=True)

    @native(inline=True)
    def address(code, bases, at):
        return load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)

    @native(inline=True)
    def row_max(x, n):
        whole = n // 8
        top = largest(x, whole) if whole > 0 else load(x, 0)
        for j in range(8 * whole, n):
            v = load(x, j)
            top = v if v > top or v != v else top
        return top

    @native(inline=True)
    def exponentials(x, n, top, out, sums):
        """Write exp(x - top) to out; returns their sum."""
        for j in range(n):
            strip_store(out, j, exp(strip_load(x, j) - top))
        for lane in range(8):
            wide_store(sums, lane, 0.0)
        add_eights(out, n // 8, sums)
        total = 0.0
        for lane in range(8):
            total += load_f64(sums, lane)
        for j in range(n - n % 8, n):
            total += np.float64(load(out, j))
        return total

    @native
    def softmax(code, bases, row0, row1, tile, scratch):
        """Code: columns, rows a row of work, 1 for log_softmax, input, output."""
        n, per_row, logarithm = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
        for r in range(row0 * per_row, row1 * per_row):
            x = address(code, bases, 3) + r * n * size
            y = address(code, bases, 5) + r * n * size
            top = row_max(x, n)
            total = exponentials(x, n, top, y, scratch)
            if logarithm == 1:
                shift = C(math.log(total))
                for j in range(n):
                    store(y, j, (load(x, j) - top) - shift)
            else:
                scale = C(1.0 / total)
                for j in range(n):
                    store(y, j, load(y, j) * scale)
        return 0

    @native
    def turn(x, rows, n, out):
        """Copy (rows, n) to (n, rows)."""
        whole, blocks = rows - rows % width, n - n % width
        for r in range(0, whole, width):
            for j in range(0, blocks, width):
                at = out + (j * rows + r) * size
                transpose(x + (r * n + j) * size, n * size, at, rows * size)
            for i in range(r, r + width):
                for j in range(blocks, n):
                    store(out, j * rows + i, load(x, i * n + j))
        for i in range(whole, rows):
            for j in range(n):
                store(out, j * rows + i, load(x, i * n + j))
        return 0

    @native
    def maxima(e, rows, n, top):
        """The largest of each column of e (n, rows); NaN if there is one."""
        for r in range(rows):
            strip_store(top, r, strip_load(e, r))
        for j in range(1, n):
            line = e + j * rows * size
            for r in range(rows):
                v, t = strip_load(line, r), strip_load(top, r)
                strip_store(top, r, v if v > t or v != v else t)
        return 0

    @native
    def exponentials_and_sums(e, rows, n, top, sums):
        """e <- exp(e - top), and the sum of each column."""
        for r in range(rows):
            wide_store(sums, r, 0.0)
        for j in range(n):
            line = e + j * rows * size
            for r in range(rows):
                strip_store(line, r, exp(strip_load(line, r) - strip_load(top, r)))
            for r in range(rows):
                wide_store(sums, r, wide_load(sums, r) + np.float64(strip_load(line, r)))
        return 0

    @native
    def scale(code, bases, first, rows, e, scales, sums):
        """e <- e / sum times the row's cotangent."""
        n = load_i64(code, 0)
        cotangents, step = address(code, bases, 10), load_i64(code, 4)
        for r in range(rows):
            g = load(cotangents, (first + r) * step)
            store(scales, r, C(1.0 / load_f64(sums, r)) * g)
        for j in range(n):
            line = e + j * rows * size
            for r in range(rows):
                strip_store(line, r, strip_load(line, r) * strip_load(scales, r))
        return 0

    @native
    def finish_rows(code, bases, first, rows, x, top, logs):
        """The parts that depend on the label; returns 1 if one is out of range.

        Loss: log(sum) + max - (the label's logit). Gradient: less the cotangent at the label.
        """
        n, what, wide = load_i64(code, 0), load_i64(code, 2), load_i64(code, 3) == 8
        labels, losses = address(code, bases, 8), address(code, bases, 12)
        cotangents, step = address(code, bases, 10), load_i64(code, 4)
        gradients = address(code, bases, 14)
        status = 0
        for r in range(rows):
            i = first + r
            label = load_i64(labels, i) if wide else np.int64(load_i32(labels, i))
            valid = 0 <= label < n
            status = status if valid else 1
            if what != 2:
                picked = load(x, r * n + label) - load(top, r) if valid else C(np.nan)
                store(losses, i, C(load_f64(logs, r)) - picked)
            if what >= 2 and valid:
                at = i * n + label
                store(gradients, at, load(gradients, at) - load(cotangents, i * step))
            elif what >= 2:
                for j in range(n):
                    store(gradients, i * n + j, C(0))
        return status

    @native
    def cross_entropy(code, bases, row0, row1, tile, scratch):
        """Code: columns, rows a row of work, what to write (1 loss, 2 gradient, 3 both), label
        bytes, stride of the loss cotangent, rows a block, then logits, labels, cotangent, loss,
        gradient.

        A block of rows is turned, so that loops run over rows, and short rows are no loss. A label
        out of range makes the loss NaN and a zero gradient; the status is then 1.
        """
        n, per_row, block = load_i64(code, 0), load_i64(code, 1), load_i64(code, 5)
        what = load_i64(code, 2)
        sums, logs, top = scratch, scratch + 8 * block, scratch + 16 * block
        scales = top + block * size
        e = scales + block * size
        status = 0
        stop = row1 * per_row
        for first in range(row0 * per_row, stop, block):
            x = address(code, bases, 6) + first * n * size
            rows = min(block, stop - first)
            turn(x, rows, n, e)
            maxima(e, rows, n, top)
            exponentials_and_sums(e, rows, n, top, sums)
            if what != 2:
                for r in range(rows):
                    wide_store(logs, r, log(wide_load(sums, r)))
            if what >= 2:
                scale(code, bases, first, rows, e, scales, sums)
                turn(e, n, rows, address(code, bases, 14) + first * n * size)
            status |= finish_rows(code, bases, first, rows, x, top, logs)
        return status

    return SimpleNamespace(softmax=softmax, cross_entropy=cross_entropy)
