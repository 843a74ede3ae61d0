"""Numbers as files write them: decimal commas, thousands, money, percent, units."""

from __future__ import annotations

import math

import pytest

from gpubp.data.gaps import is_missing
from gpubp.data.numerals import COMMA, POINT, label_key, like_numbers, survey


def _read(cells, delimiter=",", decimal=None, **others):
    """(values, writing) of a column beside others, or None if it holds names."""
    writing = survey({"x": cells, **others}, delimiter, decimal).get("x")
    if writing is None:
        return None
    return [writing.number(cell) for cell in cells], writing


@pytest.mark.parametrize(
    ("cells", "delimiter", "values", "unit"),
    [
        (["1", "2.5", "-3e2", "+.5", "5."], ",", [1, 2.5, -300, 0.5, 5], ""),
        (["2,5", "3,75", "1"], ";", [2.5, 3.75, 1], ""),
        (["2,5", "3,75", "1"], ",", [2.5, 3.75, 1], ""),
        (["0,123", "0,456"], ",", [0.123, 0.456], ""),
        (["1,5E+03", "2,1"], "\t", [1500, 2.1], ""),
        (["1.234,5", "12"], ";", [1234.5, 12], ""),
        (["1.234.567", "12"], ";", [1234567, 12], ""),
        (["1,234.5", "3,750"], ",", [1234.5, 3750], ""),
        (["1,234,567", "12"], "|", [1234567, 12], ""),
        (["12,34,567.5", "1,00,000"], ",", [1234567.5, 100000], ""),
        (["1 234,5", "1\u202f234", "12"], ";", [1234.5, 1234, 12], ""),
        (["1'234.50", "1\u2019000.00", "12"], ",", [1234.5, 1000, 12], ""),
        (["\u22125", "3"], ",", [-5, 3], ""),
        (["(1,234.50)", "12.00", "(3)"], ",", [-1234.5, 12, -3], ""),
        (["$3,750.00", "$12.50", "$0", "0"], ",", [3750, 12.5, 0, 0], "$"),
        (["($5)", "$-5", "-$5", "$ 5"], ",", [-5, -5, -5, 5], "$"),
        (["€ 3.750,00", "€ 12,50"], ";", [3750, 12.5], "€"),
        (["R$ 5,00", "R$ 1.200,00"], ";", [5, 1200], "R$"),
        (["USD 5", "USD 6.5"], ",", [5, 6.5], "USD"),
        (["5 EUR", "6,50 EUR"], ";", [5, 6.5], "EUR"),
        (["20.1%", "3 %", "0"], ",", [20.1, 3, 0], "%"),
        (["10,5 %", "3,2 %"], "\t", [10.5, 3.2], "%"),
        (["12 kg", "13.5 kg", "14kg"], ",", [12, 13.5, 14], "kg"),
        (["1 day", "2 days", "3 days"], ",", [1, 2, 3], "day"),
        (["36,6 °C", "37,1°C"], ";", [36.6, 37.1], "°C"),
        (["90 km/h", "100 km/h"], ",", [90, 100], "km/h"),
        (["€1.5M", "€2M"], ",", [1.5, 2], "€M"),
        (["4 doors", "2 doors"], ",", [4, 2], "doors"),
    ],
)
def test_numbers_are_read_as_they_are_meant(cells, delimiter, values, unit):
    found, writing = _read(cells, delimiter)
    assert found == values
    assert (writing.unit, writing.doubt, writing.problem) == (unit, "", "")


@pytest.mark.parametrize(
    "cells",
    [
        ["Yes", "No"],
        ["True", "False"],
        ["A1", "A2", "A3"],
        ["n1", "n2"],
        ["1A", "2A", "3B"],
        ["12b", "13b"],
        ["1st", "2nd", "3rd"],
        ["2020-01-05", "2020-02-05"],
        ["12.05.2020", "13.05.2020"],
        ["12:30", "13:30"],
        ["1/2", "3/4"],
        ["10-15", "16-20"],
        ["1.2.3", "1.2.4"],
        ["5'11\"", "6'0\""],
        ["555-1234", "555-1235"],
        ["1_000", "2_000"],
        ["0x1F", "0x20"],
        ["$", "%"],
        ["12 High Street", "13 High Street"],
        ["2. Married", "2. Married", "2. Married", "1. Never Married", "3. Widowed"],
        ["1. Industrial", "1. Industrial", "2. Information"],
        ["1 White", "1 White", "1 White", "2 Black", "3 Asian"],
        ["--5", "+-6"],
        ["", "NA"],
    ],
)
def test_names_are_no_numbers(cells):
    assert _read(cells) is None


