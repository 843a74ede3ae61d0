"""Modules of every kind, their inputs, and changes of everything that can be changed of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn
from gpubp.errors import GpubpError

RNG = np.random.default_rng(0)
X = RNG.uniform(-2.0, 2.0, (6, 4)).astype(np.float32)
P = RNG.uniform(0.1, 0.9, (6, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 1, 0])
SIGNALS, IMAGES, VOLUMES = (
    RNG.uniform(-2.0, 2.0, (2, 4, *size)).astype(np.float32) for size in ((5,), (4, 6), (3, 4, 4))
)
SIGNS = np.array([1, -1, 1, 1, -1, -1])
LABELS = np.array([[1, 3, -1, 0]] * 6)
WEIGHT = [0.5, 1.0, 2.0, 3.0]
PICTURES = IMAGES
S = RNG.uniform(-2.0, 2.0, (2, 3, 4)).astype(np.float32)
COLUMNS = RNG.uniform(-2.0, 2.0, (2, 8, 6)).astype(np.float32)

POOLED = {
    1: RNG.uniform(-2.0, 2.0, (2, 3, 9)).astype(np.float32),
    2: RNG.uniform(-2.0, 2.0, (2, 3, 6, 7)).astype(np.float32),
    3: RNG.uniform(-2.0, 2.0, (2, 2, 4, 5, 6)).astype(np.float32),
}

Inputs = tuple[Any, ...]
Change = Callable[[Any], Any]

_ELEMENTWISE = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Flatten",
    "Identity",
    "Dropout",
    "Dropout1d",
    "AlphaDropout",
    "FeatureAlphaDropout",
]
_BY_AXES = dict(enumerate((SIGNALS, IMAGES, VOLUMES), 1))


def _of_channels() -> dict[str, tuple[Callable[[], nn.Module], Inputs]]:
    """Layers that there are for one, two and three axes, and their lazy forms."""
    found: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {}
    for n, x in _BY_AXES.items():
        for kind, options in {
            "Conv": (4, 3),
            "ConvTranspose": (4, 2),
            "BatchNorm": (),
            "InstanceNorm": (1e-5, 0.1, True, True),
        }.items():
            name, lazy = f"{kind}{n}d", f"Lazy{kind}{n}d"
            found[name] = partial(getattr(nn, name), 4, *options), (x,)
            found[lazy] = partial(getattr(nn, lazy), *options), (x,)
    return found


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, 0.0), 2, nn.LayerNorm(4))


def _pads() -> dict[str, tuple[Callable[[], nn.Module], Inputs]]:
    """The layers of padding that take nothing but its sizes."""
    found: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {}
    for name in ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"):
        for axes, x in enumerate((COLUMNS, PICTURES, VOLUMES), 1):
            cls, padding = getattr(nn, f"{name}{axes}d"), (1, 2, 0, 1, 1, 0)[: 2 * axes]
            found[f"{name}{axes}d"] = partial(cls, padding), (x,)
    return found


MODULES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    **{name: (getattr(nn, name), (X,)) for name in _ELEMENTWISE},
    "Threshold": (lambda: nn.Threshold(0.5, 2.0), (X,)),
    "Softmax": (lambda: nn.Softmax(0), (X,)),
    "Softmin": (lambda: nn.Softmin(0), (X,)),
    "LogSoftmax": (lambda: nn.LogSoftmax(0), (X,)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 2)), (X,)),
    **_of_channels(),
    "Conv2d of mirrored images": (
        lambda: nn.Conv2d(4, 2, 3, 2, 1, 1, 2, False, "reflect"),
        (IMAGES,),
    ),
    "Dropout2d": (nn.Dropout2d, (IMAGES,)),
    "Dropout3d": (nn.Dropout3d, (VOLUMES,)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (X,)),
    **_pads(),
    "ConstantPad1d": (lambda: nn.ConstantPad1d((1, 2), 0.5), (COLUMNS,)),
    "ConstantPad2d": (lambda: nn.ConstantPad2d((1, 2, 0, -1), 0.5), (PICTURES,)),
    "ConstantPad3d": (lambda: nn.ConstantPad3d(1, 0.5), (VOLUMES,)),
    "Upsample": (lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"), (PICTURES,)),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d((3, 2)), (PICTURES,)),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(None, 2.0), (PICTURES,)),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), (PICTURES,)),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), (PICTURES,)),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), (PICTURES,)),
    "Unfold": (lambda: nn.Unfold((2, 3), 1, 1, 2), (PICTURES,)),
    "Fold": (lambda: nn.Fold((3, 4), 2), (COLUMNS,)),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2, 0.5), (PICTURES,)),
    "CrossMapLRN2d": (lambda: nn.CrossMapLRN2d(3, 0.5), (PICTURES,)),
    "Softmax2d": (nn.Softmax2d, (PICTURES,)),
    "RandomHorizontalFlip": (nn.RandomHorizontalFlip, (PICTURES,)),
    "RandomVerticalFlip": (nn.RandomVerticalFlip, (PICTURES,)),
    "RandomCrop": (lambda: nn.RandomCrop((3, 4), 1, False, 0.5), (PICTURES,)),
    "RandomShift": (lambda: nn.RandomShift(1, 0.5), (PICTURES,)),
    "RandomRotation": (
        lambda: nn.RandomRotation(20.0, "bilinear", False, (1, 2), 0.5),
        (PICTURES,),
    ),
    "RandomAffine": (
        lambda: nn.RandomAffine(20.0, (0.2, 0.1), (0.5, 1.5), (-3.0, 3.0, 1.0, 5.0)),
        (PICTURES,),
    ),
    "Linear": (lambda: nn.Linear(4, 4), (X,)),
    "LazyLinear": (lambda: nn.LazyLinear(4), (X,)),
    "Bilinear": (lambda: nn.Bilinear(4, 4, 4), (X, P)),
    "Embedding": (lambda: nn.Embedding(4, 3, 1), (Y,)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, 0.5, True, True), (S, S, S)),
    "MultiheadAttention of other widths": (
        lambda: nn.MultiheadAttention(4, 2, 0.5, kdim=6, batch_first=True),
        (S, COLUMNS[:, :3].copy(), S),
    ),
    "RotaryEmbedding": (lambda: nn.RotaryEmbedding(4, 8), (IMAGES, np.arange(4))),
    "RotaryEmbedding of neighbours": (lambda: nn.RotaryEmbedding(2, 8, 50.0, True), (IMAGES,)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 6, 0.0), (S,)),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(4, 2, 6, 0.0), (S, S)),
    "TransformerEncoder": (_encoder, (S,)),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 6, 0.0), 2),
        (S, S),
    ),
    "Transformer": (lambda: nn.Transformer(4, 2, 1, 1, 6, 0.0), (S, S)),
    "RNN": (lambda: nn.RNN(4, 3, 2, "relu", dropout=0.5), (S,)),
    "LSTM": (lambda: nn.LSTM(4, 3, 2, dropout=0.5, bidirectional=True, proj_size=2), (S,)),
    "GRU": (lambda: nn.GRU(4, 3, batch_first=True), (S,)),
    "RNNCell": (lambda: nn.RNNCell(4, 3), (X,)),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3, bias=False), (X,)),
    "GRUCell": (lambda: nn.GRUCell(4, 3), (X,)),
    "BatchNorm1d of rows": (lambda: nn.BatchNorm1d(4), (X,)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (X,)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (X,)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5)), (X,)),
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(WEIGHT), (X, Y)),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss, (X, P)),
    "NLLLoss": (lambda: nn.NLLLoss(WEIGHT), (X, Y)),
    "MultiMarginLoss": (nn.MultiMarginLoss, (X, Y)),
    "BCELoss": (lambda: nn.BCELoss(WEIGHT), (P, P[::-1].copy())),
    "BCEWithLogitsLoss": (lambda: nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT), (X, P)),
    "MultiLabelSoftMarginLoss": (lambda: nn.MultiLabelSoftMarginLoss(WEIGHT), (X, P)),
    "SoftMarginLoss": (nn.SoftMarginLoss, (X[:, 0], SIGNS)),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, (X[:, 0], SIGNS)),
    "MarginRankingLoss": (nn.MarginRankingLoss, (X[:, 0], X[:, 1], SIGNS)),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, (X, P, SIGNS)),
    "CosineSimilarity": (nn.CosineSimilarity, (X, P)),
    "PairwiseDistance": (nn.PairwiseDistance, (X, P)),
    "TripletMarginLoss": (nn.TripletMarginLoss, (X, P, P[::-1].copy())),
    "TripletMarginWithDistanceLoss": (
        lambda: nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(1.0)),
        (X, P, P[::-1].copy()),
    ),
    "MultiLabelMarginLoss": (nn.MultiLabelMarginLoss, (X, LABELS)),
    "CTCLoss": (nn.CTCLoss, (np.log(P).reshape(6, 1, 4), Y[None, 1:3], Y[5:] + 6, Y[1:2] + 1)),
    "LinearCrossEntropyLoss": (lambda: nn.LinearCrossEntropyLoss(4, 4, bias=True), (X, Y)),
    "AdaptiveLogSoftmaxWithLoss": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2, 4], 2.0),
        (X, Y),
    ),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(4, 3, padding_idx=1), (Y.reshape(2, 3),)),
    "MSELoss": (nn.MSELoss, (X, P)),
    "L1Loss": (nn.L1Loss, (X, P)),
    "SmoothL1Loss": (nn.SmoothL1Loss, (X, P)),
    "HuberLoss": (nn.HuberLoss, (X, P)),
    "KLDivLoss": (nn.KLDivLoss, (X, P)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, (X, P)),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, (X, P, P)),
}


_POOLS: dict[str, tuple[Any, ...]] = {
    "MaxPool": (3, 2, 1),
    "AvgPool": (3, 2, 1),
    "LPPool": (2.0, 2),
    "AdaptiveAvgPool": (2,),
    "AdaptiveMaxPool": (3,),
    "FractionalMaxPool": (2, 3),
}


def _pools() -> Iterator[tuple[str, tuple[Callable[[], nn.Module], Inputs]]]:
    for axes, x in POOLED.items():
        for kind, given in _POOLS.items():
            name = f"{kind}{axes}d"
            if hasattr(nn, name):
                images = np.abs(x) if kind == "LPPool" else x
                yield name, (partial(getattr(nn, name), *given), (images,))
        even = x[(slice(None), slice(None), *[slice(n // 2 * 2) for n in x.shape[2:]])]
        found = getattr(gp.ops, f"max_pool{axes}d")(even, 2, return_indices=True)
        name = f"MaxUnpool{axes}d"
        yield name, (partial(getattr(nn, name), 2), found)


MODULES |= dict(_pools())


def _values(value: Any) -> list[Any]:
    """Other values for an attribute, some of them good."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 1]
    if isinstance(value, float):
        return [0.5 * value + 0.2, 0.0]
    if isinstance(value, str):
        return ["mean", "sum", "none", "batchmean", "tanh"]
    if isinstance(value, tuple):
        return [(2, 2, 1), (1, *value), value[:1]]
    return [1, 0.3, True]


