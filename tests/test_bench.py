"""`gpubp bench`: finding the benchmarks, refusing what cannot work, and a small run of each."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.cli.bench import BENCHMARKS, BenchmarkError, find_folder, numbers
from gpubp.errors import DataError, MissingExtraError, UnknownNameError

pytestmark = pytest.mark.full

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    """Imports a module of `benchmarks/common`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"common.{name}")


def test_the_checkout_of_the_working_directory_comes_first(tmp_path):
    for name in BENCHMARKS:
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
        (["memory", "--chart", "memory.svg"], "means nothing to the benchmark memory"),
        (["memory", "--rows", "cifer"], "Did you mean 'cifar'"),
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


def test_a_chart_shows_ratios_to_the_best_peer(common, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    charts, spread = common("charts"), common("contest").Spread.of
    panel = charts.Panel("adam, 1 thread")
    rounds = {"gpubp": [2.0, 1.0, 4.0], "torch": [6.0, 4.0, 4.0], "jax": [9.0, 8.0, 7.0]}
    for name, seconds in rounds.items():
        panel.add("late", name, spread(seconds), seconds)
        panel.add("early", name, spread([s / 9 for s in seconds]))
    panel.add("alone", "gpubp", spread([1.0]))
    assert [panel.best_peer(row) for row in panel.bars] == ["torch", "torch", None]
    assert panel.ratio("late", "gpubp", "torch") == common("contest").Spread(2.0, 1.0, 4.0)
    early = panel.ratio("early", "gpubp", "torch")  # rounds are not known: the slowest, the fastest
    np.testing.assert_allclose([early.median, early.least, early.most], [2.0, 1.0, 6.0])
    assert charts._ordered(panel) == ["early", "alone", "late"]
    charts.draw(tmp_path / "chart.svg", "A step", "us", [panel])
    assert "<svg" in (tmp_path / "chart.svg").read_text()
    alone = charts.Panel("times")
    alone.add("startup", "seconds", spread([1.0, 2.0]))
    with warnings.catch_warnings(action="error"):
        charts.draw(tmp_path / "chart.png", "Start", "s", [alone])
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_flops_of_a_row_leave_out_the_gradient_of_the_data(common):
    row = common("rows").find_row("5-7-3/11")
    assert (row.layers, row.batch) == ((5, 7, 3), 11)
    assert row.flops == 2 * 11 * (5 * 7 * 2 + 7 * 3 * 3)
    with pytest.raises(UnknownNameError):
        common("rows").find_row("5/11")


def every_layer(nets):
    """All kinds of layers, with strides, paddings and both kinds of shortcuts."""
    # No bias before a Norm: its gradient is rounding alone, which Adam makes as large as others.
    body = (nets.Conv(4, 3, 2, 1, False), nets.Norm(), nets.RELU, nets.Conv(4, 3, 1, 1, False))
    shortcut = (nets.Conv(4, 1, 2, bias=False), nets.Norm())
    return (
        *(nets.Residual((*body, nets.Norm()), shortcut), nets.RELU),
        *(nets.Residual((nets.Conv(4, 1),)), nets.MaxPool(2), nets.Conv(6, 2), nets.RELU),
        *(nets.Flatten(), nets.Linear(5), nets.RELU, nets.Linear(3)),
    )


def means(nets):
    return (nets.Activation("tanh"), nets.MeanPool(), nets.Linear(3))


def image_row(common, ending=every_layer):
    """Images of (3, 12, 10), a first convolution of 4 channels, then what is given."""
    nets = common("nets")
    net = (nets.Conv(4, 3, padding=1, bias=False), nets.Norm(), nets.RELU, *ending(nets))
    return common("rows").Row("images", (), 8, 3, 2, image=(3, 12, 10), net=net)


def test_flops_of_images_count_products_and_convolutions(common):
    row = image_row(common)
    assert (row.sample, row.classes, row.samples) == ((3, 12, 10), 3, 24)
    first = 12 * 10 * 4 * 3 * 9
    blocks = 6 * 5 * 4 * 4 * (9 + 9 + 1 + 1)
    # 6 x 5 is pooled to 3 x 2, of which the kernel of 2 leaves 2 x 1.
    ends = 2 * 1 * 6 * 4 * 4 + 12 * 5 + 5 * 3
    assert row.flops == 2 * 8 * (2 * first + 3 * (blocks + ends))
    with pytest.raises(ValueError, match="branches"):
        assert image_row(common, lambda nets: (nets.Residual((nets.Conv(4, 3),)),)).classes


def sequence_row(common, kind):
    nets = common("nets")
    net = (nets.Recurrent(kind, 5), nets.Linear(3))
    return common("rows").Row("sequences", (), 8, 3, 2, sequence=(4, 6), net=net)


def test_flops_of_sequences_count_products_with_inputs_and_states(common):
    row = sequence_row(common, "GRU")
    assert (row.sample, row.classes) == ((4, 6), 3)
    assert row.flops == 2 * 8 * (2 * (4 * 15 * 6) + 3 * (4 * 15 * 5 + 5 * 3))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_every_contender_trains_the_same_recurrent_network(common, kind):
    contest, peers, rows = common("contest"), common("peers"), common("rows")
    contenders = [peers.GPUBP, *peers.choose("jax-scan,torch-fused")]
    with contest.Arena(contenders, 1) as arena:
        outcome = arena.hold(rows.Task(sequence_row(common, kind), "adam"), 1, 1e-5, lambda: None)
    assert outcome.left_out.keys() == {c.name for c in contenders if c.peer in arena.absent}
    assert outcome.differences.keys() | outcome.left_out.keys() == {c.name for c in contenders}


# PyTorch 2.13.0 crashes in one of these networks with channels last: that order is tried on the
# other one.
@pytest.mark.parametrize(
    ("ending", "asked"),
    [(every_layer, "jax-step,torch-fused"), (means, "torch-eager,torch-fused-nhwc")],
)
def test_every_contender_trains_the_same_convolutional_network(common, ending, asked):
    contest, peers, rows = common("contest"), common("peers"), common("rows")
    row = image_row(common, ending)
    contenders = [peers.GPUBP, peers.SINGLE, *peers.choose(asked)]
    with contest.Arena(contenders, 1) as arena:
        outcome = arena.hold(rows.Task(row, "adam"), 1, 1e-5, lambda: None)
    # Compared, or not installed.
    assert outcome.left_out.keys() == {c.name for c in contenders if c.peer in arena.absent}
    assert outcome.differences.keys() | outcome.left_out.keys() == {c.name for c in contenders}


def test_orders_of_channels_are_asked_for_images_only(common):
    peers, row = common("peers"), common("rows").find_row
    names = {
        name: {c.name for c in peers.choose("all") if peers.suits(c, row(name))}
        for name in ("xor", "lenet")
    }
    assert names["lenet"] - names["xor"] == {"torch-fused-nhwc", "torch-compile-nhwc"}


def test_what_is_compared_ends_with_the_running_statistics(common, monkeypatch):
    monkeypatch.setenv("GPUBP_BACKEND", "numpy")
    row = image_row(common)
    case = common("peers_gpubp").build("gpubp", common("rows").Task(row, "sgd"))
    got = case.check()
    assert got.shape == (row.batches + 2 * (4 + 4 + 4 + 4),)
    assert np.all(got[row.batches :] != 0)
    np.testing.assert_array_equal(case.check(), got)


def test_memory_is_measured(tmp_path, capsys):
    path = tmp_path / "result.json"
    arguments = ["--rows", "8-16-3/8", "--threads", "1", "--peers", "none", "--repeats", "2"]
    assert main(["bench", "memory", *arguments, "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    found = row["bytes"]
    assert found["import"] > 2**20
    assert found["base"] <= found["peak"]
    assert len(row["rounds"]) == 2
    assert row["times_gpubp"] == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_peak_of_memory_is_seen_after_it_was_freed(common):
    resident = common("resident")
    resident.forget_peak()
    before = resident.peak()
    np.ones(2**27, np.uint8)
    assert resident.peak() - before > 2**26
    assert resident.resident() <= resident.peak()


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
