"""Runs of windows of a pool along a line of an image, as LLVM vectors over channels.

All windows of a run have the same taps (at the border some are missing), so those of 2 x 2 and of
3 x 3 are written out, and others are loops. Channels that do not fill a vector are masked: nothing
is read beside them. Masked stores of older CPUs take long: there, whole vectors are written where
what follows in the line is written later, or becomes what it was: for all windows but the last ones
of a line.

Arrays: a and b are laid out as images, w as windows. What each pool does:

- max: w = the largest of a; indices: where it stands; pick: b at that place
- max_grad: b += w at the place of the largest of a, or b = w if windows lie apart
- sum: w = the sum of a; sum_grad: b += w, or b = w if windows lie apart
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.lanes import Lanes, of_indices
from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I32, I64
from gpubp.backends.numba_cpu.target import has_masked_stores

_WRITTEN_OUT = (2, 3)
# What is done with a tap: (distance from the first one in bytes, its number).
_Tap = Callable[[Any, Any], None]


def make_run(kind: Any, pool: str, apart: bool = False) -> Any:
    """`run(code, a, b, w, count, loose, nd, nh, nw, place)`: `count` windows of nd x nh x nw taps.

    Addresses are those of the first tap of the first window and of that window; `place` is the flat
    index of that tap. Behind the first `loose` windows, and the elements that they write to, a
    whole vector fits into the line. `code` is a `words.POOL`.
    """

    @intrinsic
    def run(
        _typing: Any,
        code: Any,
        a: Any,
        b: Any,
        w: Any,
        count: Any,
        loose: Any,
        nd: Any,
        nh: Any,
        nw: Any,
        place: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            wide, narrow = _Run(builder, kind, pool, apart, args), Lanes(builder, kind).halved()
            fits = builder.icmp_signed("<=", wide.channels, I64(narrow.width))
            with builder.if_else(fits) as (then, other):
                with then:
                    _Run(builder, kind, pool, apart, args, narrow).emit()
                with other:
                    wide.emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return run


class _Run:
    """Emits the runs of one pool. `lanes`: half a vector, for few channels: what is read beside
    them would be in another cache line, mostly.
    """

    def __init__(
        self,
        builder: Any,
        kind: Any,
        pool: str,
        apart: bool,
        args: Any,
        lanes: Lanes | None = None,
    ) -> None:
        self.builder, self.pool, self.apart = builder, pool, apart
        self.code, self.a, self.b, self.w, self.count, self.loose, *rest = args
        *self.taps, self.place = rest
        self.lanes = lanes or Lanes(builder, kind)
        self.channels = self._word("channels")
        self.wide = of_indices(builder, self.lanes.width)
        self.numbers = ir.VectorType(I32, self.lanes.width)
        self.steps = [self._word(f"tap_{axis}") for axis in "dhw"]
        self.places = [self._word(f"place_{axis}") for axis in "dhw"]

    def _word(self, name: str) -> Any:
        pointer = self.builder.inttoptr(self.code, I64.as_pointer())
        return self.builder.load(self.builder.gep(pointer, [I64(words.POOL[name])]))

    def emit(self) -> None:
        """One of the written-out forms, or the general one."""
        builder, width = self.builder, I64(self.lanes.width)
        self.blocks = builder.sdiv(self.channels, width)
        self.rest = builder.srem(self.channels, width)
        self.mask = self.lanes.mask(self.rest)
        after = builder.append_basic_block("done")
        for side in _WRITTEN_OUT:
            other = builder.append_basic_block("other")
            this = builder.append_basic_block(f"taps_{side}")
            fits = self._equal(self.taps[0], 1)
            for count in self.taps[1:]:
                fits = builder.and_(fits, self._equal(count, side))
            builder.cbranch(fits, this, other)
            builder.position_at_end(this)
            self._windows(side)
            builder.branch(after)
            builder.position_at_end(other)
        self._windows(None)
        builder.branch(after)
        builder.position_at_end(after)

    def _equal(self, value: Any, number: int) -> Any:
        return self.builder.icmp_signed("==", value, I64(number))

    def _windows(self, side: int | None) -> None:
        builder, lanes = self.builder, self.lanes
        block = lanes.width * lanes.item
        hop, window, stride = (self._word(n) for n in ("hop", "window", "stride_w"))
        target = block if self.pool != "indices" else 8 * lanes.width
        with low.counted(builder, self.count) as i:
            moved = builder.mul(i, hop)
            ends = [builder.add(base, moved) for base in (self.a, self.b)]
            w = builder.add(self.w, builder.mul(i, window))
            place = builder.add(self.place, builder.mul(i, stride))
            # First, as a whole vector that is written there reaches into the next element.
            with builder.if_then(builder.icmp_signed("!=", self.rest, I64(0))):
                at = builder.mul(self.blocks, I64(block))
                here = [builder.add(base, at) for base in ends]
                here.append(builder.add(w, builder.mul(self.blocks, I64(target))))
                self._rest(side, i, here, place)
            with low.counted(builder, self.blocks) as j:
                at = builder.mul(j, I64(block))
                here = [builder.add(base, at) for base in ends]
                here.append(builder.add(w, builder.mul(j, I64(target))))
                self._one(side, here, place, None, None)

    def _rest(self, side: int | None, i: Any, here: list[Any], place: Any) -> None:
        """The channels of window i that do not fill a vector."""
        some = self.mask, self.rest
        if has_masked_stores():
            self._one(side, here, place, some, some)
            return
        loose = self.builder.icmp_signed("<", i, self.loose)
        with self.builder.if_else(loose) as (then, other):
            with then:
                self._one(side, here, place, some, None)
            with other:
                self._one(side, here, place, some, some)

    def _each(self, side: int | None, tap: _Tap, first: Any = None, skip: bool = False) -> None:
        """Every tap in order: its distance in bytes, and its number: its flat index where that of
        the first one is given, else its place in the order. `skip`: the first one may be left out.
        """
        places = self.places if first is not None else self._order(side)
        first = I64(0) if first is None else first
        if side is not None:
            for i in range(side):
                for j in range(1 if i == 0 and skip else 0, side):
                    shift = self._sum(self.steps[1:], [I64(i), I64(j)])
                    number = I64(side * i + j)
                    if places is self.places:
                        number = self.builder.add(first, self._sum(places[1:], [I64(i), I64(j)]))
                    tap(shift, number)
            return
        with ExitStack() as stack:
            at = [stack.enter_context(low.counted(self.builder, n)) for n in self.taps]
            number = self.builder.add(first, self._sum(places, at))
            tap(self._sum(self.steps, at), number)

    def _sum(self, steps: list[Any], counts: list[Any]) -> Any:
        total = I64(0)
        for step, count in zip(steps, counts, strict=True):
            total = self.builder.add(total, self.builder.mul(step, count))
        return total

    def _one(self, side: int | None, here: list[Any], place: Any, some: Any, stored: Any) -> None:
        """One window, one vector of channels; which lanes are read, and which written."""
        a, b, w = here
        if self.pool == "sum":
            self._add_up(side, a, w, some, stored)
        elif self.pool == "sum_grad":
            value = self.lanes.load(w, some)
            self._each(side, lambda at, _: self._give(b, at, value, stored))
        else:
            self._largest(side, a, b, w, place, some, stored)

    def _add_up(self, side: int | None, a: Any, w: Any, some: Any, stored: Any) -> None:
        builder, lanes = self.builder, self.lanes
        total = low.alloca_once(builder, lanes.vector)
        builder.store(lanes.constant(0.0), total)

        def tap(at: Any, _: Any) -> None:
            value = lanes.load(builder.add(a, at), some)
            builder.store(builder.fadd(builder.load(total), value), total)

        self._each(side, tap)
        lanes.store(builder.load(total), w, stored)

    def _give(self, b: Any, at: Any, value: Any, stored: Any) -> None:
        """Lanes of `value` that do not exist are 0."""
        target = self.builder.add(b, at)
        if not self.apart:
            value = self.builder.fadd(self.lanes.load(target, stored), value)
        self.lanes.store(value, target, stored)

    def _largest(
        self, side: int | None, a: Any, b: Any, w: Any, place: Any, some: Any, stored: Any
    ) -> None:
        builder, lanes, pool = self.builder, self.lanes, self.pool
        top = low.alloca_once(builder, lanes.vector)
        builder.store(lanes.load(a, some), top)
        best = low.alloca_once(builder, self.numbers)
        first = place if pool == "indices" else None
        start = I32(0) if first is None else builder.trunc(first, I32)
        builder.store(lanes.splat(start), best)
        picked = low.alloca_once(builder, lanes.vector)
        if pool == "pick":
            builder.store(lanes.load(b, some), picked)

        def tap(at: Any, number: Any) -> None:
            value, held = lanes.load(builder.add(a, at), some), builder.load(top)
            larger, wins = self._wins(value, held)
            # Two choices: the inner one is a single instruction.
            most = builder.select(larger, value, held)
            builder.store(most if wins is larger else builder.select(wins, value, most), top)
            if pool in ("indices", "max_grad"):
                mine = lanes.splat(builder.trunc(number, I32))
                builder.store(builder.select(wins, mine, builder.load(best)), best)
            if pool == "pick":
                other = lanes.load(builder.add(b, at), some)
                builder.store(builder.select(wins, other, builder.load(picked)), picked)

        self._each(side, tap, first, skip=True)
        if pool == "max_grad":
            self._give_to_best(side, builder.load(best), b, lanes.load(w, some), stored)
        elif pool == "indices":
            self.wide.store(builder.sext(builder.load(best), self.wide.vector), w, stored)
        else:
            lanes.store(builder.load(top if pool == "max" else picked), w, stored)

    def _order(self, side: int | None) -> list[Any]:
        """Steps of the number of a tap in their order."""
        if side is not None:
            return []
        _, nh, nw = self.taps
        return [self.builder.mul(nh, nw), nw, I64(1)]

    def _wins(self, value: Any, held: Any) -> tuple[Any, Any]:
        """Where a value is larger, and where it wins: there, or where it is NaN."""
        builder = self.builder
        if not self.lanes.floating:
            larger = builder.icmp_signed(">", value, held)
            return larger, larger
        larger = builder.fcmp_ordered(">", value, held)
        undefined = builder.fcmp_unordered("uno", value, value)
        if self.pool == "max":
            return larger, undefined
        return larger, builder.or_(larger, undefined)

    def _give_to_best(self, side: int | None, best: Any, b: Any, value: Any, stored: Any) -> None:
        builder, lanes = self.builder, self.lanes

        def tap(at: Any, number: Any) -> None:
            mine = builder.icmp_signed("==", best, lanes.splat(builder.trunc(number, I32)))
            self._give(b, at, builder.select(mine, value, lanes.constant(0.0)), stored)

        self._each(side, tap)
