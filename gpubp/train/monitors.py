"""Callbacks that watch a number of the history: stop when it no longer improves, keep the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError, UnknownNameError, unknown_name, warn
from gpubp.train.callbacks import Callback, numbers_before
from gpubp.train.direction import direction

if TYPE_CHECKING:
    from gpubp.train.tensorfile import Path_
    from gpubp.train.trainer import Trainer


class Monitor(Callback):
    """Base of callbacks that watch a number for its best value.

    Args:
        monitor: which number of the record.
        mode: "min", "max", or "auto": by the name ("val_acc" rises, "val_f1_loss" falls); a name
            that does not tell is taken as "min", with a warning that asks for the mode.
        min_delta: what counts as better, at least.

    Attributes:
        best: the best value so far.
        best_epoch: when that was.
    """

    @checked
    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise unknown_name("mode", mode, ("auto", "min", "max"))
        self.monitor = monitor
        self.mode = self._told_by(monitor) if mode == "auto" else mode
        self.min_delta = abs(float(min_delta))
        self.forget()

    def _told_by(self, monitor: str) -> str:
        found = direction(monitor)
        if found is None:
            warn(
                f"{type(self).__name__}: the name {monitor!r} does not say whether it should rise "
                "or fall. Taken as mode='min'; pass mode='min' or mode='max'."
            )
        return found or "min"

    def forget(self) -> None:
        """Start anew."""
        self.best = -math.inf if self.mode == "max" else math.inf
        self.best_epoch = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """A new run starts anew; one that is resumed goes on.

        Raises:
            UnknownNameError: the records of this run will have no such number.
        """
        known = numbers_before(trainer, self)
        if known is not None and self.monitor not in known:
            raise self._unknown(known)
        if not trainer.resuming:
            self.forget()

    def _unknown(self, known: Iterable[str]) -> UnknownNameError:
        return unknown_name(f"number for {type(self).__name__} to watch", self.monitor, known)

    def improved(self, epoch: int, record: Mapping[str, float]) -> bool:
        """Take note of an epoch; True if it is the best so far, which NaN and infinity never are.

        Raises:
            UnknownNameError: the record has no such number.
        """
        if self.monitor not in record:
            raise self._unknown(record)
        value = record[self.monitor]
        gain = value - self.best if self.mode == "max" else self.best - value
        if not (gain > self.min_delta and math.isfinite(value)):
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
        start_from_epoch: epochs before this one are not looked at, and are never the best: a small
            held-out part may happen to be predicted best by a model that has hardly learned.

    Raises:
        DataError: a patience below 1, or a negative epoch.
    """

    @checked
    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        if patience < 1:
            raise DataError(f"patience={patience}: expected at least 1.")
        if start_from_epoch < 0:
            raise DataError(f"start_from_epoch={start_from_epoch}: expected an epoch, or 0.")
        self.start_from_epoch = start_from_epoch
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
        if epoch < self.start_from_epoch:
            return
        usable = not self.restore_best_weights or trainer.weights_are_finite()
        if usable and self.improved(epoch, record):
            self.waited = 0
            if self.restore_best_weights:
                self.weights = trainer.model.state_dict()
            return
        self.waited += 1
        if self.waited >= self.patience:
            best = f"was best in epoch {self.best_epoch} ({self.best:.6g})"
            if not self.best_epoch:
                best = f"was in no epoch a finite number ({record.get(self.monitor)} at last)"
            trainer.stop(f"early stopping: {self.monitor} {best}")

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

    @checked
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
        """Write the model if it is time to; weights that are not finite are never written."""
        from gpubp.train.modelfile import save_model

        if not trainer.weights_are_finite():
            return
        if self.save_best_only and not self.improved(epoch, record):
            return
        if not trainer.ranks.leads:
            return
        save_model(self._filled({**record, "epoch": epoch}), trainer.model, self.extra)

    def on_train_begin(self, trainer: Trainer) -> None:
        """As of every monitor; what it will write, and where to, is checked.

        Raises:
            DataError: a name in the path that the records will not have, or no such folder.
        """
        if self.save_best_only:
            super().on_train_begin(trainer)
        known = numbers_before(trainer, self)
        if known is not None:
            path = self._filled({**dict.fromkeys(known, 0.0), "epoch": 1})
            if not path.parent.is_dir():
                raise DataError(f"{path} cannot be written: the folder {path.parent} is not there.")

    def _filled(self, values: Mapping[str, float]) -> Path:
        try:
            return Path(str(self.path).format(**values))
        except (KeyError, ValueError, IndexError) as error:
            known = ", ".join(values)
            raise DataError(
                f"{self.path} cannot be filled in ({error}); known: {known}."
            ) from error
