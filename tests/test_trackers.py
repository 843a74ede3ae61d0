"""Experiment trackers: what every one is told, and what each real service then holds.

A run is cut off in its third epoch, after the last checkpoint, and resumed: each service must have
every epoch, and none of them with two different numbers.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import pickle
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from points import points, trainer

from gpubp import optim
from gpubp.cli import build, main
from gpubp.errors import DataError, MissingExtraError
from gpubp.train import (
    Callback,
    CSVLogger,
    LRMonitor,
    MLflowLogger,
    RunFolder,
    TensorBoard,
    Tracker,
    TrackioLogger,
    WandbLogger,
)

X, Y = points()
EPOCHS, SAVED, CUT = 4, 2, 3


class _Cut(Callback):
    """The machine stops at the end of an epoch."""

    def on_epoch_end(self, trainer: Any, epoch: int, record: dict[str, float]) -> None:
        if epoch == CUT and not trainer.resuming:
            raise OSError("cut off")


def _fit(made: Any, epochs: int = EPOCHS, **options: Any) -> Any:
    return made.fit(X, Y, epochs=epochs, verbose=False, **options)


def _cut_and_resumed(make: Any, folder: Path) -> list[dict[str, float]]:
    """Train with a tracker up to the cut, then in "another process" to the end; the records."""
    path = folder / "run.ckpt"
    with pytest.raises(OSError, match="cut off"):
        _fit(trainer(), callbacks=[LRMonitor(), make(), _Cut()], checkpoint=path, save_every=SAVED)
    made = trainer()
    _fit(made, callbacks=[LRMonitor(), make(), _Cut()], checkpoint=path, resume=path)
    return list(made.history.records)


class _Notes(Tracker):
    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self.notes = notes

    def open(self, identity: Any, epoch: int, parameters: Any) -> str:
        self.notes.append(("open", identity, epoch, dict(parameters)))
        return identity or "run-1"

    def write(self, epoch: int, numbers: Any) -> None:
        self.notes.append(("write", epoch, dict(numbers)))

    def close(self, outcome: str) -> None:
        self.notes.append(("close", outcome))


def test_what_a_tracker_is_told(tmp_path: Path) -> None:
    notes: list[Any] = []
    records = _cut_and_resumed(lambda: _Notes(notes), tmp_path)
    expected = [(r["epoch"], {k: v for k, v in r.items() if k != "epoch"}) for r in records]
    written = [note[1:] for note in notes if note[0] == "write"]
    assert written == [*expected[:CUT], *expected[SAVED:]]
    opened = [note for note in notes if note[0] == "open"]
    assert [(identity, epoch) for _, identity, epoch, _ in opened] == [(None, 0), ("run-1", SAVED)]
    assert [note for note in notes if note[0] == "close"] == [
        ("close", "failed"),
        ("close", "finished"),
    ]
    told = opened[0][3]
    assert told["lr"] == trainer().optimizer.param_groups[0]["lr"] and told["batch_size"] == 32
    assert told["parameters"] == sum(p.size for p in trainer().model.parameters())
    assert all(isinstance(value, (bool, int, float, str)) for value in told.values())
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzLRT_.0123456789") for name in told)


def test_how_runs_end() -> None:
    notes: list[Any] = []

    class Stops(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            trainer.stop("interrupted")

    _fit(trainer(), callbacks=[_Notes(notes), Stops()])

    class Diverges(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            trainer.stop("the loss was nan", diverged=True)

    _fit(trainer(), callbacks=[Diverges(), _Notes(notes)])
    try:
        raise ValueError
    except ValueError:
        _fit(trainer(), callbacks=[_Notes(notes)])  # the error outside is not the run's
    ends = [note[1] for note in notes if note[0] == "close"]
    assert ends == ["interrupted", "failed", "finished"]


def test_copies_begin_without_what_is_open() -> None:
    notes: list[Any] = []
    tracker = _Notes(notes)
    seen = []

    class Copies(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            made = copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))
            for other in made:
                other.on_epoch_end(trainer, 1, {"epoch": 1.0})  # not begun: writes nothing
                seen.append(other.notes)

    _fit(trainer(), 1, callbacks=[tracker, Copies()])
    assert len(seen) == 2 and all(len(other) == 2 for other in seen)  # its open and its write


def test_a_service_that_brings_nothing_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Tracker has no open"):
        _fit(trainer(), 1, callbacks=[Tracker()])


def _fake(monkeypatch: Any, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_what_wandb_is_called_with(monkeypatch: Any, tmp_path: Path) -> None:
    calls: list[Any] = []

    class Run:
        id = "run-7"

        def log(self, record: Any, step: int) -> None:
            calls.append(("log", record, step))

        def finish(self, exit_code: int) -> None:
            calls.append(("finish", exit_code))

    def init(**options: Any) -> Run:
        config = options.pop("config")
        assert config["mine"] == 1 and config["batch_size"] == 32
        calls.append(("init", options))
        return Run()

    _fake(monkeypatch, "wandb", init=init)
    records = _cut_and_resumed(lambda: WandbLogger(project="p", config={"mine": 1}), tmp_path)
    logs = [("log", record, record["epoch"]) for record in records]
    again = {"project": "p", "id": "run-7", "resume": "allow"}
    assert calls == [
        ("init", {"project": "p"}),
        *logs[:CUT],
        ("finish", 1),
        ("init", again),
        *logs[SAVED:],
        ("finish", 0),
    ]


def test_what_trackio_is_called_with(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    calls: list[Any] = []

    class Run:
        name = "brave-sunset-0"

        def log(self, record: Any, step: int) -> None:
            calls.append((record["epoch"], step))

    def finish() -> None:
        print("finished")
        calls.append("finish")

    def init(**options: Any) -> Run:
        print("* Trackio project initialized")
        options.pop("config")
        calls.append(options)
        return Run()

    _fake(monkeypatch, "trackio", init=init, finish=finish)
    _cut_and_resumed(lambda: TrackioLogger("p", group="g"), tmp_path)
    again = {"project": "p", "group": "g", "name": "brave-sunset-0", "resume": "allow"}
    first = {"project": "p", "group": "g", "name": None}
    assert calls == [first, (1, 1), (2, 2), (3, 3), "finish", again, (3, 3), (4, 4), "finish"]
    assert capsys.readouterr().out == ""  # results alone are printed there


def _expected(records: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    names = [name for name in records[0] if name != "epoch"]
    return {n: [(int(r["epoch"]), r[n]) for r in records] for n in names}


def _assert_same(found: dict[str, list[tuple[int, float]]], records: Any, single: bool) -> None:
    """Equal names, epochs once and in order, numbers to the bit (or of float32)."""
    expected = _expected(records)
    assert set(found) == set(expected)
    for name, points_of in expected.items():
        assert [epoch for epoch, _ in found[name]] == [epoch for epoch, _ in points_of], name
        for (_, value), (_, wanted) in zip(found[name], points_of):
            close = math.isclose(value, wanted, rel_tol=1e-6) if single else value == wanted
            assert close, (name, value, wanted)


def test_tensorboard_itself_reads_every_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    name = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(name, reason="tensorboard is not installed")
    logs = tmp_path / "logs"
    records = _cut_and_resumed(lambda: TensorBoard(logs), tmp_path)
    assert len(list(logs.glob("events.*"))) == 2
    read = reader.EventAccumulator(str(logs))
    read.Reload()
    scalars = {n: [(e.step, e.value) for e in read.Scalars(n)] for n in read.Tags()["scalars"]}
    _assert_same(scalars, records, single=True)
    assert read.Tags()["tensors"] == ["parameters/text_summary"]
    text = read.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| batch_size | 32 |" in text


def test_two_runs_at_once_have_two_files_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    for _ in range(2):  # within a second
        _fit(trainer(), 1, callbacks=[TensorBoard(tmp_path)])
    assert len(list(tmp_path.glob("events.*"))) == 2


@pytest.mark.parametrize("store", ["sqlite:///{}/m.db", "{}/mlruns"])
def test_mlflow_itself_has_every_epoch_once(monkeypatch: Any, tmp_path: Path, store: str) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    where = store.format(tmp_path)
    records = _cut_and_resumed(lambda: MLflowLogger("e", tracking_uri=where), tmp_path)
    client = mlflow.MlflowClient(tracking_uri=where)
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["batch_size"] == "32"
    found = {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        found[name] = sorted((m.step, m.value) for m in history)
    _assert_same(found, records, single=False)


def test_mlflow_joins_the_run_that_is_active(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/m.db")
    monkeypatch.chdir(tmp_path)
    with mlflow.start_run() as run:
        _fit(trainer(), 2, callbacks=[MLflowLogger()])
        assert mlflow.active_run() is not None
        assert mlflow.get_run(run.info.run_id).info.status == "RUNNING"
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED" and "loss" in found.data.metrics
    made = trainer(optimizer="SGD", options={"lr": 1e30})  # NaN is a metric, too
    _fit(made, 1, callbacks=[MLflowLogger("f")])
    experiment = mlflow.MlflowClient().get_experiment_by_name("f").experiment_id
    (run,) = mlflow.MlflowClient().search_runs([experiment])
    assert run.data.metrics.keys() == {"loss"}


def _of_log(raw: bytes, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of a log of LevelDB's format: pieces with a sum, a length and a kind before each;
    the first block lacks the 7 bytes of the file's own mark.
    """
    at, held = 7, b""
    while at + 7 <= len(raw) + 7:
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(raw[at - 3 : at - 1], "little"), raw[at - 1]
        held += raw[at : at + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield held
            held = b""


@pytest.mark.full
def test_wandb_itself_takes_every_epoch(monkeypatch: Any, tmp_path: Path) -> None:
    """Offline: what a run would send stands in its folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    pytest.importorskip("wandb", reason="wandb is not installed")
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    records = _cut_and_resumed(lambda: WandbLogger(project="p"), tmp_path)
    # The service that writes the file is another process, which may still be at it.
    for _ in range(100):
        found, ids = _told_to_wandb(tmp_path, protocol)
        if len(found["loss"]) == len(records):
            break
        time.sleep(0.2)
    assert len(ids) == 1  # resumed, not begun anew
    _assert_same({k: sorted(v.items()) for k, v in found.items()}, records, single=False)


def _told_to_wandb(folder: Path, protocol: Any) -> tuple[dict[str, dict[int, float]], set[str]]:
    """Numbers by name and epoch, and the names of runs."""
    found: dict[str, dict[int, float]] = {"loss": {}}
    ids = set()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        ids.add(path.stem)
        for data in _of_log(path.read_bytes()[7:]):
            record = protocol.Record()
            record.ParseFromString(data)
            items = {
                (i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item
            }
            for name, value in items.items():
                if not name.startswith("_") and name != "epoch":
                    found.setdefault(name, {})[items["epoch"]] = value
    return found, ids


_TRACKIO = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import json
from test_trackers import _cut_and_resumed
from gpubp.train import TrackioLogger
records = _cut_and_resumed(lambda: TrackioLogger("p", embed=False), Path({folder!r}))
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("p")
logs = SQLiteStorage.get_logs("p", runs[0])
config = SQLiteStorage.get_run_config("p", runs[0])
print(json.dumps([records, runs, logs, config], default=str))
"""


@pytest.mark.full
def test_trackio_itself_has_every_epoch(tmp_path: Path) -> None:
    """In a process of its own: trackio decides where it keeps runs when it is imported."""
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    code = _TRACKIO.format(path=[str(Path(__file__).parent)], folder=str(tmp_path))
    offline = {"TRACKIO_DIR": str(tmp_path / "t"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **offline, "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    records, runs, logs, config = json.loads(done.stdout.splitlines()[-1])
    assert len(runs) == 1 and config["batch_size"] == 32
    found: dict[str, dict[int, float]] = {}
    for row in logs:
        for name in set(row) - {"epoch", "step", "timestamp"}:
            known = found.setdefault(name, {})
            assert known.get(row["step"], row[name]) == row[name]  # twice, and the same
            known[row["step"]] = row[name]
    _assert_same({k: sorted(v.items()) for k, v in found.items()}, records, single=False)


def test_a_folder_tells_of_its_run_while_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    seen = []

    class Looks(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            seen.append(json.loads((folder / "run.json").read_text()))

    made = trainer()
    _fit(made, 2, callbacks=[RunFolder(folder), Looks()])
    assert [told["status"] for told in seen] == ["running", "running"]
    told = json.loads((folder / "run.json").read_text())
    assert told["status"] == "finished" and told["name"] == "first"
    assert told["parameters"]["optimizer"] == type(made.optimizer).__name__
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss") and len(lines) == 3
    report = json.loads((folder / "report.json").read_text())
    assert report["text"].startswith("backend ") and len(report["rows"]) >= 1
    if made.step.backend.name == "numba":
        assert all(len(row["timing"]) == 2 for row in report["rows"])


def test_a_folder_of_a_resumed_run_has_every_epoch_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    records = _cut_and_resumed(lambda: RunFolder(folder), tmp_path)
    lines = (folder / "history.csv").read_text().splitlines()
    assert [float(line.split(",")[0]) for line in lines[1:]] == [r["epoch"] for r in records]
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_missing_packages_are_told_before_training(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"MLflowLogger needs mlflow"):
        MLflowLogger()


@pytest.mark.parametrize(
    ("log", "package"),
    [
        ("wandb:p", "wandb"),
        ("mlflow:", "mlflow"),
        ("trackio:p", "trackio"),
        ("runs", "tensorboardX"),
    ],
)
def test_the_command_line_looks_for_packages_before_it_reads(
    monkeypatch: Any, tmp_path: Path, capsys: Any, log: str, package: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["train", "there_is_no_such.csv", "--target", "y", "--log", f"a.csv,{log}"]) == 5
    assert f"needs {package}, which is not installed" in capsys.readouterr().err


def test_folders_for_tensorboard_are_made(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "runs" / "first"
    assert main(["train", "digits", "--epochs", "1", "--quiet", "--log", str(folder)]) == 0
    assert list(folder.glob("events.*"))


def test_options_of_several_groups_are_told() -> None:
    notes: list[Any] = []
    made = trainer()
    first, *rest = made.model.parameters()
    groups = [{"params": [first], "lr": 0.5}, {"params": rest}]
    from gpubp.train import Trainer

    other = Trainer(made.model, made.loss_fn, optim.SGD(groups, lr=0.1))
    _fit(other, 1, callbacks=[_Notes(notes)])
    told = notes[0][3]
    assert (told["lr_group_0"], told["lr_group_1"]) == (0.5, 0.1)


def test_places_that_the_command_line_logs_to(monkeypatch: Any, tmp_path: Path) -> None:
    for name in ("wandb", "mlflow", "trackio", "tensorboardX"):
        _fake(monkeypatch, name)
    found = {
        "a.csv": CSVLogger,
        "runs": TensorBoard,
        "c:runs": TensorBoard,  # a folder: no service of that name
        f"run:{tmp_path}/r": RunFolder,
        "wandb:p": WandbLogger,
        "mlflow:e": MLflowLogger,
        "mlflow:": MLflowLogger,
        "trackio:p": TrackioLogger,
    }
    for where, kind in found.items():
        assert type(build._log(where)) is kind, where
    with pytest.raises(DataError, match=r"--log run: names no folder, expected run:FOLDER"):
        build._log("run:")


def test_the_command_line_keeps_several_logs(tmp_path: Path, capsys: Any) -> None:
    where = f"run:{tmp_path}/r,{tmp_path}/h.csv"
    assert main(["train", "digits", "--epochs", "2", "--quiet", "--log", where]) == 0
    lines = (tmp_path / "h.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy" and len(lines) == 3
    assert lines == (tmp_path / "r/history.csv").read_text().splitlines()
    assert main(["train", "digits", "--log", f"run:{tmp_path}/h.csv/r"]) == 3
    assert "h.csv/-: the folder does not exist" in capsys.readouterr().err
    assert main(["train", "digits", "--log", f"{tmp_path}/none/h.csv"]) == 3
    assert "the folder does not exist" in capsys.readouterr().err
    new = ["train", "digits", "--epochs", "1", "--quiet", "--log", f"run:{tmp_path}/all/runs/1"]
    assert main(new) == 0
    assert (tmp_path / "all/runs/1/history.csv").exists()
