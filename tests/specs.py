"""One row for each op: what the conformance tests need to know to try it everywhere.

A row says how to make arguments in the op's safe domain (where it is smooth and well conditioned),
for which shapes, dtypes and attributes, by which arguments it can be differentiated, which special
values every backend must treat as the reference does, and whether results are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attention_rows import attention_rows
from conv_rows import conv_rows
from pool_rows import pool_rows
from rows import (
    BROADCAST_2,
    EVERY,
    FINITE_SPECIAL,
    FLOATS,
    NUMBERS,
    PLAIN,
    SAME_1,
    SPECIAL,
    Args,
    AttrRule,
    Attrs,
    Case,
    Draw,
    Row,
    Shapes,
    along_any_axis,
    attr_list,
    away_from,
    between,
    booleans,
    cases,
    coarse,
    covering_cases,
    cuts,
    distinct,
    draws,
    gradient_cases,
    indexed,
    insertions,
    joints,
    number,
    permutations,
    reshapes,
    scattered,
    special_cases,
    targets,
    widened,
    within_cell,
)

from gpubp.core import Shape

__all__ = [
    "FLOATS",
    "ROWS",
    "Case",
    "Row",
    "cases",
    "covering_cases",
    "gradient_cases",
    "special_cases",
]


def _unary(op: str, draw: Draw = number, **options: Any) -> Row:
    return Row(op, draws(draw), SAME_1, **{"wrt": (0,), "special": SPECIAL, **options})


def _binary(op: str, *each: Draw, **options: Any) -> Row:
    make = draws(*(each or (number,)))
    return Row(op, make, BROADCAST_2, **{"wrt": (0, 1), "special": SPECIAL, **options})


def _comparison(op: str) -> Row:
    return _binary(op, coarse, dtypes=EVERY, wrt=(), exact=True)


def _elementwise() -> list[Row]:
    exact: Attrs = {"exact": True}
    ints: Attrs = {"exact": True, "dtypes": NUMBERS}
    logic: Attrs = {"exact": True, "dtypes": ("bool",), "wrt": (), "special": ()}
    compared = ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
    three = tuple((s, s, s) for s in PLAIN)
    mixed: tuple[Shapes, ...] = (((5, 1), (1, 7), ()), ((), (3,), (3,)), ((4,), (2, 4), (2, 1)))
    return [
        *[_binary(op, **ints) for op in ("add", "subtract", "multiply", "maximum", "minimum")],
        _binary("divide", number, between(0.5, 2.0), **exact),
        _binary("power", between(0.3, 3.0), number),
        *[_comparison(op) for op in compared],
        *[_binary(op, **logic) for op in ("logical_and", "logical_or")],
        _unary("logical_not", **logic),
        _unary("isfinite", wrt=(), **exact),
        *[_unary(op, **ints) for op in ("negative", "square")],
        *[_unary(op, away_from(0.0), **ints) for op in ("abs", "sign")],
        *[_unary(op) for op in ("exp", "expm1", "sin", "cos", "erf")],
        *[_unary(op) for op in ("atan", "sinh", "cosh", "asinh")],
        *[_unary(op, between(-0.9, 0.9)) for op in ("asin", "acos", "atanh", "erfinv")],
        _unary("acosh", between(1.2, 4.0)),
        _binary("atan2", away_from(0.0), away_from(0.0)),
        _unary("round", within_cell, exact=True),
        _unary("isnan", wrt=(), **exact),
        _unary("log", between(0.3, 3.0)),
        _unary("log1p", between(-0.7, 3.0)),
        _unary("sqrt", between(0.3, 3.0), **exact),
        _unary("floor", within_cell, **exact),
        _unary(
            "clip",
            away_from(-0.5, 0.75),
            attrs=attr_list(
                {"low": -0.5, "high": 0.75},
                {"low": None, "high": 0.75},
                {"low": -0.5, "high": None},
                {"low": 0.75, "high": -0.5},
                {"low": 0.0, "high": 0.0},
            ),
            **exact,
        ),
        Row(
            "where",
            draws(booleans, number, number),
            (*three, *mixed),
            dtypes=EVERY,
            special=SPECIAL,
            conditions=1,
            wrt=(1, 2),
            exact=True,
        ),
        *_quotients(),
        _binary("half_squared_difference"),
        Row("scaled_difference", draws(number), (*three, *mixed), wrt=(0, 1, 2)),
        Row(
            "weighted_difference",
            draws(number),
            (*[(s, s, s, s) for s in PLAIN], ((2, 1), (2, 3), (2, 1), (3,))),
            wrt=(0, 1, 2, 3),
        ),
        _unary(
            "cast",
            dtypes=EVERY,
            attrs=lambda _: [{"dtype": name} for name in EVERY],
            special=FINITE_SPECIAL,
            exact=True,
        ),
        _unary("copy", dtypes=EVERY, exact=True),
        _binary("after", exact=True),
    ]


def _dividends(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Any:
    return number(rng, shape, dtype) if dtype.kind == "i" else within_cell(rng, shape, dtype)


def _divisors(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Whole numbers of both signs that are not 0."""
    found = rng.integers(1, 5, shape) * rng.choice([-1, 1], shape)
    return np.asarray(found, dtype)