def _set(name: str, value: Any) -> Change:
    return lambda module: setattr(module, name, value)


def _new_slot(name: str, factor: float) -> Change:
    def change(module: nn.Module) -> None:
        slot = getattr(module, name)
        setattr(module, name, type(slot)(slot.value * factor + factor))

    return change


def changes(module: nn.Module) -> Iterator[tuple[str, Change]]:
    """(what, change) for every attribute, parameter, buffer and layer of a module."""
    for name, value in vars(module).items():
        if not name.startswith("_"):
            for other in _values(value):
                yield f"{name} = {other!r}", _set(name, other)
    for name, slot in {**module._parameters, **module._buffers}.items():
        if slot is not None:
            yield f"{name} = new", _new_slot(name, 2)
            yield f"{name} = None", _set(name, None)
    for name in module._modules:
        yield f"{name} = ReLU", _set(name, nn.ReLU())
        yield f"del {name}", lambda m, name=name: delattr(m, name)
        yield f"_modules[{name}]", lambda m, name=name: m._modules.update({name: nn.ReLU()})
    yield "eval()", lambda m: m.eval()
    yield "forward", _set("forward", lambda *inputs: inputs[0] * 3.0)


def first_of(out: Any) -> Any:
    """The first result as an array."""
    return np.asarray(out[0] if isinstance(out, tuple) else out)


def outcome(call: Callable[..., Any], inputs: Inputs) -> Any:
    """What a call gives: an array, or the type of what it raises."""
    gp.manual_seed(3)
    try:
        return first_of(call(*inputs))
    except (GpubpError, TypeError, ValueError, IndexError, AttributeError) as error:
        return type(error)


def compiled_after(
    make: Callable[[], nn.Module], inputs: Inputs, change: Change, backend: str
) -> tuple[Any, Any, Any]:
    """What a program gives that is older than a change, a new one, and the module called plainly.

    All three start from copies of one module that was changed after its first call.
    """
    module = make()
    f = gp.compile(module, backend=backend)
    f(*inputs)
    change(module)
    fresh, plain = copy.deepcopy(module), copy.deepcopy(module)
    return (
        outcome(f, inputs),
        outcome(gp.compile(fresh, backend=backend), inputs),
        outcome(plain, inputs),
    )


def alike(a: Any, b: Any) -> bool:
    """Two outcomes are the same error, or the same numbers, bit for bit."""
    if isinstance(a, type) or isinstance(b, type):
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
