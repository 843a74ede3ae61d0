"""From options of `gpubp train` to a model, a loss, an optimiser, a schedule, and callbacks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp import nn, ops, optim
from gpubp.cli.dataset import CNN, Dataset
from gpubp.errors import DataError, GpubpError, unknown_name
from gpubp.train import Callback, EarlyStopping, LRMonitor, TerminateOnNaN, Trainer

if TYPE_CHECKING:
    from gpubp.distributed import Communicator
    from gpubp.train import Tracker

_ACTIVATIONS = (
    "ReLU", "Sigmoid", "Tanh", "GELU", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "SiLU", "Mish",
    "Softplus", "Softsign", "Tanhshrink", "Hardtanh", "Hardswish", "Hardsigmoid", "ReLU6",
    "LogSigmoid",
)  # fmt: skip
_LOSSES = {"l1": "L1Loss", "mse": "MSELoss", "huber": "HuberLoss", "smooth-l1": "SmoothL1Loss"}


def trainer(
    options: argparse.Namespace,
    data: Dataset,
    communicator: Communicator | None = None,
    population: dict[str, Any] | None = None,
) -> Trainer:
    """Everything that `fit` needs beside the data; `population`: as of `Trainer`.

    Raises:
        GpubpError: an unknown name, or a number out of range.
    """
    ops.manual_seed(options.seed)
    model = _model(options, data)
    decay = {"weight_decay": options.weight_decay} if options.weight_decay else {}
    made = _optimizer(options.optimizer)(model.parameters(), lr=options.lr, **decay)
    scheduler, every = _schedule(options, data, made)
    asked = {"max_grad_norm": options.max_grad_norm, "communicator": communicator}
    made_so = {name: value for name, value in asked.items() if value is not None}
    return Trainer(
        model,
        _loss(options, data),
        made,
        device=options.device,
        backend=options.backend,
        seed=options.seed,
        scheduler=scheduler,
        scheduler_every=every,
        population=population,
        **made_so,
    )


def _model(options: argparse.Namespace, data: Dataset) -> nn.Sequential:
    known = {name.lower(): getattr(nn, name) for name in _ACTIVATIONS}
    key = options.activation.lower()
    if key not in known:
        raise unknown_name("activation", options.activation, known)
    layers, width = _before(options, data, known[key])
    for size in options.hidden:
        layers += [nn.Linear(width, size), known[key]()]
        if options.dropout:
            layers.append(nn.Dropout(options.dropout))
        width = size
    return nn.Sequential(*layers, nn.Linear(width, data.encoding.outputs))


def _before(
    options: argparse.Namespace, data: Dataset, activation: Any
) -> tuple[list[nn.Module], int]:
    """What comes before the layers of units, and how many numbers they get."""
    image, width = data.encoding.image, data.encoding.width
    if options.model != CNN:
        return ([nn.Flatten()] if image else []), width
    layers: list[nn.Module] = []
    channels, *sizes = image
    for made in options.channels:
        layers += [nn.Conv2d(channels, made, 3, padding=1), activation(), nn.MaxPool2d(2)]
        channels, sizes = made, [size // 2 for size in sizes]
    if min(sizes) < 1:
        raise DataError(
            f"images of {image[1]} x {image[2]} pixels are too small for {len(options.channels)} "
            "layers that halve them: choose fewer --channels."
        )
    return [*layers, nn.Flatten()], channels * math.prod(sizes)


def _loss(options: argparse.Namespace, data: Dataset) -> Any:
    classes = data.encoding.task == "classification"
    if options.loss == "auto":
        return nn.CrossEntropyLoss() if classes else nn.MSELoss()
    known = {"cross-entropy": "CrossEntropyLoss"} if classes else _LOSSES
    if options.loss not in known:
        raise unknown_name(f"loss for {data.encoding.task}", options.loss, [*known, "auto"])
    return getattr(nn, known[options.loss])()


def _optimizer(name: str) -> Callable[..., optim.Optimizer]:
    known = {}
    for public in optim.__all__:
        found = getattr(optim, public)
        if isinstance(found, type) and issubclass(found, optim.Optimizer):
            known[public.lower()] = found
    known.pop("optimizer", None)
    if name.lower() not in known:
        raise unknown_name("optimizer", name, known)
    return known[name.lower()]


def _schedule(
    options: argparse.Namespace, data: Dataset, optimizer: optim.Optimizer
) -> tuple[Any, str]:
    """(scheduler or None, how often it moves)."""
    if options.schedule is None:
        return None, "epoch"
    schedules = optim.lr_scheduler
    epochs = options.epochs
    steps = epochs * math.ceil(len(data.train[0]) / options.batch_size)
    short: dict[str, tuple[str, dict[str, Any]]] = {
        "cosine": ("CosineAnnealingLR", {"T_max": epochs}),
        "step": ("StepLR", {"step_size": max(1, epochs // 3)}),
        "exponential": ("ExponentialLR", {"gamma": 0.95}),
        "polynomial": ("PolynomialLR", {"total_iters": epochs}),
        "onecycle": ("OneCycleLR", {"max_lr": options.lr, "total_steps": steps}),
        "plateau": ("ReduceLROnPlateau", {}),
    }
    name, arguments = short.get(options.schedule) or _parsed(options.schedule)
    if not hasattr(schedules, name):
        known = [n for n in dir(schedules) if n.endswith(("LR", "Plateau", "Restarts"))]
        raise unknown_name("schedule", options.schedule, [*short, *known])
    try:
        made = getattr(schedules, name)(optimizer, **arguments)
    except TypeError as error:
        if isinstance(error, GpubpError):
            raise
        raise DataError(f"--schedule {options.schedule}: {error}.") from error
    return made, "step" if name in ("OneCycleLR", "CyclicLR") else "epoch"


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """`StepLR(step_size=5, gamma=0.3)`: the name, and arguments that are plain values."""
    import ast

    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("expected NAME(key=value, ...)")
        return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise DataError(f"--schedule {text!r} is no schedule: {error}.") from error


def callbacks(options: argparse.Namespace, data: Dataset) -> list[Callback]:
    """What the options ask for beside training."""
    found: list[Callback] = [TerminateOnNaN()]
    if options.schedule:
        found.append(LRMonitor())
    if options.early_stopping is not None:
        watched = "loss" if data.held_out is None else "val_loss"
        first = -(-options.least_steps // -(-len(data.train[0]) // options.batch_size))
        found.append(
            EarlyStopping(
                watched,
                options.early_stopping,
                restore_best_weights=True,
                start_from_epoch=min(first, options.epochs),
            )
        )
    return [*found, *(_log(where) for where in options.log)]


LOGS = ("wandb", "mlflow", "trackio", "run")


def written(logs: Sequence[str]) -> list[str]:
    """What stands in a folder that must be there, of the places of `--log`."""
    found = []
    for where in logs:
        service, _, path = where.partition(":")
        if service in LOGS and service != "run":
            continue
        path = path if service == "run" else where
        if service == "run" or not _is_csv(where):  # folders are made, with those above them
            above = next(p for p in Path(path, "-").absolute().parents if p.exists())
            path = str(above / "-")
        found.append(path)
    return found


def check_packages(logs: Sequence[str]) -> None:
    """Raise MissingExtraError if a place of `--log` is of a tracker that is not installed."""
    from gpubp import train

    kinds: dict[str, type[Tracker]] = {
        "wandb": train.WandbLogger,
        "mlflow": train.MLflowLogger,
        "trackio": train.TrackioLogger,
    }
    for where in logs:
        service, colon, _ = where.partition(":")
        if colon and service in kinds:
            kinds[service].check_package()
        elif not (colon and service in LOGS) and not _is_csv(where):
            train.TensorBoard.check_package()


def _is_csv(where: str) -> bool:
    return where.lower().endswith(".csv")


def _log(where: str) -> Callback:
    """A place of `--log`: FILE.csv, SERVICE:NAME, run:FOLDER, or a folder for TensorBoard."""
    from gpubp import train

    service, colon, name = where.partition(":")
    if not colon or service not in LOGS:
        return train.CSVLogger(where) if _is_csv(where) else train.TensorBoard(where)
    if service == "run":
        if not name:
            raise DataError(f"--log {where} names no folder, expected run:FOLDER.")
        return train.RunFolder(name)
    if service == "wandb":
        return train.WandbLogger(**({"project": name} if name else {}))
    logger = train.MLflowLogger if service == "mlflow" else train.TrackioLogger
    return logger(name) if name else logger()
