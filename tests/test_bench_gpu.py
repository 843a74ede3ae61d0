"""`gpubp bench gpu` as far as it goes without a GPU: its rows, and how it refuses."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

import gpubp as gp
from gpubp.cli import main
from gpubp.errors import UnknownNameError

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of `benchmarks/gpu.py`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "gpu.py"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "w64-b16"], "Did you mean 'w64-b16k'"),
        (["--rows", "digits@bf61"], "Did you mean 'bf16'"),
        (["--peers", "torch-grap"], "Did you mean 'torch-graph'"),
        (["--peers", "sklearn"], "unknown peer 'sklearn'"),
        (["--optimizers", "adamw"], "Did you mean 'adam'"),
        (["--threads", "2"], "means nothing to the benchmark gpu"),
        (["--repeats", "0"], "--repeats is 0"),
    ],
)
def test_what_cannot_work_is_refused_before_measuring(arguments, message, capsys):
    assert main(["bench", "gpu", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_without_a_gpu_it_says_so(capsys):
    if any(p.name == "cupy" and p.available for p in gp.backends()):
        pytest.skip("there is a GPU here")
    assert main(["bench", "gpu", "--rows", "xor"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no GPU to measure on" in err


def test_rows_have_sizes_and_precisions(script):
    find = script["find"]
    assert find("w128-b256k").batch == 1 << 18
    assert find("w128-b256k").layers == (128, 128, 128, 10)
    assert find("digits@tf32").precision == "tf32"
    assert find("5-7-3/11").precision == "float32"
    assert [find(name).name for name in script["DEFAULT"]]
    with pytest.raises(UnknownNameError, match="precision"):
        find("digits@")


def test_a_report_shows_what_was_measured(script, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    contest = importlib.import_module("common.contest")
    rows = importlib.import_module("common.rows")
    shapes = importlib.import_module("common.gpu_roof")
    outcome = contest.Outcome()
    for name, micro in (("gpubp", 100), ("torch-graph", 150), ("gemm-bf16", 2000), ("copy", 1000)):
        outcome.rounds[name] = [micro * 1e-6] * 3
        outcome.differences[name] = 0.0
    outcome.device["gpubp"] = contest.Spread.of([80e-6])
    report = script["Report"]()
    task = rows.Task(script["find"]("w64-b16k@bf16"), "adam")
    report.add(task, outcome)
    assert [r["contender"] for r in report.rows] == ["gpubp", "torch-graph"]
    first, second = report.rows
    assert second["times_gpubp"] == pytest.approx(1.5)
    roof = 2.0 * shapes.SIDE**3 / 2000e-6 * 1e-12
    assert first["share_of_roof"] == pytest.approx(task.row.flops / 100e-6 * 1e-12 / roof)
    assert first["copy_gb_per_s"] == pytest.approx(2e-9 * shapes.COPY_BYTES / 1000e-6)
    report.publish(tmp_path / "gpu.json", None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "80" in lines[2].split()
    assert "-" in lines[3].split()
