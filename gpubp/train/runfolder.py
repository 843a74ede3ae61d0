"""A folder for each run: what it was made with, its epochs, its program, and how it stands.

    run.json      kind, version, status, when, parameters, which process on which machine
    history.csv   one line an epoch, as `CSVLogger` writes it
    report.json   the parts of the compiled step with their times and roofs, once the run has ended

Every file appears as a whole or not at all and holds no code, so `gpubp dashboard` reads it while
the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.arguments import checked
from gpubp.atomic import replacing
from gpubp.errors import BackendError, DataError, GpubpError
from gpubp.train.loggers import CSVLogger
from gpubp.train.tensorfile import Path_
from gpubp.train.tracking import FAILED, Plain, Tracker

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer

KIND, VERSION = "gpubp run", 1
RUN, HISTORY, REPORT = "run.json", "history.csv", "report.json"
RUNNING = "running"
_LOG = logging.getLogger(__name__)


class RunFolder(Tracker):
    """Keeps a run in a folder of its own, for `gpubp dashboard`; give it last.

    A run that is resumed goes on in the same folder; one that is not takes the place of what the
    folder held.

    Args:
        path: the folder; it is made, with those above it.
        name: to show; default is the folder's.
        profile: measure the parts of the step when the run has ended.
    """

    @checked
    def __init__(self, path: Path_, name: str | None = None, profile: bool = True) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = name or self.path.resolve().name
        self.profile = profile
        self._log = CSVLogger(self.path / HISTORY)
        self._record: dict[str, Any] = {}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Make the folder, and write what is known.

        Raises:
            DataError: the folder cannot be made or written.
        """
        if trainer.ranks.leads:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                (self.path / REPORT).unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"{self.path} cannot be made: {error.strerror}.") from error
        self._log.on_train_begin(trainer)
        super().on_train_begin(trainer)

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Say that the run goes on, and when it began."""
        began = identity or _now()
        self._record = {
            "kind": KIND,
            "version": VERSION,
            "name": self.name,
            "status": RUNNING,
            "began": began,
            "parameters": dict(parameters),
            "process": os.getpid(),
            "machine": socket.gethostname(),
        }
        self._write()
        return began

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Write the epoch's line, then that the run goes on."""
        self._log.on_epoch_end(trainer, epoch, record)
        super().on_epoch_end(trainer, epoch, record)

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Note when the last epoch ended."""
        self._write()

    def on_train_end(self, trainer: Trainer) -> None:
        """Write what is left of the history, the report, and how the run ended."""
        self._log.on_train_end(trainer)
        if self._open:
            self._record["stop_reason"] = trainer.stop_reason
        super().on_train_end(trainer)
        if self._record.get("status") not in (None, RUNNING, FAILED) and trainer.ranks.leads:
            self._write_report(trainer)

    def close(self, outcome: str) -> None:
        """Note how the run ended."""
        self._record |= {"status": outcome, "ended": _now()}
        self._write()

    def _write(self) -> None:
        self._record["updated"] = _now()
        _write_json(self.path / RUN, self._record)

    def _write_report(self, trainer: Trainer) -> None:
        """The parts of the step; without times where the backend cannot measure them."""
        try:
            found = trainer.step.report(profile=self.profile)
        except BackendError:
            found = trainer.step.report()
        except GpubpError as error:  # nothing was compiled: a run without steps
            _LOG.info("no report of %s: %s", self.path, error)
            return
        rows = [{**row._asdict(), "timing": row.timing and list(row.timing)} for row in found.rows]
        record = {"kind": KIND, "backend": found.backend, "text": str(found), "rows": rows}
        _write_json(self.path / REPORT, record)


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
