"""`python -m gpubp.distributed run -n 4 script.py`: start a script on several ranks."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence

from gpubp.distributed.launch import Launch, launched
from gpubp.distributed.starting import NAMES

_EPILOG = """\
examples:
  python -m gpubp.distributed run -n 4 script.py --epochs 10
  python -m gpubp.distributed run -n 4 -m gpubp train digits
  python -m gpubp.distributed run -n 4 --restarts 3 script.py
  python -m gpubp.distributed run -n 8 --machines 2 --machine 0 --address host0:29517 script.py
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.ranks < 1 or options.machines < 1 or not 0 <= options.machine < options.machines:
        _parser().error("-n and --machines must be at least 1, --machine below --machines")
    if options.machines > 1 and not options.address:
        _parser().error("several machines meet at the first one: --address HOST:PORT")
    script = ["-m", options.module] if options.module else []
    command = [sys.executable, *script, *options.script]
    if len(command) == 1:
        _parser().error("name a script, or a module with -m")
    backend = _backend(options.backend)
    starter = _mpiexec(options.ranks) if backend == "mpi" else []
    if starter is None:
        print('no mpiexec was found: pip install "gpubp[mpi]"', file=sys.stderr)
        return 5
    return launched(
        Launch(
            command,
            options.ranks,
            backend,
            options.timeout,
            options.restarts,
            options.machines,
            options.machine,
            options.address,
            options.all_output,
            starter,
        )
    )


def _backend(asked: str) -> str:
    """gloo where torch is installed, else mpi."""
    if asked != "auto":
        return asked
    return "gloo" if importlib.util.find_spec("torch") is not None else "mpi"


def _mpiexec(ranks: int) -> list[str] | None:
    """MPI's starter: it knows its machines, and ends all ranks when one dies. None if there is
    none."""
    beside = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    found = beside if os.path.exists(beside) else shutil.which("mpiexec")
    return None if found is None else [found, "-n", str(ranks)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpubp.distributed", description="Train on several ranks."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="start a script on several ranks",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("-n", dest="ranks", type=int, required=True, help="ranks on this machine")
    run.add_argument("--backend", default="auto", choices=[n for n in NAMES if n != "local"])
    run.add_argument("--timeout", type=float, help="seconds that ranks wait for each other (300)")
    run.add_argument("--restarts", type=int, default=0, help="start anew after a failure (0)")
    run.add_argument("--machines", type=int, default=1, help="machines that do this (1)")
    run.add_argument("--machine", type=int, default=0, help="which of them this is (0)")
    run.add_argument("--address", default="", help="HOST:PORT of machine 0")
    run.add_argument("--all-output", action="store_true", help="show what every rank prints")
    run.add_argument("-m", dest="module", help="run a module")
    run.add_argument("script", nargs=argparse.REMAINDER, help="and its arguments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
