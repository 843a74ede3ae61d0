"""`gpubp evaluate`: scores, confusion, calibration and importance, each beside a definition."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import csvfiles
import numpy as np
import pytest

from gpubp.cli import evaluate, main

NUMPY = ("--backend", "numpy")


def _run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for make, target in ((csvfiles.classification, "kind"), (csvfiles.regression, "price")):
        data = make(folder / f"{target}.csv")
        line = ["train", str(data), "--target", target, "--save", str(folder / f"{target}.model")]
        assert main([*line, "--epochs", "30", "--lr", "0.01", "--quiet", *NUMPY]) == 0
    return folder


def test_classes_are_counted_one_by_one(capsys: Any, models: Path) -> None:
    data = models / "kind.csv"
    code, out, _ = _run(capsys, "evaluate", models / "kind.model", data, *NUMPY)
    assert code == 0
    lines = out.splitlines()
    accuracy = float(
        re.match(r"accuracy ([01]\.\d+) \(300 rows; always 'cat': 0\.\d+\)", lines[0])[1]
    )
    table = [[int(n) for n in line.split()[1:]] for line in lines[4:7]]
    assert np.sum(table) == 300
    assert np.trace(table) / 300 == pytest.approx(accuracy, abs=5e-4)
    assert sorted(line.split()[0] for line in lines[9:12]) == ["cat", "dog", "emu"]
    losses = {line.split()[0]: float(line.split()[1]) for line in lines if " +- " in line}
    assert list(losses)[-1] == "width"  # the kind follows from the two others
    assert abs(losses["width"]) < 0.1 < losses["length"] and losses["colour"] > 0.1


def test_regressions_are_measured_in_units_of_the_target(capsys: Any, models: Path) -> None:
    data = models / "price.csv"
    code, out, _ = _run(capsys, "evaluate", models / "price.model", data, "--repeats", 2, *NUMPY)
    assert code == 0
    found = re.match(r"r2 ([01]\.\d+), rmse (\S+), mae (\S+), mean error \S+ \(300 rows; ", out)
    assert found is not None
    r2, rmse, mae = map(float, found.groups())
    assert r2 > 0.9 and mae <= rmse < 1000
    losses = {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if "+-" in line}
    assert losses["size"] > losses["colour"] > 100


@pytest.mark.parametrize("target", ["kind", "price"])
def test_it_is_drawn(capsys: Any, models: Path, tmp_path: Path, target: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "p.png"
    line = ("evaluate", models / f"{target}.model", models / f"{target}.csv", "--repeats", 0)
    code, out, _ = _run(capsys, *line, "--plot", picture, *NUMPY)
    assert code == 0 and "exchanged" not in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_file_without_targets_is_refused(capsys: Any, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("size,colour\n100,red\n")
    code, out, err = _run(capsys, "evaluate", models / "price.model", path, *NUMPY)
    assert (code, out) == (3, "") and "has no targets: expected 'price'" in err


def test_confusion_counts_pairs() -> None:
    outputs = np.eye(3)[[0, 1, 1, 2, 0]]
    found: Any = SimpleNamespace(classes=["a", "b", "c"])
    counts = evaluate.confusion(found, outputs, np.array([0, 1, 2, 2, 1]))
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_calibration_is_the_distance_of_probabilities_from_shares() -> None:
    shares = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    y = np.array([0] * 9 + [1] + [1] * 10)
    assert evaluate.calibration_error(shares, y) == pytest.approx((0.0 * 10 + 0.4 * 10) / 20)
