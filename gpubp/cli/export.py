"""`gpubp export`: a model file as one of ONNX, with all that `gpubp train` did to the data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpubp.cli.failures import BAD_DATA, CommandError, of_files

NAME = "export"
HELP = "write a saved model as a file of ONNX"
EPILOG = """
The file takes the columns of the table as they are, one input a column, of shape (rows,): numbers
as float64 (NaN where one is missing), names as texts ("" where one is missing), dates as days since
1970 in float64. It gives the label and the probability of each class, or the number in the units of
the training data. Of models of arrays and images the input is X. Needs onnx: the extra `onnx`.

examples:
  gpubp export m.safetensors                          writes m.onnx
  gpubp export m.safetensors -o model.onnx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("model", help="from `gpubp train --save` or `--resume`")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: the model's, as .onnx")


def run(options: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from gpubp.cli.show import open_model
    from gpubp.onnx.saving import write
    from gpubp.onnx.tables import with_preprocessing

    output = Path(options.output or Path(options.model).with_suffix(".onnx"))
    if not output.parent.is_dir():
        raise CommandError(BAD_DATA, f"-o {output}: the folder does not exist.")
    made = with_preprocessing(*open_model(options.model))
    with of_files():
        write(made, output)
    print(f"{output}: opset {made.opset_import[0].version}")
    for kind, values in (("input", made.graph.input), ("output", made.graph.output)):
        for value in values:
            print(f"  {kind} {value.name}: {_described(value)}")
    return 0


def _described(value: Any) -> str:
    """`double[batch]`."""
    from onnx import TensorProto

    found = value.type.tensor_type
    sizes = [d.dim_param or str(d.dim_value) for d in found.shape.dim]
    return f"{TensorProto.DataType.Name(found.elem_type).lower()}[{', '.join(sizes)}]"
