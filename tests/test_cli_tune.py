"""`gpubp tune`: a table of members, the best one's file, and a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.cli.failures import WRONG_ARGUMENTS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    lines = [f"{a},{b},{c},{'yes' if a + b > 0 else 'no'}" for a, b, c in X]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,b,c,label", *lines]))
    return path


def test_tune_prints_a_table_and_saves_the_best(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    saved, drawn = tmp_path / "m.safetensors", tmp_path / "p.png"
    command = ["tune", str(file), "--target", "label", "--members", "5", "--epochs", "3"]
    command += ["--hidden", "8", "--decays", "1e-5,1e-2", "--early-stopping", "2"]
    assert main([*command, "--save", str(saved), "--plot", str(drawn)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["member", "lr", "weight_decay"] and "val_loss" in lines[0]
    assert len(lines) == 7 and lines[-1].startswith("best of 5: lr = ")
    losses = [float(line.split()[5]) for line in lines[1:6]]
    assert losses == sorted(losses) and drawn.stat().st_size > 1000
    assert main(["predict", str(saved), str(file), "-o", str(tmp_path / "out.csv")]) == 0


@pytest.mark.parametrize(
    "option",
    [["--members", "0"], ["--lrs", "0.1"], ["--lrs", "0,1"], ["--schedule", "cosine"]],
    ids=" ".join,
)
def test_what_cannot_be_tuned_is_refused(file: Path, option: list[str]) -> None:
    assert main(["tune", str(file), "--target", "label", *option]) == WRONG_ARGUMENTS
