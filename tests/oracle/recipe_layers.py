"""Lines of random programs that have weights, or are layers: of modules and of bare parameters.

Every rule takes a recipe, appends a value or more, or does nothing where nothing fits. Each keeps
values bounded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from recipes import MOST, Recipe, Rule

ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("ReLU", {}),
    ("ReLU6", {}),
    ("Sigmoid", {}),
    ("LogSigmoid", {}),
    ("Hardsigmoid", {}),
    ("Tanh", {}),
    ("Tanhshrink", {}),
    ("Softsign", {}),
    ("SELU", {}),
    ("SiLU", {}),
    ("Mish", {}),
    ("Hardswish", {}),
    ("LeakyReLU", {"negative_slope": 0.2}),
    ("ELU", {"alpha": 0.7}),
    ("CELU", {"alpha": 1.3}),
    ("Softplus", {"beta": 2.0, "threshold": 3.0}),
    ("Hardtanh", {"min_val": -0.6, "max_val": 0.8}),
    ("Threshold", {"threshold": 0.1, "value": -0.2}),
    ("Hardshrink", {"lambd": 0.3}),
    ("Softshrink", {"lambd": 0.2}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
]


def _width(r: Recipe) -> int:
    return int(r.choice(1, 2, 3, 4, 5, 6, 8, 9) if r.flip(0.9) else r.choice(17, 33, 40))


def linear(r: Recipe) -> Any:
    """A new one, or one that another line has already."""
    x = r.pick(lambda v: bool(v.shape))
    if x is None:
        return
    shared = [
        i
        for i, m in enumerate(r.modules)
        if m.name == "Linear" and m.options["in_features"] == x.shape[-1]
    ]
    if shared and r.flip(0.4):
        i = r.choice(*shared)
    else:
        out = _width(r)
        i = r.module("Linear", in_features=x.shape[-1], out_features=out, bias=r.flip(0.8))
        alike = [
            j
            for j, m in enumerate(r.modules[:i])
            if m.name in ("Linear", "Embedding") and _weight_shape(m) == (out, x.shape[-1])
        ]
        if alike and r.flip():
            r.ties.append((i, r.choice(*alike)))
    shape = (*x.shape[:-1], r.modules[i].options["out_features"])
    if math.prod(shape) <= MOST:
        r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], shape)


def _weight_shape(spec: Any) -> tuple[int, int]:
    o = spec.options
    if spec.name == "Linear":
        return o["out_features"], o["in_features"]
    return o["num_embeddings"], o["embedding_dim"]


def tied_product(r: Recipe) -> Any:
    """A product with the weight of a layer, as it stands or transposed."""
    found = [i for i, m in enumerate(r.modules) if m.name in ("Linear", "Embedding")]
    if not found:
        return
    i = r.choice(*found)
    rows, columns = _weight_shape(r.modules[i])
    turned = r.flip()
    wanted, out = (columns, rows) if turned else (rows, columns)
    x = r.pick(lambda v: bool(v.shape) and v.shape[-1] == wanted)
    if x is None:
        return
    scale = 1.0 / math.sqrt(wanted)

    def fn(w: Any, x: Any) -> Any:
        weight = w.m[i].weight
        return w.o.matmul(x, w.o.transpose(weight) if turned else weight) * scale

    r.add(f"product with m[{i}].weight{'.T' * turned}", fn, [x], (*x.shape[:-1], out))


def embedding(r: Recipe) -> Any:
    x = r.choice(*[v for v in r.inputs if v.classes] or [None])
    if x is None:
        return
    shared = [i for i, m in enumerate(r.modules) if m.name == "Embedding"]
    shared = [i for i in shared if r.modules[i].options["num_embeddings"] == x.classes]
    if shared and r.flip(0.3):
        i = r.choice(*shared)
    else:
        padding = r.rng.randrange(x.classes) if r.flip(0.3) else None
        i = r.module(
            "Embedding",
            num_embeddings=x.classes,
            embedding_dim=_width(r),
            padding_idx=padding,
        )
    dim = r.modules[i].options["embedding_dim"]
    r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], (*x.shape, dim))


def table(r: Recipe) -> Any:
    """Rows of a bare parameter by an input's indices."""
    x = r.choice(*[v for v in r.inputs if v.classes] or [None])
    if x is None:
        return
    width = _width(r)
    p = r.param(x.classes, width)
    r.add(f"rows of p[{p}]", lambda w, x: w.o.gather(w.p[p], x), [x], (*x.shape, width))


