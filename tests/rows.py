"""What a row of `specs` is made of: the row itself, its cases, and ways to draw arguments."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp.ops  # noqa: F401 - fills the table of specs
from gpubp.core import ArrayType, Kind, OpSpec, Shape
from gpubp.ops.spec import SPECS

Shapes = tuple[Shape, ...]
Attrs = dict[str, Any]
Args = tuple[NDArray[Any], ...]
AttrRule = Callable[[Shapes], list[Attrs]]
Draw = Callable[[np.random.Generator, Shape, np.dtype[Any]], NDArray[Any]]
Make = Callable[[np.random.Generator, Shapes, np.dtype[Any]], Args]

FLOATS = ("float32", "float64")
NUMBERS = ("int32", "int64", "float32", "float64")
EVERY = ("bool", *NUMBERS)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 88.0, -104.0, 1e4, -1e4, np.inf, -np.inf, np.nan)
FINITE_SPECIAL = SPECIAL[:-3]


def extremes(dtype: str) -> tuple[int, ...]:
    """Integers at whose sums, products and negatives a dtype wraps around."""
    limits = np.iinfo(dtype)
    return (0, 1, -1, 7, limits.max, limits.min, limits.max - 1)


# Empty, one, odd, one below and above a block of 1024, several blocks in one and in two dimensions.
PLAIN: Shapes = (
    (0,), (), (1,), (7,), (3, 1), (0, 5), (2, 3, 4), (37, 53), (200, 10), (1023,), (1025,),
)  # fmt: skip
SAME_1: tuple[Shapes, ...] = tuple((s,) for s in PLAIN)
SAME_2: tuple[Shapes, ...] = tuple((s, s) for s in PLAIN)
BROADCAST_2: tuple[Shapes, ...] = (
    *SAME_2,
    ((5, 7), (7,)),
    ((5, 1), (1, 7)),
    ((4, 3), ()),
    ((), (3,)),
    ((0, 3), (3,)),
    ((2, 1, 5), (3, 1)),
    ((200, 10), (10,)),
    ((37, 1), (37, 53)),
)


def _no_attrs(_: Shapes) -> list[Attrs]:
    return [{}]


@dataclass(frozen=True)
class Row:
    """How to try one op.

    Attributes:
        op: the spec's name.
        make: (rng, shapes, dtype) -> arguments in the safe domain.
        shapes: each entry holds the shapes `make` is called with, one an argument.
        attrs: shapes -> the attributes to try with them.
        dtypes: what `make` is called with.
        special: values to try in every combination of float arguments; empty for none. Integers are
            then tried at their `extremes`, too, if the op has them.
        conditions: as many first arguments are booleans there.
        wrt: positions of the arguments to differentiate by.
        exact: every backend must give the reference's bits.
    """

    op: str
    make: Make
    shapes: tuple[Shapes, ...]
    attrs: AttrRule = _no_attrs
    dtypes: tuple[str, ...] = FLOATS
    special: tuple[float, ...] = ()
    conditions: int = 0
    wrt: tuple[int, ...] = ()
    exact: bool = False

    @property
    def spec(self) -> OpSpec:
        return SPECS[self.op]


@dataclass(frozen=True)
class Case:
    """One row with its shapes, dtype and attributes chosen."""

    row: Row
    shapes: Shapes
    dtype: str
    attrs: Attrs
    special: bool = False

    def __str__(self) -> str:
        kind = "special values" if self.special else self.shapes
        return f"{self.row.op} {kind} {self.dtype} {self.attrs}"

    def args(self) -> Args:
        """The arguments: new arrays at each call, with the same numbers."""
        if self.special:
            return special_args(self.row, self.dtype)
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        return self.row.make(rng, self.shapes, np.dtype(self.dtype))


def cases(row: Row) -> Iterator[Case]:
    """Every combination of shapes, dtype and attributes."""
    for shapes, dtype in itertools.product(row.shapes, row.dtypes):
        for attrs in row.attrs(shapes):
            yield Case(row, shapes, dtype, attrs)


def covering_cases(row: Row) -> Iterator[Case]:
    """Every shape with its attributes for one dtype in turn; every dtype for the largest shape."""
    largest = max(row.shapes, key=lambda shapes: sum(map(math.prod, shapes)))
    for i, shapes in enumerate(row.shapes):
        in_turn = row.dtypes[i % len(row.dtypes)]
        for dtype in row.dtypes if shapes is largest else (in_turn,):
            for attrs in row.attrs(shapes):
                yield Case(row, shapes, dtype, attrs)


def special_cases(row: Row) -> Iterator[Case]:
    """The special values in every combination; none if the row has none."""
    if not row.special:
        return
    for dtype in (*FLOATS, *[d for d in ("int32", "int64") if d in row.dtypes]):
        shapes = tuple(a.shape for a in special_args(row, dtype))
        for attrs in row.attrs(shapes):
            yield Case(row, shapes, dtype, attrs, special=True)


def gradient_cases(row: Row, most: int) -> Iterator[Case]:
    """The cases from float64 to float64 with 1 to `most` elements in all arguments together."""
    for case in cases(row):
        if case.dtype == "float64" and row.wrt:
            args = case.args()
            sizes = [a.size for a in args]
            out = row.spec.infer(*[ArrayType(a.shape, a.dtype) for a in args], **case.attrs)
            if out.dtype == np.float64 and min(sizes) > 0 and sum(sizes) <= most:
                yield case


def special_args(row: Row, dtype: str) -> Args:
    """Special values: one column an argument, or rows of two for ops that work along axes."""
    values = row.special if dtype in FLOATS else extremes(dtype)
    if row.spec.kind is not Kind.ELEMENTWISE:
        return (np.array(list(itertools.product(values, repeat=2)), dtype),)
    arity = len(row.shapes[0]) - row.conditions
    each = [(False, True)] * row.conditions + [values] * arity
    columns = zip(*itertools.product(*each), strict=True)
    kinds = ["bool"] * row.conditions + [dtype] * arity
    return tuple(np.array(c, kind) for c, kind in zip(columns, kinds, strict=True))


def number(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Normal floats, small integers, or coin tosses."""
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind == "i":
        return np.asarray(rng.integers(-9, 10, shape), dtype=dtype)
    return np.asarray(rng.standard_normal(shape), dtype=dtype)


