"""Text of CUDA sources: parameters and pointers.

Comes in: a part of a program. Goes out: lines of CUDA C++, and the numbers for their `Params`; what
uses them is written by `index` (elements of arrays) and `chain` (elementwise ops). Sizes, strides,
addresses and attributes are parameters, so a source depends on the structure of a part alone, and
one compiled source serves every shape.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from gpubp.compiler.parts import Operand, Part

CTYPES = {
    "bool": "bool",
    "int32": "int",
    "int64": "gp::i64",
    "float32": "float",
    "float64": "double",
}
SHORT = 1 << 31  # positions below are counted in 32 bits
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


def number_of(*counts: int) -> str:
    """The C type in which positions up to these are counted; also of steps beyond the last."""
    return "gp::u32" if max(counts) < SHORT else "gp::i64"


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


class Own(Protocol):
    """Where a temporary is in a block's own memory: its first byte; bytes of a row, of which only
    the block's own are there, or 0.
    """

    @property
    def start(self) -> int: ...
    @property
    def row(self) -> int: ...


class LocalWriter(Writer):
    """Moving addresses stand in the block's own table `at`, in shared memory.

    Args:
        part, places: see `Writer`.
        own: accesses that go to the block's own memory: buffer, byte in it, whether it is written.
    """

    def __init__(
        self, part: Part, places: Places, own: Mapping[tuple[int, int, bool], Own] | None = None
    ) -> None:
        super().__init__(part, places)
        self._own = own or {}

    def _address(self, number: int, buffer: int, start: int, ctype: str) -> str:
        found = self._own.get((buffer, start, not ctype.startswith("const ")))
        if found is not None:
            place = self.params.add(f"at{number}", found.start)
            before = f" - first * {self.params.add(f'own{number}', found.row)}" if found.row else ""
            return f"gp::kept<{ctype}>(own, {place}{before})"
        base, entry = self._places.locate(buffer)
        at = self.params.add(f"at{number}", base + start, "gp::u64")
        return f"gp::fixed<{ctype}>({at if entry is None else f'at[{entry}] + {at}'})"