def _quotients() -> list[Row]:
    make: Attrs = {"dtypes": NUMBERS, "exact": True}
    return [_binary(op, _dividends, _divisors, **make) for op in ("fmod", "floor_divide")]


def _activations() -> list[Row]:
    positive, unit = between(0.05, 2.0), between(-0.95, 0.95)
    slopes = attr_list({"slope": 0.01}, {"slope": 0.25})
    alphas = attr_list({"alpha": 1.0}, {"alpha": 0.5})
    forms = attr_list({"approximate": "none"}, {"approximate": "tanh"})
    soft = attr_list({"beta": 1.0, "threshold": 20.0}, {"beta": 2.0, "threshold": 1.0})
    # Infinity times zero: what an activation makes of -inf beyond its limit is not defined.
    finite: Attrs = {"special": FINITE_SPECIAL}
    kink = away_from(0.0)
    return [
        _unary("relu", kink, exact=True),
        _binary("relu_grad", number, kink, exact=True),
        _unary("leaky_relu", kink, attrs=slopes),
        _binary("leaky_relu_grad", number, kink, attrs=slopes),
        _unary("elu", kink, attrs=alphas),
        _binary("elu_grad", number, kink, attrs=alphas, **finite),
        _unary("tanhshrink", **finite),
        _unary("gelu", attrs=forms, **finite),
        _binary("gelu_grad", attrs=forms, **finite),
        _unary("silu", **finite),
        _binary("silu_grad", **finite),
        _unary("sigmoid"),
        _binary("sigmoid_grad", number, positive, **finite),
        _unary("tanh"),
        _binary("tanh_grad", number, unit, **finite),
        _unary("softplus", away_from(0.5), attrs=soft),
        _binary("softplus_grad", number, away_from(0.5), attrs=soft, **finite),
    ]


def _axes(single: bool) -> AttrRule:
    """Axis choices for a reduction; `single` ops need one axis that is not empty."""

    def attrs(shapes: Shapes) -> list[Attrs]:
        shape = shapes[0]
        ndim = len(shape)
        choices: list[tuple[int, ...]] = [(i,) for i in range(ndim)]
        if not single:
            choices += [tuple(range(ndim))] if ndim != 1 else []
            choices += [(0, 2), (1, 2)] if ndim == 3 else []
        return [{"axis": a, "keepdims": k} for a in choices for k in (False, True)]

    return attrs


def _filled_axes(single: bool) -> AttrRule:
    every = _axes(single)
    return lambda shapes: [a for a in every(shapes) if all(shapes[0][i] > 0 for i in a["axis"])]


def _reductions() -> list[Row]:
    ordered = (0.0, 1.0, -1.0, 1e4, np.inf, -np.inf, np.nan)
    one: Attrs = {"attrs": _filled_axes(True), "wrt": (), "dtypes": NUMBERS, "exact": True}
    several: Attrs = {"attrs": _filled_axes(False), "dtypes": NUMBERS, "exact": True}
    return [
        _unary("sum", attrs=_axes(False), dtypes=EVERY, special=ordered),
        *[_unary(op, distinct, special=ordered, **several) for op in ("max", "min")],
        *[_unary(op, distinct, special=ordered, **one) for op in ("argmax", "argmin")],
    ]


def _views_and_moves() -> list[Row]:
    plain: Attrs = {"dtypes": EVERY, "special": (), "exact": True}
    joined: tuple[Shapes, ...] = (
        ((5,),), ((2,), (0,), (3,)), ((2, 3), (4, 3)), ((2, 3), (2, 1), (2, 2)), ((0, 3), (2, 3)),
        ((2, 3, 1), (2, 3, 4)), ((200, 10), (200, 54)), ((1023,), (2,)),
    )  # fmt: skip
    gathered: tuple[Shapes, ...] = (
        ((5,), (3,)), ((5, 3), (0,)), ((5, 3), (2, 2)), ((5, 3), ()), ((3, 4, 5), (2,)),
        ((0, 3), (0,)), ((1, 1), (7,)), ((37, 53), (200,)), ((1797, 64), (129,)),
    )  # fmt: skip
    summed: tuple[Shapes, ...] = (
        ((3,), (3,)), ((0, 4), (0,)), ((2, 2, 3), (2, 2)), ((4,), ()), ((2, 5, 3), (5,)),
        ((53, 37), (53,)), ((1025,), (1025,)),
    )  # fmt: skip
    both: Attrs = {"dtypes": ("int32", "int64", *FLOATS), "wrt": (0,)}
    return [
        _unary("reshape", attrs=reshapes, **plain),
        _unary("transpose", attrs=permutations, **plain),
        _unary("broadcast_to", attrs=widened, **plain),
        _unary("slice", attrs=cuts, **plain),
        _unary("unslice", attrs=insertions, **plain),
        _unary("stop_gradient", **{**plain, "wrt": ()}),
        Row("concat", draws(number), joined, joints, EVERY, wrt=(0,), exact=True),
        Row("gather", indexed, gathered, along_any_axis, exact=True, **both),
        Row("scatter_add", scattered, summed, targets, **both),
    ]


