"""Runs from files: folders that `RunFolder` keeps, CSV logs, checkpoints.

Comes in: paths. Goes out: one `Run` for each file or folder that holds one; what cannot be read is
a run with a `problem`. Files may be written meanwhile.
"""

from __future__ import annotations

import csv
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpubp.errors import CheckpointError, DataError
from gpubp.runtime.report_rows import ReportRow, Timing
from gpubp.train import tensorfile
from gpubp.train.modelfile import CHECKPOINT
from gpubp.train.runfolder import HISTORY, KIND, REPORT, RUN, RUNNING

LOST = "lost"
_CHECKPOINTS, _DEPTH = (".ckpt", ".safetensors"), 3


@dataclass
class Run:
    """A run, as far as its files tell.

    Attributes:
        name: to show.
        path: the folder or file.
        status: "running", "finished", "interrupted", "failed", "lost" (its process is gone), or ""
            where files do not say.
        records: of its epochs.
        parameters: what it was made with.
        notes: more, by name: when it began, why it ended.
        report: the parts of its step; and the backend.
        problem: why it cannot be read, or "".
    """

    name: str
    path: Path
    status: str = ""
    records: list[dict[str, float]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    report: tuple[str, list[ReportRow]] | None = None
    problem: str = ""


def find(given: Sequence[Path]) -> list[Path]:
    """Where the runs are: what was given, or what lies in the folders that were given.

    Raises:
        DataError: something that is not there, or is neither a folder nor a file of a run.
    """
    found: dict[Path, None] = {}
    for path in given:
        if not path.exists():
            raise DataError(f"{path} does not exist: expected a run's folder, a CSV log, or such.")
        if path.is_dir():
            found |= dict.fromkeys(_inside(path, _DEPTH))
        elif path.suffix.lower() in (".csv", *_CHECKPOINTS):
            found[path] = None
        else:
            raise DataError(
                f"{path} is no run: expected a folder, a CSV log (.csv) or a checkpoint "
                f"({', '.join(_CHECKPOINTS)})."
            )
    return list(found)


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    """Runs of a folder, by name: itself, its CSV logs, those below it."""
    if (folder / RUN).is_file():
        yield folder
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir() and depth:
            yield from _inside(path, depth - 1)
        elif path.suffix == ".csv" and _is_log(path):
            yield path


def _is_log(path: Path) -> bool:
    try:
        with path.open(newline="", errors="replace") as file:
            return file.readline().startswith("epoch,")
    except OSError:
        return False


def stamp(path: Path) -> tuple[Any, ...]:
    """What changes when a run's files do."""
    files = [path / n for n in (RUN, HISTORY, REPORT)] if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            state = file.stat()
            found.append((state.st_mtime_ns, state.st_size))
        except OSError:
            found.append((0, 0))
    return (*found, is_gone(path))


def is_gone(path: Path) -> bool:
    """Whether a folder's run says that it goes on, and no process of this machine is it."""
    if os.name != "posix" or not path.is_dir():
        return False
    try:
        record = json.loads((path / RUN).read_text(encoding="utf-8"))
        here = record["status"] == RUNNING and record["machine"] == socket.gethostname()
        if here:
            os.kill(int(record["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, LookupError, TypeError, ValueError, OverflowError):
        return False
    return False


def read(path: Path) -> Run:
    """A run; one that cannot be read says why."""
    run = Run(path.resolve().name, path)
    try:
        if path.is_dir():
            _read_folder(run)
        elif path.suffix.lower() == ".csv":
            run.records = _records_of(path)
            run.notes["updated"] = _time_of(path)
        else:
            _read_checkpoint(run)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        run.problem = f"{path} cannot be read as a run: {error}"
    return run


def _read_folder(run: Run) -> None:
    record = json.loads((run.path / RUN).read_text(encoding="utf-8"))
    if record.get("kind") != KIND:
        raise ValueError(f"its {RUN} is of no run of gpubp")
    run.name = str(record.get("name") or run.name)
    run.status = LOST if is_gone(run.path) else str(record.get("status", ""))
    run.parameters = dict(record.get("parameters", {}))
    told = ("began", "updated", "ended", "stop_reason", "machine")
    run.notes = {name: str(record[name]) for name in told if record.get(name)}
    if (run.path / HISTORY).is_file():
        run.records = _records_of(run.path / HISTORY)
    if (run.path / REPORT).is_file():
        run.report = _report_of(json.loads((run.path / REPORT).read_text(encoding="utf-8")))


def _report_of(record: Mapping[str, Any]) -> tuple[str, list[ReportRow]]:
    rows = []
    for row in record["rows"]:
        timing = row["timing"]
        timed = None if timing is None else Timing(float(timing[0]), float(timing[1]))
        rows.append(
            ReportRow(
                int(row["instruction"]),
                str(row["name"]),
                str(row["kernel"]),
                float(row["flops"]),
                int(row["bytes"]),
                str(row["shared"]),
                timed,
            )
        )
    return str(record["backend"]), rows


def _read_checkpoint(run: Run) -> None:
    _, record = tensorfile.read(run.path)
    if record.get("kind") != CHECKPOINT:
        raise CheckpointError("it holds a model and no history: expected a checkpoint")
    state = record["trainer"]
    run.records = [{str(k): float(v) for k, v in r.items()} for r in state["history"]]
    made = state.get("made") or {}
    run.parameters = {k: v for kind in made.values() for k, v in kind.items() if v is not None}
    run.notes["updated"] = _time_of(run.path)
    if state.get("stop_reason"):
        run.notes["stop_reason"] = str(state["stop_reason"])


def _records_of(path: Path) -> list[dict[str, float]]:
    """The records of a CSV log; a last line that is being written is left for later."""
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.reader(whole.splitlines()))
    if not rows:
        return []
    header = rows[0]
    if "epoch" not in header:
        raise ValueError("it has no column 'epoch'")
    found = []
    for row in rows[1:]:
        found.append({name: float(cell) for name, cell in zip(header, row) if cell != ""})
    return [record for record in found if math.isfinite(record.get("epoch", math.nan))]


def _time_of(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
