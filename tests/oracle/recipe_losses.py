"""The losses of random programs, with their options: heads, modules, targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from recipes import Loss, Recipe, Value

Rng = np.random.Generator


def _head(r: Recipe, x: Value, *shape: int) -> Callable[[Any, Any], Any]:
    """A layer to this shape beside the batch; takes (world, features)."""
    out = int(np.prod(shape))
    i = r.module("Linear", in_features=x.size, out_features=out, bias=r.flip(0.8))
    return lambda w, x: w.o.reshape(w.m[i](w.o.flatten(x, 1)), (-1, *shape))


def _weights(r: Recipe, n: int) -> np.ndarray:
    return np.random.default_rng(r.rng.randrange(2**32)).uniform(0.3, 2.0, n)


def _made(
    r: Recipe,
    name: str,
    options: dict[str, Any],
    heads: Callable[[Any, Any], tuple[Any, ...]],
    target: Callable[[Rng, int], np.ndarray],
    plain: bool = True,
    ignored: int | None = None,
) -> None:
    """Append a loss module's term: of `heads` as its first arguments, reduced to a scalar."""
    reduction = options.get("reduction", "mean")
    i = r.module(name, **options)
    factor = r.choice(1.0, 0.5) * (0.05 if reduction == "sum" else 1.0)

    def fn(w: Any, x: Any, t: Any) -> Any:
        inputs = heads(w, x)
        arguments = inputs[:-1] if name == "GaussianNLLLoss" else inputs
        last = inputs[-1:] if name == "GaussianNLLLoss" else ()
        found = w.m[i](*arguments, t, *last)
        return (w.o.mean(w.o.square(found)) if reduction == "none" else found) * factor

    r.losses.append(Loss(f"{factor} m[{i}]", fn, target, plain and reduction == "mean", ignored))


