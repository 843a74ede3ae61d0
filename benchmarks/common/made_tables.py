"""Thirty tables made from formulas, as they come in files: gaps, dates, amounts, many names.

Comes in: a name, a seed. Goes out: a `Made`: the columns as numbers, texts and dates (what peers
get, read without a fault), the target, and how the same columns are written in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TARGET = "target"
ROWS = 1200
Columns = dict[str, Any]
Maker = Callable[[np.random.Generator], tuple[Columns, Any]]


@dataclass(frozen=True)
class Made:
    """A table.

    Attributes:
        columns: numbers (NaN is a gap), texts and dates (datetime64), with the target.
        written: columns that stand in the file as other texts than `str` makes.
        semicolons: the file has these, and decimal commas.
        classes: whether the target is one.
    """

    columns: Columns
    classes: bool
    written: Columns = field(default_factory=dict)
    semicolons: bool = False


def _uniform(rng: np.random.Generator, columns: int, rows: int = ROWS) -> NDArray[np.float64]:
    return np.asarray(rng.uniform(-1, 1, (rows, columns)))


def _named(X: NDArray[Any]) -> Columns:
    return {f"x{i}": X[:, i] for i in range(X.shape[1])}


def _letters(rng: np.random.Generator, count: int, rows: int = ROWS) -> NDArray[Any]:
    return np.array([f"n{i:03d}" for i in range(count)])[rng.integers(0, count, rows)]


def _yes(which: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(which, "yes", "no")


def _of_sklearn(name: str, **arguments: Any) -> Maker:
    """A generator of scikit-learn's."""

    def make(rng: np.random.Generator) -> tuple[Columns, Any]:
        from sklearn import datasets

        made = getattr(datasets, f"make_{name}")
        X, y = made(random_state=int(rng.integers(1 << 30)), n_samples=ROWS, **arguments)
        return _named(X), y if y.dtype.kind == "f" and name != "hastie_10_2" else _class(y)

    return make


def _class(y: NDArray[Any]) -> NDArray[Any]:
    return np.array([f"c{int(v)}" for v in y])


def _exclusive(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = _uniform(rng, 4)
    return _named(X), _yes(X[:, 0] * X[:, 1] > 0)


def _spirals(rng: np.random.Generator) -> tuple[Columns, Any]:
    arm, far = rng.integers(0, 3, ROWS), rng.uniform(0.1, 1, ROWS)
    angle = 5 * far + arm * 2 * np.pi / 3 + rng.normal(0, 0.15, ROWS)
    return _named(np.stack([far * np.cos(angle), far * np.sin(angle)], 1)), _class(arm)


def _checkers(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.uniform(0, 4, (ROWS, 2))
    return _named(X), _class(X.astype(int).sum(1) % 2)


def _imbalanced(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 6))
    return _named(X), _yes(X[:, 0] + X[:, 1] ** 2 - X[:, 2] + rng.normal(0, 0.5, ROWS) > 4)


def _wrong_labels(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 8))
    return _named(X), _yes((X[:, :3].sum(1) > 0) ^ (rng.random(ROWS) < 0.2))


def _pairs(rng: np.random.Generator) -> tuple[Columns, Any]:
    a, b = _letters(rng, 8), _letters(rng, 6)
    sign = rng.random((8, 6)) > 0.5
    at = [[int(cell[1:]) for cell in cells] for cells in (a, b)]
    return {"a": a, "b": b, "c": _letters(rng, 4)}, _yes(sign[at[0], at[1]])


def _many_names(rng: np.random.Generator) -> tuple[Columns, Any]:
    effect, city = rng.normal(0, 1.5, 300), _letters(rng, 300, 2 * ROWS)
    x = rng.normal(0, 1, 2 * ROWS)
    at = np.array([int(c[1:]) for c in city])
    return {"city": city, "x": x}, _yes(effect[at] + x > 0)


def _days(rng: np.random.Generator, hours: bool = False) -> NDArray[Any]:
    start = np.datetime64("2021-01-01T00:00")
    step = np.timedelta64(1, "h") if hours else np.timedelta64(1, "D")
    return np.asarray(start + rng.integers(0, 900 * (24 if hours else 1), ROWS) * step)


def _weekends(rng: np.random.Generator) -> tuple[Columns, Any]:
    day, x = _days(rng), rng.normal(0, 1, ROWS)
    free = (day.astype("datetime64[D]").astype(int) + 3) % 7 >= 5
    return {"day": day, "x": x}, _yes(np.where(free, x > -1, x > 1))


def _telling_gaps(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 4))
    gone = rng.random(ROWS) < 0.35
    y = np.where(gone, X[:, 1] > -0.5, X[:, 0] + X[:, 1] > 1)
    X[gone, 0] = np.nan
    return _named(X), _yes(y)


def _linear(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 10))
    return _named(X), X @ np.arange(10) + rng.normal(0, 3, ROWS)