@pytest.mark.parametrize(
    ("cells", "delimiter", "others", "values", "doubted"),
    [
        # 3,750 alone: as the separator of the columns suggests, and said.
        (["3,750", "4,200", "950"], ",", {}, [3750, 4200, 950], True),
        (["3,750", "4,200", "950"], ";", {}, [3.75, 4.2, 950], True),
        # Another column decides.
        (["3,750"], ";", {"b": ["2.5"]}, [3750], True),
        (["3,750"], ",", {"b": ["2,5"]}, [3.75], True),
        (["3,750"], "\t", {"b": ["$1,234.50"]}, [3750], True),
        (["3.750"], ";", {"b": ["2,5"]}, [3750], True),
        # A point is a point unless the file shows otherwise.
        (["3.750"], ";", {}, [3.75], False),
        (["3.750"], ",", {"b": ["2.5"]}, [3.75], False),
        # The column's own cells come before the rest of the file.
        (["3.750", "4.21"], ";", {"b": ["2,5"]}, [3.75, 4.21], False),
        (["0.123"], ";", {"b": ["2,5"]}, [0.123], False),
    ],
)
def test_what_a_column_leaves_open_the_file_decides(cells, delimiter, others, values, doubted):
    found, writing = _read(cells, delimiter, **others)
    assert found == values
    assert bool(writing.doubt) == doubted
    assert not doubted or cells[writing.row] in ("3,750", "3.750", "4,200")


def test_what_nothing_decides_is_a_problem_unless_one_says_it():
    _, writing = _read(["3,750", "12"], "\t")
    assert writing.problem.startswith("'3,750' can mean 3750 or 3.75.")
    assert "--decimal" in writing.problem
    for decimal, value in ((POINT, 3750), (COMMA, 3.75)):
        values, writing = _read(["3,750", "12"], "\t", decimal)
        assert values == [value, 12]
        assert not writing.problem and not writing.doubt


@pytest.mark.parametrize(
    ("cells", "wrong", "why"),
    [
        (["2.5", "3,5", "4.5"], 1, "the others are written with a decimal point"),
        (["2,5", "3.5", "4,5"], 1, "the others are written with a decimal comma"),
        (["12", "13", "14kg"], 2, "it has the unit 'kg', the others have none"),
        (["12 kg", "500 g", "13 kg"], 1, "it has the unit 'g', the others have 'kg'"),
        (["12 kg", "13", "14 kg"], 1, "it has no unit, the others have 'kg'"),
        (["€1.5M", "€500K", "€2M"], 1, "it has the unit '€K', the others have '€M'"),
        (["1", "12O", "3"], 1, ""),
    ],
)
def test_a_cell_unlike_the_others_is_no_number_and_says_why(cells, wrong, why):
    values, writing = _read(cells)
    assert [value is None for value in values] == [i == wrong for i in range(3)]
    assert writing.wrong(cells[wrong]) == why


def test_missing_values_have_many_spellings():
    for cell in ("", "NA", "n/a", "NaN", "-nan", "NULL", "None", "?", "-", "--", ".", "<NA>"):
        assert is_missing(cell)
    for cell in ("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#QNAN"):
        assert is_missing(cell)
    for cell in ("0", "No", "nano", "inf", "x"):
        assert not is_missing(cell)


def test_labels_are_the_same_by_value():
    same = ["0", "0.0", "0.00", 0, 0.0, "-0"]
    assert len({label_key(label) for label in same}) == 1
    assert label_key("1e2") == label_key(100) == label_key("100.0")
    different = ["00", "007", "7", "a", "A", "9007199254740993", "9007199254740992", "", 0.1]
    assert len({label_key(label) for label in different}) == len(different)
    assert label_key(0.1) == label_key("0.1")
    assert label_key(math.nan) != label_key("x")


def test_texts_that_begin_as_numbers_do():
    assert like_numbers(["10-15", "<5", "$1-2", "5'11\""])
    assert not like_numbers(["A1", "red", "10-15"])
