"""Callbacks that write an epoch's record somewhere; give them last, when the record is complete.

A copy or pickle knows where to write, and opens that when its own training begins.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpubp.arguments import checked
from gpubp.errors import DataError, missing_extra
from gpubp.train.callbacks import Callback
from gpubp.train.tensorfile import Path_

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer


class CSVLogger(Callback):
    """Writes one line an epoch to a CSV file, as it ends.

    The file holds the trainer's whole history: when training begins it is written anew from that,
    so a run that is resumed leaves no gaps and no line twice. When it ends, an epoch that was left
    unfinished has its line too.

    Args:
        path: the file.
    """

    @checked
    def __init__(self, path: Path_) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None
        self._columns: list[str] = []
        self._lines = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Write what is known, and open the file for more.

        Raises:
            DataError: it cannot be written.
        """
        if not trainer.ranks.leads:
            return
        try:
            trainer.history.to_csv(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}.") from error
        self._open(list(trainer.history))
        self._lines = len(trainer.history.records)

    def _open(self, columns: list[str]) -> None:
        self._columns = columns
        self._file = self.path.open("a", newline="")

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Append a line; a new column makes the file be written again."""
        if self._file is None:
            return
        self._lines += 1
        if set(record) - set(self._columns):
            self._file.close()
            trainer.history.to_csv(self.path, [record])
            self._open(list(dict.fromkeys([*self._columns, *record])))
            return
        csv.DictWriter(self._file, self._columns).writerow(record)
        self._file.flush()

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the file; what the history holds beyond it is written first."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if len(trainer.history.records) > self._lines:
                trainer.history.to_csv(self.path)


class TensorBoard(Callback):
    """Writes each number of an epoch's record as a scalar for TensorBoard, through tensorboardX.

    Args:
        log_dir: the folder.
        **options: for `tensorboardX.SummaryWriter`.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    @checked
    def __init__(self, log_dir: Path_ = "runs", **options: Any) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise missing_extra("tensorboardX", "tensorboard", "TensorBoard") from error
        self._make = tensorboardX.SummaryWriter
        self._arguments = {"logdir": os.fspath(log_dir), **options}
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writer": None}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the log; of a resumed run, what lies after the checkpoint is purged."""
        if not trainer.ranks.leads:
            return
        purge = {"purge_step": trainer.epoch + 1} if trainer.resuming else {}
        self._writer = self._make(**self._arguments, **purge)

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Write the numbers."""
        if self._writer is None:
            return
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WandbLogger(Callback):
    """Logs each epoch's record to Weights & Biases.

    Args:
        **options: for `wandb.init` (project, name, config, mode, ...).

    Raises:
        MissingExtraError: wandb is not installed.
    """

    @checked
    def __init__(self, **options: Any) -> None:
        try:
            importlib.import_module("wandb")
        except ImportError as error:
            raise missing_extra("wandb", "wandb", "WandbLogger") from error
        self._options = options
        self._id: str | None = None
        self._run: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start a run, or go on with the one of the checkpoint."""
        if not trainer.ranks.leads:
            return
        again = {"id": self._id, "resume": "allow"} if self._id and trainer.resuming else {}
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(**{**self._options, **again})
        self._id = str(self._run.id)

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Log the numbers."""
        if self._run is not None:
            self._run.log(dict(record), step=epoch)

    def on_train_end(self, trainer: Trainer) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        """The run's identity."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self._id = state["id"]
