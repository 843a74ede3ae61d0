"""Weights that Keras 3 has saved: `.weights.h5`, and the `.keras` files that hold such a file."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.errors import DataError, missing_extra
from gpubp.nn.module import Module
from gpubp.train.borrowed import Source, fill
from gpubp.train.borrowed_layers import Borrowed

_CLASSES = {
    "dense": "linear", "conv1d": "conv", "conv2d": "conv", "conv3d": "conv",
    "depthwise_conv1d": "conv", "depthwise_conv2d": "conv",
    "conv1d_transpose": "conv_transposed", "conv2d_transpose": "conv_transposed",
    "conv3d_transpose": "conv_transposed", "batch_normalization": "batch_norm",
    "layer_normalization": "norm", "group_normalization": "norm", "rms_normalization": "norm",
    "embedding": "embedding", "lstm": "lstm", "gru": "gru", "simple_rnn": "rnn",
    "lstm_cell": "lstm", "gru_cell": "gru", "simple_rnn_cell": "rnn",
    "multi_head_attention": "attention", "p_re_lu": "prelu",
}  # fmt: skip
_HEADS = {"query": "query_dense", "key": "key_dense", "value": "value_dense", "out": "output_dense"}
_WEIGHTS = "model.weights.h5"


@checked
def load_keras_weights(
    path: str | os.PathLike[str],
    model: Module,
    names: Mapping[str, Any] | None = None,
    flatten: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, list[str]]:
    """Copy weights that Keras 3 saved into a model of the same layers.

    Layers belong together by their names, or else by their kind and order: the second `Linear`
    gets the second `Dense`. A `.keras` file also tells epsilons, which are compared: Keras' default
    for normalisations is 0.001.

    Args:
        path: of `model.save_weights("NAME.weights.h5")` or `model.save("NAME.keras")`.
        model: gets the weights.
        names: for layers that are found neither way: the name in `model` -> the path in the file,
            such as {"head": "layers/dense_3"}; of an LSTM of several layers, a list of them.
        flatten: for a Linear behind a Flatten of images: its name -> their shape before it,
            (channels, height, width), for Keras has the channels last.

    Returns:
        The name of each module with weights -> the paths they are from.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: no such file, or it does not fit the model; then nothing has changed.
    """
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "keras", "reading Keras' files") from error
    where = os.fspath(path)
    try:
        file, config = _opened(where)
        with h5py.File(file, "r") as found:
            sources = list(_sources(found, "", _epsilons(config)))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{where} is no file of weights of Keras 3: {error}.") from error
    if not sources:
        raise DataError(
            f"{where} has no weights as Keras 3 saves them: model.save_weights('NAME.weights.h5')."
        )
    return fill(model, sources, names or {}, flatten or {}, where)


def _opened(path: str) -> tuple[Any, Any]:
    """What h5py opens, and the model's configuration, or None."""
    if not zipfile.is_zipfile(path):
        return path, None
    with zipfile.ZipFile(path) as file:
        return io.BytesIO(file.read(_WEIGHTS)), json.loads(file.read("config.json"))


def _epsilons(config: Any) -> dict[str, float]:
    """The epsilon of each layer that has one, by the layer's name."""
    found: dict[str, float] = {}
    if isinstance(config, dict):
        if "epsilon" in config and isinstance(config.get("name"), str):
            found[config["name"]] = float(config["epsilon"])
        config = list(config.values())
    for part in config if isinstance(config, list) else ():
        found |= _epsilons(part)
    return found


def _sources(group: Any, path: str, eps: Mapping[str, float]) -> Iterator[Source]:
    """The layers with weights in a group of the file."""
    kind, layers = _found(group, path)
    if layers:
        yield Source(path, kind, layers, eps.get(_attribute(group)))
        return
    for name in group:
        if name != "vars" and hasattr(group[name], "items"):
            yield from _sources(group[name], f"{path}/{name}" if path else name, eps)


def _found(group: Any, path: str) -> tuple[str, list[Borrowed]]:
    kind = _class(path.rpartition("/")[2]) or _class(_attribute(group))
    if {"forward_layer", "backward_layer"} <= set(group):
        cells = [group[part]["cell"] for part in ("forward_layer", "backward_layer")]
        kind = _class(_attribute(cells[0]))
        return kind, [_cell(kind, cell, path) for cell in cells]
    if "cell" in group and _arrays(group["cell"]):
        kind = kind or _class(_attribute(group["cell"]))
        return kind, [_cell(kind, group["cell"], path)]
    if set(_HEADS.values()) <= set(group):
        return "attention", [_heads(group)]
    arrays = _arrays(group)
    if not arrays:
        return "", []
    if kind in ("lstm", "gru", "rnn"):
        return kind, [_cell(kind, group, path)]
    depthwise = "depthwise" in path.rpartition("/")[2] + _attribute(group)
    return kind, [_roles(kind, arrays, depthwise, path)]


def _attribute(group: Any) -> str:
    return str(group["vars"].attrs.get("name", "")) if "vars" in group else ""


def _class(name: str) -> str:
    return _CLASSES.get(re.sub(r"_\d+$", "", name), "")


def _arrays(group: Any) -> list[Any]:
    own = group.get("vars", {})
    return [np.asarray(own[key]) for key in sorted(own, key=int)]


def _roles(kind: str, arrays: list[Any], depthwise: bool, path: str) -> Borrowed:
    """The arrays of a layer without parts, by what they are."""
    if kind in ("batch_norm", "norm"):
        known: dict[tuple[str, int], tuple[str, ...]] = {
            ("batch_norm", 4): ("scale", "bias", "mean", "var"),
            ("batch_norm", 2): ("mean", "var"),
            ("norm", 2): ("scale", "bias"),
            ("norm", 1): ("scale",),
        }
        if (kind, len(arrays)) not in known:
            raise DataError(
                f"{path} has {len(arrays)} arrays: with center=False or scale=False alone it has "
                "no counterpart."
            )
        return dict(zip(known[kind, len(arrays)], arrays, strict=True))
    if kind in ("embedding", "prelu"):
        return {"embedding" if kind == "embedding" else "slope": arrays[0]}
    kernel = arrays[0]
    if kind == "conv_transposed":  # (..., out, in)
        kernel = np.swapaxes(kernel, -1, -2)
    if depthwise:  # (..., in, multiplier): outputs of one input stand side by side
        kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return dict(zip(("kernel", "bias"), [kernel, *arrays[1:]]))


def _cell(kind: str, group: Any, path: str) -> Borrowed:
    """Kernels (inputs, gates * units); of a GRU, Keras has the gates z, r, h."""
    kernel, recurrent, *bias = _arrays(group)
    made = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    if bias and kind == "gru":
        if bias[0].ndim != 2:
            raise DataError(f"{path}: a GRU with reset_after=False has no counterpart.")
        made |= {"bias_ih": bias[0][0], "bias_hh": bias[0][1]}
    elif bias:
        made["bias_ih"] = bias[0]
    if kind != "gru":
        return made
    units = len(recurrent)
    order = np.concatenate([np.arange(units) + gate * units for gate in (1, 0, 2)])
    return {role: value[order] for role, value in made.items()}


def _heads(group: Any) -> Borrowed:
    made: Borrowed = {}
    for part, name in _HEADS.items():
        for role, value in zip(("kernel", "bias"), _arrays(group[name])):
            made[f"{part} {role}"] = value
    return made