def one_hot(r: Recipe) -> Any:
    x = r.choice(*[v for v in r.inputs if v.classes] or [None])
    if x is not None:
        count = x.classes
        fn = lambda w, x: w.o.one_hot(x, count, "float64")  # noqa: E731
        r.add("one-hot", fn, [x], (*x.shape, count))


def bilinear(r: Recipe) -> Any:
    a = r.pick(lambda v: bool(v.shape) and v.shape[-1] < 9)
    b = a and r.pick(
        lambda v: v.shape[:-1] == a.shape[:-1] and len(v.shape) > 0 and v.shape[-1] < 9
    )
    if a is None or b is None:
        return
    out = r.choice(1, 2, 3)
    sizes = {"in1_features": a.shape[-1], "in2_features": b.shape[-1], "out_features": out}
    i = r.module("Bilinear", **sizes, bias=r.flip())
    r.add(f"m[{i}]", lambda w, a, b: w.m[i](a, b), [a, b], (*a.shape[:-1], out))


def activation(r: Recipe) -> Any:
    x = r.pick()
    if x is None:
        return
    name, options = r.choice(*ACTIVATIONS)
    i = r.module(name, **options)
    r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], x.shape)


def prelu(r: Recipe) -> Any:
    x = r.pick(lambda v: bool(v.shape))
    if x is not None:
        i = r.module("PReLU", num_parameters=r.choice(1, x.shape[0]))
        r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], x.shape)


def glu(r: Recipe) -> Any:
    x = r.pick(lambda v: bool(v.shape) and v.shape[-1] % 2 == 0)
    if x is not None:
        i = r.module("GLU")
        r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], (*x.shape[:-1], x.shape[-1] // 2))


def softmax(r: Recipe) -> Any:
    x = r.pick(lambda v: bool(v.shape) and v.size > 1)
    if x is None:
        return
    axis = r.choice(-1, r.rng.randrange(len(x.shape)) + 1)
    name = r.choice("softmax", "log_softmax", "Softmax", "LogSoftmax", "Softmin")
    if name[0] == "s" or name[0] == "l":
        fn: Any = lambda w, x: getattr(w.o, name)(x, axis)  # noqa: E731
    else:
        i = r.module(name, dim=axis)
        fn = lambda w, x: w.m[i](x)  # noqa: E731
    r.add(f"{name} along {axis}", fn, [x], x.shape)


def batch_norm(r: Recipe) -> Any:
    x = r.pick(lambda v: len(v.shape) in (1, 2))
    if x is None:
        return
    i = r.module(
        "BatchNorm1d",
        num_features=x.shape[0],
        eps=r.choice(1e-5, 1e-3),
        momentum=r.choice(0.1, 0.4, None),
        affine=r.flip(0.8),
        track_running_stats=r.flip(0.8),
    )
    if r.flip(0.2):
        r.evals.add(i)
    r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], x.shape)


def row_norm(r: Recipe) -> Any:
    x = r.pick(lambda v: bool(v.shape) and v.shape[-1] > 1)
    if x is None:
        return
    count = r.rng.randrange(len(x.shape)) + 1
    shape = list(x.shape[-count:])
    affine = r.flip(0.8)
    if r.flip():
        i = r.module(
            "LayerNorm",
            normalized_shape=shape,
            eps=r.choice(1e-5, 1e-2),
            elementwise_affine=affine,
            bias=r.flip(0.7),
        )
    else:
        eps = r.choice(None, 1e-4, 1e-2)
        i = r.module("RMSNorm", normalized_shape=shape, eps=eps, elementwise_affine=affine)
    r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], x.shape)


