"""Callbacks that write epochs' records to files; give them last, when the record is complete.

A copy or pickle knows where to write, and opens that when its own training begins. Services that
follow runs are in `trackers`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpubp.arguments import checked
from gpubp.errors import DataError
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
