"""The dashboard: what it reads of runs, and the page, in a process of its own and in a browser."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from points import points, trainer

from gpubp.cli import main
from gpubp.dashboard import runs
from gpubp.errors import DataError
from gpubp.train import CSVLogger, RunFolder

X, Y = points()
PACKAGES = ("starlette", "uvicorn", "jinja2", "matplotlib")


def _train(folder: Path, name: str, epochs: int = 2, **options: Any) -> Any:
    made = trainer()
    logs = [RunFolder(folder / name), CSVLogger(folder / f"{name}.csv")]
    made.fit(X, Y, epochs=epochs, verbose=False, callbacks=logs, **options)
    return made


def test_runs_of_a_folder_are_found_and_whole(tmp_path: Path) -> None:
    first = _train(tmp_path, "a", validation_split=0.25, checkpoint=tmp_path / "a.ckpt")
    _train(tmp_path, "b")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    (tmp_path / "empty").mkdir()
    paths = runs.find([tmp_path, tmp_path / "a.ckpt"])
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a", "a.csv", "b", "b.csv", "a.ckpt"]
    for path in (paths[0], paths[1], paths[4]):
        run = runs.read(path)
        assert run.problem == "" and run.records == first.history.records
    run = runs.read(paths[0])
    assert (run.status, run.name) == ("finished", "a") and run.parameters["batch_size"] == 32
    assert run.report is not None and run.report[0] == first.step.backend.name
    assert len(run.report[1]) == len(first.step.report().rows)
    assert runs.read(paths[4]).parameters["batch_size"] == 32


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a/run.json", "{", "cannot be read as a run"),
        ("a/run.json", '{"kind": "else"}', "of no run of gpubp"),
        ("a/run.json", "[]", "cannot be read as a run"),
        ("a/history.csv", "epoch,loss\n1,x\n", "could not convert"),
        ("a/history.csv", "loss\n1\n", "no column 'epoch'"),
        ("a/report.json", '{"rows": [{}], "backend": "b"}', "cannot be read as a run"),
        ("a.csv", "epoch,loss\n1,\x00\n", "cannot be read as a run"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    _train(tmp_path, "a")
    (tmp_path / name).write_text(content)
    run = runs.read(tmp_path / Path(name).parts[0])
    assert message in run.problem


def test_a_checkpoint_that_is_damaged_or_a_model(tmp_path: Path) -> None:
    made = _train(tmp_path, "a", checkpoint=tmp_path / "a.ckpt")
    from gpubp.train import save_model

    save_model(tmp_path / "m.safetensors", made.model)
    assert "holds a model and no history" in runs.read(tmp_path / "m.safetensors").problem
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "truncated or damaged" in runs.read(tmp_path / "a.ckpt").problem


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("epoch,loss\n1,0.5\n2,0.2")
    assert runs.read(path).records == [{"epoch": 1.0, "loss": 0.5}]
    path.write_text("")
    assert runs.read(path).records == [] and runs.read(path).problem == ""


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for by signal 0")
def test_a_run_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    _train(tmp_path, "a")
    record = json.loads((tmp_path / "a/run.json").read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process, status in ((gone.pid, "lost"), (os.getpid(), "running")):
        record |= {"status": "running", "process": process}
        (tmp_path / "a/run.json").write_text(json.dumps(record))
        assert runs.read(tmp_path / "a").status == status
    elsewhere = {**record, "process": gone.pid, "machine": "another"}
    (tmp_path / "a/run.json").write_text(json.dumps(elsewhere))
    assert runs.read(tmp_path / "a").status == "running"


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"a.txt is no run: expected a folder, a CSV log"):
        runs.find([tmp_path / "a.txt"])
    with pytest.raises(DataError, match="does not exist"):
        runs.find([tmp_path / "b"])
    if _missing():
        assert main(["dashboard", str(tmp_path)]) == 5
        assert 'pip install "gpubp[dashboard]"' in capsys.readouterr().err
    else:
        assert main(["dashboard", str(tmp_path / "b")]) == 3
        assert main(["dashboard", str(tmp_path), "--port", "70000"]) == 2


def _missing() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def _served(*paths: Path) -> Iterator[str]:
    """The page of these runs in a process of its own; its address."""
    if _missing():
        pytest.skip(f"{_missing()[0]} is not installed")
    command = [sys.executable, "-m", "gpubp", "dashboard", *map(str, paths), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0  # Ctrl-C is how it ends


def _get(address: str, **headers: str) -> tuple[int, str, Any]:
    request = urllib.request.Request(
        address, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, "", error.headers


@pytest.mark.skipif(os.name != "posix", reason="ends by SIGINT")
def test_the_page_shows_runs_and_follows_them(tmp_path: Path) -> None:
    made = trainer()
    hostile = RunFolder(tmp_path / "a", name="<script>alert(1)</script>")
    made.fit(X, Y, epochs=2, verbose=False, callbacks=[hostile])
    (tmp_path / "a/report.json").unlink()
    with _served(tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
        status, text, headers = _get(address)
        assert status == 200 and "<svg" in text and "&lt;script&gt;alert(1)" in text
        assert (
            "<script>alert" not in text
            and "default-src 'none'" in headers["content-security-policy"]
        )
        assert f"loss {made.history['loss'][1]:.4g}" in text and "side by side" not in text
        inner = _get(f"{address}runs")
        assert "<html" not in inner[1] and "<table>" in inner[1]
        assert _get(f"{address}runs", If_None_Match=inner[2]["etag"])[0] == 304
        _train(tmp_path, "b", epochs=3)  # begins later
        status, text, _ = _get(f"{address}runs", If_None_Match=inner[2]["etag"])
        assert status == 200 and ">b</a>" in text and "side by side" in text
        assert "the compiled step" in text
        assert _get(address, Host="elsewhere.example")[0] == 400
        assert _get(f"{address}../pyproject.toml")[0] == 404
        for name in ("page.js", "page.css"):
            assert _get(f"{address}{name}")[0] == 200


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIETLY = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000",
]  # fmt: skip


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(tmp_path: Path, width: int) -> None:
    """The page's own script has run, and the browser complains of nothing."""
    for name in ("a", "b"):
        _train(tmp_path, name, validation_split=0.25)
    with _served(tmp_path / "a", tmp_path / "b") as address:
        options = [f"--user-data-dir={tmp_path}/chromium", f"--window-size={width},900"]
        command = [str(CHROMIUM), *QUIETLY, *options, "--enable-logging=stderr"]
        shot = subprocess.run(
            [*command, f"--screenshot={tmp_path}/page.png", address], capture_output=True, text=True
        )
        tree = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    for said in (shot.stderr, tree.stderr):
        assert "CONSOLE" not in said, said
    assert (
        tree.stdout.count("<svg") >= 4 and 'id="live" role="status" class="">live<' in tree.stdout
    )
    assert "val_loss" in tree.stdout and ">a</a>" in tree.stdout
