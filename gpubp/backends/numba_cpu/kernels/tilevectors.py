"""The vectors of a register tile: their type and arithmetic, and loads and stores of those at the
right edge, of which some lanes do not exist.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath
from gpubp.backends.numba_cpu.target import has_masked_stores, lanes

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_SCALARS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


class TileVectors:
    """Emits vectors in a tile's function.

    Args:
        function: whose first argument is the address of the tile's parameters.
        dtype: of the product.
        kind: two whole vectors; two vectors, the second one partly there; one, partly there; one
            of half the lanes, partly there.

    Attributes:
        vectors: how many stand side by side.
        partial: which of them is partly there; None: all are whole.
    """

    def __init__(self, function: Any, dtype: str, kind: int) -> None:
        self.function = function
        self.module = function.module
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.scalar = _SCALARS[dtype]
        self.item = 4 if dtype == "float32" else 8
        self.width = lanes(dtype) // (2 if kind == words.TILE_HALF else 1)
        self.vector = ir.VectorType(self.scalar, self.width)
        self.name = f"v{self.width}f{8 * self.item}"
        self.vectors = 1 if kind in (words.TILE_ONE, words.TILE_HALF) else 2
        self.partial = None if kind == words.TILE_WHOLE else self.vectors - 1
        self.math = VectorMath(self.builder, self.vector)
        self.params = function.args[0]
        if self.partial is not None:
            self.columns = self.word(words.TILE_COLUMNS)
            self.mask = self._lane_mask(self.columns)

    def word(self, position: int) -> Any:
        """A word of the parameters."""
        pointer = self.builder.inttoptr(self.params, I64.as_pointer())
        return self.builder.load(self.builder.gep(pointer, [I64(position)]))

    def number(self, position: int) -> Any:
        """A number of the tile's type among the parameters, in every lane."""
        at = self.builder.add(self.params, I64(8 * position))
        value = self.builder.load(self.builder.inttoptr(at, self.scalar.as_pointer()))
        return self.splat(value)

    def constant(self, value: float) -> Any:
        """A number in every lane."""
        return ir.Constant(self.vector, [value] * self.width)

    def splat(self, value: Any) -> Any:
        """A scalar in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, I32(0))
        spread = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, spread)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the CPU can."""
        return self.math.fma(a, b, c)

    def sqrt(self, a: Any) -> Any:
        """The square root of each lane."""
        return self.math.intrinsic("sqrt", a)

    def _lane_mask(self, columns: Any) -> Any:
        """Lane i exists if i < columns."""
        kind = ir.VectorType(I32, self.width)
        few = self.builder.trunc(columns, I32)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, few, I32(0))
        limit = self.builder.shuffle_vector(first, undefined, ir.Constant(kind, [0] * self.width))
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(self.width))), limit)

    def load(self, address: Any, vector: int) -> Any:
        """A vector from memory; lanes that do not exist are 0."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if vector != self.partial:
            return self.builder.load(pointer, align=self.item)
        bits = ir.VectorType(I1, self.width)
        kind = ir.FunctionType(self.vector, [self.vector.as_pointer(), I32, bits, self.vector])
        function = self.declare(f"llvm.masked.load.{self.name}.p0", kind)
        zero = self.constant(0.0)
        return self.builder.call(function, [pointer, I32(self.item), self.mask, zero])

    def store(self, value: Any, address: Any, vector: int) -> None:
        """A vector to memory, but for lanes that do not exist."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if vector != self.partial:
            self.builder.store(value, pointer, align=self.item)
        elif has_masked_stores():
            bits = ir.VectorType(I1, self.width)
            kind = ir.FunctionType(
                ir.VoidType(), [self.vector, self.vector.as_pointer(), I32, bits]
            )
            function = self.declare(f"llvm.masked.store.{self.name}.p0", kind)
            self.builder.call(function, [value, pointer, I32(self.item), self.mask])
        else:
            self._store_pieces(value, address)

    def _store_pieces(self, value: Any, address: Any) -> None:
        """The first `columns` lanes as halves, quarters, ...: masked stores can be very slow."""
        builder = self.builder
        size = self.width
        with builder.if_else(builder.icmp_signed("==", self.columns, I64(size))) as (then, other):
            with then:
                pointer = builder.inttoptr(address, self.vector.as_pointer())
                builder.store(value, pointer, align=self.item)
            with other:
                self._store_smaller(value, address, size // 2)

    def _store_smaller(self, value: Any, address: Any, size: int) -> None:
        builder = self.builder
        while size >= 1:
            lanes_kind = ir.VectorType(I32, size)
            wanted = builder.icmp_signed("!=", builder.and_(self.columns, I64(size)), I64(0))
            before = builder.block
            with builder.if_then(wanted):
                inside = builder.block
                undefined = ir.Constant(value.type, ir.Undefined)
                low = builder.shuffle_vector(
                    value, undefined, ir.Constant(lanes_kind, list(range(size)))
                )
                pointer = builder.inttoptr(address, low.type.as_pointer())
                builder.store(low, pointer, align=self.item)
                indices = [(i + size) % value.type.count for i in range(value.type.count)]
                whole = ir.VectorType(I32, value.type.count)
                rest = builder.shuffle_vector(value, undefined, ir.Constant(whole, indices))
                further = builder.add(address, I64(size * self.item))
            value_phi = builder.phi(value.type)
            value_phi.add_incoming(value, before)
            value_phi.add_incoming(rest, inside)
            address_phi = builder.phi(I64)
            address_phi.add_incoming(address, before)
            address_phi.add_incoming(further, inside)
            value, address = value_phi, address_phi
            size //= 2

    def declare(self, name: str, kind: Any) -> Any:
        """A function defined elsewhere."""
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, kind, name)
