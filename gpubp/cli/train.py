"""`gpubp train`: from a data file to a model file."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.cli import parsing
from gpubp.cli.failures import (
    BAD_DATA,
    DIVERGED,
    INTERRUPTED,
    WRONG_ARGUMENTS,
    CommandError,
    of_files,
    warn,
)
from gpubp.errors import missing_extra

if TYPE_CHECKING:
    from gpubp.cli.dataset import Dataset
    from gpubp.train import Trainer

NAME = "train"
HELP = "train a model on the bundled digits, a CSV file, an NPZ file or a folder of images"
EPILOG = """
A CSV file has a header line. Columns of text become one input a name (of more than 200 the
frequent ones, and the rest), dates become parts, missing values are filled in and marked, numbers
are standardised, and all of that is kept in the model file. Without --epochs training goes on until
the part held out is predicted no better, and a third part is the test. An NPZ file holds arrays X
and y (or the one --target names). Images are arrays (samples, channels, height, width) with --model
cnn, or a folder with a subfolder of PNG or JPEG files for each class; their channels are
standardised.

examples:
  gpubp train digits --hidden 128,64 --dropout 0.2
  gpubp train iris.csv --target species --save iris.safetensors --plot curve.png
  gpubp train houses.csv --target price --drop id --optimizer sgd --lr 0.05 --schedule cosine
  gpubp train houses.csv --target price --cross-validate 5
  gpubp train data.npz --epochs 200 --early-stopping 10 --log run.csv
  gpubp train images.npz --model cnn --channels 16,32
  gpubp train photos/ --image-size 64,64 --save photos.safetensors
  gpubp train big.csv --target y --save m.safetensors --resume run.ckpt
      keeps the training state in run.ckpt; killed and started again, it goes on from there
  gpubp train iris.csv --config settings.toml
      with lines such as: target = "species", hidden = [64, 32], batch-size = 16
