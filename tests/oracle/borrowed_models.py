"""gpubp's side of models whose weights come from Keras or Flax, and what holds of their outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpubp import nn

IMAGES, STEPS = (8, 8, 3), (7, 6)  # a sample, channels last
RNG = np.random.default_rng(0)


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 2 else x


class First(nn.Module):
    """The first result of a module that has several."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Attention(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(6, 2, bias=bias, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.layer(x, x, x, need_weights=False)[0]


class Ours(NamedTuple):
    """A module, and the samples that it takes.

    Attributes:
        make: gets the epsilon of normalisations, where there are some.
        shape: of a sample, channels last.
        images: whether the module has the channels first.
    """

    make: Callable[[float], Any]
    shape: tuple[int, ...] = STEPS
    images: bool = False

    def check(self, module: Any, x: np.ndarray, expected: Any) -> None:
        """The module's outputs for x are the expected ones, both with channels last."""
        check(module, x, np.asarray(expected), self.images)


def check(module: Any, x: np.ndarray, expected: np.ndarray, images: bool) -> None:
    module.eval()
    found = np.asarray(module(channels_first(x) if images else x))
    wanted = channels_first(expected) if images else expected
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def _image(make: Callable[[float], Any]) -> Ours:
    return Ours(make, IMAGES, images=True)


OURS = {
    "dense": Ours(lambda _: nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))),
    "conv": _image(lambda _: nn.Sequential(nn.Conv2d(3, 4, (3, 2), 2))),
    "depthwise": _image(lambda _: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3))),
    "transposed": _image(lambda _: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2))),
    "batch norm": _image(lambda eps: nn.Sequential(nn.BatchNorm2d(3, eps=eps))),
    "layer norm": Ours(lambda eps: nn.Sequential(nn.LayerNorm(6, eps=eps))),
    "rms norm": Ours(lambda eps: nn.Sequential(nn.RMSNorm(6, eps=eps))),
    "lstm": Ours(lambda _: First(nn.LSTM(6, 4, batch_first=True))),
    "lstm, two layers": Ours(lambda _: First(nn.LSTM(6, 4, 2, batch_first=True))),
    "both ways": Ours(lambda _: First(nn.LSTM(6, 4, bidirectional=True, batch_first=True))),
    "gru": Ours(lambda _: First(nn.GRU(6, 4, batch_first=True))),
    "rnn": Ours(lambda _: First(nn.RNN(6, 4, batch_first=True))),
    "attention": Ours(lambda _: Attention()),
}
