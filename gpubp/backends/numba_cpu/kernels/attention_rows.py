"""What attention does with a row of scores: its largest, exponentials, gradients.

Rows of scratch are whole vectors long. A row's first `count` scores count; those after them, up to
`stop`, are taken for hidden: their weights and gradients are stored as 0. In float32 on LLVM
vectors; sums of exponentials are those of lanes, which are then added pairwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.fastmath import fast_functions
from gpubp.backends.numba_cpu.kernels.lanes import Lanes
from gpubp.backends.numba_cpu.kernels.language import intrinsic, native, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I64
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath


def make_rows(kind: Any) -> SimpleNamespace:
    """`scale_row(x, count, stop, scale)`: multiply, hide what is behind; returns the largest.
    `exponentials(x, stop, top)`: x <- exp(x - top); returns the sum.
    `gradients(p, d, count, stop, scale, factor, sums, delta)`: p <- exp(p scale - sums), then
    d <- p (d - delta) factor.
    """
    return _vectors() if kind is types.float32 else _scalars(kind)


def _scalars(kind: Any) -> SimpleNamespace:
    load, store = low.make_strip_access(kind)
    C, exp = CONSTRUCTOR[kind], fast_functions(kind).exp_below
    low_load = low.make_load(kind)

    @native
    def scale_row(x, count, stop, scale):
        for j in range(count):
            store(x, j, load(x, j) * scale)
        for j in range(count, stop):
            store(x, j, C(-math.inf))
        top = C(-math.inf)
        for j in range(count):
            v = low_load(x, j)
            top = v if v > top else top
        return top

    @native
    def exponentials(x, stop, top):
        for j in range(stop):
            store(x, j, exp(load(x, j) - top))
        total = C(0)
        for j in range(stop):
            total += low_load(x, j)
        return total

    @native
    def gradients(p, d, count, stop, scale, factor, sums, delta):
        for j in range(count):
            weight = exp(load(p, j) * scale - sums)
            store(p, j, weight)
            store(d, j, weight * (load(d, j) - delta) * factor)
        for j in range(count, stop):
            store(p, j, C(0))
            store(d, j, C(0))
        return 0

    return SimpleNamespace(scale_row=scale_row, exponentials=exponentials, gradients=gradients)


def _vectors() -> SimpleNamespace:
    made = _scale_row(), _exponentials(), _gradients()
    return SimpleNamespace(scale_row=made[0], exponentials=made[1], gradients=made[2])


def _round_up(some: Lanes, count: Any) -> Any:
    """To whole vectors; their width is a power of two."""
    up = some.builder.add(count, I64(some.width - 1))
    return some.builder.and_(up, I64(-some.width))


def _walk(some: Lanes, stop: Any) -> Any:
    """A loop over whole vectors up to `stop`."""
    return low.counted(some.builder, some.builder.sdiv(_round_up(some, stop), I64(some.width)))


def _scale_row() -> Any:
    kind = types.float32

    @intrinsic
    def scale_row(_typing: Any, x: Any, count: Any, stop: Any, scale: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            some = Lanes(builder, kind)
            factor, none = some.splat(args[3]), some.constant(-math.inf)
            held = low.alloca_once(builder, some.vector)
            builder.store(none, held)
            with _walk(some, args[2]) as turn:
                first = builder.mul(turn, I64(some.width))
                at = builder.add(args[0], builder.mul(first, I64(4)))
                value = builder.fmul(some.load(at), factor)
                value = builder.select(some.mask(builder.sub(args[1], first)), value, none)
                some.store(value, at)
                builder.store(_larger(builder, value, builder.load(held)), held)
            return _joined(some, builder.load(held), lambda a, b: _larger(builder, a, b))

        return kind(types.int64, types.int64, types.int64, kind), codegen

    return scale_row


def _exponentials() -> Any:
    kind = types.float32

    @intrinsic
    def exponentials(_typing: Any, x: Any, stop: Any, top: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            some = Lanes(builder, kind)
            top = some.splat(args[2])
            held = low.alloca_once(builder, some.vector)
            builder.store(some.constant(0.0), held)
            with _walk(some, args[1]) as turn:
                at = builder.add(args[0], builder.mul(turn, I64(4 * some.width)))
                lower = builder.fsub(some.load(at), top)
                value = VectorMath(builder, some.vector).exp_below(lower)
                some.store(value, at)
                builder.store(builder.fadd(builder.load(held), value), held)
            return _joined(some, builder.load(held), builder.fadd)

        return kind(types.int64, types.int64, kind), codegen

    return exponentials


def _gradients() -> Any:
    kind = types.float32

    def make(_typing: Any, *_: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            some = Lanes(builder, kind)
            math_, none = VectorMath(builder, some.vector), some.constant(0.0)
            scale, factor, sums, delta = (some.splat(a) for a in args[4:])
            with _walk(some, args[2]) as turn:
                first = builder.mul(turn, I64(some.width))
                p, d = (builder.add(a, builder.mul(first, I64(4))) for a in args[:2])
                seen = some.mask(builder.sub(args[2], first))
                score = builder.fsub(builder.fmul(some.load(p), scale), sums)
                weight = builder.select(seen, math_.exp_below(score), none)
                some.store(weight, p)
                slope = builder.fmul(weight, builder.fsub(some.load(d), delta))
                some.store(builder.select(seen, builder.fmul(slope, factor), none), d)
            done = _round_up(some, args[2])
            with _walk(some, builder.sub(args[3], done)) as turn:
                at = builder.add(done, builder.mul(turn, I64(some.width)))
                for start in args[:2]:
                    some.store(none, builder.add(start, builder.mul(at, I64(4))))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, *[kind] * 4), codegen

    return intrinsic(make)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _joined(some: Lanes, value: Any, join: Callable[[Any, Any], Any]) -> Any:
    """One number of a vector's lanes, pairwise."""
    size = some.width // 2
    while size:
        other = some.turned(value, size)
        value = join(value, other)
        size //= 2
    return some.builder.extract_element(value, low.I32(0))
