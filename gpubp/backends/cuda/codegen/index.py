"""Where elements are: positions in an iteration space as places in arrays.

Comes in: operands of a part. Goes out: C++ expressions that read and write their elements, one by
one or as vectors. Where every position and place fits in 31 bits, which is nearly always, they are
computed in 32: a GPU divides 64-bit numbers by a function of some seventy instructions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpubp.backends.cuda.codegen.writer import SHORT, Writer, ctype_of
from gpubp.compiler.parts import Operand
from gpubp.compiler.views import collapse
from gpubp.core import Shape


class Index:
    """Turns a position in an iteration space into the place of an operand's element.

    Attributes:
        dims: the axes that are walked, but for `last`; neighbours that lie alike are one.
        short: positions and places have 31 bits.

    Args:
        writer: gets sizes and strides as parameters.
        prefix: for names; unique in the kernel.
        shape: of the iteration space.
        operands: all that are read or written there.
        whole: the name of the linear position.
        last: names of the positions along the last axes, where these are known already; `whole`
            then counts what is before them.
    """

    def __init__(
        self,
        writer: Writer,
        prefix: str,
        shape: Shape,
        operands: Sequence[Operand],
        whole: str,
        last: Sequence[str] = (),
    ) -> None:
        self._writer = writer
        self._prefix = prefix
        known = len(last)
        split = len(shape) - known
        spread = [_broadcast(o, shape) for o in operands]
        dims, strides = collapse(shape[:split], *[s[:split] for s in spread])
        self.dims = dims
        self.short = fits(shape, spread)
        self._names = [whole] if len(dims) == 1 else [f"{prefix}i{d}" for d in range(len(dims))]
        self.lines = self._unravel(dims, whole)
        self._names += list(last)
        self._strides = {
            _key(o): (*walked, *s[split:]) for o, walked, s in zip(operands, strides, spread)
        }

    def _unravel(self, dims: Shape, whole: str) -> list[str]:
        if len(dims) == 1:
            return []
        lines = []
        kind, rest = ("gp::u32", f"gp::low({whole})") if self.short else ("gp::i64", whole)
        for d in reversed(range(1, len(dims))):
            size = self._writer.params.add(f"{self._prefix}size{d}", dims[d])
            size = f"gp::low({size})" if self.short else size
            lines.append(f"const {kind} {self._prefix}i{d} = {rest} % {size};")
            rest = f"({rest}) / {size}"
        return [*lines, f"const {kind} {self._prefix}i0 = {rest};"]

    def strides(self, operand: Operand) -> tuple[int, ...]:
        """The operand's strides along the axes that are walked."""
        return self._strides[_key(operand)]

    def read(self, operand: Operand) -> str:
        """The element, as an expression."""
        return f"{self._writer.pointer(operand)}[{self.place(operand)}]"

    def write(self, operand: Operand, value: str) -> str:
        """The statement that stores the element."""
        return f"{self._writer.pointer(operand, True)}[{self.place(operand)}] = {value};"

    def place(self, operand: Operand) -> str:
        """The element's position, counted from the operand's first."""
        walked = list(zip(self._names, self._strides[_key(operand)]))
        short, number = self.short and len(walked) > 1, len(self._writer.params)
        terms = []
        for d, (name, stride) in enumerate(walked):
            if stride == 0:
                continue
            at = f"gp::low({name})" if short else name
            if stride != 1:
                step = self._writer.params.add(f"{self._prefix}step{number}_{d}", stride)
                at += f" * gp::low({step})" if short else f" * {step}"
            terms.append(at)
        found = " + ".join(terms) or "0"
        # Steps back are right too: numbers of 32 bits wrap around.
        return f"static_cast<int>({found})" if short and terms else found


class VectorIndex:
    """Elements `j` of vectors `g` of arrays that are walked straight, or that are one row for all;
    see `Index`.

    Attributes:
        loads, stores: statements before and after the loop over j.
    """

    lines: Sequence[str] = ()

    def __init__(self, writer: Writer, index: Index, lanes: int) -> None:
        self._writer, self._index, self._lanes = writer, index, lanes
        self.loads: list[str] = []
        self.stores: list[str] = []

    @staticmethod
    def takes(index: Index, operand: Operand) -> bool:
        """The operand is of one of these kinds, or a single element."""
        strides, dims = index.strides(operand), index.dims
        straight = (1,) if len(dims) == 1 else (dims[-1], 1)
        return strides == straight or VectorIndex.single(index, operand) or strides == (0, 1)

    @staticmethod
    def single(index: Index, operand: Operand) -> bool:
        """One element serves all positions."""
        return not any(index.strides(operand))

    def read(self, operand: Operand) -> str:
        """The element; its vector is loaded once."""
        pointer = self._writer.pointer(operand)
        if self.single(self._index, operand):
            return f"{pointer}[0]"
        at = "g"
        if self._index.strides(operand) == (0, 1):
            width = self._writer.params.add("row_vectors", self._index.dims[1] // self._lanes)
            at = f"gp::low(g) % gp::low({width})"
        kind = f"gp::Vector<{ctype_of(operand.dtype)}, {self._lanes}>"
        load = f"const {kind} v_{pointer} = reinterpret_cast<const {kind}*>({pointer})[{at}];"
        if load not in self.loads:
            self.loads.append(load)
        return f"v_{pointer}.at[j]"

    def write(self, operand: Operand, value: str) -> str:
        """Keep the element; its vector is stored after the loop."""
        pointer = self._writer.pointer(operand, True)
        kind = f"gp::Vector<{ctype_of(operand.dtype)}, {self._lanes}>"
        self.loads.append(f"{kind} v_{pointer};")
        self.stores.append(f"reinterpret_cast<{kind}*>({pointer})[g] = v_{pointer};")
        return f"v_{pointer}.at[j] = {value};"


def fits(shape: Shape, strides: Sequence[Sequence[int]]) -> bool:
    """Positions in an iteration space, and places of operands with these strides, have 31 bits."""
    reach = [sum((n - 1) * abs(s) for n, s in zip(shape, one)) for one in strides]
    return max(math.prod(shape), *reach, 0) < SHORT


def _key(operand: Operand) -> tuple[object, ...]:
    return operand.buffer, operand.offset, operand.dtype, operand.shape, operand.strides


def _broadcast(operand: Operand, shape: Shape) -> tuple[int, ...]:
    """The operand's strides along the axes of `shape`; 0 where it is repeated."""
    extra = len(shape) - len(operand.shape)
    walked = [s if n != 1 else 0 for n, s in zip(operand.shape, operand.strides)]
    return (0,) * extra + tuple(walked)
