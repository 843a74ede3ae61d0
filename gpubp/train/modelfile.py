"""Model files: weights under PyTorch's names, and what is needed to use them again.

`torch.load_state_dict(safetensors.torch.load_file(path))` reads them, and `load_weights` reads
what `safetensors.torch.save_file(model.state_dict(), path)` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpubp.arguments import checked
from gpubp.errors import CheckpointError, GpubpError
from gpubp.nn.module import Module
from gpubp.nn.state_dict import LoadResult
from gpubp.train import architecture, tensorfile
from gpubp.train.tensorfile import Path_, Tensors

VERSION = 1
MODEL, CHECKPOINT = "model", "checkpoint"
PREFIX = "model."
# In the record of a checkpoint: the weights that the run ended with, if not the last ones.
ENDED = "ended"


class Loaded(NamedTuple):
    """What a model file holds.

    Attributes:
        model: rebuilt, in eval mode.
        extra: what was stored beside it.
        record: the rest of the file's record.
    """

    model: Module
    extra: dict[str, Any]
    record: dict[str, Any]


@checked
def save_model(path: Path_, model: Module, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model: weights, buffers, and its structure if it is made of modules of `gpubp.nn`.

    Args:
        path: the file; it appears as a whole or not at all.
        model: any module. `load_model` needs one made of `gpubp.nn`'s; the weights of others go
            back with `load_weights`.
        extra: JSON values to keep with it.

    Raises:
        CheckpointError: the file cannot be written, or `extra` is not made of JSON values.
    """
    record = {
        "kind": MODEL,
        "version": VERSION,
        "model": structure_of(model),
        "extra": tensorfile.pack(dict(extra or {}), {}, "extra"),
    }
    tensorfile.write(path, model.state_dict(), record)


def structure_of(model: Module) -> dict[str, Any] | None:
    """The description of a model, or None if it is made of other classes."""
    try:
        return architecture.describe(model)
    except CheckpointError:
        return None


@checked
def load_model(path: Path_) -> Loaded:
    """Read the model of a model file or of a checkpoint: as the run ended, with its best weights
    if it ended with these.

    Raises:
        CheckpointError: the file is damaged, foreign, newer, or holds no structure.
    """
    tensors, record = tensorfile.read(path)
    check_version(path, record, (MODEL, CHECKPOINT))
    if record.get("model") is None:
        raise CheckpointError(
            f"{path} does not say how its model is made: it holds classes that are not gpubp.nn's. "
            "Build the model yourself and use load_weights."
        )
    try:
        model = architecture.build(record["model"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    put_weights(path, model, weights_of(tensors, record))
    return Loaded(model.eval(), dict(record.get("extra", {})), record)


@checked
def load_weights(path: Path_, model: Module, strict: bool = True) -> LoadResult:
    """Copy the weights of a file into a model; if it raises, nothing has changed.

    Args:
        path: a model file, a checkpoint, or a safetensors file of another program.
        model: gets the weights.
        strict: refuse names that only one side has.

    Returns:
        The names passed over.

    Raises:
        CheckpointError: the file is damaged or does not fit the model.
    """
    tensors, record = tensorfile.read(path, sealed=False)
    return put_weights(path, model, weights_of(tensors, record), strict)


def weights_of(tensors: Tensors, record: Mapping[str, Any]) -> Tensors:
    """The weights to use, among the arrays of a file: those that the run ended with.

    A run ends with others than its last ones where a callback puts the best ones back.
    """
    if ENDED in record:
        found: Tensors = tensorfile.unpack(record[ENDED], tensors)
        return found
    return last_weights(tensors, record)


def last_weights(tensors: Tensors, record: Mapping[str, Any]) -> Tensors:
    """The weights after the last step: from where a run goes on."""
    if record.get("kind") != CHECKPOINT:
        return tensors
    return {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}


def put_weights(path: Path_, model: Module, weights: Tensors, strict: bool = True) -> LoadResult:
    """`model.load_state_dict`, with errors that name the file.

    A name that is missing is no fault if the model has the same weight under another name.

    Raises:
        CheckpointError: the weights do not fit, or are different where the model has one weight.
    """
    for name, array in weights.items():
        if array.dtype.kind not in "fiub":
            raise CheckpointError(f"{path}: {name} has dtype {array.dtype}; weights are real.")
    found = dict(weights)
    for names in architecture.tied(model):
        given = [name for name in names if name in weights]
        for name in given[1:]:
            if not np.array_equal(weights[name], weights[given[0]], equal_nan=True):
                raise CheckpointError(
                    f"{path} does not fit the model, where {given[0]} and {name} are one weight: "
                    "the file holds different values for them."
                )
        if given:
            found.update(dict.fromkeys(names, weights[given[0]]))
    try:
        return model.load_state_dict(found, strict)
    except GpubpError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from error


def check_version(path: Path_, record: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
    """Raise CheckpointError unless the file is of one of these kinds, and of a known version."""
    kind = record.get("kind")
    if kind not in kinds:
        raise CheckpointError(f"{path} holds a {kind}; expected a {' or a '.join(kinds)}.")
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is of version {record.get('version')}; this gpubp reads version {VERSION}."
        )
