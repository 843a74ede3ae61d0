"""The gradient of a convolution of one channel by few filters: lanes are the pixels of a line.

Cotangents stand pixel by pixel, a filter beside the other; they are turned first, so that each
filter's are a line. Then a few taps and filters at a time keep their sums in registers over all
lines of a block, and add them to sums as wide as a vector, which become one number at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.lanes import Lanes
from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I64
from gpubp.backends.numba_cpu.kernels.pixels import Few, by_size, most_filters, shared_evenly
from gpubp.backends.numba_cpu.kernels.transpose import exchange
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath
from gpubp.backends.numba_cpu.target import tile_rows

_QUAD = 4


def _together() -> tuple[int, int]:
    """Taps, and filters, at a time: so many sums, the filters' cotangents and pixels are kept in 32
    registers, or 16.
    """
    return (4, 6) if tile_rows() > 6 else (3, 3)


def make_turn(kind: Any) -> Any:
    """`turn(source, count, filters, target, line, plane)`: a line of `count` pixels with all
    filters becomes a line of pixels for each filter, `plane` bytes apart; `line`: their bytes, of
    which those behind the last pixel are filled with 0.
    """

    @intrinsic
    def turn(
        _typing: Any, source: Any, count: Any, filters: Any, target: Any, line: Any, plane: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            source, count, filters, target, line, plane = args
            lanes = Lanes(builder, kind)
            item = I64(lanes.item)
            vectors = builder.sdiv(line, I64(lanes.width * lanes.item))
            turner = _Turner(lanes, source, builder.mul(filters, item), builder.sub(count, I64(1)))

            def block(first: Any, n: int, v: Any) -> None:
                pixel = builder.mul(v, I64(lanes.width))
                exists = lanes.mask(builder.sub(count, pixel))
                at = builder.add(target, builder.mul(pixel, item))
                at = builder.add(at, builder.mul(first, plane))
                for found in turner.turned(pixel, builder.mul(first, item), n):
                    lanes.store(builder.select(exists, found, lanes.constant(0.0)), at)
                    at = builder.add(at, plane)

            most = most_filters(lanes.width)
            with shared_evenly(builder, filters, most) as (first, size):

                def of_size(n: int) -> None:
                    with low.counted(builder, vectors) as v:
                        block(first, n, v)

                by_size(builder, size, most, of_size)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return turn


class _Turner:
    """Emits the turning of a vector of pixels.

    Args:
        lanes: of the vectors.
        source: where a line begins.
        row: bytes of a pixel.
        last: the number of the last pixel.
    """

    def __init__(self, lanes: Lanes, source: Any, row: Any, last: Any) -> None:
        self.lanes, self.builder, self.few = lanes, lanes.builder, Few(lanes)
        self.source, self.row, self.last = source, row, last

    def turned(self, pixel: Any, shift: Any, n: int) -> list[Any]:
        """`n` filters, which begin `shift` bytes behind the beginning of a pixel."""
        at = [self._place(pixel, i, shift) for i in range(self.lanes.width)]
        if n < _QUAD or self.lanes.width < _QUAD:
            rows = self._exchanged([self.few.load(place, n) for place in at])
            return rows[:n]
        found: dict[int, Any] = {}
        for first in dict.fromkeys([*range(0, n - _QUAD + 1, _QUAD), n - _QUAD]):
            rows = self._exchanged([self._quads(at[i::_QUAD], first) for i in range(_QUAD)])
            found |= {first + i: row for i, row in enumerate(rows)}
        return [found[i] for i in range(n)]

    def _place(self, pixel: Any, i: int, shift: Any) -> Any:
        """Where a pixel's filters begin; of those behind the last one its own."""
        number = self.builder.add(pixel, I64(i))
        inside = self.builder.icmp_signed("<", number, self.last)
        number = self.builder.select(inside, number, self.last)
        at = self.builder.add(self.source, self.builder.mul(number, self.row))
        return self.builder.add(at, shift)

    def _quads(self, places: list[Any], first: int) -> Any:
        """Four filters of every fourth pixel, side by side: half the exchanges of whole rows."""
        builder, four = self.builder, ir.VectorType(self.lanes.scalar, _QUAD)
        parts = []
        for place in places:
            at = builder.add(place, I64(first * self.lanes.item))
            pointer = builder.inttoptr(at, four.as_pointer())
            parts.append(builder.load(pointer, align=self.lanes.item))
        while len(parts) > 1:
            order = list(range(2 * parts[0].type.count))
            both = ir.Constant(ir.VectorType(low.I32, len(order)), order)
            parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2])]
        return parts[0]

    def _exchanged(self, rows: list[Any]) -> list[Any]:
        step = 1
        while step < len(rows):
            rows = exchange(self.builder, rows, step)
            step *= 2
        return rows


