"""Copies of operands for products: rounded, negated, or at an address that stays.

Comes in: which operand is wanted in which form. Goes out: the copy's address, and whether a kernel
must make it now. Holds in between: within a step a copy is made once, and is current until
something is written where its source is. An element's copy lies where the element does in its
buffer, counted in elements (of turned filters: within the filters' place): so copies of values that
live at one time never meet, and views of a value share one copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpubp.backends.cuda.drivers.base import Driver, Memory
from gpubp.backends.cuda.products import ALIGNED
from gpubp.compiler.parts import Operand, Part

SHORT = ("bfloat16", "float16")  # forms of 2 bytes an element; the others are as the source
ROUNDED = {"bf16": "bfloat16", "float16": "float16"}  # of a precision, the form of factors
STAGED = {**ROUNDED, "tf32": "tf32"}  # that our own products read; the library needs none


def of_filters(form: str, channels: int, taps: int) -> str:
    """The form of filters whose channels are neighbours: (O, C, T) becomes (O, T, C)."""
    return f"{form} {channels} {taps}" if taps > 1 else form


def reach(operand: Operand) -> tuple[int, int]:
    """The first element of its buffer that an operand has, and the one after the last."""
    steps = [(n - 1) * s for n, s in zip(operand.shape, operand.strides)]
    first = operand.offset + sum(min(step, 0) for step in steps)
    return first, operand.offset + sum(max(step, 0) for step in steps) + 1


def size_of(operand: Operand, form: str) -> int:
    """Bytes of a copy's element."""
    return 2 if form.split()[0] in SHORT else operand.dtype.itemsize


def reach_bytes(operand: Operand) -> tuple[int, int]:
    """`reach` in bytes."""
    first, last = reach(operand)
    return first * operand.dtype.itemsize, last * operand.dtype.itemsize


@dataclass
class _Extent:
    """Bytes `low` to `high` of the copies of one buffer; `start`: where byte 0 would be."""

    low: int
    high: int
    start: int = 0


class Copies:
    """The copies of one program.

    Attributes:
        touched: what was asked for since somebody emptied it: (buffer, form, bytes of an element),
            first and last byte of the source, and whether the copy has to be made.
    """

    def __init__(self) -> None:
        self.touched: list[tuple[tuple[int, str, int], int, int, bool]] = []
        self._extents: dict[tuple[int, str, int], _Extent] = {}
        self._current: set[tuple[int, str, int, int]] = set()  # buffer, form, bytes of the source

    def begin(self) -> None:
        """A step starts: nothing is current."""
        self._current.clear()

    def address(self, operand: Operand, form: str) -> int:
        """Where the copy of an operand's first element is, as known now."""
        extent = self._extents.get((operand.buffer, form, operand.dtype.itemsize))
        return (extent.start if extent else 0) + operand.offset * size_of(operand, form)

    def need(self, operand: Operand, form: str) -> bool:
        """Ask for a copy; whether it has to be made now."""
        size = size_of(operand, form)
        first, last = (i * size for i in reach(operand))
        low, high = first // ALIGNED * ALIGNED, -(-last // ALIGNED) * ALIGNED
        key = operand.buffer, form, operand.dtype.itemsize
        extent = self._extents.setdefault(key, _Extent(low, high))
        extent.low, extent.high = min(extent.low, low), max(extent.high, high)
        start, stop = reach_bytes(operand)
        for buffer, known, a, b in self._current:
            if (buffer, known) == (operand.buffer, form) and a <= start and stop <= b:
                self.touched.append((key, start, stop, False))
                return False
        self.touched.append((key, start, stop, True))
        self._current.add((operand.buffer, form, start, stop))
        return True

    def written(self, part: Part) -> None:
        """A part has been computed: copies of what it wrote are old."""
        for _, operand in part.outputs:
            start, stop = reach_bytes(operand)
            self._current = {
                kept
                for kept in self._current
                if kept[0] != operand.buffer or kept[3] <= start or stop <= kept[2]
            }

    @property
    def nbytes(self) -> int:
        """Of all that was asked for."""
        return sum(extent.high - extent.low for extent in self._extents.values())

    def allocate(self, driver: Driver) -> list[Memory]:
        """Memory for all that was asked for; addresses are right from now on.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        kept = []
        for extent in self._extents.values():
            memory = driver.allocate(extent.high - extent.low)
            extent.start = memory.address - extent.low
            kept.append(memory)
        return kept
