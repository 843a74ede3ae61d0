"""The command line: `gpubp train`, `tune`, `predict`, `evaluate`, `show`, `export`, and others.

Results go to stdout, progress and errors to stderr. Exit codes are in `failures`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from gpubp.cli import (
    config,
    dashboard,
    docs,
    evaluate,
    export,
    failures,
    joined,
    predict,
    show,
    train,
    tune,
)
from gpubp.cli.bench import add_arguments as add_bench

_EPILOG = """\
examples:
  gpubp train digits                                  hand-written digits that come along
  gpubp train iris.csv --target species --save m.safetensors --plot curve.png
  gpubp tune iris.csv --target species --members 32   tries learning rates side by side
  gpubp predict m.safetensors new.csv -o predictions.csv
  gpubp evaluate m.safetensors test.csv
  gpubp show m.safetensors
  gpubp export m.safetensors -o m.onnx                for ONNX Runtime and others
  gpubp dashboard runs                                curves of running and finished runs
  gpubp docs                                          this documentation, without a network
  gpubp COMMAND --help                                more examples, and all options
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; default is the process's own.

    Returns:
        The exit code: see `failures`.
    """
    with failures.reported() as outcome:
        options = config.parse(_parser(), arguments)
        outcome.code = options.run(options)
    joined.leave(outcome.code)
    if outcome.code == failures.CLOSED_PIPE:
        # What waits for a reader who has gone must not be flushed at exit: that would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.code


def _parser() -> argparse.ArgumentParser:
    parser = config.Parser(
        prog="gpubp",
        description="Train small networks, fast.",
        epilog=_EPILOG + failures.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpubp {_version('gpubp')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in (train, tune, predict, evaluate, show, export, dashboard, docs):
        made = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EPILOG + failures.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(made)
        made.set_defaults(run=module.run, parser=made)
    bench = commands.add_parser("bench", help="run the benchmarks of a checkout")
    add_bench(bench)
    bench.set_defaults(parser=bench)
    info = commands.add_parser("info", help="show versions and what each backend found")
    info.set_defaults(run=_info, parser=info)
    return parser


def _info(options: argparse.Namespace) -> int:
    from gpubp.backends import backends, default_backend_name

    print(f"gpubp {_version('gpubp')}, Python {platform.python_version()}, {platform.platform()}")
    chosen = default_backend_name()
    for probe in backends():
        state = "available" if probe.available else "not available"
        mark = " (default)" if probe.name == chosen else ""
        print(f"\n{probe.name}{mark}: {state}; {probe.reason}")
        for key, value in {**probe.details, **probe.more()}.items():
            print(f"    {key}: {value}")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(uninstalled checkout)"
