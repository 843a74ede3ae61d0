"""Text of CUDA sources: parameters, pointers and elementwise chains.

Comes in: a part of a program. Goes out: lines of CUDA C++ that use the functors of `kernels/`, and
the numbers for their `Params`. Sizes, strides, addresses and attributes are parameters, so a source
depends on the structure of a part alone, and one compiled source serves every shape.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from gpubp.compiler.program import Compute, Operand, Part
from gpubp.compiler.views import collapse
from gpubp.core import Kind, Shape
from gpubp.errors import BackendError

CTYPES = {
    "bool": "bool",
    "int32": "int",
    "int64": "gp::i64",
    "float32": "float",
    "float64": "double",
}
# Where an operand's buffer is: (address, None) if it stays, (bytes into it, table entry) if not.
Locate = Callable[[int], tuple[int, int | None]]


class Params:
    """The fields of a kernel's one argument: 8 bytes each."""

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, float]] = {}

    def add(self, name: str, value: float, ctype: str = "gp::i64") -> str:
        """A field, once for each name; returns the expression that reads it."""
        known = self._fields.setdefault(name, (ctype, value))
        assert known == (ctype, value) or known[1] != known[1], f"two values of {name}"
        return f"p.{name}"

    def __len__(self) -> int:
        return len(self._fields)

    def text(self) -> str:
        """The definition of the struct."""
        lines = [f"  {ctype} {name};" for name, (ctype, _) in self._fields.items()]
        return "\n".join(["struct Params {", *lines, "};"])

    def pack(self) -> bytes:
        """The numbers, as the struct lays them out."""
        codes = {"gp::i64": "q", "gp::u64": "Q", "double": "d"}
        form = "<" + "".join(codes[ctype] for ctype, _ in self._fields.values())
        return struct.pack(form, *[value for _, value in self._fields.values()])


def ctype_of(dtype: object) -> str:
    """The C type of a dtype."""
    return CTYPES[str(dtype)]


class Places(Protocol):
    """What is known of the program's memory.

    Attributes:
        locate: finds a buffer; see `Locate`.
        table: the address of the program's table of moving addresses.
        written: where kernels of the part write: buffer, and byte in it.
    """

    @property
    def locate(self) -> Locate: ...
    @property
    def table(self) -> int: ...
    @property
    def written(self) -> set[tuple[int, int]]: ...


class Writer:
    """Collects what a kernel for one part needs.

    Args:
        part: the part.
        places: of the program's memory.
    """

    def __init__(self, part: Part, places: Places) -> None:
        self.part = part
        self.params = Params()
        self.pointers: list[str] = []
        self._places = places
        self._names: dict[tuple[int, int, str, bool], str] = {}

    def pointer(self, operand: Operand, write: bool = False, ctype: str | None = None) -> str:
        """A pointer to the operand's first element, declared once."""
        start = operand.offset * operand.dtype.itemsize
        return self._declared(operand.buffer, start, ctype or ctype_of(operand.dtype), write)

    def raw(self, buffer: int, ctype: str) -> str:
        """A pointer to the start of a buffer that is read."""
        return self._declared(buffer, 0, ctype, False)

    def _declared(self, buffer: int, start: int, ctype: str, write: bool) -> str:
        """A pointer `start` bytes into a buffer."""
        key = (buffer, start, ctype, write)
        if write:
            self._places.written.add((buffer, start))
        if key not in self._names:
            number = len(self._names)
            self._names[key] = name = f"{'out' if write else 'in'}{number}"
            full = ctype if write else f"const {ctype}"
            found = self._address(number, buffer, start, full)
            self.pointers.append(f"{full}* {name} = {found};")
        return self._names[key]

    def _address(self, number: int, buffer: int, start: int, ctype: str) -> str:
        base, entry = self._places.locate(buffer)
        at = self.params.add(f"at{number}", base + start, "gp::u64")
        if entry is None:
            return f"gp::fixed<{ctype}>({at})"
        table = self.params.add(f"table{number}", self._places.table, "gp::u64")
        slot = self.params.add(f"entry{number}", entry)
        return f"gp::moving<{ctype}>({table}, {slot}, {at})"


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


def chain(
    writer: Writer,
    positions: Sequence[int],
    index: Index | VectorIndex,
    whole: str,
    known: dict[int, str],
) -> list[str]:
    """Lines that compute some elementwise ops of the body at one position, and store results.

    Args:
        writer: of the part.
        positions: of the ops in the body, in order.
        index: of the iteration space.
        whole: the element's number in the iteration space, for random numbers.
        known: value number -> expression; values computed here are added.
    """
    part = writer.part
    outputs = dict(part.outputs)
    lines = list(index.lines)
    for i in positions:
        compute = part.body[i]
        made = len(part.inputs) + i
        args = []
        for a in compute.args:
            if a not in known and compute.spec.kind is not Kind.RANDOM:
                operand = part.inputs[a]
                known[a] = f"x{a}"
                lines.append(f"const {ctype_of(operand.dtype)} x{a} = {index.read(operand)};")
            args.append(known.get(a, ""))
        call = _call(writer, i, compute, args, whole)
        lines.append(f"const {ctype_of(compute.dtype)} x{made} = {call};")
        known[made] = f"x{made}"
    for i in positions:
        made = len(part.inputs) + i
        if made in outputs:
            lines.append(index.write(outputs[made], f"x{made}"))
    return lines


def operands_of(part: Part, positions: Sequence[int], also: Sequence[int] = ()) -> list[Operand]:
    """What the ops at `positions` read from memory, and where their results (and `also`'s) go."""
    count = len(part.inputs)
    read = {
        a
        for i in positions
        if part.body[i].spec.kind is not Kind.RANDOM
        for a in part.body[i].args
        if a < count
    }
    written = {count + i for i in (*positions, *also)}
    found = [part.inputs[a] for a in sorted(read)]
    return found + [o for v, o in part.outputs if v in written]


def _call(writer: Writer, position: int, compute: Compute, args: Sequence[str], whole: str) -> str:
    name, dtype = compute.spec.name, ctype_of(compute.dtype)
    if compute.spec.kind is Kind.RANDOM:
        state = writer.pointer(writer.part.inputs[compute.args[0]])
        stream = writer.params.add(f"stream{position}", compute.attrs["stream"])
        return f"gp::{name}<{dtype}>({state}, {whole}, static_cast<gp::u32>({stream}))"
    if compute.spec.kind is not Kind.ELEMENTWISE:
        raise BackendError(f"the CUDA backend cannot compute {name} inside another kernel.")
    if name == "cast":
        return f"gp::cast<{dtype}>({args[0]})"
    name = compute.spec.formula_name(compute.attrs)
    formula = compute.spec.formulas().get(name)
    if formula is None:
        raise BackendError(f"the CUDA backend has no formula of the elementwise op {name!r}.")
    numbers = [
        writer.params.add(f"{letter}{position}", float(value), "double")
        for letter, value in zip("pq", formula.attrs(compute.attrs))
    ]
    # The type is given: conditions and what is chosen by them may be booleans beside numbers.
    kind = compute.dtype if not formula.truth else writer.part.type_of(compute.args[0])[1]
    return f"gp::{name}<{ctype_of(kind)}>({', '.join([*args, *numbers])})"
