"""Lines of random programs without weights: functions, views, moves, products, derivatives.

Rules are as in `recipe_layers`, which this page joins to one list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from recipe_layers import ACTIVATIONS, LAYERS
from recipes import MOST, Recipe, Rule, Value

FUNCTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("sin", lambda o, x: o.sin(x)),
    ("cos", lambda o, x: o.cos(x)),
    ("exp of tanh", lambda o, x: o.exp(o.tanh(x))),
    ("log1p of square", lambda o, x: o.log1p(o.square(x))),
    ("root", lambda o, x: o.sqrt(o.square(x) + 0.5)),
    ("power 1.5", lambda o, x: o.power(o.square(x) + 0.5, 1.5) * 0.2),
    ("power of a root", lambda o, x: (o.square(x) + 1.0) ** -0.5),
    ("erf", lambda o, x: o.erf(x)),
    ("expm1", lambda o, x: o.expm1(o.sin(x))),
    ("log", lambda o, x: o.log(o.square(x) + 0.3)),
    ("softplus", lambda o, x: o.softplus(x)),
    ("abs", lambda o, x: o.abs(x)),
    ("negative", lambda o, x: o.negative(x)),
    ("clip", lambda o, x: o.clip(x, -0.7, 0.9)),
    ("clip below", lambda o, x: o.clip(x, low=-0.3)),
    ("reciprocal", lambda o, x: 1.0 / (1.5 + o.square(x))),
    ("sign times x", lambda o, x: o.sign(x) * x * 0.5),
    ("floor beside x", lambda o, x: x - 0.25 * o.floor(x)),
    ("detached factor", lambda o, x: o.stop_gradient(o.tanh(x)) * x),
    ("halves by where", lambda o, x: o.where(o.greater(x, 0.0), x * 0.5, o.square(x) * 0.1)),
    ("nan-free where", lambda o, x: o.where(o.isfinite(x), x, 0.0)),
]
PAIRS: list[tuple[str, Callable[..., Any]]] = [
    ("sum", lambda o, a, b: a + b),
    ("difference", lambda o, a, b: a - b),
    ("product", lambda o, a, b: o.tanh(a) * b),
    ("quotient", lambda o, a, b: a / (1.0 + o.square(b))),
    ("maximum", lambda o, a, b: o.maximum(a, b)),
    ("minimum", lambda o, a, b: o.minimum(a, b)),
    ("where less", lambda o, a, b: o.where(o.less(a, b), a * 0.5, b)),
    ("gate", lambda o, a, b: o.sigmoid(a) * b),
]


def function(r: Recipe) -> Any:
    x = r.pick()
    if x is not None:
        name, fn = r.choice(*FUNCTIONS)
        r.add(name, lambda w, x: fn(w.o, x), [x], x.shape)


def pair(r: Recipe) -> Any:
    """Two values that broadcast, residual sums among them."""
    a = r.pick()
    if a is None:
        return

    def fits(v: Value) -> bool:
        return len(v.shape) == len(a.shape) and all(
            1 in (n, m) or n == m for n, m in zip(v.shape, a.shape, strict=True)
        )

    b = r.pick(fits)
    assert b is not None
    shape = np.broadcast_shapes(a.shape, b.shape)
    if math.prod(shape) > MOST:
        return
    name, fn = r.choice(*PAIRS)
    r.add(name, lambda w, a, b: fn(w.o, a, b), [a, b], shape)


def reduction(r: Recipe) -> Any:
    x = r.pick(lambda v: len(v.shape) > 0)
    if x is None:
        return
    name = r.choice("mean", "sum", "max", "min")
    axes = tuple(sorted(r.rng.sample(range(1, len(x.shape) + 1), r.rng.randint(1, len(x.shape)))))
    keep = r.flip()
    count = math.prod(x.shape[a - 1] for a in axes)
    factor = 1.0 / count if name == "sum" else 1.0

    def fn(w: Any, x: Any) -> Any:
        return getattr(w.o, name)(x, axes, keepdims=keep) * factor

    shape = [1 if i + 1 in axes else n for i, n in enumerate(x.shape)]
    if not keep:
        shape = [n for i, n in enumerate(x.shape) if i + 1 not in axes]
    r.add(f"{name} over {axes}, keepdims={keep}", fn, [x], tuple(shape))


def centred(r: Recipe) -> Any:
    """Beside a statistic of the batch."""
    x = r.pick()
    if x is None:
        return
    name = r.choice("mean", "max", "min")
    fn = lambda w, x: x - getattr(w.o, name)(x, 0, keepdims=True)  # noqa: E731
    r.add(f"less its {name} over the batch", fn, [x], x.shape)


def reshape(r: Recipe) -> Any:
    x = r.pick(lambda v: v.size > 1)
    if x is None:
        return
    divisors = [d for d in range(1, x.size + 1) if x.size % d == 0]
    first = r.choice(*divisors)
    shape = r.choice((first, x.size // first), (x.size,), (first, 1, x.size // first))
    if r.flip(0.2):
        i = r.module("Flatten")
        r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], (x.size,))
    else:
        r.add(f"reshape to {shape}", lambda w, x: w.o.reshape(x, (-1, *shape)), [x], shape)


def transpose(r: Recipe) -> Any:
    x = r.pick(lambda v: len(v.shape) > 1)
    if x is None:
        return
    order = list(range(1, len(x.shape) + 1))
    r.rng.shuffle(order)
    shape = tuple(x.shape[a - 1] for a in order)
    r.add(f"axes {order}", lambda w, x: w.o.transpose(x, (0, *order)), [x], shape)


def expand(r: Recipe) -> Any:
    x = r.pick(lambda v: len(v.shape) < 3)
    if x is not None:
        at = r.rng.randint(1, len(x.shape) + 1)
        shape = (*x.shape[: at - 1], 1, *x.shape[at - 1 :])
        r.add(f"a new axis {at}", lambda w, x: w.o.expand_dims(x, at), [x], shape)


def part(r: Recipe) -> Any:
    x = r.pick(lambda v: v.size > 1)
    if x is None:
        return
    key: list[Any] = [slice(None)]
    shape: list[int] = []
    for n in x.shape:
        start = r.rng.randrange(n)
        stop = r.rng.randint(start + 1, n)
        chosen = r.choice(
            slice(None),
            slice(start, stop),
            slice(start, stop, 2),
            slice(None, None, -1),
            start,
        )
        key.append(chosen)
        if isinstance(chosen, slice):
            shape.append(len(range(*chosen.indices(n))))
    r.add(f"part {key[1:]}", lambda w, x: w.o.getitem(x, tuple(key)), [x], tuple(shape))


def concat(r: Recipe) -> Any:
    a = r.pick(lambda v: bool(v.shape))
    if a is None:
        return
    axis = r.rng.randrange(len(a.shape))

    def fits(v: Value) -> bool:
        return (
            len(v.shape) == len(a.shape)
            and (*v.shape[:axis], *v.shape[axis + 1 :]) == (*a.shape[:axis], *a.shape[axis + 1 :])
            and v.size + a.size <= MOST
        )

    b = r.pick(fits)
    if b is None:
        return
    if a.shape == b.shape and r.flip(0.3):
        fn: Any = lambda w, a, b: w.o.stack([a, b, a], axis + 1)  # noqa: E731
        r.add(f"stack along {axis + 1}", fn, [a, b], (*a.shape[:axis], 3, *a.shape[axis:]))
        return
    whole = (*a.shape[:axis], a.shape[axis] + b.shape[axis], *a.shape[axis + 1 :])
    fn = lambda w, a, b: w.o.concat([a, b], axis + 1)  # noqa: E731
    r.add(f"concat along {axis + 1}", fn, [a, b], whole)


def gather(r: Recipe) -> Any:
    """By constant indices, along any axis but the batch."""
    x = r.pick(lambda v: bool(v.shape))
    if x is None:
        return
    axis = r.rng.randrange(len(x.shape))
    chosen = r.indices(x.shape[axis], *r.choice((2,), (4,), (2, 2)))
    shape = (*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])
    if math.prod(shape) <= MOST and len(shape) < 4:
        fn = lambda w, x: w.o.gather(x, chosen, axis + 1)  # noqa: E731
        r.add(f"gather {chosen.tolist()} along {axis + 1}", fn, [x], shape)


def scatter(r: Recipe) -> Any:
    x = r.pick(lambda v: bool(v.shape))
    if x is None:
        return
    axis = r.rng.randrange(len(x.shape))
    size = r.choice(1, 3, 5)
    chosen = r.indices(size, x.shape[axis])
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    fn = lambda w, x: w.o.scatter_add(x, chosen, size, axis + 1) * 0.5  # noqa: E731
    r.add(f"scatter_add {chosen.tolist()} along {axis + 1}", fn, [x], shape)


def products_of_values(r: Recipe) -> Any:
    a = r.pick(lambda v: len(v.shape) >= 2)
    if a is None:
        return
    b = r.pick(lambda v: len(v.shape) == len(a.shape) and v.shape[-1] == a.shape[-1])
    assert b is not None
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        return
    shape = (*batch, a.shape[-2], b.shape[-2])
    factor = 1.0 / a.shape[-1]
    if math.prod(shape) <= MOST:
        fn = lambda w, a, b: w.o.matmul(a, w.o.swapaxes(b, -1, -2)) * factor  # noqa: E731
        r.add("product of values", fn, [a, b], shape)


SMOOTH = ("sin", "exp of tanh", "log1p of square", "erf", "softplus", "reciprocal", "log")
CURVED = ("Sigmoid", "Tanh", "SiLU", "GELU", "Softplus", "Mish", "ELU", "LogSigmoid", "SELU")


def derivative(r: Recipe) -> Any:
    """The gradient of a function beside its value: training differentiates twice."""
    x = r.pick()
    if x is None:
        return
    if r.flip():
        name, fn = r.choice(*[f for f in FUNCTIONS if f[0] in SMOOTH])
        inner = lambda w: lambda z: fn(w.o, z)  # noqa: E731
    else:
        name, options = r.choice(*[a for a in ACTIVATIONS if a[0] in CURVED])
        i = r.module(name, **options)
        inner = lambda w: w.m[i]  # noqa: E731

    def both(w: Any, x: Any) -> Any:
        y, (slope,) = w.pull(inner(w), x, [w.o.stop_gradient(x) * 0.0 + 1.0])
        return w.o.stack([y, slope], 1)

    r.add(f"{name} and its derivative", both, [x], (2, *x.shape))


def pullbacks(r: Recipe) -> Any:
    """Two pullbacks of one function whose value is used too."""
    x = r.pick(lambda v: len(v.shape) == 1 and v.shape[0] > 1)
    if x is None:
        return
    name = r.choice("softmax_cross_entropy", "softmax", "log_softmax")
    labels, weights = r.indices(x.shape[0], 1), r.constant(*x.shape)

    def fn(w: Any, x: Any) -> Any:
        if name == "softmax_cross_entropy":
            rows = w.o.sum(w.o.stop_gradient(x), 1) * 0.0
            target = w.o.astype(rows, "int64") + int(labels[0])
            inner: Any = lambda z: w.o.softmax_cross_entropy(z, target)  # noqa: E731
            one = rows + 1.0
        else:
            inner = lambda z: getattr(w.o, name)(z, -1)  # noqa: E731
            one = w.o.stop_gradient(x) * 0.0 + w.array(weights)
        y, (a, b) = w.pull(inner, x, [one, one * -0.4])
        y = w.o.expand_dims(y, 1) if name == "softmax_cross_entropy" else y
        return w.o.concat([y, a, a * b], 1)

    first = 1 if name == "softmax_cross_entropy" else x.shape[0]
    r.add(f"{name} and two pullbacks", fn, [x], (first + 2 * x.shape[0],))


RULES: list[tuple[Rule, float]] = [
    *LAYERS,
    (function, 3),
    (pair, 4),
    (reduction, 1.5),
    (centred, 0.7),
    (reshape, 1),
    (transpose, 1.5),
    (expand, 0.7),
    (part, 1.5),
    (concat, 1.5),
    (gather, 1),
    (scatter, 1),
    (products_of_values, 1.5),
    (derivative, 1),
    (pullbacks, 1),
]


def grow(r: Recipe, count: int) -> None:
    """Append about `count` lines."""
    rules, weights = zip(*RULES, strict=True)
    for _ in range(count):
        r.rng.choices(rules, weights)[0](r)