"""
MISSING = ("mean", "drop", "error")
EPOCHS, MOST_EPOCHS, PATIENCE, TEST = 20, 200, 20, 0.1
LEAST_STEPS = 400  # that a run which ends by itself takes at least: see docs/measured.md
DECIMALS = ("auto", "point", "comma")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("data", help="digits, FILE.csv, - (CSV), FILE.npz or a folder of images")
    _add_data(parser)
    _add_model(parser)
    _add_training(parser)
    _add_run(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--target", help="column (CSV) or array (NPZ, default y) to predict")
    data.add_argument("--task", default="auto", help="auto, classification or regression")
    data.add_argument("--validation", default=0.2, type=parsing.share, help="share held out (0.2)")
    data.add_argument(
        "--test", type=parsing.share, help="share for the last figures, where the other ends it"
    )
    data.add_argument(
        "--cross-validate", type=int, metavar="K", help="judge every row, by K models; none is kept"
    )
    names: Any = {"default": [], "type": parsing.names, "metavar": "A,B"}
    data.add_argument("--drop", **names, help="columns to leave out")
    data.add_argument("--categorical", **names, help="columns of names, not numbers")
    data.add_argument("--id", **names, help="columns that say who: beside predictions")
    values = "values: fill in, drop rows, end (mean)"
    data.add_argument("--missing", default="mean", choices=MISSING, help=values)
    data.add_argument("--encoding", metavar="NAME", help="of the text, such as latin-1 (utf-8)")
    data.add_argument(
        "--decimal", default="auto", choices=DECIMALS, help="sign of decimals; default: as it looks"
    )
    data.add_argument(
        "--on-disk",
        metavar="FOLDER",
        help="for a table larger than memory: keep it there",
    )
    plain: Any = {"dest": "standardize", "action": "store_false"}
    data.add_argument("--no-standardize", **plain, help="leave inputs as they are")
    data.add_argument(
        "--image-size", type=parsing.image_size, metavar="H,W", help="resize the images of a folder"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=("mlp", "cnn"),
        help="mlp, or cnn for images (folder: cnn, else mlp)",
    )
    model.add_argument(
        "--channels", default=[16, 32], type=parsing.sizes, metavar="N,N", help="of a cnn (16,32)"
    )
    model.add_argument(
        "--hidden", type=parsing.sizes, metavar="N,N", help="units (128; none in a cnn), or none"
    )
    model.add_argument("--activation", default="relu", help="relu, tanh, gelu, ... (relu)")
    model.add_argument("--dropout", default=0.0, type=float, help="after each hidden layer (0)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--optimizer", default="adam", help="adam, sgd, ... (adam)")
    group.add_argument("--lr", default=1e-3, type=float, help="learning rate (0.001)")
    group.add_argument("--weight-decay", default=0.0, type=float, help="L2 penalty (0)")
    group.add_argument("--loss", default="auto", help="cross-entropy or mse by the task; l1, huber")
    group.add_argument("--class-weight", choices=("balanced",), help="weigh rare classes more")
    group.add_argument(
        "--schedule", help="cosine, step, exponential, onecycle, plateau, or 'StepLR(step_size=5)'"
    )
    group.add_argument(
        "--epochs", type=int, help=f"passes over the data (up to {MOST_EPOCHS}, see above)"
    )
    group.add_argument("--batch-size", default=32, type=int, help="samples a step (32)")
    group.add_argument("--max-grad-norm", type=float, help="clip the gradients' norm")
    group.add_argument(
        "--early-stopping", type=int, metavar="N", help="epochs without a better loss"
    )
    group.add_argument("--max-time", type=float, metavar="SECONDS", help="end after that time")
    group.add_argument("--max-steps", type=int, metavar="N", help="end after so many steps")


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--backend", default=None, help="a name from `gpubp info`; default auto")
    group.add_argument("--device", default="auto", help="auto or cpu")
    group.add_argument("--seed", default=0, type=int, help="of weights, split and order (0)")
    group.add_argument("--save", metavar="FILE", help="write the model (safetensors)")
    group.add_argument(
        "--resume", metavar="FILE", help="keep the training state here, and go on from it"
    )
    group.add_argument("--save-every", default=1, type=int, metavar="N", help="epochs (1)")
    group.add_argument("--plot", metavar="FILE", help="draw the curves (.png, .svg, .pdf)")
    group.add_argument(
        "--log",
        default=[],
        type=parsing.names,
        metavar="A,B",
        help="FILE.csv, run:FOLDER (see gpubp dashboard), mlflow:NAME, wandb:NAME, trackio:NAME, or"
        " a folder for TensorBoard",
    )
    group.add_argument("--metrics", default=[], type=parsing.names, help="such as f1_macro,auc,r2")
    group.add_argument("--config", metavar="FILE", help="options from a TOML file")
    group.add_argument("--quiet", action="store_true", help="print the result and warnings only")


def run(options: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from gpubp.cli import build, crossing, dataset, joined, resuming, scores

    communicator = joined.communicator(options)
    check(options)
    if options.cross_validate is not None:
        return crossing.run(options, communicator)
    with of_files():
        data = dataset.load(options)
    metrics = scores.metrics(options, data.encoding)
    trainer = build.trainer(options, data, communicator)
    for line in () if options.quiet else data.said:
        print(line, file=sys.stderr)
    for line in data.warnings:
        warn(line)
    extra = {
        "encoding": data.encoding.to_dict(),
        "data": Path(options.data).name,
        "options": resuming.fixed(options),
    }
    resume = resuming.checkpoint(options, extra)
    X, y = data.train
    trainer.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=data.held_out,
        verbose=not options.quiet,
        metrics=metrics,
        class_weight=options.class_weight,
        callbacks=build.callbacks(options, data),
        max_steps=options.max_steps,
        max_time=options.max_time,
        checkpoint=options.resume,
        save_every=options.save_every,
        resume=resume,
        extra=extra,
    )
    return _finish(options, data, trainer, extra)


def check(options: argparse.Namespace) -> None:
    """Complete options, and raise for those that cannot work, before any work."""
    from gpubp.cli import crossing

    _complete(options)
    if options.cross_validate is not None:
        crossing.check(options)
    _check_numbers(options)
    _check_outputs(options)


def _complete(options: argparse.Namespace) -> None:
    """Options whose defaults depend on others."""
    from gpubp.cli.dataset import CNN

    if options.model is None:
        options.model = CNN if Path(options.data).is_dir() else "mlp"
    if options.hidden is None:
        options.hidden = [] if options.model == CNN else [128]
    options.least_steps = 0
    if options.epochs is None:
        patient = options.validation > 0 and not options.early_stopping and not options.schedule
        options.epochs = MOST_EPOCHS if patient or options.early_stopping else EPOCHS
        if patient:
            options.early_stopping, options.least_steps = PATIENCE, LEAST_STEPS
            folds = options.cross_validate is not None  # each of which is a test
            options.test = TEST if options.test is None and not folds else options.test
    if options.test and not options.validation:
        raise CommandError(WRONG_ARGUMENTS, "--test is a third part: it needs --validation.")
    if options.image_size is not None and not Path(options.data).is_dir():
        raise CommandError(WRONG_ARGUMENTS, "--image-size is for folders of images.")


def _check_numbers(options: argparse.Namespace) -> None:
    """Before any work: are the numbers of the run in range?"""
    from gpubp.ops.random import checked_seed
    from gpubp.train.plan import Plan

    checked_seed(options.seed)
    Plan(
        epochs=options.epochs,
        batch_size=options.batch_size,
        shuffle=True,
        verbose=not options.quiet,
        max_steps=options.max_steps,
        max_time=options.max_time,
        checkpoint=options.resume,
        save_every=options.save_every,
        save_every_steps=None,
        resume=options.resume,
    ).check()


def _check_outputs(options: argparse.Namespace) -> None:
    """Before any work: can the results be written?"""
    from gpubp.cli import build

    paths = [(name, getattr(options, name)) for name in ("save", "resume", "plot")]
    paths += [("log", path) for path in build.written(options.log)]
    for name, path in paths:
        if path is not None and not Path(path).parent.is_dir():
            raise CommandError(BAD_DATA, f"--{name} {path}: the folder does not exist.")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plot", "--plot")
    build.check_packages(options.log)


def _finish(
    options: argparse.Namespace, data: Dataset, trainer: Trainer, extra: dict[str, Any]
) -> int:
    """Write and print the results."""
    from gpubp.cli import scores
    from gpubp.train import save_model

    reason = trainer.stop_reason or ""
    if reason.startswith("the loss was"):
        raise CommandError(DIVERGED, f"training diverged: {reason}. Try a lower --lr.")
    if not trainer.ranks.leads:
        return INTERRUPTED if reason == "interrupted" else 0
    if options.save:
        save_model(options.save, trainer.model, extra)
    with of_files():
        if options.plot and trainer.history.records:
            trainer.history.plot(options.plot)
    if reason == "interrupted":
        raise CommandError(INTERRUPTED, f"interrupted after {trainer.steps} steps")
    line, warning = scores.result(options, data, trainer)
    if warning:
        warn(warning)
    print(line)
    return 0
