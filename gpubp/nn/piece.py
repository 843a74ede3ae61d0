"""A part of a parameter as a parameter of its own: what one rank updates of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from gpubp.nn.parameter import Parameter


class Piece(Parameter):
    """Elements of a parameter that has a bank, in C order, as a vector in the same memory.

    Args:
        whole: the parameter.
        low, high: the first element, and the one behind the last.

    Attributes:
        whole, low, high: these.
    """

    def __init__(self, whole: Parameter, low: int, high: int) -> None:
        super().__init__(whole.value.reshape(-1)[low:high], name=whole.name)
        assert whole.bank is not None
        self.whole, self.low, self.high = whole, low, high
        self.bank, self.offset = whole.bank, whole.offset + low
        self._value = whole.bank.data[self.offset : self.offset + self.size]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same part of an array of the parameter's shape (a view if it is in C order)."""
        found: NDArray[Any] = array.reshape(-1)[self.low : self.high]
        return found


class Pieces(Protocol):
    """Which parts of parameters this process has, and how to put the parts of all together."""

    def of(self, param: Parameter) -> Piece | None:
        """What is here of a parameter that has a bank; None for nothing."""
        ...

    def covers(self, param: Parameter) -> bool:
        """The parameter has been divided."""
        ...

    def joined(self, param: Parameter, part: NDArray[Any] | None) -> NDArray[Any] | None:
        """The whole of an array beside a parameter, of everybody's parts; None if there are none.
        All call it together."""
        ...


def by_piece(
    pieces: Pieces, values: Mapping[Parameter, NDArray[Any]], params: Sequence[Parameter]
) -> dict[Parameter, NDArray[Any]]:
    """Arrays by parameter, with those of parameters that are divided cut to what is here.

    Args:
        pieces: of this process.
        values: arrays of the parameters' shapes.
        params: to be divided.
    """
    divided = {id(p) for p in params}
    found: dict[Parameter, NDArray[Any]] = {}
    for param, value in values.items():
        if id(param) not in divided:
            found[param] = value
            continue
        piece = pieces.of(param)
        if piece is not None:
            found[piece] = piece.of(value).copy()
    return found
