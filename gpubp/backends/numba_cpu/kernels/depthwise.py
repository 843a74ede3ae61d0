"""Runs of a depthwise convolution: each channel has a filter of its own, and lanes are channels.

Four results at a time share the load of a weight; each is one chain of multiply-adds over the taps.
A weight's gradient over a line is four such chains, added at the line's end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.lanes import Lanes
from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I64
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath

_TOGETHER = 4


class _Emitter:
    """Loops over channels, vector by vector; the last ones may not fill one."""

    def __init__(self, builder: Any, kind: Any) -> None:
        self.builder, self.lanes = builder, Lanes(builder, kind)
        self.math = VectorMath(builder, self.lanes.vector)

    def channels(self, count: Any, body: Callable[[Any, Any], None]) -> None:
        """`body` is told the distance in bytes of a vector of channels, and which lanes exist."""
        builder, width = self.builder, self.lanes.width
        block = I64(width * self.lanes.item)
        blocks, rest = builder.sdiv(count, I64(width)), builder.srem(count, I64(width))
        with low.counted(builder, blocks) as j:
            body(builder.mul(j, block), None)
        with builder.if_then(builder.icmp_signed("!=", rest, I64(0))):
            body(builder.mul(blocks, block), (self.lanes.mask(rest), rest))

    def zeros(self, count: int) -> list[Any]:
        """Places for sums that begin with 0."""
        sums = [low.alloca_once(self.builder, self.lanes.vector) for _ in range(count)]
        for total in sums:
            self.builder.store(self.lanes.constant(0.0), total)
        return sums

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """total + a b, rounded once where the CPU can."""
        self.builder.store(self.math.fma(a, b, self.builder.load(total)), total)

    def start(self, starts: Any, tap: Any) -> Any:
        """Where a tap is, in bytes from a window's start."""
        pointer = self.builder.inttoptr(starts, I64.as_pointer())
        return self.builder.load(self.builder.gep(pointer, [tap]))

    def at(self, base: Any, *steps: tuple[Any, Any]) -> Any:
        """base + the sum of counts times steps."""
        for count, step in steps:
            base = self.builder.add(base, self.builder.mul(count, step))
        return base


def make_results(kind: Any) -> Any:
    """`results(out, out_step, x, x_step, w, w_step, taps, starts, count, channels)`.

    `count` results, `out_step` bytes apart, whose windows begin `x_step` bytes apart; the weights
    of a tap are `w_step` bytes from those of the one before.
    """

    @intrinsic
    def results(
        _typing: Any,
        out: Any,
        out_step: Any,
        x: Any,
        x_step: Any,
        w: Any,
        w_step: Any,
        taps: Any,
        starts: Any,
        count: Any,
        channels: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            emitter = _Emitter(builder, kind)
            lanes = emitter.lanes
            out, out_step, x, x_step, w, w_step, taps, starts, count, channels = args

            def some_results(first: Any, together: int, at: Any, some: Any) -> None:
                sums = emitter.zeros(together)
                with low.counted(builder, taps) as t:
                    weight = lanes.load(builder.add(emitter.at(w, (t, w_step)), at), some)
                    here = builder.add(builder.add(x, at), emitter.start(starts, t))
                    for q, total in enumerate(sums):
                        number = builder.add(first, I64(q))
                        value = lanes.load(emitter.at(here, (number, x_step)), some)
                        emitter.add_product(total, value, weight)
                for q, total in enumerate(sums):
                    number = builder.add(first, I64(q))
                    to = builder.add(emitter.at(out, (number, out_step)), at)
                    lanes.store(builder.load(total), to, some)

            def body(at: Any, some: Any) -> None:
                whole = builder.sdiv(count, I64(_TOGETHER))
                done = builder.mul(whole, I64(_TOGETHER))
                with low.counted(builder, whole) as i:
                    some_results(builder.mul(i, I64(_TOGETHER)), _TOGETHER, at, some)
                with low.counted(builder, builder.sub(count, done)) as i:
                    some_results(builder.add(done, i), 1, at, some)

            emitter.channels(channels, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return results


def make_gradients(kind: Any) -> Any:
    """`gradients(out, out_step, x, x_step, dy, dy_step, taps, starts, count, channels)`.

    Adds to the weights' gradients, `out_step` bytes from tap to tap, what `count` cotangents of a
    line give, `dy_step` bytes apart.
    """

    @intrinsic
    def gradients(
        _typing: Any,
        out: Any,
        out_step: Any,
        x: Any,
        x_step: Any,
        dy: Any,
        dy_step: Any,
        taps: Any,
        starts: Any,
        count: Any,
        channels: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            emitter = _Emitter(builder, kind)
            lanes = emitter.lanes
            out, out_step, x, x_step, dy, dy_step, taps, starts, count, channels = args

            def add(total: Any, number: Any, here: Any, at: Any, some: Any) -> None:
                value = lanes.load(emitter.at(here, (number, x_step)), some)
                cotangent = lanes.load(builder.add(emitter.at(dy, (number, dy_step)), at), some)
                emitter.add_product(total, value, cotangent)

            def body(at: Any, some: Any) -> None:
                whole = builder.sdiv(count, I64(_TOGETHER))
                done = builder.mul(whole, I64(_TOGETHER))
                with low.counted(builder, taps) as t:
                    here = builder.add(builder.add(x, at), emitter.start(starts, t))
                    sums = emitter.zeros(_TOGETHER)
                    with low.counted(builder, whole) as i:
                        for q, total in enumerate(sums):
                            number = builder.add(builder.mul(i, I64(_TOGETHER)), I64(q))
                            add(total, number, here, at, some)
                    with low.counted(builder, builder.sub(count, done)) as i:
                        add(sums[0], builder.add(done, i), here, at, some)
                    a, b, c, d = (builder.load(total) for total in sums)
                    line = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
                    to = builder.add(emitter.at(out, (t, out_step)), at)
                    lanes.store(builder.fadd(lanes.load(to, some), line), to, some)

            emitter.channels(channels, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return gradients
