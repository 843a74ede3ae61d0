"""`gpubp train --cross-validate`: folds, what is trained on, what is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.cli import _parser as parser
from gpubp.cli import config, crossing, main
from gpubp.cli import folds as folds_
from gpubp.cli import train as command


def _table(path: Path, rows: int = 60, task: str = "classes") -> str:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    y = np.where(x > 0.3, "yes", "no") if task == "classes" else 3 * x + 0.5 * rng.normal(size=rows)
    lines = [f"{a!r},{b}" for a, b in zip(x.tolist(), y.tolist())]
    path.write_text("\n".join(["x,y", *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_equal_in_size_and_in_classes(folds: int) -> None:
    y = np.repeat([0, 1, 2], [31, 12, 8])
    found = folds_.fold_of(y, folds, 0, True)
    sizes = np.bincount(found, minlength=folds)
    assert len(sizes) == folds and sizes.max() - sizes.min() <= 1
    for c in range(3):
        each = np.bincount(found[y == c], minlength=folds)
        assert each.max() - each.min() <= 1
    assert not np.array_equal(found, folds_.fold_of(y, folds, 1, True))
    numbers = folds_.fold_of(np.arange(20.0), folds, 0, False)
    assert np.ptp(np.bincount(numbers)) <= 1


def test_every_row_is_judged_once_and_never_trained_on_then(tmp_path: Path) -> None:
    path = _table(tmp_path / "d.csv", task="numbers")
    asked = ["train", path, "--target", "y", "--cross-validate", "4", "--no-standardize"]
    options = config.parse(parser(), asked)
    command.check(options)
    assert options.early_stopping == command.PATIENCE and options.test is None
    judged = []
    for data in crossing.data_of(options):
        parts = [data.train, data.held_out, data.test]
        inputs = [set(part[0].ravel().tolist()) for part in parts if part is not None]
        assert len(inputs) == 3 and sum(map(len, inputs)) == 60 == len(set.union(*inputs))
        assert data.judged[0] == "test"
        judged += data.judged[1][0].ravel().tolist()
    assert len(judged) == 60 == len(set(judged))


def test_scores_of_each_fold_and_their_mean(tmp_path: Path, capsys: Any) -> None:
    path = _table(tmp_path / "d.csv")
    asked = ["train", path, "--target", "y", "--cross-validate", "3", "--epochs", "2", "--quiet"]
    assert main([*asked, "--metrics", "f1_macro"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    values = []
    for fold, line in enumerate(lines[:3], 1):
        found = re.fullmatch(
            rf"fold {fold} of 3: accuracy ([\d.]+)  f1_macro [\d.]+ \(20 rows\)", line
        )
        assert found is not None, line
        values.append(float(found[1]))
    assert lines[3].startswith(f"mean of 3 folds: accuracy {np.mean(values):.4g} +- ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cross-validate", "1"), "--cross-validate is 1, expected at least 2."),
        (("--cross-validate", "3", "--save", "m.safetensors"), "--save is of one model"),
        (("--cross-validate", "3", "--log", "a.csv"), "--log is of one model"),
        (("--cross-validate", "3", "--test", "0.1"), "--test is of one model"),
        (("--cross-validate", "40"), "too few for 40 folds"),
        (("--cross-validate", "3", "--metrics", "r2"), "metric for classification"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path, capsys: Any, options: tuple[str, ...], message: str
) -> None:
    path = _table(tmp_path / "d.csv")
    assert main(["train", path, "--target", "y", "--quiet", *options]) in (2, 3)
    assert message in capsys.readouterr().err
    assert main(["train", "digits", "--cross-validate", "3"]) == 2
