"""Weights of a layer of another library as those of a module: axes, gates, signs.

Comes in: arrays in roles, which all libraries share: kernel and bias, scale, bias, mean and var,
embedding, those of a recurrent cell (in the gates' order of gpubp and torch), those of attention.
Kernels have the outputs last, as in Keras and Flax. Goes out: arrays under the module's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp import nn
from gpubp.errors import DataError
from gpubp.nn.module import Module

_Array = NDArray[Any]
Borrowed = dict[str, _Array]

_KINDS: dict[str, tuple[type[Module], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "conv_transposed": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "batch_norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "norm": (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    "embedding": (nn.Embedding,),
    "lstm": (nn.LSTM, nn.LSTMCell),
    "gru": (nn.GRU, nn.GRUCell),
    "rnn": (nn.RNN, nn.RNNCell),
    "attention": (nn.MultiheadAttention,),
    "prelu": (nn.PReLU,),
}
RECURRENT = ("lstm", "gru", "rnn")


class _Source(Protocol):
    @property
    def layers(self) -> list[Borrowed]: ...
    @property
    def eps(self) -> float | None: ...


def kind_of(module: Module) -> str:
    """What a module is among those that other libraries have, with its weights; else ""."""
    found = (kind for kind, types in _KINDS.items() if type(module) in types)
    kind = next(found, "")
    return kind if module.state_dict() else ""


def state_of(
    module: Module, sources: Sequence[_Source], flatten: Sequence[int] | None, place: str
) -> Borrowed:
    """The module's arrays, by their names in it.

    Args:
        module: of a kind.
        sources: what they are from; of recurrent modules a layer and direction each.
        flatten: (channels, height, width) before the Flatten in front of it.
        place: for errors.

    Raises:
        DataError: an array that only one side has, or an epsilon that is another one.
    """
    kind = kind_of(module)
    layers = [layer for source in sources for layer in source.layers]
    eps = sources[0].eps
    if eps is not None and getattr(module, "eps", eps) != eps:
        raise DataError(
            f"{place} has epsilon {eps}, the module {getattr(module, 'eps', None)}: it would give "
            f"other numbers. Make it with eps={eps}."
        )
    if kind in RECURRENT:
        return _recurrent(module, layers, place)
    if kind == "attention":
        return _attention(module, layers[0], place)
    return _plain(module, kind, layers[0], flatten, place)


def _plain(
    module: Module, kind: str, layer: Borrowed, flatten: Sequence[int] | None, place: str
) -> Borrowed:
    made: Borrowed = {}
    for role, value in layer.items():
        if role == "kernel":
            made["weight"] = _kernel(kind, value, flatten, place)
        else:
            made[_NAMES[role]] = value.reshape(-1) if role == "slope" else value
    own = {name for name in module.state_dict() if name != "num_batches_tracked"}
    if own != set(made):
        raise DataError(
            f"{place} has {', '.join(sorted(made))}; the module has {', '.join(sorted(own))}."
        )
    return made


_NAMES = {
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "embedding": "weight",
    "slope": "weight",
}


def _kernel(kind: str, value: _Array, flatten: Sequence[int] | None, place: str) -> _Array:
    if kind == "linear":
        if value.ndim != 2:
            raise DataError(f"{place}: the kernel has shape {value.shape}, expected two axes.")
        if flatten is not None:
            value = _channels_first(value, flatten, place)
        return value.T
    if kind == "conv_transposed":  # (..., in, out)
        return np.moveaxis(value, (-2, -1), (0, 1))
    return np.moveaxis(value, (-1, -2), (0, 1))


def _channels_first(kernel: _Array, shape: Sequence[int], place: str) -> _Array:
    """The rows of a kernel behind a Flatten, from (height, width, channels) to (channels, ...)."""
    channels, *sizes = shape
    if channels * int(np.prod(sizes)) != len(kernel):
        raise DataError(
            f"{place}: the kernel takes {len(kernel)} numbers, a flattened {tuple(shape)} has "
            f"{channels * int(np.prod(sizes))}."
        )
    split = kernel.reshape(*sizes, channels, -1)
    return np.moveaxis(split, -2, 0).reshape(len(kernel), -1)


def _recurrent(module: Any, layers: Sequence[Borrowed], place: str) -> Borrowed:
    """Weights of layers and directions, forward before backward."""
    cell = not hasattr(module, "num_layers")
    directions = 1 if cell or not module.bidirectional else 2
    has_bias = "bias_ih" in module.state_dict() or "bias_ih_l0" in module.state_dict()
    made: Borrowed = {}
    for i, layer in enumerate(layers):
        end = "" if cell else f"_l{i // directions}" + ("_reverse" if i % directions else "")
        if ("bias_ih" in layer or "bias_hh" in layer) != has_bias:
            does = "none" if has_bias else "one"
            raise DataError(
                f"{place}: the layer has {does}, the module is made with bias={has_bias}."
            )
        for role in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if has_bias else ())):
            zeros = np.zeros(len(layer["weight_hh"]), layer["weight_hh"].dtype)
            made[role + end] = layer.get(role, zeros)
    return made


def _attention(module: Any, layer: Borrowed, place: str) -> Borrowed:
    """Heads side by side: (inputs, heads, size) to (heads * size, inputs)."""
    parts = ("query", "key", "value")
    if "in_proj_weight" not in module.state_dict():
        raise DataError(f"{place}: a MultiheadAttention with kdim or vdim cannot take weights.")
    weights = [layer[f"{p} kernel"] for p in parts]
    heads = weights[0].shape[1]
    if heads != module.num_heads:
        raise DataError(f"{place} has {heads} heads, the module {module.num_heads}.")
    made = {
        "in_proj_weight": np.concatenate([w.reshape(len(w), -1).T for w in weights]),
        "out_proj.weight": layer["out kernel"].reshape(-1, layer["out kernel"].shape[-1]).T,
    }
    has_bias = "in_proj_bias" in module.state_dict()
    if has_bias != ("query bias" in layer):
        raise DataError(f"{place}: one side has biases, the module is made with bias={has_bias}.")
    if has_bias:
        made["in_proj_bias"] = np.concatenate([layer[f"{p} bias"].reshape(-1) for p in parts])
        made["out_proj.bias"] = layer["out bias"]
    return made
