"""The command line where runs end: which weights its files give, and all digits of predictions."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from gpubp import ops
from gpubp.cli import main
from gpubp.data.encoding import Encoding
from gpubp.train import load_model

NUMPY = ("--backend", "numpy")


def _run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def _noise(path, rows=60):
    """Few rows of noise: a net learns them by heart, and is best long before it ends."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6)).round(4)
    y = (x[:, 0] + rng.normal(size=rows)).round(4)
    return _table(path, [*"abcdef", "y"], np.column_stack([x, y]).tolist())


def _table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _column(text):
    return text.splitlines()[1:]


def test_a_checkpoint_predicts_as_the_saved_model(capsys, tmp_path):
    data, model, run = (tmp_path / name for name in ("a.csv", "m.safetensors", "run.ckpt"))
    _noise(data)
    line = (
        "train", data, "--target", "y", "--epochs", "60", "--hidden", "32", "--lr", "0.02",
        "--early-stopping", "5", "--save", model, "--resume", run, *NUMPY,
    )  # fmt: skip
    code, _, err = _run(capsys, *line)
    assert code == 0
    assert "stopped: early stopping" in err
    wanted = _run(capsys, "predict", model, data, *NUMPY)[1]
    assert _run(capsys, "predict", run, data, *NUMPY)[1] == wanted
    shown = _run(capsys, "show", run)[1]
    assert "stopped: early stopping" in shown
    assert "the weights are those that the run ended with" in shown
    # The same line again: nothing to train, and the same files.
    before = run.read_bytes()
    assert _run(capsys, *line)[0] == 0
    assert run.read_bytes() == before
    assert _run(capsys, "predict", run, data, *NUMPY)[1] == wanted


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(capsys, tmp_path):
    data, run = _noise(tmp_path / "a.csv"), tmp_path / "run.ckpt"
    line = ("train", data, "--target", "y", "--optimizer", "sgd", "--resume", run, *NUMPY)
    code, _, err = _run(capsys, *line, "--lr", "1e30", "--epochs", "9")
    assert code == 1
    assert "training diverged: the loss was" in err
    assert "warning: " in err
    assert "nothing was saved before" in err
    assert not run.exists()
    assert _run(capsys, *line, "--lr", "0.01", "--epochs", "2")[0] == 0
    state = load_model(run).model.state_dict()
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e8, 1e12])
def test_predictions_have_all_their_digits(capsys, tmp_path, offset):
    x = np.random.default_rng(0).normal(size=80)
    y = offset + 3 * x
    data = _table(tmp_path / "a.csv", ["x", "y"], np.column_stack([x, y]).tolist())
    model = tmp_path / "m.safetensors"
    _run(capsys, "train", data, "--target", "y", "--epochs", "5", "--save", model, *NUMPY)
    text = _run(capsys, "predict", model, data, *NUMPY)[1]
    found = load_model(model)
    encoding = Encoding.from_dict(found.extra["encoding"])
    inputs = encoding.scale.transform(x[:, np.newaxis]).astype(np.float32)
    exact = encoding.predictions(found.model(inputs))[:, 0]
    written = np.array(_column(text)).astype(np.float64)
    np.testing.assert_array_equal(written, exact)
    assert len(set(written.tolist())) > 70


def test_probabilities_have_all_their_digits(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).round(3)
    rows = [[*map(float, r), "ab"[int(r[0] > 0)]] for r in x]
    data = _table(tmp_path / "a.csv", ["p", "q", "kind"], rows)
    model, out = tmp_path / "m.safetensors", tmp_path / "p.csv"
    _run(
        capsys, "train", data, "--target", "kind", "--epochs", "80", "--lr", "0.05",
        "--save", model, *NUMPY,
    )  # fmt: skip
    _run(capsys, "predict", model, data, "-o", out, "--probabilities", *NUMPY)
    with out.open(newline="") as file:
        read = list(csv.DictReader(file))
    shares = np.array([[np.float32(row[f"probability_{c}"]) for c in "ab"] for row in read])
    found = load_model(model)
    encoding = Encoding.from_dict(found.extra["encoding"])
    exact = ops.softmax(found.model(encoding.scale.transform(x).astype(np.float32)))
    np.testing.assert_array_equal(shares, exact)
    small = shares[(shares > 0) & (shares < 1e-6)]
    assert len(np.unique(small)) > 10  # six decimals would make zeros of them
