"""Random files of awkward cells: every command ends well, or in one line that says what to do."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from gpubp.cli import main

CELLS = [
    *("", "NA", "nan", "inf", "-inf", "1e400", "0", "0.0", "00", "007", "-0", "1", "2", "1,5"),
    *("1.5", "3,750", "3.750", "1.234,5", "1,234.5", "$5", "$1,234", "€2,50", "5%", "20.1 %"),
    *("(3)", "(", "()", "$", "%", "12 kg", "500 g", "12kg", "1st", "A", "a", "Yes", "yes"),
    *("2020-01-01", "12:30", "1/2", "5'11\"", "\u22123", "+4", "1_000", "0x1F", "\u00bd", "\u0663"),
    *("\u00e9", "\u65e5\u672c", "\u00a05", "1 000", "  x ", '"q"', ";", ",", "\t", "|", "-", "--"),
    *(".", "1.", "1..2", "1e5", "1E+3", "1,2,3", "5K", "2M", "None", "x" * 300),
    *("9007199254740993", "0.1"),
]
OPTIONS = [
    ("--missing", "drop"),
    ("--task", "regression"),
    ("--task", "classification"),
    ("--categorical", "c0"),
    ("--decimal", "comma"),
    ("--decimal", "point"),
    ("--metrics", "mae"),
    ("--metrics", "f1"),
    ("--validation", "0"),
    ("--validation", "0.6"),
]


def _column(draw: random.Random, rows: int) -> list[str]:
    numbers = [f"{draw.gauss(50, 10):.2f}" for _ in range(rows)]
    kind = draw.randrange(5)
    if kind == 0:
        return [number.replace(".", ",") for number in numbers]
    if kind == 1:
        return [draw.choice("ab") for _ in range(rows)]
    if kind == 2:
        few = draw.sample(CELLS, 3)
        return [draw.choice(few) for _ in range(rows)]
    if kind == 3:
        numbers[draw.randrange(rows)] = draw.choice(CELLS)
    return numbers


def _write(path: Path, columns: list[list[str]], delimiter: str) -> None:
    header = [*(f"c{i}" for i in range(len(columns) - 1)), "y"]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *zip(*columns, strict=True)])


@pytest.mark.parametrize("seed", range(60))
def test_a_random_file_is_read_or_refused_in_words(seed, tmp_path, capsys):
    draw = random.Random(seed)
    rows, delimiter = draw.choice([1, 2, 5, 12, 40]), draw.choice(",;\t|")
    columns = [_column(draw, rows) for _ in range(draw.randrange(2, 4))]
    path, model = tmp_path / "d.csv", tmp_path / "m.safetensors"
    _write(path, columns, delimiter)
    options = draw.choice(OPTIONS) if draw.random() < 0.7 else ()
    call = ["train", str(path), "--target", "y", "--save", str(model), "--epochs", "1"]
    code = main([*call, "--hidden", "2", "--backend", "numpy", "--quiet", *options])
    out, err = capsys.readouterr()
    assert code in (0, 2, 3)
    if code:
        assert out == "" and err.splitlines()[-1].startswith("gpubp: ")
        return
    assert out.count("\n") == 1 and "; always " in out
    for _ in range(3):
        changed = draw.choice(columns)
        changed[draw.randrange(rows)] = draw.choice(CELLS)
        _write(path, columns, delimiter)
        call = ["predict", str(model), str(path), "--backend", "numpy", "--missing", "empty"]
        code = main(call)
        out, err = capsys.readouterr()
        assert code in (0, 3)
        assert len(out.splitlines()) == (rows + 1 if code == 0 else 0)
        assert code == 0 or err.splitlines()[-1].startswith("gpubp: ")