def between(low: float, high: float) -> Draw:
    """Floats spread evenly over an interval."""
    return lambda rng, shape, dtype: np.asarray(rng.uniform(low, high, shape), dtype=dtype)


def away_from(*kinks: float) -> Draw:
    """Numbers at least 0.05 from each kink, if they are floats."""

    def draw(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        x = number(rng, shape, dtype)
        for kink in kinks if dtype.kind == "f" else ():
            x = np.where(np.abs(x - kink) < 0.05, x + dtype.type(0.1), x)
        return np.asarray(x, dtype=dtype)

    return draw


def coarse(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers with many equal ones among them."""
    return np.asarray(rng.integers(0, 3, shape)).astype(dtype)


def distinct(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Different numbers in random order."""
    n = int(np.prod(shape))
    x = rng.permutation(n) - n // 2
    scaled = x if dtype.kind == "i" else x * (4.0 / max(n, 1))
    return np.asarray(scaled, dtype=dtype).reshape(shape)


def within_cell(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Floats well between two whole numbers."""
    x = rng.integers(-3, 4, shape) + rng.uniform(0.1, 0.9, shape)
    return np.asarray(x, dtype=dtype)


def draws(*each: Draw) -> Make:
    """One argument from each of `each`; a single one makes all arguments."""

    def make(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
        fitting = each * len(shapes) if len(each) == 1 else each
        return tuple(d(rng, s, dtype) for d, s in zip(fitting, shapes, strict=True))

    return make


def attr_list(*attrs: Attrs) -> AttrRule:
    """The same attributes for all shapes."""
    return lambda _: list(attrs)


def booleans(rng: np.random.Generator, shape: Shape, _: np.dtype[Any]) -> NDArray[Any]:
    """Coin tosses, whatever the dtype asked for."""
    return np.asarray(rng.random(shape) < 0.5)


def reshapes(shapes: Shapes) -> list[Attrs]:
    """Shapes that hold the same elements."""
    shape = shapes[0]
    n = int(np.prod(shape))
    return [{"shape": s} for s in ((n,), (1, *shape), shape[::-1])]


def permutations(shapes: Shapes) -> list[Attrs]:
    """Axes reversed, and rotated by one."""
    axes = tuple(range(len(shapes[0])))
    return [{"axes": a} for a in dict.fromkeys((axes[::-1], axes[1:] + axes[:1]))]


def widened(shapes: Shapes) -> list[Attrs]:
    """Shapes that the first one broadcasts to."""
    shape = shapes[0]
    stretched = tuple(3 if n == 1 else n for n in shape)
    return [{"shape": s} for s in ((2, *shape), stretched)]


def cuts(shapes: Shapes) -> list[Attrs]:
    """One kind of slice for all axes: shortened, backwards, every other, from the end."""
    keys = (slice(1, None), slice(None, None, -1), slice(None, None, 2), slice(-1, 0, -3))
    out = []
    for key in keys:
        parts = []
        for n in shapes[0]:
            found = key.indices(n)
            parts.append(found if len(range(*found)) else (0, 0, 1))
        starts, stops, steps = zip(*parts, strict=True) if parts else ((), (), ())
        out.append({"starts": starts, "stops": stops, "steps": steps})
    return out


def insertions(shapes: Shapes) -> list[Attrs]:
    """Where `unslice` may place an array in a larger one: spread out, and backwards."""
    small = shapes[0]
    spread = {
        "shape": tuple(2 * n + 1 for n in small),
        "starts": tuple(min(n, 1) for n in small),
        "steps": (2,) * len(small),
    }
    backwards = {
        "shape": tuple(n + 1 for n in small),
        "starts": small,
        "steps": (-1,) * len(small),
    }
    return [spread, backwards]


def joints(shapes: Shapes) -> list[Attrs]:
    """Every axis along which arrays of these shapes can be joined."""
    rests = [{(s[:a], s[a + 1 :]) for s in shapes} for a in range(len(shapes[0]))]
    return [{"axis": a} for a, rest in enumerate(rests) if len(rest) == 1]


def indexed(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """An array and indices that are in range along all of its axes."""
    wide = np.int32 if dtype.itemsize == 4 else np.int64
    top = max(min(shapes[0]), 1)
    return number(rng, shapes[0], dtype), rng.integers(0, top, shapes[1]).astype(wide)


def scattered(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """Updates, and indices below 7."""
    wide = np.int32 if dtype.itemsize == 4 else np.int64
    return number(rng, shapes[0], dtype), rng.integers(0, 7, shapes[1]).astype(wide)


def targets(shapes: Shapes) -> list[Attrs]:
    """Every axis at which the updates have the shape of the indices."""
    updates, indices = shapes
    n = len(indices)
    starts = range(len(updates) - n + 1)
    return [{"axis": a, "size": 7} for a in starts if updates[a : a + n] == indices]


def along_any_axis(shapes: Shapes) -> list[Attrs]:
    """Each axis of the first argument."""
    return [{"axis": a} for a in range(len(shapes[0]))]
