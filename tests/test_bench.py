"""`gpubp bench`: finding the benchmarks, refusing what cannot work, and a small run of each."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.cli.bench import BenchmarkError, find_folder, numbers
from gpubp.errors import DataError, MissingExtraError, UnknownNameError

pytestmark = pytest.mark.full

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    """Imports a module of `benchmarks/common`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"common.{name}")


def test_the_checkout_of_the_working_directory_comes_first(tmp_path):
    for name in ("train_step", "kernels", "startup", "gpu"):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / f"{name}.py").touch()
    below = tmp_path / "docs" / "deep"
    below.mkdir(parents=True)
    assert find_folder(below) == tmp_path / "benchmarks"


def test_without_a_checkout_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "gpubp.cli.bench.__file__", str(tmp_path / "site-packages/gpubp/cli/bench.py")
    )
    with pytest.raises(BenchmarkError, match="clone its repository"):
        find_folder(tmp_path)


@pytest.mark.parametrize("text", ["0", "1,", "two", "-1", "1.5"])
def test_numbers_are_positive_integers(text):
    with pytest.raises(DataError, match="--threads"):
        numbers(text, "1", "--threads")
    assert numbers("1,4", "1", "--threads") == [1, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "digit"], "Did you mean 'digits'"),
        (["--peers", "torhc"], "Did you mean 'torch'"),
        (["--optimizers", "adamw"], "Did you mean 'adam'"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--threads", "x"], "--threads is 'x'"),
        (["--chart", "result.pdf"], ".png or .svg"),
        (["--json", "missing/folder/result.json"], "does not exist"),
        (["kernels", "--optimizers", "sgd"], "means nothing to the benchmark kernels"),
        (["startup", "--rows", "xor"], "means nothing to the benchmark startup"),
    ],
)
def test_what_cannot_work_is_refused_before_measuring(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_chart_needs_matplotlib(common, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "gpubp\[plot\]"'):
        common("charts").check_chart(Path("result.png"))


def test_flops_of_a_row_leave_out_the_gradient_of_the_data(common):
    row = common("rows").find_row("5-7-3/11")
    assert (row.layers, row.batch) == ((5, 7, 3), 11)
    assert row.flops == 2 * 11 * (5 * 7 * 2 + 7 * 3 * 3)
    with pytest.raises(UnknownNameError):
        common("rows").find_row("5/11")


def test_results_are_compared(common):
    difference = common("contest").relative_difference
    a = np.array([2.0, 1.0], np.float32)
    assert difference(a, a) == 0.0
    assert difference(a, a + np.float32(0.5)) == pytest.approx(0.2)
    assert difference(np.array([1.5]), a) == 0.0
    assert difference(np.array([1.0, 2.0, 3.0]), a) == float("inf")
    assert not difference(np.array([np.nan, 1.0]), a) <= 1.0


def test_a_result_file_is_whole_or_not_there(common, tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(TypeError):
        common("results").write(path, "kernels", [{"seconds": object()}])
    assert list(tmp_path.iterdir()) == []
    common("results").write(path, "kernels", [{"seconds": 1.0}], versions={"jax": "1"})
    content = json.loads(path.read_text())
    assert list(tmp_path.iterdir()) == [path]
    assert content["rows"] == [{"seconds": 1.0}]
    assert content["versions"]["jax"] == "1"
    assert {"python", "numpy", "gpubp"} <= content["versions"].keys()
    assert content["machine"]["cores"] >= 1


def test_a_training_step_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GPUBP_BACKEND", "numpy")
    path = tmp_path / "result.json"
    arguments = ["--rows", "4-6-3/8", "--threads", "1", "--peers", "none", "--repeats", "2"]
    assert main(["bench", *arguments, "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["versions"]["gpubp backend"] == "numpy"
    found = [(r["optimizer"], r["contender"]) for r in content["rows"]]
    both = ("gpubp", "gpubp-single")
    assert found == [(name, who) for name in ("sgd", "adam") for who in both]
    for row in content["rows"]:
        seconds = row["seconds"]
        assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
        assert sorted(row["rounds"]) == [seconds["least"], seconds["most"]]
        assert len(row["roof_rounds"]) == 2
        assert row["roof_gflops"] == max(row["roof_rounds"])
        assert row["share_of_roof"] == pytest.approx(row["gflops"] / row["roof_gflops"])
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_a_contender_that_computes_something_else_ends_the_benchmark(common, monkeypatch):
    contest, rows = common("contest"), common("rows")
    monkeypatch.setenv("GPUBP_BACKEND", "numpy")
    other = contest.Contender("sgemm-64", "numpy", "common.peers_numpy")
    task = rows.Task(rows.find_row("4-6-3/8"), "sgd")
    with (
        contest.Arena([common("peers").GPUBP, other], 1) as arena,
        pytest.raises(BenchmarkError, match="sgemm-64 differ"),
    ):
        arena.hold(task, 1, 1e-5, lambda: None)


def test_a_contender_that_is_missing_is_left_out(common, monkeypatch):
    contest, rows = common("contest"), common("rows")
    monkeypatch.setenv("GPUBP_BACKEND", "numpy")
    peers = common("peers")
    ghost = contest.Contender("ghost", "ghost", "common.no_such_peer")
    task = rows.Task(rows.find_row("4-6-3/8"), "sgd")
    with contest.Arena([peers.GPUBP, ghost], 1) as arena:
        assert "not installed" in arena.absent["ghost"]
        outcome = arena.hold(task, 1, 1e-5, lambda: None)
    assert list(outcome.spreads) == ["gpubp"]
    assert "not installed" in outcome.left_out["ghost"]