def dropout(r: Recipe) -> Any:
    x = r.pick()
    if x is None:
        return
    i = r.module("Dropout", p=r.choice(0.0, 0.2, 0.5))
    if r.flip(0.2):
        r.evals.add(i)
    r.add(f"m[{i}]", lambda w, x: w.m[i](x), [x], x.shape)


def scale(r: Recipe) -> Any:
    """A bare parameter times, or beside, a value."""
    x = r.pick(lambda v: bool(v.shape))
    if x is None:
        return
    p = r.param(*x.shape[-(r.rng.randrange(len(x.shape)) + 1) :])
    if r.flip():
        r.add(f"p[{p}] times", lambda w, x: w.o.multiply(x, w.p[p]), [x], x.shape)
    else:
        r.add(f"p[{p}] plus", lambda w, x: w.o.add(w.p[p], x), [x], x.shape)


def normalized_weight(r: Recipe) -> Any:
    """A product with a parameter whose columns have length 1."""
    x = r.pick(lambda v: bool(v.shape))
    if x is None:
        return
    out = _width(r)
    p = r.param(x.shape[-1], out)
    axis = r.choice(0, 1, None)

    def fn(w: Any, x: Any) -> Any:
        square = w.o.sum(w.o.square(w.p[p]), axis, keepdims=True)
        return w.o.matmul(x, w.o.divide(w.p[p], w.o.sqrt(square + 0.1)))

    r.add(f"product with p[{p}] normalised", fn, [x], (*x.shape[:-1], out))


def attention(r: Recipe) -> Any:
    """Multi-head attention in ops, masked to the past or not."""
    x = r.pick(lambda v: len(v.shape) == 2 and v.shape[1] % 2 == 0)
    if x is None:
        wide = r.pick(lambda v: len(v.shape) == 2)
        if wide is None:
            return
        i = r.module("Linear", in_features=wide.shape[1], out_features=4, bias=True)
        x = r.add(f"m[{i}]", lambda w, x: w.m[i](x), [wide], (wide.shape[0], 4))
    length, width = x.shape
    heads = r.choice(*[h for h in (1, 2, 4) if width % h == 0])
    each = width // heads
    names = ("q", "k", "v", "out")
    mods = {
        n: r.module("Linear", in_features=width, out_features=width, bias=r.flip()) for n in names
    }
    causal = r.flip()
    past = np.tril(np.ones((length, length), bool))

    def split(w: Any, x: Any) -> Any:
        return w.o.transpose(w.o.reshape(x, (-1, length, heads, each)), (0, 2, 1, 3))

    def fn(w: Any, x: Any) -> Any:
        q, k, v = (split(w, w.m[mods[n]](x)) for n in "qkv")
        scores = w.o.matmul(q, w.o.swapaxes(k, -1, -2)) * (1.0 / math.sqrt(each))
        if causal:
            scores = w.o.where(w.array(past), scores, -1e9)
        mixed = w.o.transpose(w.o.matmul(w.o.softmax(scores, -1), v), (0, 2, 1, 3))
        return w.m[mods["out"]](w.o.reshape(mixed, (-1, length, width)))

    r.add(f"attention of {heads} heads, m{list(mods.values())}, causal={causal}", fn, [x], x.shape)


LAYERS: list[tuple[Rule, float]] = [
    (linear, 4),
    (tied_product, 2),
    (embedding, 2),
    (table, 1),
    (one_hot, 0.5),
    (bilinear, 1),
    (activation, 4),
    (prelu, 0.7),
    (glu, 0.7),
    (softmax, 1.5),
    (batch_norm, 2),
    (row_norm, 2),
    (dropout, 1.5),
    (scale, 1.5),
    (normalized_weight, 1),
    (attention, 1.5),
]
