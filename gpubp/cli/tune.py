"""`gpubp tune`: many models of a data file side by side, and which of them is best."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import train
from gpubp.cli.failures import DIVERGED, WRONG_ARGUMENTS, CommandError, of_files, warn

if TYPE_CHECKING:
    from gpubp.cli.splitting import Dataset
    from gpubp.train import Trainer

NAME = "tune"
HELP = "try learning rates and penalties on a data file, many models side by side"
EPILOG = """
Data, model and training have the options of `gpubp train`. Each member draws its learning rate (and
its penalty, with --decays) at random, evenly on a logarithmic scale, and its own first weights; one
compiled program trains all. The member with the lowest loss on the rows held out is the best.
Several processes (mpirun -n 4 gpubp tune ...) train some of the members each.

examples:
  gpubp tune iris.csv --target species
  gpubp tune houses.csv --target price --members 64 --lrs 0.0001,0.1 --decays 0.00001,0.01
  gpubp tune digits --epochs 30 --early-stopping 5 --save best.safetensors --plot tuned.png
"""
_REFUSED = ("cross_validate", "class_weight", "schedule", "log", "max_time", "max_steps", "resume")
SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    train.add_arguments(parser)
    group = parser.add_argument_group("members")
    group.add_argument("--members", default=16, type=int, metavar="N", help="how many (16)")
    group.add_argument(
        "--lrs", default=(1e-4, 1e-1), type=_range, metavar="LOW,HIGH",
        help="learning rates (0.0001,0.1)",
    )  # fmt: skip
    group.add_argument("--decays", type=_range, metavar="LOW,HIGH", help="L2 penalties (none)")


def run(options: argparse.Namespace) -> int:
    """Train all members; returns the exit code."""
    from gpubp.cli import build, dataset, joined, scores
    from gpubp.train import EarlyStopping

    communicator = joined.communicator(options)
    _check(options)
    with of_files():
        data = dataset.load(options)
    metrics = scores.metrics(options, data.encoding, drawn=False)
    numbers = _drawn(options)
    trainer = build.trainer(options, data, communicator, {"n": options.members, **numbers})
    for line in () if options.quiet else data.said:
        print(line, file=sys.stderr)
    for line in data.warnings:
        warn(line)
    watched = "loss" if data.held_out is None else "val_loss"
    patience = options.early_stopping
    X, y = data.train
    trainer.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=data.held_out,
        metrics=metrics,
        callbacks=[] if patience is None else [EarlyStopping(watched, patience)],
        verbose=False,
    )
    if trainer.ranks.leads:
        _finish(options, data, trainer, numbers)
    return 0


def _finish(
    options: argparse.Namespace,
    data: Dataset,
    trainer: Trainer,
    numbers: dict[str, NDArray[np.float64]],
) -> None:
    """Save and show what was found."""
    from gpubp.train import save_model

    watched = "loss" if data.held_out is None else "val_loss"
    extra = {"encoding": data.encoding.to_dict(), "data": Path(options.data).name}
    if options.save:
        save_model(options.save, trainer.model, extra)
    with of_files():
        if options.plot:
            plot(trainer, numbers["lr"], watched, options.plot)
    for line in () if options.quiet else table(trainer, numbers, watched):
        print(line)
    best = trainer.histories[trainer.best].last
    said = ", ".join(f"{k} = {v:.4g}" for k, v in best.items() if k != "epoch")
    chosen = ", ".join(f"{name} = {values[trainer.best]:.3g}" for name, values in numbers.items())
    print(f"best of {options.members}: {chosen}; {said}")


def _check(options: argparse.Namespace) -> None:
    options.epochs = train.EPOCHS if options.epochs is None else options.epochs
    train.check(options)
    if options.members < 1:
        raise CommandError(WRONG_ARGUMENTS, f"--members is {options.members}, expected at least 1.")
    for name in _REFUSED:
        if getattr(options, name) not in (None, []):
            raise CommandError(
                WRONG_ARGUMENTS,
                f"--{name.replace('_', '-')} is not for `gpubp tune`: leave it out.",
            )


def _drawn(options: argparse.Namespace) -> dict[str, NDArray[np.float64]]:
    """The numbers of the members, by option."""
    rng = np.random.default_rng(options.seed)
    spans = {"lr": options.lrs, "weight_decay": options.decays}
    return {
        name: np.exp(rng.uniform(float(np.log(span[0])), float(np.log(span[1])), options.members))
        for name, span in spans.items()
        if span is not None
    }


def table(trainer: Trainer, numbers: dict[str, NDArray[np.float64]], watched: str) -> list[str]:
    """The members from the best on, a line each, and how many have diverged."""
    last = [history.last for history in trainer.histories]
    scores = np.array([record.get(watched, np.nan) for record in last])
    order = [int(i) for i in np.argsort(scores) if np.isfinite(scores[i])]
    if not order:
        raise CommandError(DIVERGED, "all members have diverged: try lower --lrs.")
    names = [name for name in last[order[0]] if name != "epoch"]
    lines = ["  ".join(["member", *(f"{n:>12}" for n in [*numbers, "epochs", *names])])]
    for i in order[:SHOWN]:
        row = [*(values[i] for values in numbers.values()), last[i]["epoch"]]
        row += [last[i].get(name, np.nan) for name in names]
        lines.append("  ".join([f"{i:>6}", *(f"{value:>12.4g}" for value in row)]))
    if len(order) > SHOWN:
        lines.append(f"... and {len(order) - SHOWN} more")
    if len(order) < len(last):
        lines.append(f"{len(last) - len(order)} of {len(last)} have diverged")
    return lines


def plot(trainer: Trainer, rates: NDArray[np.float64], watched: str, path: str) -> Any:
    """Draw the last losses over the rates, and all losses over the epochs; returns the figure."""
    from gpubp import pictures

    figure = pictures.new_figure("--plot", 10, 4)
    left, right = figure.subplots(1, 2)
    for i, history in enumerate(trainer.histories):
        best = i == trainer.best
        color, width = ("tab:orange", 2.0) if best else ("tab:blue", 0.7)
        values = [record[watched] for record in history.records if watched in record]
        left.plot(rates[i], values[-1], "o", color=color, zorder=2 + best)
        right.plot(np.arange(1, len(values) + 1), values, color=color, lw=width, zorder=2 + best)
    left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel=watched)
    right.set(yscale="log", xlabel="epoch", ylabel=watched)
    pictures.save(figure, path)
    return figure


def _range(text: str) -> tuple[float, float]:
    """`0.0001,0.1`: from, to, both above 0."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not 0.0 < low <= high < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range: expected two numbers above 0 such as 0.0001,0.1"
        )
    return low, high
