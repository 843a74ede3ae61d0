"""Modules of gpubp that the oracle's database leaves out, with inputs: for ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp import nn

# What is not written to ONNX, and a part of the error that says why.
REFUSED = {"FractionalMaxPool2d": "random numbers", "FractionalMaxPool3d": "random numbers"}
# No layers: they hold modules or arrays, or are the base of all. KeyValueCache is changed by calls.
HOLDERS = {
    "KeyValueCache", "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList",
}  # fmt: skip
_RNG = np.random.default_rng(5)


def x(*shape: int) -> Any:
    return _RNG.standard_normal(shape).astype(np.float32)


def cases() -> Iterator[tuple[Any, list[Any]]]:
    """(module, arrays)."""
    images = x(3, 4, 6, 7)
    for name in ("AlphaDropout", "Dropout", "RReLU", "Hardsigmoid", "Identity", "Flatten"):
        yield getattr(nn, name)(), [x(3, 4, 5)]
    for name in ("RandomHorizontalFlip", "RandomVerticalFlip", "FeatureAlphaDropout"):
        yield getattr(nn, name)(), [images]
    for name in ("RandomRotation", "RandomShift", "RandomAffine", "RandomCrop"):
        yield getattr(nn, name)(4), [images]
    for n in (1, 2, 3):
        yield from _of_axes(n)
    yield nn.LazyLinear(5), [x(3, 4)]
    yield nn.Unflatten(1, (2, 2)), [x(3, 4)]
    yield nn.RotaryEmbedding(8), [x(2, 3, 5, 8)]
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    yield nn.TransformerDecoder(layer, 2), [x(2, 5, 8), x(2, 3, 8)]
    yield nn.TripletMarginWithDistanceLoss(), [x(3, 4), x(3, 4), x(3, 4)]
    yield nn.AdaptiveLogSoftmaxWithLoss(6, 9, [2, 5], 2.0), [x(5, 6), _RNG.integers(0, 9, (5,))]
    times, lengths = np.array([7, 6, 5]), np.array([4, 2, 1])
    rows = 0.1 * x(7, 3, 5) - np.float32(np.log(5))
    yield nn.CTCLoss(), [rows, _RNG.integers(1, 5, (3, 4)), times, lengths]
    for n in (2, 3):
        yield getattr(nn, f"FractionalMaxPool{n}d")(2, output_size=3), [x(2, 3, *(7,) * n)]
    yield nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), [x(5, 4)]


def _of_axes(n: int) -> Iterator[tuple[Any, list[Any]]]:
    shape = (3, 4, *(6, 5, 4)[:n])
    yield getattr(nn, f"Dropout{n}d")(), [x(*shape)]
    yield getattr(nn, f"LazyBatchNorm{n}d")(), [x(*shape)]
    yield getattr(nn, f"LazyInstanceNorm{n}d")(track_running_stats=False), [x(*shape)]
    places = _RNG.permuted(np.broadcast_to(np.arange(4**n), (3, 4, 4**n)), axis=-1)
    places = places[..., : 2**n].reshape(3, 4, *(2,) * n)
    yield getattr(nn, f"MaxUnpool{n}d")(2), [x(3, 4, *(2,) * n), places]
