"""Optimisers of which each rank keeps a part: pieces of the parameters, and state beside these.

Comes in: `Pieces`, which say what is here of a parameter. What is asked of the optimiser (its
state, a state to go on from) is of whole parameters still; putting it together takes all ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from gpubp.core import Array
from gpubp.core.store import Slot
from gpubp.errors import CopyError
from gpubp.nn.parameter import Parameter
from gpubp.nn.piece import Piece, Pieces, by_piece
from gpubp.optim.group import ParamGroup
from gpubp.optim.state import Arrays, Cohorts, Edits


class Divisible(ABC):
    """The part of `Optimizer` that knows of pieces.

    Attributes:
        elementwise: each element is updated by what belongs to it alone, so that parameters can be
            cut anywhere.
        pieces: what is here of the parameters; None where all is.
    """

    elementwise = True
    pieces: Pieces | None = None
    param_groups: list[ParamGroup]
    _arrays: Arrays
    _cohorts: Cohorts
    _edits: Edits

    def divide(self, pieces: Pieces) -> None:
        """Keep and update these pieces of the trained parameters from now on; the state of what is
        elsewhere is let go of."""
        trained = [p for g in self.param_groups for p in g.params if p.requires_grad]
        if self._arrays.divide(pieces, trained) or self.pieces is not pieces:
            object.__setattr__(self, "pieces", pieces)
            self._edits.note()

    def steps_taken(self) -> list[int]:
        """How many steps each parameter has taken, where that is counted."""
        params = [p for g in self.param_groups for p in g.params]
        return [self._cohorts.of(p).past[0] for p in params]

    def number_slots(self) -> list[Slot]:
        """Options and counts that programs read and write."""
        moving = [slot for group in self.param_groups for slot in group.slots()]
        counts = [slot for c in self._cohorts for slot in (c.count, *c.scalars.values())]
        return [*moving, *counts]

    def divided_slots(self) -> list[Slot]:
        """The pieces that have state here, and that state."""
        return self._arrays.divided()

    def _here(self, group: ParamGroup) -> list[Parameter]:
        """What is here of a group's trained parameters."""
        trained = [p for p in group.params if p.requires_grad]
        if self.pieces is None:
            return trained
        return [piece for p in trained if (piece := self.pieces.of(p)) is not None]

    def _given(self, grads: Mapping[int, Array]) -> set[int]:
        """Whose steps count: the parameters with a gradient, here or on another rank."""
        if self.pieces is None:
            return set(grads)
        return {id(p) for g in self.param_groups for p in g.params if p.requires_grad}

    def _updated(
        self, params: Sequence[Parameter], grads: Mapping[int, Array]
    ) -> Iterator[tuple[Parameter, Array]]:
        """What is updated here of parameters, and its gradient."""
        for param in params:
            if id(param) in grads:
                here = param if self.pieces is None else self.pieces.of(param)
                assert here is not None
                yield here, grads[id(param)]

    def _array(self, name: str, param: Parameter) -> NDArray[Any] | None:
        """A copy of a state array, if there is one; of a divided one all ranks' parts."""
        if self.pieces is None or not self.pieces.covers(param):
            return self._arrays.value(name, param)
        piece = self.pieces.of(param)
        part = None if piece is None else self._arrays.value(name, piece)
        return self.pieces.joined(param, part)

    def _cut(
        self, saved: dict[str, dict[Parameter, NDArray[Any]]]
    ) -> dict[str, dict[Parameter, NDArray[Any]]]:
        """State arrays of whole parameters, as they are kept here."""
        pieces = self.pieces
        if pieces is None:
            return saved
        known = [p for g in self.param_groups for p in g.params if pieces.covers(p)]
        return {name: by_piece(pieces, values, known) for name, values in saved.items()}

    def _start_of(self, name: str, param: Parameter) -> float:
        """What a state array of a parameter, or of what is here of it, starts from."""
        whole = param.whole if isinstance(param, Piece) else param
        group = next(g for g in self.param_groups if any(p is whole for p in g.params))
        return self.initial(name, group)

    @abstractmethod
    def initial(self, name: str, group: ParamGroup) -> float:
        """See `Optimizer.initial`."""

    def __getstate__(self) -> dict[str, Any]:
        if self.pieces is not None:
            raise CopyError(
                f"the state of this {type(self).__name__} is divided among ranks "
                "(shard_optimizer=True), so it cannot be copied or pickled. Call state_dict() on "
                "all ranks, and load that into an optimizer of the copy's parameters."
            )
        return self.__dict__
