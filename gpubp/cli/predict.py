"""`gpubp predict`: what a model file says about the rows of a data file."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gpubp.cli import parsing
from gpubp.cli.failures import BAD_DATA, CommandError, of_files

if TYPE_CHECKING:
    from gpubp.cli.newdata import NewData
    from gpubp.data.encoding import Encoding
    from gpubp.nn import Module

NAME = "predict"
HELP = "predict with a saved model"
PART_LINES = 1 << 14  # that are made together
EPILOG = """
Writes CSV, one line a row of the file: the label, or the number in the units of the training
data. Before it stand the columns that say who (an index, --id of training) and those of --keep.
If the file has the target too, how good the predictions are is said on stderr. Missing values are
filled in as in training; with --missing empty, their rows get an empty prediction. Names that
training did not have are counted, and are none of the known ones. Of images, a folder or a single
file, the name of each file comes first.

examples:
  gpubp predict m.safetensors new.csv
  gpubp predict m.safetensors new.csv -o predictions.csv --probabilities
  gpubp predict m.safetensors digits
  gpubp predict photos.safetensors new_photos/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_reading(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default is stdout")
    parser.add_argument(
        "--keep", default=[], type=parsing.names, metavar="A,B", help="columns to copy, or all"
    )
    parser.add_argument("--probabilities", action="store_true", help="a column for each class too")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Declare what a model and a file are read with."""
    parser.add_argument("model", help="from `gpubp train --save` or `--resume`")
    parser.add_argument("data", help="FILE.csv, - (CSV), FILE.npz (array X), images, or digits")
    parser.add_argument(
        "--missing",
        default="mean",
        choices=("mean", "empty", "error"),
        help="values: as in training, empty predictions, error (mean)",
    )
    parser.add_argument("--encoding", metavar="NAME", help="of the text, such as latin-1 (utf-8)")
    parser.add_argument(
        "--decimal",
        default="auto",
        choices=("auto", "point", "comma"),
        help="sign of decimals; default: as it looks",
    )
    parser.add_argument(
        "--on-disk", metavar="FOLDER", help="for a table larger than memory: keep it there"
    )
    parser.add_argument("--backend", default=None, help="a name from `gpubp info`; default auto")
    parser.add_argument("--device", default="auto", help="auto or cpu")


def predictor(model: Module, options: argparse.Namespace) -> Callable[[Any], Any]:
    """What computes the outputs of samples, which may be mapped from a file."""
    from gpubp.runtime.arguments import Arguments
    from gpubp.train.evaluation import BATCH, Evaluator

    evaluator = Evaluator(model, lambda *_: None, options.backend, options.device)

    def outputs(X: Any) -> Any:
        return evaluator.predict(Arguments.taken((X,), ("X",)), X.dtype, BATCH)

    return outputs


def run(options: argparse.Namespace) -> int:
    """Predict; returns the exit code."""
    from gpubp.cli import newdata, scores, show, tables

    model, encoding = show.open_model(options.model)
    if options.output is not None and not Path(options.output).parent.is_dir():
        raise CommandError(BAD_DATA, f"-o {options.output}: the folder does not exist.")
    with tables.kept_on_disk(options.on_disk) as folder:
        with of_files():
            data = newdata.load(encoding, options, folder)
        outputs = predictor(model, options)(data.X)
        _write(options, encoding, outputs, data)
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    if len(data.scored):
        text = scores.of_predictions(encoding, outputs[data.scored], data.targets)
        print(text, file=sys.stderr)
    return 0


def _write(options: argparse.Namespace, encoding: Encoding, outputs: Any, data: NewData) -> None:
    from gpubp.atomic import replacing

    lines = _with_gaps(_lines(encoding, outputs, options.probabilities), data)
    before: list[tuple[str, Sequence[str]]] = [*data.beside.items()]
    if data.names:
        before.insert(0, ("file", data.names))
    for name, cells in reversed(before):
        lines = ([cell, *line] for cell, line in zip(chain([name], cells), lines, strict=True))
    if options.output is None:
        _put(sys.stdout, lines)
        return
    with of_files(), replacing(options.output, "w", newline="") as file:
        _put(file, lines)


def _with_gaps(lines: Iterator[list[Any]], data: NewData) -> Iterator[list[Any]]:
    """The lines, and empty ones for rows of the file without a prediction."""
    header = next(lines)
    yield header
    row = 0
    for at, line in zip(data.rows.tolist(), lines, strict=True):
        yield from repeat([""] * len(header), at - row)
        yield line
        row = at + 1
    yield from repeat([""] * len(header), data.total - row)


def _put(file: IO[Any], lines: Iterator[list[Any]]) -> None:
    csv.writer(file, lineterminator="\n").writerows(lines)
    file.flush()


def _lines(encoding: Encoding, outputs: Any, probabilities: bool) -> Iterator[list[Any]]:
    """The header and one line a sample; numbers keep all digits, so that reading gives the same."""
    classes = encoding.task == "classification"
    if not classes and encoding.outputs > 1:
        yield [f"prediction_{i}" for i in range(encoding.outputs)]
    else:
        labels = encoding.classes if probabilities and classes else []
        yield ["prediction", *(f"probability_{label}" for label in labels)]
    for start in range(0, len(outputs), PART_LINES):
        yield from _of_part(encoding, outputs[start : start + PART_LINES], probabilities)


def _of_part(encoding: Encoding, outputs: Any, probabilities: bool) -> list[list[Any]]:
    from gpubp import ops

    found = encoding.predictions(outputs)
    if encoding.task == "regression":
        numbers: list[list[Any]] = found.tolist()
        return numbers
    lines = [[label] for label in found.tolist()]
    if probabilities:
        for line, row in zip(lines, ops.softmax(outputs), strict=True):
            line += list(row)  # of NumPy's float32, which prints as few digits as tell it apart
    return lines
