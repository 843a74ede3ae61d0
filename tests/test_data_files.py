"""CSV and NPZ files, encodings, standardisation: values, places of errors, round trips."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpubp.data import Encoding, Standardizer, read_csv, read_npz
from gpubp.data.described import of_table
from gpubp.data.encoding import numeric_columns, of_arrays
from gpubp.data.gaps import is_missing, missing_of
from gpubp.data.npz import array_names
from gpubp.errors import DataError, ShapeError, UnknownNameError

GOOD = """size,colour,weight,kind
1.5,red,10,a
2.5,"blue, dark",20,b
-3e0,red,30,a
4,green,40,b
"""


def _table(folder, text=GOOD, name="data.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return read_csv(path)


def test_csv_is_read(tmp_path):
    table = _table(tmp_path)
    assert len(table) == 4
    assert list(table.columns) == ["size", "colour", "weight", "kind"]
    np.testing.assert_array_equal(table.numbers("size"), [1.5, 2.5, -3.0, 4.0])
    assert table.column("colour") == ["red", "blue, dark", "red", "green"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa;b\r\n1;x\r\n2;y\r\n",
        "a\tb\n1\tx\n\n2\ty",
        " a , b\n 1 , x \n2,y\n\n",
        'a|b\n"1"|x\n2|"y"\n',
    ],
)
def test_other_delimiters_marks_and_empty_lines(tmp_path, text):
    table = _table(tmp_path, text)
    assert table.columns == {"a": ["1", "2"], "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "is empty"),
        ("a,b\n1,2\n3\n", "row 3: 1 values under a header of 2"),
        ("a,b\n1,2\n3,4,5\n", "row 3: 3 values"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        ("1,2\n3,4\n", "has no header"),
        ("a,\n1,2\n", "column 2 has no name"),
        ('a,b\n"1,2\n3,4\n', "malformed near line"),
        ('a,b\n"1"x,2\n', "malformed near line 2"),
    ],
)
def test_malformed_files_say_where(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        _table(tmp_path, text)
    assert "data.csv" in str(error.value)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_csv(tmp_path / "x.csv")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_csv(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_csv(tmp_path)


def test_missing_values_are_counted_by_column(tmp_path):
    rows = ["1,x", ",x", "2,NA", "nan,?", "3,y", " ,", "5,None", "null,z"]
    table = _table(tmp_path, "a,b\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError) as error:
        table.check_complete(["a", "b"])
    text = str(error.value)
    assert "missing values in a: 3 of 7 (first in row 3), b: 3 of 7 (first in row 4). Fill" in text
    table.check_complete([])
    kept = table.complete_rows(["a", "b"])
    assert kept.columns == {"a": ["1", "3"], "b": ["x", "y"]}
    assert kept.lines == [2, 6]
    with pytest.raises(DataError, match="every row has a missing value"):
        _table(tmp_path, "a,b\n,1\n").complete_rows(["a"])


@pytest.mark.parametrize("cell", ["abc", "inf", "1_000", "0x1F", "1.2.3"])
def test_cells_that_are_no_numbers_are_named(tmp_path, cell):
    table = _table(tmp_path, f'a,b\n1,x\n2,x\n"{cell}",x\n4,x\n')
    with pytest.raises(DataError) as error:
        of_table(table, "b").features(table)
    assert f"row 4, column 'a': '{cell}' is not a finite number" in str(error.value)


def test_columns_become_numbers_and_one_column_a_name(tmp_path):
    table = _table(tmp_path)
    found = of_table(table, "kind")
    assert (found.task, found.classes, found.outputs) == ("classification", ["a", "b"], 2)
    assert [c.names for c in found.columns] == [[], ["blue, dark", "green", "red"], []]
    expected = [[1.5, 0, 0, 1, 10], [2.5, 1, 0, 0, 20], [-3, 0, 0, 1, 30], [4, 0, 1, 0, 40]]
    np.testing.assert_array_equal(found.features(table), expected)
    np.testing.assert_array_equal(numeric_columns(found), [True, False, False, False, True])
    np.testing.assert_array_equal(found.labels(table.column("kind")), [0, 1, 0, 1])


def test_columns_may_be_dropped_or_declared(tmp_path):
    table = _table(tmp_path)
    found = of_table(table, "kind", drop=["size"], categorical=["weight"])
    assert [c.name for c in found.columns] == ["colour", "weight"]
    assert found.columns[1].names == ["10", "20", "30", "40"]
    for options in ({"drop": ["sise"]}, {"categorical": ["sise"]}):
        with pytest.raises(UnknownNameError, match="Did you mean 'size'"):
            of_table(table, "kind", **options)
    with pytest.raises(UnknownNameError, match=r"column of .*'knd'.*Did you mean 'kind'"):
        of_table(table, "knd")
    with pytest.raises(DataError, match="no column left"):
        of_table(table, "kind", drop=["size", "colour", "weight"])


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b", "a", "b"], "classification"),
        (["0", "1", "0", "1"], "classification"),
        (["2", "10", "2", "10"], "classification"),
        (["0.5", "1", "0.5", "1"], "regression"),
        (["1", "2", "3", "4"], "regression"),
        ([str(i) for i in range(40)], "regression"),
    ],
)
def test_the_task_follows_the_target(tmp_path, cells, task):
    table = _table(tmp_path, "x,t\n" + "".join(f"{i},{c}\n" for i, c in enumerate(cells)))
    found = of_table(table, "t")
    assert found.task == task
    if task == "classification":
        assert found.classes == sorted(set(cells), key=lambda c: (len(c), c))
    assert of_table(table, "t", "classification").task == "classification"
    with pytest.raises(UnknownNameError, match="task 'regresion'"):
        of_table(table, "t", "regresion")


def test_columns_of_texts_are_no_categories(tmp_path):
    table = _table(tmp_path, "id,t\n" + "".join(f"n{i},{i % 2}\n" for i in range(300)))
    with pytest.raises(DataError, match=r"column 'id' holds 300 different names.*--drop id"):
        of_table(table, "t")


def test_other_files_are_encoded_alike_or_refused(tmp_path):
    table = _table(tmp_path)
    found = of_table(table, "kind")
    other = _table(tmp_path, "kind,weight,colour,size,more\n?,1,green,2,x\n", "b.csv")
    np.testing.assert_array_equal(found.features(other), [[2, 0, 1, 0, 1]])
    wrong = _table(tmp_path, "size,colour,weight\n1,red,2\n1,pink,2\n", "c.csv")
    with pytest.raises(DataError, match="row 3, column 'colour': 'pink' was not among the names"):
        found.features(wrong)
    with pytest.raises(DataError, match="row 2, column 'weight': 'x' is not a finite number"):
        found.features(_table(tmp_path, "size,colour,weight\n1,red,x\n", "d.csv"))
    with pytest.raises(UnknownNameError, match=r"column of .*'colour'"):
        found.features(_table(tmp_path, "size,color,weight\n1,red,x\n", "e.csv"))
    with pytest.raises(DataError, match=r"missing values in size: 1 of 1 \(row 2\)"):
        found.features(_table(tmp_path, "size,colour,weight\n,red,3\n", "f.csv"))
    with pytest.raises(DataError, match="label 'z' was not among"):
        found.labels(["a", "z"])


GAPS = "size,colour,weight,kind\n1,red,10,a\n,green,20,b\n3,?,30,a\n8,red,40,b\n"


def test_encodings_come_back_from_json(tmp_path):
    table = _table(tmp_path)
    for target in ("kind", "size"):
        found = of_table(table, target)
        X = found.features(table)
        found.scale = Standardizer.fit(X, numeric_columns(found))
        if found.task == "regression":
            found.target_scale = Standardizer.fit(table.numbers(target)[:, None])
        again = Encoding.from_dict(json.loads(json.dumps(found.to_dict())))
        assert again.to_dict() == found.to_dict()
        np.testing.assert_array_equal(again.scaled(X), found.scaled(X))
        outputs = np.random.default_rng(0).normal(size=(4, found.outputs)).astype(np.float32)
        np.testing.assert_array_equal(again.predictions(outputs), found.predictions(outputs))


def test_predictions_are_in_the_units_of_the_data(tmp_path):
    table = _table(tmp_path)
    found = of_table(table, "weight")
    y = table.numbers("weight")
    found.target_scale = Standardizer.fit(y[:, None])
    scaled = found.scaled_targets(y)
    assert scaled.shape == (4, 1)
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found.predictions(scaled)[:, 0], y, rtol=1e-6)
    labels = of_table(table, "kind")
    outputs = np.array([[0.1, 0.2], [3.0, 1.0]])
    assert labels.predictions(outputs).tolist() == ["b", "a"]


def test_standardizer_leaves_out_columns_and_constants():
    X = np.array([[1.0, 5.0, 0.1], [3.0, 5.0, 0.2]])
    found = Standardizer.fit(X, [True, True, False])
    np.testing.assert_array_equal(found.transform(X), [[-1, 0, 0.1], [1, 0, 0.2]])
    np.testing.assert_array_equal(found.inverse(found.transform(X)), X)
    constant = Standardizer.fit(np.full((1000, 1), 0.1))
    assert constant.std[0] == 1.0
    for call in (found.transform, found.inverse):
        with pytest.raises(ShapeError, match=r"expected \(samples, 3\)"):
            call(X[:, :2])
    with pytest.raises(ShapeError, match="X has shape"):
        Standardizer.fit(np.zeros(3))
    with pytest.raises(DataError, match="std above 0"):
        Standardizer([0.0], [0.0])


@pytest.mark.parametrize(
    "column",
    [
        1.7e18 + 3_700_000.0 * np.arange(50),  # nanoseconds
        np.arange(50) % 7 * 1e300,
        np.array([-1.7e308, 1.7e308, 0.0]),
        1e9 + np.arange(50) * 1e-3,
        (np.arange(50) - 20) * 1e-310,
    ],
    ids=["times", "huge", "the largest", "far away", "tiny"],
)
def test_columns_of_any_size_are_standardised(column):
    with np.errstate(all="raise", under="ignore"):
        found = Standardizer.fit(column[:, np.newaxis])
        scaled = found.transform(column[:, np.newaxis])
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-5)
    size = np.abs(column).max()
    np.testing.assert_allclose(found.inverse(scaled)[:, 0], column, atol=1e-15 * size)


def test_what_varies_in_the_last_digits_only_is_not_blown_up():
    for column in ([0.3, 0.1 * 3, 0.3], [2.0**60, 2.0**60 + 256, 2.0**60]):
        scaled = Standardizer.fit(np.array(column)[:, np.newaxis]).transform(
            np.array(column)[:, np.newaxis]
        )
        assert np.abs(scaled).max() <= 1.0


def test_npz_is_read(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.eye(3), y=np.array([0, 1, 0]), o=np.array([{}], object))
    assert array_names(path) == ["X", "y", "o"]
    found = read_npz(path, ["X", "y"])
    np.testing.assert_array_equal(found["X"], np.eye(3))
    with pytest.raises(UnknownNameError, match=r"array of .*d\.npz 'XX'. Did you mean 'X'"):
        read_npz(path, ["XX"])
    with pytest.raises(DataError, match="no arrays of numbers"):
        read_npz(path, ["o"])


def test_damaged_npz_files_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, X=np.random.default_rng(0).normal(size=(50, 4)))
    raw = bytearray(path.read_bytes())
    for at in range(100, 1000, 90):
        changed = bytearray(raw)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"d\.npz"):
            read_npz(path, ["X"])
    for content in (b"", b"PK", bytes(raw[:500])):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no NPZ file, or it is damaged"):
            read_npz(path, ["X"])
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "missing.npz", ["X"])


def test_arrays_are_described():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 4, 4))
    found = of_arrays(images, rng.integers(3, 6, 30), "y")
    assert (found.task, found.classes, found.width, found.outputs) == (
        "classification",
        [3, 4, 5],
        16,
        3,
    )
    assert found.array(images, "X").shape == (30, 16)
    with pytest.raises(ShapeError, match="X has 8 numbers a sample, the model takes 16"):
        found.array(images[:, :2], "X")
    words = of_arrays(images, np.array(["b", "a"] * 15), "y")
    assert words.classes == ["a", "b"]
    numbers = of_arrays(images, rng.normal(size=(30, 2)), "y")
    assert (numbers.task, numbers.outputs) == ("regression", 2)


@pytest.mark.parametrize(
    ("X", "y", "task", "message"),
    [
        (np.zeros(3), np.zeros(3), "auto", "X has shape"),
        (np.zeros((0, 3)), np.zeros(0), "auto", "X has shape"),
        (np.zeros((3, 1)), np.zeros(2), "auto", "X has 3 samples and y has 2"),
        (np.zeros((3, 1)), np.zeros((3, 1, 1)), "auto", "y is float64 of shape"),
        (np.zeros((3, 1)), np.zeros((3, 2)), "classification", "one label a sample"),
        (np.zeros((3, 1)), np.array(["a"] * 3), "regression", "holds text"),
    ],
)
def test_arrays_that_cannot_be_used(X, y, task, message):
    with pytest.raises(DataError, match=message):
        of_arrays(X, y, "y", task)


def test_cells_without_a_value_are_found_at_once_as_one_by_one(tmp_path):
    cells = ["1", "NA", "", "a\nna\nb", "NaN", "x", "na\n", "#N/A N/A", "na"]
    assert (
        missing_of(cells)
        == {c for c in cells if is_missing(c)}
        == {"NA", "", "NaN", "#N/A N/A", "na"}
    )
    assert missing_of(["1", "a\nna", "x"]) == set()
    path = tmp_path / "d.csv"
    path.write_text("x,y\n1,a\nNA,b\n3,\n")
    table = read_csv(path)
    assert table.absent("x").tolist() == [False, True, False] and table.given("x") == ["1", "3"]
    part = table.rows([0, 2])
    assert part.absent("x").tolist() == [False, False] and part.given("y") == ["a"]
