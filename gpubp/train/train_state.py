"""Where training stands: one record that the loop moves on, and that checkpoints hold.

The names of its fields stand here alone. What a checkpoint keeps of it is marked as saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.runtime.totals import spoiled, together
from gpubp.train.history import History
from gpubp.train.hooks import Hooks
from gpubp.train.numbers import rows_of_terms

# Reasons to stop that a resumed run does not inherit.
PASSING = ("interrupted", "max_steps", "max_time")

# Marks the fields that checkpoints hold, under their names.
SAVED = {"saved": True}


@dataclass
class Pending:
    """State that was read, and waits for what it belongs to.

    Attributes:
        slots: values for the slots that the compiled step writes.
        callbacks: (class name, state) of each callback.
        slot_names: of the slots; none in files of before.
        ranks: that the step was shared by; see `Ranks.kind`.
    """

    slots: list[NDArray[Any]]
    callbacks: list[Any]
    slot_names: list[str]
    ranks: list[Any]


@dataclass
class TrainState:
    """Where a trainer stands, between two steps.

    Attributes:
        rng: draws the order of each epoch's samples.
        epoch: whole epochs trained so far.
        steps: batches trained on so far.
        position: samples trained on in the epoch that was left unfinished; else 0.
        losses: of the unfinished epoch, for each chunk of steps; see `Step.totals`.
        numbers_so_far: the same, for each chunk, of what the loss function gives beside the loss,
            by name.
        history: the records of all epochs.
        fit_start, fit_steps: `epoch` and `steps` when the call of fit began that this run is of.
        fit_facts: what must be as it was, to go on within an epoch.
        stop_reason: why the last fit ended before its last epoch, else None.
        made: options that a resumed run compares its own with; see `resumption`.
        classes: the labels, if they are texts, in the order of the model's outputs.
        epoch_rng: the state of `rng` from which the order of the epoch in progress was drawn.
        diverged: the reason to stop was a loss that is not finite.
        resuming: this call of fit goes on from a checkpoint.
        pending: what a checkpoint held for a step that is not compiled yet.
        callbacks: of the call of fit.
        numbers: names in its records.
        watched: which of them the schedule is fed.
    """

    rng: np.random.Generator = field(metadata=SAVED)
    epoch: int = field(default=0, metadata=SAVED)
    steps: int = field(default=0, metadata=SAVED)
    position: int = field(default=0, metadata=SAVED)
    losses: list[NDArray[np.float64]] = field(default_factory=list, metadata=SAVED)
    numbers_so_far: dict[str, list[NDArray[np.float64]]] = field(
        default_factory=dict, metadata=SAVED
    )
    history: History = field(default_factory=History, metadata=SAVED)
    fit_start: int = field(default=0, metadata=SAVED)
    fit_steps: int = field(default=0, metadata=SAVED)
    fit_facts: dict[str, Any] = field(default_factory=dict, metadata=SAVED)
    stop_reason: str | None = field(default=None, metadata=SAVED)
    made: dict[str, Any] = field(default_factory=dict, metadata=SAVED)
    classes: list[str] = field(default_factory=list, metadata=SAVED)
    epoch_rng: Mapping[str, Any] = field(init=False)
    diverged: bool = False
    resuming: bool = False
    pending: Pending | None = None
    callbacks: Sequence[Hooks] = ()
    numbers: list[str] = field(default_factory=list)
    watched: str | None = None

    def __post_init__(self) -> None:
        self.epoch_rng = self.rng.bit_generator.state

    @classmethod
    def saved(cls) -> list[str]:
        """The names of the fields that a checkpoint holds."""
        return [f.name for f in fields(cls) if f.metadata == SAVED]

    def stop(self, reason: str, diverged: bool = False) -> None:
        """Note a reason to end the run; see `Trainer.stop`."""
        self.stop_reason = self.stop_reason or reason
        self.diverged = self.diverged or diverged

    def begin(self, made: dict[str, Any]) -> None:
        """A run that goes on from no checkpoint begins at the start of an epoch."""
        self.resuming = False
        self._forget()
        self.made = made

    def end_epoch(self) -> None:
        """The epoch in progress is done."""
        self.epoch += 1
        self._forget()

    def _forget(self) -> None:
        self.position, self.losses, self.numbers_so_far = 0, [], {}

    def add(
        self, rows: NDArray[np.float64], numbers: Mapping[str, Any], size: int, samples: int
    ) -> None:
        """Add what the loss function gave in a chunk of steps.

        Args:
            rows: of the loss; see `Step.totals`.
            numbers: beside it, by name, as from `numbers.with_terms`, a row for each step.
            size: samples of a batch; the last one may have fewer.
            samples: of all of them.
        """
        self.losses.append(rows)
        sizes = np.minimum(size, samples - size * np.arange(len(rows)))
        for name, terms in numbers.items():
            self.numbers_so_far.setdefault(name, []).append(rows_of_terms(sizes, *terms))

    def start_order(self) -> None:
        """Let `rng` stand where the order of this epoch is drawn from, begun or not."""
        if self.position:
            self.rng.bit_generator.state = self.epoch_rng
        self.epoch_rng = self.rng.bit_generator.state

    def unbegin(self) -> None:
        """An epoch is left before its first step: its order is drawn again."""
        if not self.position:
            self.rng.bit_generator.state = self.epoch_rng

    @property
    def mean_loss(self) -> float:
        """The loss of the epoch's samples so far: one sum, wherever chunks end; NaN of none."""
        return together(np.concatenate(self.losses)) if self.losses else float("nan")

    @property
    def means(self) -> dict[str, float]:
        """The loss of the epoch's samples so far, and what else its function gives, by name."""
        numbers = {k: together(np.concatenate(v)) for k, v in self.numbers_so_far.items()}
        return {"loss": self.mean_loss, **numbers}

    @property
    def is_spoiled(self) -> bool:
        """A loss of the epoch so far is NaN or infinite."""
        return any(bool(spoiled(rows).any()) for rows in self.losses)

    @property
    def batches(self) -> int:
        """How many batches of the epoch in progress are done."""
        return sum(map(len, self.losses)) if self.position else 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, by the names of `saved()`: numbers, arrays, lists and dicts."""
        reason, order = self.stop_reason, self.rng.bit_generator.state
        return {
            **{name: getattr(self, name) for name in self.saved()},
            "losses": np.concatenate(self.losses) if self.losses else np.zeros((0, 1, 2)),
            "numbers_so_far": {k: np.concatenate(v) for k, v in self.numbers_so_far.items()},
            "history": self._whole_epochs(),
            "rng": dict(self.epoch_rng if self.position else order),
            "stop_reason": None if reason in PASSING else reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; if it raises, nothing has changed.

        Raises:
            TypeError, ValueError: no state of the random generator.
        """
        self.rng.bit_generator.state = self.epoch_rng = state["rng"]
        self.history.restore(state["history"])
        for name in self.saved():
            if name not in ("rng", "history", "losses", "numbers_so_far"):
                setattr(self, name, state[name])
        self.losses = [state["losses"]] if self.position else []
        self.numbers_so_far = {k: [v] for k, v in state["numbers_so_far"].items()}
        self.diverged = False

    def _whole_epochs(self) -> list[dict[str, float]]:
        """The records, without that of an epoch which a resumed run will finish."""
        records = self.history.records
        unfinished = self.position > 0 and bool(records) and records[-1]["epoch"] > self.epoch
        return records[:-1] if unfinished else list(records)
