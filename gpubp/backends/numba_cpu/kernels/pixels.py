"""Runs of a convolution of one channel with few filters: lanes are the pixels of a line.

Filters would leave lanes empty, and the segments of a window of one channel are as short as it is
wide. Here a vector of pixels meets each weight, as many vectors and filters at a time as registers
hold; what stands in them is turned, so that a pixel's results are stored side by side. Each result
is one chain of multiply-adds over the taps, wherever in a line it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.lanes import Lanes
from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I32, I64
from gpubp.backends.numba_cpu.kernels.transpose import exchange
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath
from gpubp.backends.numba_cpu.target import has_masked_stores, tile_rows


def most_filters(width: int) -> int:
    """Filters at a time: two vectors of sums each, beside two of pixels and a weight; and no more
    than a vector has lanes, as they are turned.
    """
    return min(8 if tile_rows() > 6 else 6, width)


class Few:
    """Loads and stores of the first few lanes of vectors, a number known when it is compiled."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes, self.builder = lanes, lanes.builder

    def load(self, address: Any, count: int) -> Any:
        """The first `count` lanes; the others are 0."""
        return self.lanes.load(address, self._some(count))

    def store(self, value: Any, address: Any, count: int) -> None:
        """The first `count` lanes."""
        if count == self.lanes.width or has_masked_stores():
            self.lanes.store(value, address, self._some(count))
            return
        done, size = 0, self.lanes.width // 2
        while done < count:
            if done + size <= count:
                chosen = ir.Constant(ir.VectorType(I32, size), [done + i for i in range(size)])
                part = self.builder.shuffle_vector(value, value, chosen)
                at = self.builder.add(address, I64(done * self.lanes.item))
                pointer = self.builder.inttoptr(at, part.type.as_pointer())
                self.builder.store(part, pointer, align=self.lanes.item)
                done += size
            size //= 2

    def _some(self, count: int) -> Any:
        if count == self.lanes.width:
            return None
        bits = [int(i < count) for i in range(self.lanes.width)]
        return ir.Constant(ir.VectorType(ir.IntType(1), len(bits)), bits), I64(count)


@contextmanager
def shared_evenly(builder: Any, count: Any, most: int) -> Iterator[tuple[Any, Any]]:
    """A loop over groups of at most `most`, about alike; gives where one begins, and its size."""
    groups = builder.sdiv(builder.add(count, I64(most - 1)), I64(most))
    each = builder.sdiv(builder.sub(builder.add(count, groups), I64(1)), groups)
    with low.counted(builder, groups) as g:
        first = builder.mul(g, each)
        left = builder.sub(count, first)
        yield first, builder.select(builder.icmp_signed("<", left, each), left, each)


def by_size(builder: Any, size: Any, most: int, body: Callable[[int], None]) -> None:
    """`body(n)` emitted for each n from 1 to `most`, run where `size` is n."""
    for n in range(1, most + 1):
        with builder.if_then(builder.icmp_signed("==", size, I64(n))):
            body(n)


