"""Learning-rate schedules in a fit: what is checked before its first step, and what moves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.errors import DataError, unknown_name, warn
from gpubp.runtime.settings import takes_metric
from gpubp.train.direction import direction


def check_owner(scheduler: Any, optimizer: Any) -> None:
    """Raise DataError if a schedule moves the rates of another optimiser than this one."""
    own = getattr(scheduler, "optimizer", optimizer)
    if own is not optimizer:
        raise DataError(
            f"{type(scheduler).__name__} was made for another optimizer than the trainer's, whose "
            "learning rate it would never move. Make it with the optimizer that Trainer gets."
        )


def check_monitor(scheduler: Any, monitor: str | None) -> None:
    """Raise DataError unless the schedule can be stepped, and can watch `monitor` if it is given.

    Args:
        scheduler: of `gpubp.optim.lr_scheduler`, or anything with `step()` or `step(metric)`.
        monitor: the name of a number, or None.
    """
    if scheduler is not None and not callable(getattr(scheduler, "step", None)):
        raise DataError(f"a scheduler needs a step(); {type(scheduler).__name__} has none.")
    if monitor is None:
        return
    if scheduler is None or not takes_metric(scheduler):
        has = "there is no scheduler" if scheduler is None else type(scheduler).__name__
        raise DataError(
            f"monitor={monitor!r} is for a schedule that watches a number (ReduceLROnPlateau): "
            f"{has}{'' if scheduler is None else ' watches none'}. Leave it out."
        )
    way, mode = direction(monitor), getattr(scheduler, "mode", None)
    if way is not None and mode in ("min", "max") and way != mode:
        raise DataError(
            f"monitor={monitor!r} improves when it {_goes(way)}, but {type(scheduler).__name__} "
            f"has mode={mode!r}. Make the schedule with mode={way!r}, or watch another number."
        )


def watched(scheduler: Any, monitor: str | None, numbers: Sequence[str]) -> str | None:
    """The number that a schedule is fed; None for one that watches none.

    Args:
        scheduler: the schedule, or None.
        monitor: the name that was chosen; None for val_loss (else loss), or for a schedule of mode
            "max" val_accuracy (else accuracy).
        numbers: what the records will hold.

    Raises:
        UnknownNameError: `monitor` is not among them.
        DataError: it improves the other way, or there is none to watch.
    """
    check_monitor(scheduler, monitor)
    if scheduler is None or not takes_metric(scheduler):
        return None
    if monitor is not None:
        if monitor not in numbers:
            raise unknown_name("number for the schedule to monitor", monitor, numbers)
        return monitor
    rising = getattr(scheduler, "mode", "min") == "max"
    for name in ("val_accuracy", "accuracy") if rising else ("val_loss", "loss"):
        if name in numbers:
            return name
    raise DataError(
        f"{type(scheduler).__name__} has mode='max', and no accuracy is measured that it could "
        f"watch. Pass monitor= to Trainer; this run's numbers: {', '.join(numbers)}."
    )


def advance(scheduler: Any, name: str | None, record: Mapping[str, float]) -> None:
    """Take one step of a schedule after an epoch; None does nothing.

    Args:
        scheduler: the schedule.
        name: what it watches, by `watched`.
        record: of the epoch.
    """
    if scheduler is None:
        return
    if name is None:
        scheduler.step()
    else:
        scheduler.step(record[name])


def updates_left(
    epochs: int, batches: int, done: int, accumulate: int, pending: int, budget: float
) -> int:
    """Updates that a run will make: one for `accumulate` batches, and one at each epoch's end.

    Args:
        epochs: to be trained, with the one in progress; at least 1.
        batches: of a whole epoch.
        done: batches of the epoch in progress that are over.
        accumulate: batches to an update.
        pending: batches that wait for one already.
        budget: batches that may be run at most.
    """
    first = batches - done
    if budget < first:
        return (int(budget) + pending) // accumulate
    found, budget = -(-(first + pending) // accumulate), budget - first
    whole = int(min(epochs - 1, budget // batches))
    found += whole * -(-batches // accumulate)
    if whole < epochs - 1:
        found += int(budget - whole * batches) // accumulate
    return found


def check_length(scheduler: Any, steps: int, unit: str) -> None:
    """Raise DataError if a schedule ends within so many steps more; warn if it is far too long.

    Args:
        scheduler: the schedule.
        steps: that it will take.
        unit: "step" if it takes one an update, "epoch".
    """
    if scheduler is None:
        return
    position = getattr(scheduler, "last_epoch", 0)
    if hasattr(scheduler, "require"):
        try:
            scheduler.require(position + steps)
        except DataError as error:
            raise DataError(
                f"the schedule is too short for this run of {steps} "
                f"{'updates' if unit == 'step' else 'epochs'}: {error}"
            ) from error
    meant = scheduler.updates_meant() if hasattr(scheduler, "updates_meant") else 0
    if unit == "epoch" and meant > position + steps:
        warn(
            f"{type(scheduler).__name__} was made for {math.ceil(meant)} steps, but takes one an "
            f"epoch, and this run has {steps}: its cycle will not come to its end. Pass "
            "scheduler_every='step' to Trainer, so that it takes one an update."
        )


def _goes(way: str) -> str:
    return "rises" if way == "max" else "falls"
