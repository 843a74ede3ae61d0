"""Rows of `specs` for pools: windows of every kind over small images."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import NUMBERS, Args, Attrs, Make, Row, Shapes, attr_list, distinct, draws, number

from gpubp.core import ArrayType, Shape
from gpubp.ops.spec import SPECS


def _window(kernel: Shape, stride: Shape, padding: Any, dilation: Shape) -> Attrs:
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


# Images (N, *sizes, C), and windows over them: apart and overlapping, cut by both ends, with gaps
# in them and between them, of one element, and of all; channels below, at and above a vector.
_POOLS: list[tuple[Shape, Attrs]] = [
    ((2, 7, 3), _window((2,), (2,), ((0, -1),), (1,))),
    ((3, 11, 1), _window((3,), (2,), ((1, 1),), (1,))),
    ((2, 9, 5), _window((2,), (1,), ((1, 0),), (3,))),
    ((2, 4, 6, 6), _window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))),
    ((1, 7, 7, 16), _window((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))),
    ((2, 7, 5, 9), _window((2, 2), (3, 2), ((0, -2), (1, 0)), (1, 1))),
    ((2, 5, 6, 2), _window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    ((2, 6, 7, 4), _window((2, 3), (2, 1), ((1, 1), (2, 2)), (2, 2))),
    ((2, 3, 4, 17), _window((3, 4), (1, 1), ((0, 0), (0, 0)), (1, 1))),
    ((3, 3, 2, 1), _window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))),
    ((2, 4, 3, 5, 3), _window((2, 2, 3), (2, 1, 2), ((0, 0), (1, 0), (1, 1)), (1, 1, 1))),
    ((1, 2, 4, 4, 8), _window((1, 2, 2), (1, 2, 2), ((0, 0),) * 3, (1, 1, 1))),
    ((0, 4, 4, 3), _window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))),
    ((1, 5, 1), _window((3,), (2,), ((1, 1),), (1,))),
    ((1, 3, 3, 1), _window((2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))),
    ((65, 4, 4, 6), _window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))),
]


def _result_of(images: Shape, window: Attrs) -> Shape:
    return SPECS["sum_pool"].infer(ArrayType(images, np.dtype("float64")), **window).shape


def _pool(op: str, make: Make, *kinds: str, **options: Any) -> Row:
    """`kinds`: of each argument: "images" or "windows"."""
    windows: dict[Shapes, list[Attrs]] = {}
    for images, window in _POOLS:
        arrays = {"images": images, "windows": _result_of(images, window)}
        attrs = window | ({"sizes": images[1:-1]} if kinds == ("windows",) else {})
        windows.setdefault(tuple(arrays[kind] for kind in kinds), []).append(attrs)
    return Row(op, make, tuple(windows), lambda shapes: windows[shapes], exact=True, **options)


def _with_ties(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """Images with equal elements and NaN, and numbers that follow them."""
    x = rng.integers(-2, 3, shapes[0]).astype(dtype)
    if dtype.kind == "f":
        x[rng.random(shapes[0]) < 0.05] = np.nan
    return (x, *[number(rng, s, dtype) for s in shapes[1:]])


def _kept_apart(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """Images without equal elements; with them in float32."""
    if dtype == np.float32:
        return _with_ties(rng, shapes, dtype)
    return (distinct(rng, shapes[0], dtype), *[number(rng, s, dtype) for s in shapes[1:]])


def _unpooled(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    wide = np.int32 if dtype.itemsize == 4 else np.int64
    return number(rng, shapes[0], dtype), rng.integers(0, 9, shapes[0]).astype(wide)


def pool_rows() -> list[Row]:
    """All rows of pools, and of what undoes one."""
    rows: tuple[Shape, ...] = ((1, 1), (3, 4), (0, 2), (5, 0), (70, 3))
    every: Attrs = {"dtypes": NUMBERS}
    return [
        _pool("max_pool", _kept_apart, "images", wrt=(0,), **every),
        _pool("max_pool_indices", _with_ties, "images", **every),
        _pool("max_pool_grad", _kept_apart, "images", "windows", wrt=(1,)),
        _pool("max_pool_pick", _kept_apart, "images", "images", wrt=(1,)),
        _pool("sum_pool", draws(number), "images", wrt=(0,)),
        _pool("sum_pool_grad", draws(number), "windows", wrt=(0,)),
        Row(
            "unpool",
            _unpooled,
            tuple((s,) for s in rows),
            attr_list({"size": 9}, {"size": 12}),
            exact=True,
        ),
    ]