def _floats(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.normal(size=(n, *shape))


def _shares(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.uniform(size=(n, *shape))


def _bits(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.integers(0, 2, (n, *shape)).astype(np.float64)


def _signs(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: 1.0 - 2.0 * rng.integers(0, 2, (n, *shape))


def _counts(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.poisson(2.0, (n, *shape)).astype(np.float64)


def _labels(classes: int, *shape: int, ignored: int | None = None) -> Any:
    def draw(rng: Rng, n: int) -> np.ndarray:
        found = rng.integers(0, classes, (n, *shape))
        if ignored is not None:
            found = np.where(rng.uniform(size=found.shape) < 0.25, ignored, found)
        return found

    return draw


def _distribution(classes: int, *shape: int, log: bool = False) -> Any:
    def draw(rng: Rng, n: int) -> np.ndarray:
        raw = np.exp(rng.normal(size=(n, classes, *shape)))
        shares = raw / raw.sum(1, keepdims=True)
        return np.log(shares) if log else shares

    return draw


def _reduction(r: Recipe, *more: str) -> dict[str, Any]:
    return {"reduction": r.choice("mean", "mean", "mean", "sum", "none", *more)}


def _sizes(r: Recipe) -> tuple[int, ...]:
    return r.choice((1,), (3,), (2, 4), (5,))


def values(r: Recipe, x: Value) -> None:
    """Distances of values."""
    shape = _sizes(r)
    head = _head(r, x, *shape)
    name, options = r.choice(
        ("MSELoss", {}),
        ("L1Loss", {}),
        ("HuberLoss", {"delta": 0.4}),
        ("SmoothL1Loss", {"beta": 0.6}),
    )
    _made(r, name, {**options, **_reduction(r)}, lambda w, x: (head(w, x),), _floats(*shape))


def classes(r: Recipe, x: Value) -> None:
    """Labels or distributions of classes, with weights, smoothing, labels to pass over."""
    count = r.choice(2, 3, 5, 11)
    more = r.choice((), (), (3,))
    head = _head(r, x, count, *more)
    options: dict[str, Any] = {**_reduction(r)}
    weighted = r.flip(0.4)
    if weighted:
        options["weight"] = _weights(r, count)
    name = r.choice("CrossEntropyLoss", "CrossEntropyLoss", "NLLLoss")
    ignored = r.choice(None, None, -100, 1)
    if name == "CrossEntropyLoss":
        options["label_smoothing"] = r.choice(0.0, 0.0, 0.1)
        if r.flip(0.25):
            _made(r, name, options, lambda w, x: (head(w, x),), _distribution(count, *more))
            return
    if ignored is not None:
        options["ignore_index"] = ignored
    target = _labels(count, *more, ignored=ignored)

    def scores(w: Any, x: Any) -> tuple[Any]:
        out = head(w, x)
        return (w.o.log_softmax(out, 1) if name == "NLLLoss" else out,)

    _made(r, name, options, scores, target, not weighted and ignored is None, ignored)


def margins(r: Recipe, x: Value) -> None:
    count = r.choice(2, 4)
    head = _head(r, x, count)
    options = {"p": r.choice(1, 2), "margin": r.choice(1.0, 0.4), **_reduction(r)}
    if r.flip(0.3):
        options["weight"] = _weights(r, count)
    _made(r, "MultiMarginLoss", options, lambda w, x: (head(w, x),), _labels(count))


def bits(r: Recipe, x: Value) -> None:
    """Yes and no."""
    n = r.choice(1, 4)
    head = _head(r, x, n)
    name = r.choice("BCELoss", "BCEWithLogitsLoss", "MultiLabelSoftMarginLoss", "SoftMarginLoss")
    options: dict[str, Any] = _reduction(r)
    if name != "SoftMarginLoss" and r.flip(0.3):
        options["weight"] = _weights(r, n)
    if name == "BCEWithLogitsLoss" and r.flip(0.3):
        options["pos_weight"] = _weights(r, n)
    target = _signs(n) if name == "SoftMarginLoss" else r.choice(_bits(n), _shares(n))

    def scores(w: Any, x: Any) -> tuple[Any]:
        out = head(w, x)
        return (w.o.sigmoid(out) * 0.98 + 0.01 if name == "BCELoss" else out,)

    _made(r, name, options, scores, target)


def pairs(r: Recipe, x: Value) -> None:
    name = r.choice("HingeEmbeddingLoss", "MarginRankingLoss", "CosineEmbeddingLoss")
    n = r.choice(1, 3)
    options = {"margin": r.choice(0.2, 0.5), **_reduction(r)}
    if name == "CosineEmbeddingLoss":
        a, b = _head(r, x, 4), _head(r, x, 4)
        _made(r, name, options, lambda w, x: (a(w, x), b(w, x)), _signs())
        return
    a = _head(r, x, n)
    if name == "HingeEmbeddingLoss":
        _made(r, name, options, lambda w, x: (w.o.square(a(w, x)),), _signs(n))
        return
    b = _head(r, x, n)
    _made(r, name, options, lambda w, x: (a(w, x), b(w, x)), _signs(n))


def densities(r: Recipe, x: Value) -> None:
    """Negative log-likelihoods, and the distance of distributions."""
    n = r.choice(1, 3)
    name = r.choice("GaussianNLLLoss", "PoissonNLLLoss", "KLDivLoss")
    a = _head(r, x, n)
    if name == "GaussianNLLLoss":
        b = _head(r, x, n)
        options = {"full": r.flip(), "eps": r.choice(1e-6, 0.05), **_reduction(r)}
        heads = lambda w, x: (a(w, x), w.o.softplus(b(w, x)) + 0.1)  # noqa: E731
        _made(r, name, options, heads, _floats(n))
    elif name == "PoissonNLLLoss":
        log = r.flip()
        options = {"log_input": log, "full": r.flip(), "eps": 1e-3, **_reduction(r)}
        made = lambda w, x: w.o.tanh(a(w, x)) if log else w.o.softplus(a(w, x))  # noqa: E731
        _made(r, name, options, lambda w, x: (made(w, x),), _counts(n))
    else:
        log = r.flip()
        options = {"log_target": log, **_reduction(r, "batchmean")}
        heads = lambda w, x: (w.o.log_softmax(a(w, x), 1),)  # noqa: E731
        _made(r, name, options, heads, _distribution(n, log=log))


def op(r: Recipe, x: Value) -> None:
    """The op beneath CrossEntropyLoss, of several labels a sample; two terms share the scores."""
    shape = r.choice((), (2,))
    count = r.choice(3, 6)
    head = _head(r, x, *shape, count)
    both = r.flip(0.4)

    def fn(w: Any, x: Any, t: Any) -> Any:
        scores = head(w, x)
        losses = w.o.softmax_cross_entropy(scores, t)
        found = w.o.mean(losses)
        if both:
            found = found + w.o.mean(w.o.square(losses)) * 0.1 + w.o.mean(w.o.square(scores)) * 0.1
        return found

    r.losses.append(Loss(f"softmax_cross_entropy, both={both}", fn, _labels(count, *shape), True))


KINDS: list[Callable[[Recipe, Value], None]] = [
    values,
    classes,
    classes,
    margins,
    bits,
    pairs,
    densities,
    op,
]


def finish(r: Recipe) -> None:
    """Every value that no line reads joins the features of one loss or two."""
    loose = [v for v in r.values if not v.used and not v.classes]

    def joined(w: Any, *xs: Any) -> Any:
        flat = [w.o.reshape(x, (-1, v.size)) for x, v in zip(xs, loose, strict=True)]
        return w.o.concat(flat, 1) if len(flat) > 1 else flat[0]

    features = r.add("features", joined, loose, (sum(v.size for v in loose),))
    for _ in range(r.choice(1, 1, 2)):
        r.choice(*KINDS)(r, features)
