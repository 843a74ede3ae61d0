"""The command line: `gpubp train digits`, `gpubp bench`, `gpubp info`.

Numbers that are the result go to stdout, progress and errors to stderr. Exit codes: 0 success,
2 for wrong arguments and for every error that gpubp raises on purpose.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from gpubp.bench import add_arguments as add_bench
from gpubp.errors import GpubpError

DATASETS = ("digits",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; default is the process's own.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except GpubpError as error:
        print(f"gpubp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gpubp: interrupted", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpubp", description="Train small networks, fast.")
    parser.add_argument("--version", action="version", version=f"gpubp {_version('gpubp')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_train(commands.add_parser("train", help="train a model on a bundled data set"))
    add_bench(commands.add_parser("bench", help="run the benchmarks of a checkout"))
    info = commands.add_parser("info", help="show versions and what each backend found")
    info.set_defaults(run=_info)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--epochs", default=20, type=int, help="passes over the data (20)")
    parser.add_argument("--batch-size", default=32, type=int, help="samples a step (32)")
    parser.add_argument("--hidden", default=128, type=int, help="units of the hidden layer (128)")
    parser.add_argument("--lr", default=1e-3, type=float, help="learning rate (0.001)")
    parser.add_argument("--optimizer", default="adam", choices=("adam", "sgd"))
    parser.add_argument("--backend", default=None, help="a name from `gpubp info`; default auto")
    parser.add_argument("--device", default="auto", help="auto or cpu")
    parser.add_argument("--seed", default=0, type=int, help="of weights and sample order (0)")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from gpubp import nn, ops, optim
    from gpubp.data import load_digits
    from gpubp.train import Trainer

    ops.manual_seed(options.seed)
    X, X_test, y, y_test = load_digits(split=True)
    model = nn.Sequential(nn.Linear(64, options.hidden), nn.ReLU(), nn.Linear(options.hidden, 10))
    optimizers = {"adam": optim.Adam, "sgd": optim.SGD}
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizers[options.optimizer](model.parameters(), lr=options.lr),
        device=options.device,
        backend=options.backend,
        seed=options.seed,
    )
    trainer.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(X_test, y_test),
        verbose=not options.quiet,
    )
    accuracy = trainer.evaluate(X_test, y_test)["accuracy"]
    print(f"held-out accuracy {accuracy:.3f} ({len(X_test)} images)")
    return 0


def _info(options: argparse.Namespace) -> int:
    from gpubp.backends import backends, default_backend_name

    print(f"gpubp {_version('gpubp')}, Python {platform.python_version()}, {platform.platform()}")
    chosen = default_backend_name()
    for probe in backends():
        state = "available" if probe.available else "not available"
        mark = " (default)" if probe.name == chosen else ""
        print(f"\n{probe.name}{mark}: {state}; {probe.reason}")
        for key, value in probe.details.items():
            print(f"    {key}: {value}")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(uninstalled checkout)"