@dataclass(frozen=True)
class _Block:
    """The arguments of `add_products`, as LLVM values."""

    sums: Any
    x: Any
    reach: Any
    taps: Any
    starts: Any
    lines: Any
    count: Any
    turned: Any
    plane: Any
    filters: Any


def make_products(kind: Any) -> Any:
    """`add_products(sums, x, reach, taps, starts, lines, count, turned, plane, filters)`.

    Adds to `sums`, a vector for each of (taps, filters), the products of `count` pixels of each of
    `lines` lines with cotangents that `turn` made. In bytes from `x`: `starts` of lines, `reach` of
    taps from a window's start; `plane`: from filter to filter of the cotangents.
    """

    @intrinsic
    def add_products(
        _typing: Any,
        sums: Any,
        x: Any,
        reach: Any,
        taps: Any,
        starts: Any,
        lines: Any,
        count: Any,
        turned: Any,
        plane: Any,
        filters: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            emitter, (most, widest) = _Products(builder, kind, _Block(*args)), _together()
            with shared_evenly(builder, emitter.block.filters, widest) as (filter, some):

                def of_filters(n: int) -> None:
                    with shared_evenly(builder, emitter.block.taps, most) as (tap, size):
                        by_size(builder, size, most, lambda m: emitter.emit(tap, m, filter, n))

                by_size(builder, some, widest, of_filters)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return add_products


class _Products:
    """Emits the sums of a few taps and filters over all lines."""

    def __init__(self, builder: Any, kind: Any, block: _Block) -> None:
        self.builder, self.block = builder, block
        self.lanes = Lanes(builder, kind)
        self.math = VectorMath(builder, self.lanes.vector)
        self.bytes = I64(self.lanes.width * self.lanes.item)

    def emit(self, tap: Any, m: int, filter: Any, n: int) -> None:
        """`m` taps from `tap` on, `n` filters from `filter` on."""
        builder, block, width = self.builder, self.block, I64(self.lanes.width)
        held = [[low.alloca_once(builder, self.lanes.vector) for _ in range(n)] for _ in range(m)]
        for total in (total for row in held for total in row):
            builder.store(self.lanes.constant(0.0), total)
        reach = [self._word(block.reach, builder.add(tap, I64(i))) for i in range(m)]
        whole, rest = builder.sdiv(block.count, width), builder.srem(block.count, width)
        up = builder.select(builder.icmp_signed(">", rest, I64(0)), I64(1), I64(0))
        line = builder.mul(builder.add(whole, up), self.bytes)
        first = builder.add(block.turned, builder.mul(filter, block.plane))
        with low.counted(builder, block.lines) as i:
            start = builder.add(block.x, self._word(block.starts, i))
            here = builder.add(first, builder.mul(i, line))
            with low.counted(builder, whole) as v:
                self._multiply(held, start, reach, here, builder.mul(v, self.bytes), None)
            with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
                some = self.lanes.mask(rest), rest
                self._multiply(held, start, reach, here, builder.mul(whole, self.bytes), some)
        for i in range(m):
            number = builder.mul(builder.add(tap, I64(i)), block.filters)
            number = builder.add(number, filter)
            at = builder.add(block.sums, builder.mul(number, self.bytes))
            for j in range(n):
                total = builder.fadd(self.lanes.load(at), builder.load(held[i][j]))
                self.lanes.store(total, at)
                at = builder.add(at, self.bytes)

    def _multiply(
        self, held: list[list[Any]], start: Any, reach: list[Any], here: Any, at: Any, some: Any
    ) -> None:
        """A vector of pixels. `some`: those that exist."""
        builder = self.builder
        cotangents, place = [], builder.add(here, at)
        for _ in held[0]:
            cotangents.append(self.lanes.load(place))
            place = builder.add(place, self.block.plane)
        for row, distance in zip(held, reach):
            value = self.lanes.load(builder.add(builder.add(start, distance), at), some)
            for total, cotangent in zip(row, cotangents):
                builder.store(self.math.fma(value, cotangent, builder.load(total)), total)

    def _word(self, base: Any, i: Any) -> Any:
        pointer = self.builder.inttoptr(base, I64.as_pointer())
        return self.builder.load(self.builder.gep(pointer, [i]))


def make_total(kind: Any) -> Any:
    """`total(sums, out, count)`: each of `count` vectors becomes its lanes' sum, by halves."""

    @intrinsic
    def total(_typing: Any, sums: Any, out: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            lanes = Lanes(builder, kind)
            sums, out, count = args
            with low.counted(builder, count) as i:
                found = lanes.load(builder.add(sums, builder.mul(i, I64(lanes.width * lanes.item))))
                step = lanes.width // 2
                while step:
                    found = builder.fadd(found, lanes.turned(found, step))
                    step //= 2
                at = builder.add(out, builder.mul(i, I64(lanes.item)))
                value = builder.extract_element(found, low.I32(0))
                builder.store(value, builder.inttoptr(at, value.type.as_pointer()))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return total
