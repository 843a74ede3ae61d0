"""What `checked` makes of annotations: kinds that pass, kinds that are refused, and the words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from gpubp import nn
from gpubp.arguments import at, checked, reading, truth
from gpubp.data import read_csv
from gpubp.errors import ArgumentError, DataError, GpubpError, IndexRangeError, ShapeError
from gpubp.nn.module import Module


@checked
def taken(
    whole: int = 1,
    number: float = 1.0,
    flag: bool = True,
    text: str = "",
    limit: float | None = None,
    sizes: int | Sequence[int] = 1,
    fn: Callable[..., Any] | None = None,
    table: Mapping[str, Any] | None = None,
    items: Iterable[Any] = (),
    model: Module | None = None,
    data: ArrayLike = 0,
    anything: Any = None,
) -> dict[str, Any]:
    return dict(locals())


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("whole", np.int64(3), 3),
        ("whole", True, 1),
        ("number", 2, 2),
        ("number", np.float32(0.5), 0.5),
        ("number", np.array(0.25), 0.25),
        ("flag", None, False),
        ("flag", np.bool_(True), True),
        ("limit", None, None),
        ("sizes", (2, np.int64(3)), [2, 3]),
        ("sizes", np.array([4, 5]), [4, 5]),
        ("fn", abs, abs),
        ("table", {"a": 1}, {"a": 1}),
        ("items", (1, "a"), (1, "a")),
        ("data", [[1, 2]], [[1, 2]]),
        ("anything", "all", "all"),
    ],
)
def test_kinds_that_pass(name: str, given: Any, found: Any) -> None:
    assert taken(**{name: given})[name] == found
    assert type(taken(**{name: given})[name]) is type(found)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("whole", 1.5, "taken: whole is 1.5, expected a whole number."),
        ("whole", "3", "whole is '3', expected a whole number"),
        ("whole", None, "whole is None"),
        ("number", "0.1", "number is '0.1', expected a number"),
        ("number", 1j, "number is a complex, expected a number"),
        ("number", np.zeros(2), "number is an array float64[2], expected a number"),
        ("number", 10**400, "expected a number"),
        ("flag", "yes", "flag is 'yes', expected True or False"),
        ("flag", np.zeros(3), "flag is an array float64[3]"),
        ("text", 3, "text is 3, expected a text"),
        ("limit", "a", "limit is 'a', expected a number or None"),
        ("sizes", [1, 2.5], "expected a whole number or a sequence of whole numbers"),
        ("sizes", "12", "expected a whole number or a sequence of whole numbers"),
        ("fn", 3, "fn is 3, expected a function or None"),
        ("table", [1], "table is a list"),
        ("items", np.array(1), "items is an array"),
        ("model", nn.Linear, "model is a type, expected a Module or None"),
        ("data", "digits", "data is 'digits', expected an array"),
    ],
)
def test_kinds_that_are_refused(name: str, given: Any, words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        taken(**{name: given})
    assert words in str(caught.value)
    assert isinstance(caught.value, (GpubpError, TypeError, ValueError))


def test_a_call_that_fits_no_signature_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'") as caught:
        taken(nope=1)
    assert not isinstance(caught.value, GpubpError)


def test_an_argument_of_another_kind_beside_one_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'") as caught:
        taken("3", nope=1)  # type: ignore[arg-type]
    assert not isinstance(caught.value, GpubpError)
    assert caught.value.__context__ is None


def test_places_and_names_are_looked_at_alike() -> None:
    @checked
    def several(first: int, *rest: Any, last: float = 0.0, **more: Any) -> tuple[Any, ...]:
        return first, rest, last, more

    assert several(np.int64(1), "a", 2, last=np.float32(0.5), other="b") == (
        1,
        ("a", 2),
        0.5,
        {"other": "b"},
    )
    assert taken(np.int64(2), 1, None)["flag"] is False
    # The first of the signature is named, wherever it stands in the call.
    with pytest.raises(ArgumentError, match="several: first is 'x'"):
        several(last="y", first="x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="several: last is 'y'"):
        several(1, 2, last="y")  # type: ignore[arg-type]


def test_paths_are_texts_without_zeros() -> None:
    for wrong in (3, None, b"bytes", "a\0b"):
        with pytest.raises(ArgumentError, match="read_csv: path is"):
            read_csv(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="missing"):
        read_csv(Path("missing.csv"))


def test_states_that_cannot_be_read() -> None:
    @reading("the state of a thing")
    def load(state: Any) -> Any:
        return state["a"][0] + 1

    assert load({"a": [1]}) == 2
    with pytest.raises(DataError, match="the state of a thing has no 'a'"):
        load({})
    with pytest.raises(DataError, match=r"the state of a thing cannot be read: .*Pass what state_"):
        load({"a": 3})

    @reading("the state of a thing")
    def refuse() -> None:
        raise ShapeError("as it is")

    with pytest.raises(ShapeError, match="as it is"):
        refuse()


def test_items_and_flags() -> None:
    assert at(nn.ReLU(), [1, 2], -1) == 2
    with pytest.raises(IndexRangeError, match="ReLU: index 2 is out of range: there are 2"):
        at(nn.ReLU(), [1, 2], 2)
    with pytest.raises(ArgumentError, match="ReLU: index is 'a'"):
        at(nn.ReLU(), [1, 2], "a")
    assert truth("sum", "keepdims", 1) is True
    with pytest.raises(ArgumentError, match="sum: keepdims is an array"):
        truth("sum", "keepdims", np.ones(2))


@pytest.mark.parametrize("given", [None, "text", {}, len, {1, 2}])
def test_modules_take_arrays(given: Any) -> None:
    for module in (nn.ReLU(), nn.Linear(3, 2), nn.Softmax(-1), nn.LayerNorm(3), nn.Dropout(0.5)):
        with pytest.raises(ArgumentError, match=rf"{type(module).__name__}: got .*, expected an a"):
            module(given)
    with pytest.raises(ArgumentError, match=r"MSELoss: got .*expected an array"):
        nn.MSELoss()(np.ones(3), given)


def test_lists_become_arrays() -> None:
    rows = [[1.0, 2.0, 3.0]]
    layer = nn.Linear(3, 2, dtype="float64")
    np.testing.assert_array_equal(layer(rows), layer(np.array(rows)))
    assert nn.MSELoss()([1.0, 2.0], [1.0, 4.0]) == 2.0