def picked(builder: Any, address: Any, kind: Any) -> Any:
    """The number at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()))


@dataclass(frozen=True)
class _Line:
    """The arguments of `results`, as LLVM values."""

    out: Any
    out_step: Any
    x: Any
    w: Any
    taps: Any
    starts: Any
    count: Any
    filters: Any
    bias: Any
    clips: Any


def make_results(kind: Any) -> Any:
    """`results(out, out_step, x, w, taps, starts, count, filters, bias, clips)`.

    `count` results, at least as many as a vector has lanes, `out_step` bytes apart, of windows that
    begin at neighbouring pixels from `x` on. The weights are (taps, filters). `bias`: the address
    of one a filter, or 0. `clips`: 1, results below 0 become 0.
    """

    @intrinsic
    def results(
        _typing: Any,
        out: Any,
        out_step: Any,
        x: Any,
        w: Any,
        taps: Any,
        starts: Any,
        count: Any,
        filters: Any,
        bias: Any,
        clips: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _Emitter(builder, kind, _Line(*args)).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return results


class _Emitter:
    """Emits a line of results."""

    def __init__(self, builder: Any, kind: Any, line: _Line) -> None:
        self.builder, self.line = builder, line
        self.lanes = Lanes(builder, kind)
        self.few, self.math = Few(self.lanes), VectorMath(builder, self.lanes.vector)
        self.item = I64(self.lanes.item)

    def emit(self) -> None:
        """All groups of filters, each over all pixels: two vectors at a time, the last one again
        where their number is odd. A last vector that is not whole begins earlier.
        """
        builder, width = self.builder, self.lanes.width
        vectors = builder.sdiv(builder.add(self.line.count, I64(width - 1)), I64(width))
        pairs = builder.sdiv(vectors, I64(2))
        odd = builder.icmp_signed("!=", builder.srem(vectors, I64(2)), I64(0))
        last = builder.sub(self.line.count, I64(width))
        most = most_filters(width)
        with shared_evenly(builder, self.line.filters, most) as (first, size):

            def of_size(n: int) -> None:
                with low.counted(builder, pairs) as p:
                    one = builder.mul(p, I64(2 * width))
                    two = builder.add(one, I64(width))
                    two = builder.select(builder.icmp_signed("<", two, last), two, last)
                    self._vectors([one, two], first, n)
                with builder.if_then(odd):
                    self._vectors([last], first, n)

            by_size(builder, size, most, of_size)

    def _vectors(self, pixels: list[Any], first: Any, n: int) -> None:
        """`n` filters from `first` on, at the vectors that begin at `pixels`."""
        builder, line = self.builder, self.line
        sums = [[low.alloca_once(builder, self.lanes.vector) for _ in range(n)] for _ in pixels]
        for total in (total for row in sums for total in row):
            builder.store(self.lanes.constant(0.0), total)
        begins = [builder.add(line.x, builder.mul(p, self.item)) for p in pixels]
        with low.counted(builder, line.taps) as t:
            pointer = builder.inttoptr(line.starts, I64.as_pointer())
            start = builder.load(builder.gep(pointer, [t]))
            values = [self.lanes.load(builder.add(at, start)) for at in begins]
            number = builder.add(builder.mul(t, line.filters), first)
            weights = builder.add(line.w, builder.mul(number, self.item))
            for f in range(n):
                at = builder.add(weights, I64(f * self.lanes.item))
                weight = self.lanes.splat(picked(builder, at, self.lanes.scalar))
                for value, row in zip(values, sums):
                    builder.store(self.math.fma(value, weight, builder.load(row[f])), row[f])
        finished = self._finished([[builder.load(t) for t in row] for row in sums], first)
        for pixel, row in zip(pixels, finished):
            self._store(pixel, first, row)

    def _finished(self, rows: list[list[Any]], first: Any) -> list[list[Any]]:
        """With bias and clipped, where that is asked for."""
        builder, line = self.builder, self.line
        given = builder.icmp_signed("!=", line.bias, I64(0))
        start = builder.select(given, line.bias, line.w)  # there is a number in any case
        start = builder.add(start, builder.mul(first, self.item))
        nothing = ir.Constant(self.lanes.scalar, -0.0)  # x + -0 is x, 0 and -0 included
        clips = builder.icmp_signed("!=", line.clips, I64(0))
        ends = (ir.Constant(self.lanes.scalar, float(end)) for end in ("0", "-inf"))
        floor = self.lanes.splat(builder.select(clips, *ends))
        out: list[list[Any]] = [[] for _ in rows]
        for f in range(len(rows[0])):
            at = builder.add(start, I64(f * self.lanes.item))
            bias = builder.select(given, picked(builder, at, self.lanes.scalar), nothing)
            spread = self.lanes.splat(bias)
            for row, done in zip(rows, out):
                total = builder.fadd(row[f], spread)
                kept = builder.fcmp_unordered(">", total, floor)  # NaN stays
                done.append(builder.select(kept, total, floor))
        return out

    def _store(self, pixel: Any, first: Any, found: list[Any]) -> None:
        """Vectors of filters, turned into those of pixels."""
        builder, n = self.builder, len(found)
        none = ir.Constant(self.lanes.vector, ir.Undefined)
        rows = [*found, *[none] * (self.lanes.width - n)]
        step = 1
        while step < self.lanes.width:
            rows = exchange(builder, rows, step)
            step *= 2
        at = builder.add(self.line.out, builder.mul(pixel, self.line.out_step))
        at = builder.add(at, builder.mul(first, self.item))
        for row in rows:
            self.few.store(row, at, n)
            at = builder.add(at, self.line.out_step)
