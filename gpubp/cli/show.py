"""`gpubp show`: what a model file holds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gpubp.errors import CheckpointError

if TYPE_CHECKING:
    from gpubp.data.encoding import Encoding
    from gpubp.nn import Module

NAME = "show"
HELP = "show what a model file or checkpoint holds"
EPILOG = """
examples:
  gpubp show m.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("model", help="a model file, a checkpoint, or any safetensors file")


def run(options: argparse.Namespace) -> int:
    """Show; returns the exit code."""
    from gpubp.train import modelfile, tensorfile

    tensors, record = tensorfile.read(options.model, sealed=False)
    weights = modelfile.weights_of(tensors, record)
    print(f"{options.model}: {record.get('kind', 'weights of another program')}")
    if record.get("model") is not None:
        model = modelfile.load_model(options.model).model
        weights = model.state_dict()  # in the model's order
        print(model)
    for name, array in weights.items():
        print(f"  {name:<24} {array.dtype!s:<8} {'x'.join(map(str, array.shape)) or 'scalar'}")
    print(f"{sum(array.size for array in weights.values()):,} numbers")
    if "encoding" in record.get("extra", {}):
        _show_encoding(_encoding(options.model, record["extra"]))
    if "trainer" in record:
        state = record["trainer"]
        print(f"trained for {state['epoch']} epochs, {state['steps']} steps")
        if state["history"]:
            print("  ".join(f"{k} {v:.6g}" for k, v in state["history"][-1].items()))
        if state.get("stop_reason"):
            print(f"stopped: {state['stop_reason']}")
        if modelfile.ENDED in record:
            print("the weights are those that the run ended with, not those of its last step")
    return 0


def open_model(path: str) -> tuple[Module, Encoding]:
    """A model that the command line made, and how its data are encoded.

    Raises:
        CheckpointError: it cannot be used, or was not made by the command line.
    """
    from gpubp.train import load_model

    found = load_model(path)
    if "encoding" not in found.extra:
        raise CheckpointError(
            f"{path} does not say how data become its inputs: it was not written by `gpubp train`."
        )
    return found.model, _encoding(path, found.extra)


def _encoding(path: str, extra: dict[str, Any]) -> Encoding:
    from gpubp.data.encoding import Encoding

    try:
        return Encoding.from_dict(extra["encoding"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its data encoding is damaged ({error}).") from error


def _show_encoding(encoding: Encoding) -> None:
    sizes = " x ".join(map(str, encoding.image))
    inputs = f"images of {sizes}" if sizes else f"{encoding.width} numbers"
    print(f"{encoding.task} of {encoding.target!r} from {inputs}")
    if encoding.classes:
        print(f"  classes: {', '.join(map(str, encoding.classes))}")
    for column in encoding.columns:
        kind = f"one of {', '.join(column.names)}" if column.names else "number"
        kind = f"date: {', '.join(column.parts)}" if column.date else kind
        kind += ", or another" if column.rest else ""
        kind += ", may be missing" if column.mark else ""
        print(f"  {column.name}: {kind}")
