"""Weights of Flax (linen and nnx): trees of arrays, in memory or in files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.errors import DataError, missing_extra
from gpubp.nn.module import Module
from gpubp.train import tensorfile
from gpubp.train.borrowed import Source, fill
from gpubp.train.borrowed_layers import Borrowed

_COLLECTIONS = ("params", "batch_stats")
_HEADS = ("query", "key", "value", "out")
_GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


@checked
def load_flax_weights(
    source: Any,
    model: Module,
    names: Mapping[str, Any] | None = None,
    flatten: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, list[str]]:
    """Copy weights of Flax into a model of the same layers.

    Layers belong together by their names, or else by their kind and order: the second `Linear`
    gets `Dense_1`. Flax's epsilons are not in such trees: its default is 1e-6 for LayerNorm, 1e-5
    for BatchNorm.

    Args:
        source: variables of linen ({"params": ..., "batch_stats": ...}, or params alone), a state
            of nnx, or a file: `.msgpack` (flax.serialization), `.safetensors` (names with dots or
            slashes), a folder of orbax's StandardCheckpointer.
        model: gets the weights.
        names: for layers that are found neither way: the name in `model` -> the path in the tree,
            such as {"head": "decoder/Dense_3"}; of an LSTM of several layers, a list of them.
        flatten: for a Linear behind a Flatten of images: its name -> their shape before it,
            (channels, height, width), for Flax has the channels last.

    Returns:
        The name of each module with weights -> the paths they are from.

    Raises:
        MissingExtraError: what reads the file is not installed.
        DataError: no such file, or it does not fit the model; then nothing has changed.
    """
    what = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the tree"
    tree = _read(Path(what)) if isinstance(source, (str, os.PathLike)) else source
    plain = _merged(_plain(tree))
    sources = list(_sources(plain, "")) if isinstance(plain, dict) else []
    if not sources:
        raise DataError(f"{what} has no layers as Flax names their arrays (kernel, bias, ...).")
    return fill(model, sources, names or {}, flatten or {}, what)


def _read(path: Path) -> Any:
    """The tree in a file."""
    if not path.exists():
        raise DataError(f"{path} cannot be read: there is no such file.")
    try:
        if path.is_dir():
            from orbax import checkpoint

            return checkpoint.StandardCheckpointer().restore(path.absolute())
        if path.suffix == ".safetensors":
            return _nested(tensorfile.read(path, sealed=False)[0])
        from flax import serialization
    except ImportError as error:
        needed = "orbax-checkpoint" if path.is_dir() else "flax"
        raise missing_extra(needed, "flax", f"reading {path}") from error
    try:
        return serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack raises what it happens to meet
        raise DataError(f"{path} is no file of flax.serialization: {error}.") from error


def _nested(tensors: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        *parts, last = name.replace("/", ".").split(".")
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


def _plain(tree: Any) -> Any:
    """Nested dicts of arrays: of frozen dicts, states and variables of nnx, lists."""
    if hasattr(tree, "to_pure_dict"):
        tree = tree.to_pure_dict()
    if isinstance(tree, Mapping):
        if set(tree) == {"value"} and not isinstance(tree["value"], Mapping):
            return np.asarray(tree["value"])
        return {str(name): _plain(part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return {str(i): _plain(part) for i, part in enumerate(tree)}
    value = getattr(tree, "value", tree)
    try:
        return np.asarray(value)
    except TypeError:
        return np.zeros(0, "O")  # keys of random numbers


def _merged(tree: Any) -> Any:
    """The collections of linen in one tree."""
    if not isinstance(tree, dict) or "params" not in tree:
        return tree

    def beside(a: Any, b: Any) -> Any:
        if not isinstance(a, dict) or not isinstance(b, dict):
            return a
        return {**b, **{name: beside(part, b.get(name, part)) for name, part in a.items()}}

    made: Any = {}
    for name in _COLLECTIONS:
        made = beside(made, tree.get(name, {}))
    return made


def _sources(tree: dict[str, Any], path: str) -> Iterator[Source]:
    kind, roles = _found(tree, path)
    if roles:
        yield Source(path, kind, [roles])
        return
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _sources(part, f"{path}/{name}" if path else name)


def _found(tree: dict[str, Any], path: str) -> tuple[str, Borrowed]:
    """The kind of a layer, by the names and the axes of its arrays."""
    parts, own = set(tree), {n: v for n, v in tree.items() if not isinstance(v, dict)}
    if set(_HEADS) <= parts:
        return "attention", {
            f"{head} {role}": value for head in _HEADS for role, value in tree[head].items()
        }
    for kind, gates in _GATES.items():
        if {f"h{gate}" for gate in gates} <= parts:
            return kind, _cell(tree, gates)
    if {"dense_i", "dense_h"} <= parts:  # all gates in one, in the same order
        return _joined(tree)
    if parts == {"i", "h"} and isinstance(tree["i"], dict):
        return "rnn", _cell_of([tree["i"]], [tree["h"]])
    if "embedding" in own:
        return "embedding", {"embedding": own["embedding"]}
    if "negative_slope" in own:
        return "prelu", {"slope": own["negative_slope"]}
    if "scale" in own or "mean" in own:
        roles: Borrowed = {n: own[n] for n in ("scale", "bias", "mean", "var") if n in own}
        return ("batch_norm" if "mean" in own else "norm"), roles
    if "kernel" not in own:
        return "", {}
    kernel = own["kernel"]
    rest = {"bias": own["bias"]} if "bias" in own else {}
    if kernel.ndim < 3:
        return "linear", {"kernel": kernel, **rest}
    if "transpose" not in path.rpartition("/")[2].lower():
        return "conv", {"kernel": kernel, **rest}
    # Flax does not mirror the kernel, torch and gpubp do.
    mirrored = np.flip(kernel, tuple(range(kernel.ndim - 2)))
    return "conv_transposed", {"kernel": mirrored, **rest}


def _cell(tree: dict[str, Any], gates: Sequence[str]) -> Borrowed:
    inputs = [tree.get(f"i{gate}", tree.get(f"i{gate}_")) for gate in gates]
    return _cell_of(inputs, [tree[f"h{gate}"] for gate in gates])


def _cell_of(inputs: Sequence[Any], states: Sequence[Any]) -> Borrowed:
    """Gates side by side; what has no bias adds 0."""
    made: Borrowed = {}
    for end, parts in (("ih", inputs), ("hh", states)):
        made[f"weight_{end}"] = np.concatenate([part["kernel"].T for part in parts])
        if any("bias" in part for part in parts):
            zeros = np.zeros(parts[0]["kernel"].shape[1], parts[0]["kernel"].dtype)
            made[f"bias_{end}"] = np.concatenate([part.get("bias", zeros) for part in parts])
    return made


def _joined(tree: dict[str, Any]) -> tuple[str, Borrowed]:
    units, width = tree["dense_h"]["kernel"].shape
    kind = {4: "lstm", 3: "gru", 1: "rnn"}.get(width // units, "")
    return kind, _cell_of([tree["dense_i"]], [tree["dense_h"]])
