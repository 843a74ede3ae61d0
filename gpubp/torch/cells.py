"""What a tensor of a torch program holds while it is translated: an array that may be written.

gpubp's arrays are values; torch's tensors share memory, and are written in place. A cell stands for
memory: what writes into it, or into a view of it, is seen by all who look at it later.

Holds in between: a view is computed from its base as the base is now; a slot is written by
`ops.assign`, so a step's program ends with the new value in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core.store import Slot
from gpubp.errors import TraceError


class Cell(ABC):
    """Memory of one tensor.

    Attributes:
        version: how often it was written.
    """

    version = 0

    @abstractmethod
    def read(self) -> Any:
        """What stands there now."""

    @abstractmethod
    def write(self, new: Any) -> None:
        """Replace it."""


class Fresh(Cell):
    """A result that nothing else shares.

    Args:
        value: the array.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def read(self) -> Any:
        """The array."""
        return self._value

    def write(self, new: Any) -> None:
        """Replace the array."""
        self._value = new
        self.version += 1


class Held(Cell):
    """A parameter or a buffer.

    Args:
        slot: where it lives.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def read(self) -> Any:
        """The slot, which ops take as an array."""
        return self.slot

    def write(self, new: Any) -> None:
        """Note that the step ends with this value in it; at once, outside of a trace."""
        ops.assign(self.slot, new)
        self.version += 1


class View(Cell):
    """A part or another arrangement of what is in another cell.

    Args:
        base: that cell.
        of: computes the view from what is in the base.
    """

    def __init__(self, base: Cell, of: Callable[[Any], Any]) -> None:
        self._base, self._of = base, of
        self._seen = -1
        self._value: Any = None

    @property
    def base(self) -> Cell:
        """What it is a view of."""
        return self._base

    @property
    def version(self) -> int:  # type: ignore[override]
        """The base's."""
        return self._base.version

    def read(self) -> Any:
        """The view of what is in the base now."""
        if self._seen != self._base.version:
            self._value = self._of(self._base.read())
            self._seen = self._base.version
        return self._value

    def write(self, new: Any) -> None:
        """Replace these elements of the base."""
        base = self._base.read()
        shape, size = tuple(base.shape), int(np.prod(base.shape))
        places = np.asarray(self._of(np.arange(size).reshape(shape)))
        flat = places.reshape(-1)
        if np.array_equal(flat, np.arange(size)):
            self._base.write(ops.reshape(new, shape))
        else:
            self._base.write(ops.put(base, flat, ops.reshape(new, (flat.size,))))


class Detached(View):
    """A view that passes no gradient on.

    Args:
        base: the cell.
    """

    def __init__(self, base: Cell) -> None:
        super().__init__(base, detached)

    def write(self, new: Any) -> None:
        """Replace what is in a buffer; what has a gradient would lose it."""
        if not held(self):
            raise TraceError(
                "a result is written in place behind detach(): what its gradient is then depends "
                "on when. Compute a new tensor instead."
            )
        super().write(new)


def root(cell: Cell) -> Cell:
    """The cell whose memory a view shares."""
    while isinstance(cell, View):
        cell = cell.base
    return cell


def held(cell: Cell) -> bool:
    """It is (a view of) a parameter or a buffer."""
    return isinstance(root(cell), Held)


def detached(x: Any) -> Any:
    """An array that passes no gradient on."""
    return x if isinstance(x, np.ndarray) else ops.stop_gradient(x)
