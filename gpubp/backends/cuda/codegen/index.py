"""Where elements are: positions in an iteration space as places in arrays.

Comes in: operands of a part. Goes out: C++ expressions that read and write their elements, one by
one or as vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.compiler.parts import Operand
from gpubp.compiler.views import collapse
from gpubp.core import Shape


class Index:
    """Turns a position in an iteration space into the place of an operand's element.

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
        rest = whole
        for d in reversed(range(1, len(dims))):
            size = self._writer.params.add(f"{self._prefix}size{d}", dims[d])
            lines.append(f"const gp::i64 {self._prefix}i{d} = {rest} % {size};")
            rest = f"({rest}) / {size}"
        return [*lines, f"const gp::i64 {self._prefix}i0 = {rest};"]

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
        terms = []
        number = len(self._writer.params)
        for d, (name, stride) in enumerate(zip(self._names, self._strides[_key(operand)])):
            if stride == 1:
                terms.append(name)
            elif stride != 0:
                step = self._writer.params.add(f"{self._prefix}step{number}_{d}", stride)
                terms.append(f"{name} * {step}")
        return " + ".join(terms) or "0"


class VectorIndex:
    """Elements `j` of vectors `g` of arrays that are walked straight; see `Index`.

    Attributes:
        loads, stores: statements before and after the loop over j.
    """

    lines: Sequence[str] = ()

    def __init__(
        self, writer: Writer, index: Index, operands: Sequence[Operand], lanes: int
    ) -> None:
        self._writer, self._index, self._lanes = writer, index, lanes
        self.loads: list[str] = []
        self.stores: list[str] = []

    def read(self, operand: Operand) -> str:
        """The element; its vector is loaded once."""
        pointer = self._writer.pointer(operand)
        if self._index.strides(operand) == (0,):
            return f"{pointer}[0]"
        kind = f"gp::Vector<{ctype_of(operand.dtype)}, {self._lanes}>"
        load = f"const {kind} v_{pointer} = reinterpret_cast<const {kind}*>({pointer})[g];"
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


def _key(operand: Operand) -> tuple[object, ...]:
    return operand.buffer, operand.offset, operand.dtype, operand.shape, operand.strides


def _broadcast(operand: Operand, shape: Shape) -> tuple[int, ...]:
    """The operand's strides along the axes of `shape`; 0 where it is repeated."""
    extra = len(shape) - len(operand.shape)
    walked = [s if n != 1 else 0 for n, s in zip(operand.shape, operand.strides)]
    return (0,) * extra + tuple(walked)
