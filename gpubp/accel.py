"""scikit-learn programs, unchanged, on gpubp's engine.

    python -m gpubp.accel [--report] script.py arguments ...
    python -m gpubp.accel [--report] -m module arguments ...
    %load_ext gpubp.accel                 (in IPython or Jupyter)
    GPUBP_ACCEL=1 python script.py        (needs gpubp to be installed)

While it is on, `sklearn.neural_network` gives out gpubp's MLPClassifier and MLPRegressor; nothing
else changes. Processes started from here are accelerated too, by the environment variable.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpubp.errors import MissingExtraError

try:
    from gpubp.sklearn import enabled, patch_sklearn, report, unpatch_sklearn
except MissingExtraError as missing:
    if __name__ != "__main__":
        raise
    print(f"gpubp: {missing}", file=sys.stderr)
    sys.exit(5)  # as of the command line's tools

VARIABLE = "GPUBP_ACCEL"


def enable() -> None:
    """Switch it on, for child processes too."""
    os.environ[VARIABLE] = "1"
    patch_sklearn()


def disable() -> None:
    """Switch it off, for child processes too."""
    os.environ.pop(VARIABLE, None)
    unpatch_sklearn()


def from_environment() -> None:
    """Switch it on if the environment says so; called at the start of Python processes."""
    if os.environ.get(VARIABLE, "0") not in ("", "0"):
        patch_sklearn()


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext gpubp.accel`."""
    enable()


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext gpubp.accel`."""
    disable()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a script or a module with the replacement on.

    Args:
        arguments: the command line without the program's name; default is the process's own.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.target:
        parser.error("name a script to run, or -m and a module.")
    target = options.target[0]
    enable()
    sys.argv = options.target
    try:
        if options.module:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(target).resolve().parent)  # as `python script.py` has it
            runpy.run_path(target, run_name="__main__")
    finally:
        if options.report:
            print(report(), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpubp.accel",
        description="Run a scikit-learn program with gpubp's MLPClassifier and MLPRegressor.",
    )
    parser.add_argument(
        "--report", action="store_true", help="say at the end, on stderr, what ran where and why"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="the target is a module")
    parser.add_argument(
        "target",
        nargs=argparse.REMAINDER,
        metavar="script.py arguments",
        help="what to run, and its arguments",
    )
    return parser


__all__ = [
    "disable",
    "enable",
    "enabled",
    "from_environment",
    "load_ipython_extension",
    "main",
    "report",
    "unload_ipython_extension",
]

if __name__ == "__main__":
    main()
