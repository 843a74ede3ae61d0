"""Going on from a checkpoint: only with the options that the run began with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpubp.cli.dataset import CNN
from gpubp.cli.failures import warn
from gpubp.cli.summary import option
from gpubp.errors import CheckpointError
from gpubp.train import tensorfile

# What a run cannot change on its way. Epochs, budgets, files and what is shown it can.
_FIXED = (
    "hidden", "activation", "dropout", "optimizer", "lr", "weight_decay", "loss", "class_weight",
    "schedule", "batch_size", "max_grad_norm", "early_stopping", "seed",
)  # fmt: skip


def fixed(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a resumed run must have again, as JSON values."""
    found = {name: getattr(options, name) for name in _FIXED}
    found["log"] = bool(options.log)
    if options.model == CNN:
        found |= {"model": options.model, "channels": options.channels}
    if options.schedule is not None:
        found["epochs"] = options.epochs  # schedules are laid out over them
    return found


def checkpoint(options: argparse.Namespace, extra: Mapping[str, Any]) -> str | None:
    """The checkpoint to go on from, if there is one yet.

    Args:
        options: of the command.
        extra: what checkpoints of this call hold.

    Raises:
        CheckpointError: it is of a run on other data, or with other options; says which.
    """
    path = options.resume
    if path is None:
        return None
    if not Path(path).exists():
        if not options.quiet:
            print(f"{path} does not exist yet: starting anew", file=sys.stderr)
        return None
    record = tensorfile.read(path)[1]
    found = record.get("extra", {})
    if record.get("kind") == "checkpoint" or "trainer" in record:
        _check(path, found, extra)
        _note_finished(options, record["trainer"])
    return str(path)


def _check(path: str, found: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    if found.get("encoding") != extra["encoding"]:
        raise CheckpointError(
            f"{path} is of a run on other data ({found.get('data')}): columns, labels, "
            "standardisation or the part held out differ."
        )
    was, now = found.get("options", {}), extra["options"]
    differ = [name for name in {**was, **now} if was and was.get(name) != now.get(name)]
    if differ:
        began = ", ".join(_typed(name, was.get(name)) for name in differ)
        given = ", ".join(_typed(name, now.get(name)) for name in differ)
        raise CheckpointError(
            f"{path} was begun with {began}; this call has {given}. A run goes on with the options "
            "it began with: give the same, or name another --resume file to start anew."
        )


def _typed(name: str, value: Any) -> str:
    key = name.replace("_", "-")
    if value is None or value is False:
        return f"no --{key}"
    if value is True:
        return f"--{key}"
    text = ",".join(map(str, value)) or "none" if isinstance(value, list) else value
    return option(key, text)


def _note_finished(options: argparse.Namespace, state: Mapping[str, Any]) -> None:
    """Say that there is nothing left to do."""
    done = state["epoch"] - state["fit_start"]
    reason = state.get("stop_reason")
    if done >= options.epochs:
        warn(
            f"{options.resume} is of a finished run ({done} epochs): nothing is trained. A higher "
            "--epochs goes on; another --resume file starts anew."
        )
    elif reason:
        warn(
            f"{options.resume} is of a finished run ({done} epochs; {reason}): nothing is trained. "
            "Another --resume file starts anew."
        )
