"""Several optimisers of one step: each updates its own parameters, with the gradients of one loss.

As in torch, where `step()` of one is called after the other's: Muon for matrices, AdamW for the
rest. The step sees one optimiser, so nothing else knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp.arguments import shown
from gpubp.core import Array
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError
from gpubp.runtime.settings import StepOptimizer, Writes, searches


class Several:
    """Optimisers as one.

    Args:
        members: at least one; no parameter is in two of them.

    Attributes:
        members: the optimisers.

    Raises:
        ArgumentError: something that is not an optimiser.
        DataError: none, a parameter in two of them, or one that searches.
    """

    def __init__(self, members: Sequence[StepOptimizer]) -> None:
        self.members = list(members)
        for member in self.members:
            if not hasattr(member, "parameters"):
                raise ArgumentError(
                    f"got {shown(member)} for an optimizer, expected one of gpubp.optim."
                )
            if searches(member) and len(self.members) > 1:
                raise DataError(
                    f"{type(member).__name__} moves all parameters of a step: it cannot be one of "
                    "several optimizers."
                )
        if not self.members:
            raise DataError("the list of optimizers is empty.")
        self._check_apart()

    def _check_apart(self) -> None:
        seen: dict[int, Slot] = {}
        for member in self.members:
            for param in member.parameters():
                if id(param) in seen:
                    raise DataError(f"parameter {param.name} is in two of the optimizers.")
            seen.update({id(param): param for param in member.parameters()})

    def parameters(self) -> list[Slot]:
        """Those of all, one optimiser after the other."""
        self._check_apart()  # parameters may have been added, or thawed
        return [param for member in self.members for param in member.parameters()]

    def prepare(self) -> None:
        """Create the state arrays of all."""
        for member in self.members:
            member.prepare()

    def emit(self, grads: dict[int, Array]) -> Writes:
        """Append the updates of all to the trace."""
        writes: Writes = []
        for member in self.members:
            mine = {id(param) for param in member.parameters()}
            writes += member.emit({key: grad for key, grad in grads.items() if key in mine})
        return writes


def as_one(optimizer: Any) -> StepOptimizer:
    """One optimiser for what `compile_step` is given: an optimiser, or a list of several.

    Raises:
        ArgumentError, DataError: see `Several`.
    """
    members = Several(optimizer if isinstance(optimizer, (list, tuple)) else [optimizer])
    return members if len(members.members) > 1 else members.members[0]
