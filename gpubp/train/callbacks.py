"""Callbacks: what is done beside training, and the ones that most runs need.

A callback is called between chunks of steps, never between two steps. It may read everything of the
trainer, add numbers to an epoch's record, and ask to end with `trainer.stop(reason)`. What it must
remember over a resumption goes through `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, unknown_name
from gpubp.totals import spoiled

if TYPE_CHECKING:
    from gpubp.train.tensorfile import Path_
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

    def state_dict(self) -> dict[str, Any]:
        """What to remember in a checkpoint: numbers, strings, arrays, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class Monitor(Callback):
    """Base of callbacks that watch a number for its best value.

    Args:
        monitor: which number of the record.
        mode: "min", "max", or "auto": "max" for accuracy, precision, recall, f1, auc and r2.
        min_delta: what counts as better, at least.

    Attributes:
        best: the best value so far.
        best_epoch: when that was.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise unknown_name("mode", mode, ("auto", "min", "max"))
        if mode == "auto":
            rising = ("accuracy", "precision", "recall", "f1", "auc", "r2")
            mode = "max" if any(name in monitor for name in rising) else "min"
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(float(min_delta))
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.best = -math.inf if self.mode == "max" else math.inf
        self.best_epoch = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """A new run starts anew; one that is resumed goes on."""
        if not trainer.resuming:
            self.forget()

    def improved(self, epoch: int, record: Mapping[str, float]) -> bool:
        """Take note of an epoch; True if it is the best so far.

        Raises:
            UnknownNameError: the record has no such number.
        """
        if self.monitor not in record:
            raise unknown_name(f"number for {type(self).__name__} to watch", self.monitor, record)
        value = record[self.monitor]
        gain = value - self.best if self.mode == "max" else self.best - value
        if not gain > self.min_delta:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best value and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])


class EarlyStopping(Monitor):
    """Ends training when a number has not become better for some epochs.

    Args:
        monitor: which number of the record.
        patience: epochs without a better value, at least 1.
        min_delta: what counts as better, at least.
        mode: "min", "max" or "auto".
        restore_best_weights: at the end, whatever the reason for it, put back parameters and
            buffers of the best epoch.

    Raises:
        DataError: a patience below 1.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        if patience < 1:
            raise DataError(f"patience={patience}: expected at least 1.")
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        super().__init__(monitor, mode, min_delta)

    def forget(self) -> None:
        """Start anew."""
        super().forget()
        self.waited = 0
        self.weights: dict[str, NDArray[Any]] = {}

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Count, and ask to end when patience is over."""
        if self.improved(epoch, record):
            self.waited = 0
            if self.restore_best_weights:
                self.weights = trainer.model.state_dict()
            return
        self.waited += 1
        if self.waited >= self.patience:
            best = f"{self.monitor} was best in epoch {self.best_epoch} ({self.best:.6g})"
            trainer.stop(f"early stopping: {best}")

    def on_train_end(self, trainer: Trainer) -> None:
        """Put the best weights back."""
        if self.weights:
            trainer.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What was found, how long ago, and the best weights."""
        return {**super().state_dict(), "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        super().load_state_dict(state)
        self.waited, self.weights = int(state["waited"]), dict(state["weights"])


class ModelCheckpoint(Monitor):
    """Writes the model to a file after epochs (the whole training state: `fit(checkpoint=...)`).

    Args:
        path: the file; `{epoch}` and names of the record are filled in, as in
            "model-{epoch:03d}-{val_loss:.3f}.safetensors".
        monitor: which number of the record.
        save_best_only: write only when that number is the best so far.
        mode: "min", "max" or "auto".
        extra: JSON values to keep with the model.
    """

    def __init__(
        self,
        path: Path_,
        monitor: str = "val_loss",
        save_best_only: bool = True,
        mode: str = "auto",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.path = path
        self.save_best_only = save_best_only
        self.extra = extra

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Write the model if it is time to."""
        from gpubp.train.modelfile import save_model

        if self.save_best_only and not self.improved(epoch, record):
            return
        try:
            path = Path(str(self.path).format(**{**record, "epoch": epoch}))
        except (KeyError, ValueError, IndexError) as error:
            known = ", ".join(record)
            raise DataError(
                f"{self.path} cannot be filled in ({error}); known: {known}."
            ) from error
        save_model(path, trainer.model, self.extra)


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
            trainer.stop(f"the loss was {losses[first]} at step {step}")


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

    def state_dict(self) -> dict[str, Any]:
        """The rates of an epoch in progress."""
        return {"rates": self._rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._rates = [float(rate) for rate in state["rates"]]
