"""Vectors of one number type, whole or with the last lanes left out, on addresses."""

from __future__ import annotations

import copy
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import (
    I32,
    I64,
    ITEMSIZE,
    LLVM_OF,
    alloca_once,
    counted,
    declared,
)
from gpubp.backends.numba_cpu.target import has_masked_stores, lanes

I1 = ir.IntType(1)


class Lanes:
    """Emits loads, stores and numbers of vectors as wide as a register.

    `some` of a load or store: (mask, how many lanes), or None for all of them.
    """

    def __init__(self, builder: Any, kind: Any) -> None:
        self.builder, self.item = builder, ITEMSIZE[kind]
        self.floating = kind.kind == "f"
        self.scalar = LLVM_OF[kind]
        self.width = lanes("float32" if self.item == 4 else "float64")
        self.vector = ir.VectorType(self.scalar, self.width)
        self.name = f"v{self.width}{'f' if self.floating else 'i'}{8 * self.item}"

    def halved(self) -> Lanes:
        """Vectors of half as many lanes."""
        found = copy.copy(self)
        found.width = self.width // 2
        found.vector = ir.VectorType(self.scalar, found.width)
        found.name = f"v{found.width}{'f' if self.floating else 'i'}{8 * self.item}"
        return found

    def splat(self, value: Any) -> Any:
        """A scalar in every lane."""
        kind = ir.VectorType(value.type, self.width)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def constant(self, value: Any) -> Any:
        """A number in every lane."""
        return ir.Constant(self.vector, [value] * self.width)

    def turned(self, value: Any, by: int) -> Any:
        """Lane i + `by` in lane i, around the end."""
        return self._picked(value, [(i + by) % self.width for i in range(self.width)])

    def mask(self, count: Any) -> Any:
        """Lane i exists if i < count."""
        order = ir.Constant(ir.VectorType(I32, self.width), list(range(self.width)))
        return self.builder.icmp_signed("<", order, self.splat(self.builder.trunc(count, I32)))

    def load(self, address: Any, some: Any = None) -> Any:
        """A vector; lanes that do not exist are not read, and 0."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if some is None:
            return self.builder.load(pointer, align=self.item)
        bits = ir.VectorType(I1, self.width)
        kind = ir.FunctionType(self.vector, [pointer.type, I32, bits, self.vector])
        function = declared(self.builder.module, f"llvm.masked.load.{self.name}.p0", kind)
        none = self.constant(0.0 if self.floating else 0)
        return self.builder.call(function, [pointer, I32(self.item), some[0], none])

    def store(self, value: Any, address: Any, some: Any = None) -> None:
        """A vector to memory, but for lanes that do not exist."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if some is None:
            self.builder.store(value, pointer, align=self.item)
        elif has_masked_stores():
            bits = ir.VectorType(I1, self.width)
            kind = ir.FunctionType(ir.VoidType(), [self.vector, pointer.type, I32, bits])
            function = declared(self.builder.module, f"llvm.masked.store.{self.name}.p0", kind)
            self.builder.call(function, [value, pointer, I32(self.item), some[0]])
        else:
            self._store_pieces(value, address, some[1])

    def _store_pieces(self, value: Any, address: Any, count: Any) -> None:
        """Halves, quarters and so on: masked stores of older CPUs can be very slow."""
        builder, size = self.builder, self.width // 2
        while size:
            wanted = builder.icmp_signed("!=", builder.and_(count, I64(size)), I64(0))
            before = builder.block
            with builder.if_then(wanted):
                low = self._picked(value, range(size))
                pointer = builder.inttoptr(address, low.type.as_pointer())
                builder.store(low, pointer, align=self.item)
                rest = self._picked(value, [(i + size) % self.width for i in range(self.width)])
                further = builder.add(address, I64(size * self.item))
                inside = builder.block
            value = self._either(value, before, rest, inside)
            address = self._either(address, before, further, inside)
            size //= 2

    def _picked(self, value: Any, lanes: Any) -> Any:
        chosen = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), chosen)

    def _either(self, a: Any, of_a: Any, b: Any, of_b: Any) -> Any:
        found = self.builder.phi(a.type)
        found.add_incoming(a, of_a)
        found.add_incoming(b, of_b)
        return found


def of_indices(builder: Any, width: int) -> Lanes:
    """int64 vectors of as many lanes as another type has."""
    found = Lanes(builder, types.int64)
    found.width = width
    found.vector = ir.VectorType(found.scalar, width)
    found.name = f"v{width}i64"
    return found


def make_add_eights(kind: Any) -> Any:
    """`f(source, count, sums)`: add eights to eight wide sums, kept in registers."""
    wide = types.int64 if kind is types.int64 else types.float64
    narrow, sums = (ir.VectorType(LLVM_OF[k], 8) for k in (kind, wide))
    item, wide_item = ITEMSIZE[kind], ITEMSIZE[wide]

    @intrinsic
    def add_eights(_typing: Any, _source: Any, _count: Any, _sums: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            total = builder.inttoptr(args[2], sums.as_pointer())
            held = alloca_once(builder, sums)
            builder.store(builder.load(total, align=wide_item), held)
            with counted(builder, args[1]) as index:
                at = builder.add(args[0], builder.mul(index, I64(item * 8)))
                x = builder.load(builder.inttoptr(at, narrow.as_pointer()), align=item)
                before = builder.load(held)
                if kind is types.int64:
                    builder.store(builder.add(before, x), held)
                else:
                    x = builder.fpext(x, sums) if kind is types.float32 else x
                    builder.store(builder.fadd(before, x), held)
            builder.store(builder.load(held), total, align=wide_item)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return add_eights


def make_extreme_of_eights(kind: Any, largest: bool) -> Any:
    """`f(source, count)`: the largest (or least) of `count` eights, at least one; NaN if one is."""
    eight, item = ir.VectorType(LLVM_OF[kind], 8), ITEMSIZE[kind]
    sign = ">" if largest else "<"

    def better(builder: Any, x: Any, best: Any) -> Any:
        if kind.kind != "f":
            return builder.select(builder.icmp_signed(sign, x, best), x, best)
        # Unordered with itself: x is NaN; a best that is NaN loses against nothing else.
        chosen = builder.or_(
            builder.fcmp_ordered(sign, x, best), builder.fcmp_unordered("uno", x, x)
        )
        return builder.select(chosen, x, best)

    @intrinsic
    def extreme(_typing: Any, _source: Any, _count: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            def eight_at(index: Any) -> Any:
                at = builder.add(args[0], builder.mul(index, I64(item * 8)))
                return builder.load(builder.inttoptr(at, eight.as_pointer()), align=item)

            held = alloca_once(builder, eight)
            builder.store(eight_at(I64(0)), held)
            with counted(builder, builder.sub(args[1], I64(1))) as index:
                x = eight_at(builder.add(index, I64(1)))
                builder.store(better(builder, x, builder.load(held)), held)
            tops = builder.load(held)
            best = builder.extract_element(tops, I32(0))
            for lane in range(1, 8):
                best = better(builder, builder.extract_element(tops, I32(lane)), best)
            return best

        return kind(types.int64, types.int64), codegen

    return extreme
