"""The two peak rates of the CPU kernels: how fast one worker computes, and how fast it moves bytes.

In goes a function that measures the parts of a program, out come two rates. Both are reached by
the backend's own kernels on data that stay in cache, so they bound what its parts can do here;
they are no figures of a data sheet. The programs are written down op by op: a backend knows
programs, not the pipeline that makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.base import Feed, Peak
from gpubp.compiler.parts import Buffer, Compute, Instruction, Operand, Part
from gpubp.compiler.program import Program
from gpubp.core.strided import c_strides
from gpubp.ops.spec import FLOAT32, SPECS

SIDE = 192  # three matrices, 442 kB: they fit most second-level caches; edges and calls are hidden
COUNTS = (2048, 16384)  # three arrays, 24 kB and 197 kB: first-level and second-level cache
SUMMED = 1 << 20  # elements in one timed run: entering the run loop must not show
ROUNDS = 3

# (program, its feed, runs of each part) -> seconds of each part, at best.
Measure = Callable[[Program, Feed, int], list[float]]


def measure_peak(measure: Measure) -> Peak:
    """Both rates, within a few hundredths of a second.

    `flops` is the rate of a float32 product of two SIDE x SIDE matrices, `bytes` the rate of the
    faster one of two float32 sums, COUNTS elements long; each is the best of several short runs.
    """
    product = _program("matmul", (SIDE, SIDE))
    sums = {count: _program("add", (count,)) for count in COUNTS}
    return Peak(
        flops=product.flops / _seconds(measure, product, 3),
        bytes=max(p.bytes_moved / _seconds(measure, p, SUMMED // n) for n, p in sums.items()),
    )


def _seconds(measure: Measure, program: Program, repeats: int) -> float:
    inputs = [np.ones(shape, dtype) for shape, dtype in program.input_types]
    outputs = [np.empty((1, *shape), dtype) for shape, dtype in program.output_types]
    feed = Feed(inputs, np.zeros(0, np.int64), [outputs])
    return min(measure(program, feed, repeats)[0] for _ in range(ROUNDS))


def _program(op: str, shape: tuple[int, ...]) -> Program:
    """One op on two float32 arrays of one shape."""
    types: list[tuple[tuple[int, ...], np.dtype[Any]]] = [(shape, FLOAT32)]
    places = [("a", "input", 0), ("b", "input", 1), ("c", "output", 0)]
    size = math.prod(shape)
    buffers = [Buffer(name, kind, FLOAT32, size, None, at) for name, kind, at in places]
    a, b, c = (Operand(i, FLOAT32, 0, shape, c_strides(shape), i, 0) for i in range(3))
    body = [Compute(SPECS[op], (0, 1), {}, shape, FLOAT32)]
    kernel, anchor = ("matmul", 0) if op == "matmul" else ("elementwise", None)
    part = Part(kernel, body, anchor, [a, b], [(2, c)], shape[0])
    moved = part.bytes_moved
    return Program(buffers, [Instruction([part])], types * 2, types, (), moved, 1)
