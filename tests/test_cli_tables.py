"""Tables as people have them: gaps, dates, many names, indices, encodings; parts that are fair."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.cli.splitting import shares
from gpubp.data import dates
from gpubp.train import load_model

ROWS = 120
FAST = ("--backend", "numpy", "--hidden", "4", "--quiet")
SHORT = (*FAST, "--epochs", "2")


def _run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def _write(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def _text(columns: dict[str, list[Any]]) -> str:
    return "\n".join(",".join(map(str, row)) for row in [columns, *zip(*columns.values())]) + "\n"


@pytest.fixture
def columns() -> dict[str, list[Any]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS).round(3)
    c = rng.choice(["red", "blue"], ROWS)
    return {"x": x.tolist(), "c": c.tolist(), "y": np.where(x > 0, "yes", "no").tolist()}


def _encoding(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_model(path).extra["encoding"]
    return found


def test_missing_values_are_filled_in_and_remembered(capsys, tmp_path, columns) -> None:
    whole = list(columns["x"])
    for i in range(0, ROWS, 4):
        columns["x"][i] = ""
    columns["c"][5] = "NA"
    path, model = _write(tmp_path / "d.csv", columns), tmp_path / "m.safetensors"
    code, _, err = _run(
        capsys, "train", path, "--target", "y", "--save", model, *SHORT[:-3], "--epochs", "2"
    )
    assert code == 0
    assert "marked by an input more: x: 30 of 120 (first in row 2), c: 1 of 120 (row 7)" in err
    x, c = _encoding(model)["columns"]
    known = [float(v) for v in columns["x"] if v != ""]
    assert min(known) < x["fill"][0] < max(known) and x["mark"] is c["mark"] is True
    assert _encoding(model)["width"] == 2 + 3
    new = {"x": [x["fill"][0], "", whole[1]], "c": ["red", "red", ""]}
    code, out, err = _run(capsys, "predict", model, _write(tmp_path / "n.csv", new), *FAST[:2])
    assert code == 0 and len(out.splitlines()) == 4
    assert "missing values filled in as in training: x: 1 of 3 (row 3), c: 1 of 3 (row 4)" in err


def test_a_gap_in_a_column_that_had_none_counts_as_its_mean(capsys, tmp_path, columns) -> None:
    path, model = _write(tmp_path / "d.csv", columns), tmp_path / "m.safetensors"
    assert _run(capsys, "train", path, "--target", "y", "--save", model, *SHORT)[0] == 0
    mean = _encoding(model)["columns"][0]["fill"][0]
    rows = {"x": [repr(mean), ""], "c": ["red", "red"]}
    predict = ("predict", model, _write(tmp_path / "n.csv", rows), *FAST[:2], "--probabilities")
    lines = _run(capsys, *predict)[1].splitlines()
    assert lines[1] == lines[2]
    code, _, err = _run(capsys, *predict, "--missing", "error")
    assert code == 3 and "missing values in x: 1 of 2 (row 3)" in err


def test_rows_without_a_target_are_left_out(capsys, tmp_path, columns) -> None:
    columns["y"][3] = ""
    path = _write(tmp_path / "d.csv", columns)
    code, _, err = _run(capsys, "train", path, "--target", "y", *SHORT)
    assert code == 0 and "1 of 120 rows left out: values are missing in y: 1 of 120 (row 5)" in err


def test_names_that_training_did_not_have_are_counted(capsys, tmp_path, columns) -> None:
    path, model = _write(tmp_path / "d.csv", columns), tmp_path / "m.safetensors"
    _run(capsys, "train", path, "--target", "y", "--save", model, *SHORT)
    rows = _write(tmp_path / "n.csv", {"x": [1, 2, 3], "c": ["red", "mauve", "mauve"]})
    code, out, err = _run(capsys, "predict", model, rows, *FAST[:2])
    assert code == 0 and len(out.splitlines()) == 4
    assert (
        "column 'c': 2 of 3 rows have a name that the training data did not ('mauve', row 3)" in err
    )


def test_dates_become_parts(capsys, tmp_path) -> None:
    days = np.datetime64("2024-01-01") + np.arange(400)
    month = days.astype("datetime64[M]").astype(int) % 12
    path = _write(
        tmp_path / "d.csv", {"day": days.tolist(), "y": np.cos(month / 12 * 6.28).tolist()}
    )
    model = tmp_path / "m.safetensors"
    line = ("train", path, "--target", "y", "--save", model, "--backend", "numpy", "--epochs", "80")
    code, out, err = _run(capsys, *line, "--lr", "0.01")
    assert code == 0 and "day (date: days, year sin, year cos, week sin, week cos)" in err
    assert float(re.findall(r"r2 (0\.\d+)", out)[0]) > 0.8
    later = _write(tmp_path / "n.csv", {"day": ["2026-07-01", "tomorrow"]})
    code, _, err = _run(capsys, "predict", model, later, "--backend", "numpy")
    assert code == 3 and "row 3, column 'day': 'tomorrow' is no date such as 2024-12-31" in err
    later = _write(tmp_path / "n.csv", {"day": ["2026-07-01", "2026-01-01"]})
    summer, winter = map(float, _run(capsys, "predict", model, later, *FAST[:2])[1].split()[1:])
    assert summer < winter


@pytest.mark.parametrize(
    ("cells", "form", "other"),
    [
        (["2024-02-29", "2023-12-31"], "iso", ""),
        (["2024-02-29 13:30:00", "2023-12-31T01:00:00"], "iso", ""),
        (["31.12.2023", "01.02.2024"], "%d.%m.%Y", ""),
        (["12/31/2023", "01/02/2024"], "%m/%d/%Y", ""),
        (["31/12/2023", "01/02/2024"], "%d/%m/%Y", ""),
        (["01/02/2024", "03/04/2024"], "%m/%d/%Y", "%d/%m/%Y"),
        (["Jan 1, 2000", "Feb 12, 2001"], "%b %d, %Y", ""),
        (["1 January 2000"], "%d %B %Y", ""),
        (["12:30", "01:10"], "%H:%M", ""),
        (["2024-02-30"], "", ""),
        (["red", "2024-02-29"], "", ""),
        (["2024-02-29", "red"], "", ""),
        ([], "", ""),
    ],
)
def test_formats_of_dates(cells: list[str], form: str, other: str) -> None:
    assert dates.format_of(cells) == (form, other)


def test_parts_of_dates_go_round() -> None:
    cells = ["1970-01-01", "1970-01-02T12:00:00", "2024-12-31", "1969-12-28"]
    parts, wrong = dates.measured(cells, dates.ISO)
    assert wrong == -1
    np.testing.assert_allclose(parts[:, 0], [0.0, 1.5, 20088.0, -4.0])
    np.testing.assert_allclose(parts[2, 1:3], parts[0, 1:3], atol=0.02)  # a year later, nearly
    week = np.arctan2(parts[:, 3], parts[:, 4]) / (2 * np.pi) * 7 % 7
    np.testing.assert_allclose(week, [3, 4, 1, 6], atol=1e-9)  # Thursday, Friday, Tuesday, Sunday
    np.testing.assert_allclose(parts[1, 5:], [0.0, -1.0], atol=1e-9)
    assert dates.measured(["1970-01-01", "no"], dates.ISO)[1] == 1


def test_of_many_names_the_frequent_ones_are_kept(capsys, tmp_path) -> None:
    names = [f"city{i % 10}" if i % 2 else f"village{i}" for i in range(600)]
    y = ["yes" if n == "city3" else "no" for n in names]
    data = {"town": names, "x": list(range(600)), "y": y}
    path, model = _write(tmp_path / "d.csv", data), tmp_path / "m.safetensors"
    code, _, err = _run(capsys, "train", path, "--target", "y", "--save", model, *SHORT)
    assert code == 0
    assert "column 'town' holds 305 names: the 5 most frequent are inputs, the rest is one" in err
    assert _encoding(model)["columns"][0]["names"] == [f"city{i}" for i in (1, 3, 5, 7, 9)]
    new = _write(tmp_path / "n.csv", {"town": ["village0", "elsewhere"], "x": [1, 1]})
    lines = _run(capsys, "predict", model, new, *FAST[:2], "--probabilities")[1].splitlines()
    assert lines[1] == lines[2]


def test_who_is_not_learned_from_and_stands_beside_predictions(capsys, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=300)
    data = {
        "": list(range(300)), "name": [f"n{i}" for i in range(300)], "code": list(range(300)),
        "note": [""] * 300, "x": x.tolist(), "y": (x > 0).astype(int).tolist(),
    }  # fmt: skip
    path, model = _write(tmp_path / "d.csv", data), tmp_path / "m.safetensors"
    line = ("train", path, "--target", "y", "--id", "code", "--save", model)
    code, _, err = _run(capsys, *line, *SHORT)
    assert code == 0
    assert "column 1 has no name: it is taken for an index ('index')" in err
    assert "column 'name' holds 300 names in 300 rows: it says who, not what" in err
    assert "column 'note' has no values" in err
    found = _encoding(model)
    assert [c["name"] for c in found["columns"]] == ["x"]
    assert found["ids"] == ["code", "index", "name", "note"]
    new = {k: v[:3] for k, v in data.items() if k not in ("y", "note")}
    predict = ("predict", model, _write(tmp_path / "n.csv", new), *FAST[:2])
    out = _run(capsys, *predict)[1].splitlines()
    assert out[0] == "code,index,name,prediction" and out[2].startswith("1,1,n1,")
    out = _run(capsys, *predict, "--keep", "x")[1].splitlines()
    assert out[0] == "code,index,name,x,prediction"
    assert _run(capsys, *predict, "--keep", "z")[0] == 2


def test_files_may_be_packed_or_of_another_encoding(capsys, tmp_path, columns, monkeypatch) -> None:
    columns["c"] = ["Köln" if c == "red" else "Łódź" for c in columns["c"]]
    text = _text(columns)
    plain, packed, wide = (tmp_path / n for n in ("d.csv", "d.csv.gz", "w.csv"))
    plain.write_text(text, encoding="utf-8")
    packed.write_bytes(gzip.compress(text.encode()))
    wide.write_text(text, encoding="utf-16")
    line = ("--target", "y", *SHORT)
    results = [_run(capsys, "train", path, *line)[1] for path in (plain, packed, wide)]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    results.append(_run(capsys, "train", "-", *line)[1])
    assert len(set(results)) == 1 and results[0].startswith("held-out accuracy")
    old = tmp_path / "old.csv"
    old.write_text(text.replace("Łódź", "Århus"), encoding="latin-1")
    code, _, err = _run(capsys, "train", old, *line)
    assert code == 3 and "is not text in UTF-8" in err and "--encoding latin-1" in err
    assert _run(capsys, "train", old, *line, "--encoding", "latin-1")[0] == 0
    code, _, err = _run(capsys, "train", old, *line, "--encoding", "latin1000")
    assert code == 3 and "'latin1000' is no encoding" in err
    packed.write_bytes(packed.read_bytes()[:-20])
    code, _, err = _run(capsys, "train", packed, *line)
    assert code == 3 and "is damaged: gzip says" in err


def test_each_part_has_its_share_of_each_class() -> None:
    y = np.repeat([0, 1, 2, 3], [70, 20, 9, 1])
    kept, held, test = shares(y, (0.2, 0.1), seed=3)
    assert sorted([*kept, *held, *test]) == list(range(100))
    assert np.bincount(y[held], minlength=4).tolist() == [14, 4, 2, 0]
    assert np.bincount(y[test], minlength=4).tolist() == [7, 2, 1, 0]
    others = shares(y, (0.2, 0.1), seed=4)
    assert not np.array_equal(np.sort(held), np.sort(others[1]))
    assert [len(part) for part in shares(y, (0.0,), seed=3)] == [100, 0]


def test_a_run_ends_by_itself_and_is_judged_by_a_third_part(capsys, tmp_path, columns) -> None:
    columns["y"][::4] = ["yes", "no"] * 15  # what cannot be learned, but by heart
    path, model = _write(tmp_path / "d.csv", columns), tmp_path / "m.safetensors"
    line = ("train", path, "--target", "y", "--backend", "numpy", "--hidden", "4", "--lr", "0.05")
    code, out, err = _run(capsys, *line, "--resume", model)
    assert code == 0 and "84 rows to train on, 24 held out to stop by, 12 to test" in err
    assert out.startswith("test accuracy") and "(12 rows; always" in out
    _, text, _ = _run(capsys, "show", model)
    assert int(re.findall(r"trained for (\d+) epochs", text)[0]) < 200
    assert "stopped: early stopping" in text
    code, out, err = _run(capsys, *line, "--epochs", "2")
    assert "96 rows to train on, 24 held out;" in err and out.startswith("held-out accuracy")


def test_a_third_part_needs_a_second(capsys, tmp_path, columns) -> None:
    path = _write(tmp_path / "d.csv", columns)
    line = ("train", path, "--target", "y", "--validation", "0", "--test", "0.1")
    code, _, err = _run(capsys, *line)
    assert code == 2 and "--test is a third part" in err


def test_model_files_of_before_are_read() -> None:
    from gpubp.data import Encoding

    old = {
        "task": "regression", "target": "y", "width": 3, "classes": [], "outputs": 1, "scale": None,
        "target_scale": None, "target_unit": "",
        "columns": [{"name": "x", "names": [], "unit": ""}, {"name": "c", "names": ["a", "b"]}],
    }  # fmt: skip
    found = Encoding.from_dict(old)
    assert found.ids == [] and [c.width for c in found.columns] == [1, 2]
    assert all(c.fill is None for c in found.columns)
