"""`gpubp bench`: runs the benchmarks of a checkout.

The benchmarks are no part of the installed package: they are looked for in the folder `benchmarks`
of the checkout that the working directory is in, then of the one that gpubp was imported from.
What each measures, and how, is in its README.md.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

from gpubp.errors import DataError, GpubpError

BENCHMARKS = {
    "train_step": "training steps beside JAX, PyTorch and scikit-learn",
    "kernels": "matrix products, activations, updates and barriers",
    "startup": "from the start of the process to trained digits",
    "memory": "peak memory of training a convolutional network",
    "distributed": "training steps on several ranks, beside torch's DDP and bare all-reduces",
    "population": "many small models side by side, beside JAX and scikit-learn",
    "gpu": "training steps on a GPU, beside PyTorch and JAX",
    "gpu_hour": "all that a GPU is needed for: tests, sanitizer, constants, benchmarks",
}


class BenchmarkError(GpubpError, RuntimeError):
    """A benchmark cannot run, or its contenders do not compute the same."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpubp bench`."""
    help_text = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser.add_argument(
        "benchmark", nargs="?", default="train_step", choices=BENCHMARKS, help=help_text
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all benchmarks share; each refuses those that mean nothing to it."""
    parser.add_argument("--rows", help="what to measure, with commas; default everything")
    parser.add_argument("--threads", help="numbers of threads, with commas (1,2)")
    parser.add_argument("--optimizers", help="sgd, adam or both, with a comma (sgd,adam)")
    parser.add_argument("--peers", help="all, none, or names with commas: jax,torch,sklearn (all)")
    parser.add_argument("--repeats", default=7, type=int, help="rounds; medians are shown (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw them, as .png or .svg")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="of gpu_hour: for its results")


def run(options: argparse.Namespace) -> int:
    """Run a benchmark in this process; it measures in processes of its own.

    Raises:
        BenchmarkError: no benchmarks folder, or what the benchmark itself raises.
    """
    folder = find_folder()
    sys.path.insert(0, str(folder))
    try:
        script = runpy.run_path(str(folder / f"{options.benchmark}.py"))
        code: int = script["measure"](options)
    finally:
        sys.path.remove(str(folder))
    return code


def main(measure: Any, description: str | None) -> int:
    """What a benchmark's script does when it is run by itself.

    Args:
        measure: takes the options and returns the exit code.
        description: for --help.
    """
    parser = argparse.ArgumentParser(description=description)
    add_options(parser)
    try:
        code: int = measure(parser.parse_args())
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code


def find_folder(start: Path | None = None) -> Path:
    """The benchmarks of the checkout.

    Args:
        start: where to look first, and upwards from there; default is the working directory.

    Raises:
        BenchmarkError: there are none; says what to do.
    """
    here = (start or Path.cwd()).resolve()
    for root in (here, *here.parents, Path(__file__).resolve().parents[1]):
        folder = root / "benchmarks"
        if all((folder / f"{name}.py").is_file() for name in BENCHMARKS):
            return folder
    raise BenchmarkError(
        "the benchmarks are not installed with gpubp: clone its repository, and run "
        "`gpubp bench` inside the clone."
    )


def numbers(text: str | None, default: str, what: str) -> list[int]:
    """Positive integers from `1,2`.

    Raises:
        DataError: anything else.
    """
    parts = (default if text is None else text).split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise DataError(f"{what} is {text!r}, expected positive integers with commas, as in 1,2.")
    return [int(part) for part in parts]


def check_options(options: argparse.Namespace, benchmark: str, unused: tuple[str, ...]) -> None:
    """Refuse options that mean nothing to a benchmark, and values that cannot work.

    Raises:
        DataError: says which.
    """
    only = () if benchmark == "gpu_hour" else ("folder",)
    for name in (*unused, *only):
        if getattr(options, name, None) is not None:
            raise DataError(f"--{name} means nothing to the benchmark {benchmark}; leave it out.")
    if options.repeats < 1:
        raise DataError(f"--repeats is {options.repeats}, expected at least 1.")
    if options.json is not None and not options.json.parent.is_dir():
        raise DataError(f"the folder of {options.json} does not exist.")
