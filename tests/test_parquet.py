"""Parquet files: the same tables as CSV files, and what cannot be one."""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.data import read_parquet
from gpubp.errors import DataError, MissingExtraError


def _write(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_cells_are_those_of_a_csv_file(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.parquet",
        {
            "size": [0.1, None, float("nan"), 1e300],
            "count": [1, 2, None, 12345678901234567],
            "name": ["a", " b", "", None],
            "yes": [True, False, None, True],
            "day": [date(2024, 12, 31), None, date(2025, 1, 1), date(2025, 1, 2)],
            "time": [datetime(2024, 12, 31, 13, 30), None, None, None],
            "none": [None, None, None, None],
        },
    )
    table = read_parquet(path)
    assert table.columns == {
        "size": ["0.1", "", "", "1e+300"],
        "count": ["1", "2", "", "12345678901234567"],
        "name": ["a", "b", "", ""],
        "yes": ["True", "False", "", "True"],
        "day": ["2024-12-31", "", "2025-01-01", "2025-01-02"],
        "time": ["2024-12-31T13:30:00", "", "", ""],
        "none": ["", "", "", ""],
    }
    assert set(table.written) == {"size", "count"}
    assert table.where(1, "size") == f"{path}, row 2, column 'size'"
    kept = table.complete_rows(["size"])
    np.testing.assert_array_equal(kept.numbers("size"), [0.1, 1e300])


def test_training_and_predicting_from_parquet_is_that_from_csv(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    kinds = np.where(rng.random(80) < 0.5, "red", "blue")
    label = np.where(x + (kinds == "red") > 0.5, "yes", "no")
    columns = {"x": x.tolist(), "kind": kinds.tolist(), "y": label.tolist()}
    _write(tmp_path / "d.parquet", columns)
    lines = zip(map(repr, columns["x"]), columns["kind"], columns["y"])
    text = "\n".join(["x,kind,y", *map(",".join, lines)])
    (tmp_path / "d.csv").write_text(text + "\n")
    said = []
    for ending in ("parquet", "csv"):
        data, model = str(tmp_path / f"d.{ending}"), str(tmp_path / f"{ending}.safetensors")
        train = ["train", data, "--target", "y", "--epochs", "3", "--quiet", "--save", model]
        assert main(train) == 0
        assert main(["predict", model, data]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].startswith("held-out accuracy")


def test_what_is_no_table_is_told(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    nested = _write(tmp_path / "n.parquet", {"x": [[1, 2], [3]], "y": [1, 2]})
    with pytest.raises(DataError, match="column 'x' holds list"):
        read_parquet(nested)
    with pytest.raises(DataError, match="is empty"):
        read_parquet(_write(tmp_path / "e.parquet", {"x": []}))
    (tmp_path / "b.parquet").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(DataError, match="no Parquet file"):
        read_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_parquet(tmp_path / "missing.parquet")
    assert main(["train", str(nested), "--target", "y", "--encoding", "latin-1"]) == 2
    assert "--encoding is for CSV files" in capsys.readouterr().err


def test_without_pyarrow_it_says_what_to_install(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "gpubp\[parquet\]"'):
        read_parquet(tmp_path / "a.parquet")
