"""Callbacks: what is done beside training, and the ones that most runs need.

A callback is called between chunks of steps, never between two steps. It may read everything of the
trainer, add numbers to an epoch's record, and ask to end with `trainer.stop(reason)`. What it must
remember over a resumption goes through `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.runtime.totals import spoiled

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer


class Callback:
    """Base: every method does nothing. Callbacks are called in the order they are given in."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first epoch; `trainer.resuming` says whether a checkpoint was loaded."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before an epoch (from 1), or before the rest of one that is resumed."""

    def on_chunk_end(self, trainer: Trainer, losses: NDArray[Any]) -> None:
        """After a chunk of steps; `losses` holds one number a step: NaN where nothing counted.

        How long chunks are varies. `trainer.losses[-1]` holds the chunk's sums and counts.
        """

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """After a whole epoch; what is added to `record` appears in the history."""

    def on_train_end(self, trainer: Trainer) -> None:
        """At the end, whatever the reason for it."""

    def adds(self, trainer: Trainer) -> list[str] | None:
        """Names of the numbers that `on_epoch_end` adds to a record; None if that is not known.

        So a name to watch that no record will have is refused before the first step. Default: not
        known, if `on_epoch_end` is the user's.
        """
        ours = type(self).on_epoch_end.__module__.partition(".")[0] == __name__.partition(".")[0]
        return [] if ours else None

    def state_dict(self) -> dict[str, Any]:
        """What to remember in a checkpoint: numbers, strings, arrays, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def numbers_before(trainer: Trainer, callback: Callback) -> list[str] | None:
    """Names in the records of a fit when they come to one of its callbacks.

    None if a callback before it may add some that nobody knows.
    """
    names = list(trainer.state.numbers)
    for other in trainer.callbacks:
        if other is callback:
            break
        added = other.adds(trainer) if isinstance(other, Callback) else None
        if added is None:
            return None
        names += added
    return names


class TerminateOnNaN(Callback):
    """Ends training when a loss is NaN or infinite: looked at after each chunk of steps.

    A batch in which nothing counts, all of its labels ignored, is no reason: it moved nothing.
    """

    def on_chunk_end(self, trainer: Trainer, losses: NDArray[Any]) -> None:
        """Look."""
        bad = spoiled(trainer.losses[-1])
        if bad.any():
            first = int(np.argmax(bad))
            step = trainer.steps - len(losses) + first + 1
            trainer.stop(f"the loss was {losses[first]} at step {step}", diverged=True)


class LRMonitor(Callback):
    """Adds the learning rate that an epoch began with to its record, as "lr" (and "lr_1", ...)."""

    def __init__(self) -> None:
        self._rates: list[float] = []

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Read the rates."""
        if not (trainer.position and self._rates):
            self._rates = [float(group["lr"]) for group in trainer.optimizer.param_groups]

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Add them."""
        for i, rate in enumerate(self._rates):
            record[f"lr_{i}" if i else "lr"] = rate
        self._rates = []

    def adds(self, trainer: Trainer) -> list[str] | None:
        """One name for each group."""
        return [f"lr_{i}" if i else "lr" for i in range(len(trainer.optimizer.param_groups))]

    def state_dict(self) -> dict[str, Any]:
        """The rates of an epoch in progress."""
        return {"rates": self._rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._rates = [float(rate) for rate in state["rates"]]
