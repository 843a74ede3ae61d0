"""`gpubp train`: from a data file to a model file."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.cli.failures import BAD_DATA, DIVERGED, INTERRUPTED, CommandError, of_files
from gpubp.errors import missing_extra

if TYPE_CHECKING:
    from gpubp.cli.dataset import Dataset
    from gpubp.train import Trainer

NAME = "train"
HELP = "train a model on the bundled digits, a CSV file or an NPZ file"
EPILOG = """
A CSV file has a header line. Columns of text become one input a name, numbers are standardised, and
all of that is kept in the model file. An NPZ file holds arrays X and y (or the one --target names).

examples:
  gpubp train digits --hidden 128,64 --dropout 0.2
  gpubp train iris.csv --target species --save iris.safetensors --plot curve.png
  gpubp train houses.csv --target price --drop id --optimizer sgd --lr 0.05 --schedule cosine
  gpubp train data.npz --epochs 200 --early-stopping 10 --log run.csv
  gpubp train big.csv --target y --save m.safetensors --resume run.ckpt
      keeps the training state in run.ckpt; killed and started again, it goes on from there
  gpubp train iris.csv --config settings.toml
      with lines such as: target = "species", hidden = [64, 32], batch-size = 16
"""
MISSING = ("error", "drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("data", help="digits, FILE.csv or FILE.npz")
    data = parser.add_argument_group("data")
    data.add_argument("--target", help="column (CSV) or array (NPZ, default y) to predict")
    data.add_argument("--task", default="auto", help="auto, classification or regression")
    data.add_argument("--validation", default=0.2, type=_share, help="share held out (0.2)")
    data.add_argument("--drop", default=[], type=_names, metavar="A,B", help="columns to leave out")
    data.add_argument(
        "--categorical",
        default=[],
        type=_names,
        metavar="A,B",
        help="columns of names, not numbers",
    )
    data.add_argument("--missing", default="error", choices=MISSING, help="rows with gaps (error)")
    data.add_argument(
        "--no-standardize",
        dest="standardize",
        action="store_false",
        help="leave inputs as they are",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--hidden", default=[128], type=_sizes, metavar="N,N", help="units (128)")
    model.add_argument("--activation", default="relu", help="relu, tanh, gelu, ... (relu)")
    model.add_argument("--dropout", default=0.0, type=float, help="after each hidden layer (0)")
    _add_training(parser)
    _add_run(parser)


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
    group.add_argument("--epochs", default=20, type=int, help="passes over the data (20)")
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
    group.add_argument("--log", metavar="FILE", help="FILE.csv, or a folder for TensorBoard")
    group.add_argument("--metrics", default=[], type=_names, help="such as f1_macro,auc,r2")
    group.add_argument("--config", metavar="FILE", help="options from a TOML file")
    group.add_argument("--quiet", action="store_true", help="print the result only")


def run(options: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from gpubp.cli import build, dataset

    _check_outputs(options)
    with of_files():
        data = dataset.load(options)
    trainer = build.trainer(options, data)
    extra = {"encoding": data.encoding.to_dict(), "data": Path(options.data).name}
    resume = _resumed(options, extra)
    X, y = data.train
    trainer.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=data.held_out,
        verbose=not options.quiet,
        metrics=options.metrics,
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


def _check_outputs(options: argparse.Namespace) -> None:
    """Before any work: can the results be written?"""
    for name in ("save", "resume", "plot", "log"):
        path = getattr(options, name)
        if path is not None and not Path(path).parent.is_dir():
            raise CommandError(BAD_DATA, f"--{name} {path}: the folder does not exist.")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plot", "--plot")


def _resumed(options: argparse.Namespace, extra: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, if there is one yet."""
    from gpubp.errors import CheckpointError
    from gpubp.train import tensorfile

    if options.resume is None:
        return None
    if not Path(options.resume).exists():
        if not options.quiet:
            print(f"{options.resume} does not exist yet: starting anew", file=sys.stderr)
        return None
    found = tensorfile.read(options.resume)[1].get("extra", {})
    if found.get("encoding") != extra["encoding"]:
        raise CheckpointError(
            f"{options.resume} is of a run on other data ({found.get('data')}): columns, labels, "
            "standardisation or the part held out differ."
        )
    return str(options.resume)


def _finish(
    options: argparse.Namespace, data: Dataset, trainer: Trainer, extra: dict[str, Any]
) -> int:
    """Write and print the results."""
    from gpubp.train import save_model

    reason = trainer.stop_reason or ""
    if reason.startswith("the loss was"):
        raise CommandError(DIVERGED, f"training diverged: {reason}. Try a lower --lr.")
    if options.save:
        save_model(options.save, trainer.model, extra)
    with of_files():
        if options.plot and trainer.history.records:
            trainer.history.plot(options.plot)
    if reason == "interrupted":
        raise CommandError(INTERRUPTED, f"interrupted after {trainer.steps} steps")
    X, y = data.train if data.held_out is None else data.held_out
    part = "training" if data.held_out is None else "held-out"
    print(f"{part} {_scores(data, trainer.predict(X), y)} ({len(X)} {data.unit})")
    return 0


def _scores(data: Dataset, outputs: Any, y: Any) -> str:
    """What the model is worth, in the units of the data."""
    from gpubp.train import metrics

    if data.encoding.task == "classification":
        return f"accuracy {metrics.accuracy(y, outputs):.3f}"
    scale = data.encoding.target_scale
    assert scale is not None
    true, found = scale.inverse(y), data.encoding.predictions(outputs)
    rmse = metrics.mse(true, found) ** 0.5
    return f"r2 {metrics.r2(true, found):.3f}, rmse {rmse:.4g}"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _sizes(text: str) -> list[int]:
    """`128,64`; `0` or nothing: no hidden layer is an error that nn reports, and none."""
    return [int(size) for size in text.split(",") if size.strip()]


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 <= share < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not a share in [0, 1)")
    return share
