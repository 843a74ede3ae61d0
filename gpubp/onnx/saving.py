"""`gp.onnx.save`: a trained model as a file that any runtime of ONNX reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpubp.atomic import replacing
from gpubp.errors import ArgumentError, DataError
from gpubp.onnx.exporting import exported
from gpubp.onnx.signature import Signature

_LARGEST = 2**31 - 1  # of protobuf


def _require_folder(file: str | os.PathLike[str]) -> None:
    if not isinstance(file, (str, os.PathLike)):
        raise ArgumentError(
            f"file is a {type(file).__name__}, expected a path: gp.onnx.save(model, file, *inputs)."
        )
    if Path(file).is_dir():
        raise DataError(f"{os.fspath(file)!r} is a folder, expected the path of a file.")
    folder = Path(file).parent
    if not folder.is_dir():
        raise DataError(f"{file}: the folder {folder} does not exist.")


def export(
    model: Callable[..., Any],
    *inputs: Any,
    batch_axis: int | Sequence[int | None] | None = 0,
    dynamic: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Any:
    """A module as an `onnx.ModelProto`; see `save`."""
    if not callable(model):
        raise ArgumentError(f"got a {type(model).__name__}, expected a module or a function.")
    signature = Signature(inputs, batch_axis, input_names, output_names)
    return exported(model, signature, dynamic)


def save(
    model: Callable[..., Any],
    file: str | os.PathLike[str],
    *inputs: Any,
    batch_axis: int | Sequence[int | None] | None = 0,
    dynamic: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write a model in ONNX's format (opset 20), as it computes in eval mode.

    Args:
        model: a module, or a function of modules and arrays, whose modules keep their modes;
            traced, as `gp.compile` does.
        file: to write; whole, or as it was.
        *inputs: for each argument an example (its numbers do not matter), or a shape of float32,
            such as `(None, 784)`: None stands for the size of the batch.
        batch_axis: where the batch is in the examples; one number for all arrays that have the
            first one's size there, or one for each array (None: it has none).
        dynamic: the file takes batches of any size: True (or an error), False, or None: where what
            was traced allows it.
        input_names, output_names: default `input`, `output`, numbered where there are several, and
            the keys of dicts.

    Raises:
        DataError: the folder is not there, or more than 2 GB, which a file of ONNX cannot hold.
        TraceError: an op that ONNX has not, a gradient, random numbers.
        ArgumentError, ShapeError: inputs that are none, or other numbers of names.
        FixedSizeError: `dynamic=True` for a model that holds for one size of the batch.
    """
    _require_folder(file)
    made = export(
        model,
        *inputs,
        batch_axis=batch_axis,
        dynamic=dynamic,
        input_names=input_names,
        output_names=output_names,
    )
    write(made, file)


def write(model: Any, file: str | os.PathLike[str]) -> None:
    """Write an `onnx.ModelProto`: the whole file, or none."""
    _require_folder(file)
    if model.ByteSize() >= _LARGEST:
        raise DataError(f"{file}: the model has more than 2 GB, which one file cannot hold.")
    content = model.SerializeToString(deterministic=True)
    with replacing(file) as out:
        out.write(content)