def _waves(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = _uniform(rng, 2)
    return _named(X), np.sin(6 * X[:, 0]) + np.cos(5 * X[:, 1]) + rng.normal(0, 0.1, ROWS)


def _products(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = _uniform(rng, 5)
    y = X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] * X[:, 4] + rng.normal(0, 0.05, ROWS)
    return _named(X), y


def _steps(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = _uniform(rng, 4)
    return _named(X), 3.0 * (X[:, 0] > 0.3) - 2 * (X[:, 1] > -0.2) * (X[:, 2] > 0) + rng.normal(
        0, 0.2, ROWS
    )


def _prices(rng: np.random.Generator) -> tuple[Columns, Any]:
    size, rooms = rng.lognormal(4.5, 0.5, ROWS), rng.integers(1, 7, ROWS)
    place = _letters(rng, 12)
    worth = np.exp(rng.normal(0, 0.4, 12))[[int(p[1:]) for p in place]]
    price = np.round(900 * size * worth * 1.05**rooms * rng.lognormal(0, 0.15, ROWS), 2)
    return {"size": size.round(1), "rooms": rooms, "place": place}, price


def _heavy_tails(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 5))
    return _named(X), X[:, 0] - 2 * X[:, 1] + 0.5 * X[:, 2] ** 2 + rng.standard_t(2.5, ROWS)


def _seasons(rng: np.random.Generator) -> tuple[Columns, Any]:
    day = _days(rng, hours=True)
    hour = day.astype("datetime64[h]").astype(int)
    y = 8 * np.sin(hour / 24 / 365.25 * 2 * np.pi) + 3 * np.sin(hour % 24 / 24 * 2 * np.pi)
    return {"when": day}, y + rng.normal(0, 1, ROWS)


def _slopes(rng: np.random.Generator) -> tuple[Columns, Any]:
    group, x = _letters(rng, 20), rng.normal(0, 1, ROWS)
    slope, base = rng.normal(0, 1, (2, 20))
    at = np.array([int(g[1:]) for g in group])
    return {"group": group, "x": x}, base[at] + slope[at] * x + rng.normal(0, 0.3, ROWS)


def _counts(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = _uniform(rng, 6)
    return _named(X), rng.poisson(np.exp(2.5 + X[:, 0] - X[:, 1] * (X[:, 2] > 0)))


def _wide(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (300, 100))
    return _named(X), X[:, :5] @ np.array([3, -2, 2, 1, -1]) + rng.normal(0, 1, 300)


def _random_gaps(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.normal(0, 1, (ROWS, 8))
    y = X[:, :4].sum(1) + X[:, 0] * X[:, 1] + rng.normal(0, 0.3, ROWS)
    X[rng.random(X.shape) < 0.15] = np.nan
    return _named(X), y


def _skewed(rng: np.random.Generator) -> tuple[Columns, Any]:
    X = rng.lognormal(0, 1.5, (ROWS, 5))
    return _named(X), np.log(X[:, 0]) - np.log(X[:, 1] + X[:, 2]) + rng.normal(0, 0.2, ROWS)


CLASSES: dict[str, Maker] = {
    "moons": _of_sklearn("moons", noise=0.25),
    "circles": _of_sklearn("circles", noise=0.15, factor=0.5),
    "blobs": _of_sklearn("blobs", centers=6, cluster_std=2.0, n_features=3),
    "quantiles": _of_sklearn("gaussian_quantiles", n_features=4, n_classes=3),
    "hastie": _of_sklearn("hastie_10_2"),
    "informative": _of_sklearn("classification", n_features=20, n_informative=6, n_classes=3),
    "exclusive": _exclusive,
    "spirals": _spirals,
    "checkers": _checkers,
    "imbalanced": _imbalanced,
    "wrong labels": _wrong_labels,
    "pairs of names": _pairs,
    "many names": _many_names,
    "weekends": _weekends,
    "telling gaps": _telling_gaps,
}
NUMBERS: dict[str, Maker] = {
    "linear": _linear,
    "friedman1": _of_sklearn("friedman1", noise=1.0),
    "friedman2": _of_sklearn("friedman2", noise=50.0),
    "friedman3": _of_sklearn("friedman3", noise=0.1),
    "skewed": _skewed,
    "waves": _waves,
    "products": _products,
    "steps": _steps,
    "prices": _prices,
    "heavy tails": _heavy_tails,
    "seasons": _seasons,
    "slopes": _slopes,
    "counts": _counts,
    "wide": _wide,
    "random gaps": _random_gaps,
}
_SEMICOLONS = ("friedman2", "linear", "products", "imbalanced")


def make(name: str, seed: int = 0) -> Made:
    """A table of `CLASSES` or `NUMBERS`."""
    classes = name in CLASSES
    columns, y = (CLASSES if classes else NUMBERS)[name](np.random.default_rng(seed))
    columns = {**columns, TARGET: y}
    written: Columns = {}
    if name == "prices":
        written = {
            "size": [f"{v} m2" for v in columns["size"]],
            TARGET: [f"${v:,.2f}" for v in y],
        }
    return Made(columns, classes, written, name in _SEMICOLONS)