def _logits(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """Logits, labels in range, and (for the gradient op) a cotangent for each row."""
    wide = np.int32 if dtype.itemsize == 4 else np.int64
    labels = rng.integers(0, shapes[0][-1], shapes[1]).astype(wide)
    logits = np.asarray(3.0 * rng.standard_normal(shapes[0]), dtype=dtype)
    return (logits, labels, *[number(rng, s, dtype) for s in shapes[2:]])


def _products_and_losses() -> list[Row]:
    products: tuple[Shapes, ...] = (
        ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((0, 3), (3, 4)), ((2, 0), (0, 4)),
        ((3, 2, 3), (3, 2)), ((2, 2, 3), (2, 3, 4)), ((2, 1, 2, 3), (2, 3, 2)),
        ((2, 3), (2, 3, 2)), ((2, 0, 3), (3, 2)), ((1, 17), (17, 31)), ((37, 53), (53, 1)),
        ((64, 200), (200, 10)), ((200, 64), (64, 100)), ((129, 33), (33, 65)),
    )  # fmt: skip
    rows: Shapes = ((0, 5), (1, 1), (3, 1), (5, 7), (2, 3, 4), (37, 53), (200, 10), (1, 1025))
    alone = tuple((s,) for s in rows)
    return [
        Row("matmul", draws(number), products, wrt=(0, 1)),
        Row("softmax", draws(number), alone, special=FINITE_SPECIAL, wrt=(0,)),
        Row("log_softmax", draws(number), alone, special=FINITE_SPECIAL, wrt=(0,)),
        Row("softmax_cross_entropy", _logits, tuple((s, s[:-1]) for s in rows), wrt=(0,)),
        Row(
            "softmax_cross_entropy_grad",
            _logits,
            tuple((s, s[:-1], s[:-1]) for s in rows),
            wrt=(0, 2),
        ),
    ]


def _state(rng: np.random.Generator, _: Shapes, __: np.dtype[Any]) -> Args:
    return (rng.integers(0, 2**63, 2),)


def _draw_attrs(_: Shapes) -> list[Attrs]:
    shapes: Shapes = ((0,), (), (1,), (7,), (37, 53), (1023,), (1025,))
    return [
        {"shape": s, "dtype": d, "stream": stream}
        for s in shapes
        for d in FLOATS
        for stream in (0, 3)
    ]


def _draws_and_updates() -> list[Row]:
    sizes = [*PLAIN]
    pair = tuple((s, s) for s in sizes)
    scaled = tuple((s, s, ()) for s in sizes)
    adam = tuple((s, s, s, (), ()) for s in sizes)
    state = ("int64",)
    bounded, decays = between(0.3, 1.0), attr_list({"decay": 0.9}, {"decay": 0.999})
    rates = attr_list({"momentum": 0.9, "dampening": 0.0}, {"momentum": 0.5, "dampening": 0.25})
    return [
        Row("uniform", _state, (((2,),),), _draw_attrs, state, exact=True),
        Row("normal", _state, (((2,),),), _draw_attrs, state),
        Row("ema", draws(number), pair, decays, wrt=(0, 1)),
        Row("ema_square", draws(bounded, number), pair, decays, wrt=(0, 1)),
        Row("momentum_update", draws(number), pair, rates, wrt=(0, 1)),
        Row("sgd_update", draws(number, number, bounded), scaled, wrt=(0, 1, 2)),
        Row(
            "adam_update",
            draws(number, number, bounded, bounded, bounded),
            adam,
            attr_list({"eps": 1e-8}, {"eps": 0.1}),
            wrt=(0, 1, 2, 3, 4),
        ),
    ]


ROWS: dict[str, Row] = {
    row.op: row
    for family in (
        _elementwise(),
        _activations(),
        _reductions(),
        _views_and_moves(),
        _products_and_losses(),
        attention_rows(),
        conv_rows(),
        _draws_and_updates(),
        pool_rows(),
    )
    for row in family
}
