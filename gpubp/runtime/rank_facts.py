"""What a step's ranks are told by their users, as facts: options, rates, schedules, seeds.

Comes in: the optimiser, the settings, the slots of a step. Goes out: texts by name, which
`distributed/agreement.py` compares, and names in errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpubp.core.store import Slot
from gpubp.ops.random import is_state
from gpubp.runtime.rank_digest import number
from gpubp.runtime.settings import Settings, StepOptimizer

AHEAD = 16  # numbers of a schedule that are compared before they come


def facts_of_update(optimizer: StepOptimizer, settings: Settings) -> dict[str, str]:
    """How the next updates will be made: what may be set between runs, too."""
    found = {f"the optimizer's {name}": text for name, text in _options(optimizer)}
    if settings.scheduler is not None:
        found |= facts_of_schedule(settings.scheduler)
    if settings.loss_scale is not None:
        state = {**vars(settings.loss_scale), **settings.loss_scale.state_dict()}
        found["the loss scale"] = _shown({k: v for k, v in state.items() if _is_plain(v)})
    if settings.ema is not None:
        decay = getattr(settings.ema, "decay", None)
        found["the average of weights"] = f"{type(settings.ema).__name__} {_shown(decay)}"
    return found


def facts_of_schedule(scheduler: Any) -> dict[str, str]:
    """A schedule: its settings, and the numbers that it gives next.

    Args:
        scheduler: of `gpubp.optim.lr_scheduler`, or anything with `step()`.
    """
    found = {"the schedule": settings_of(scheduler)}
    if hasattr(scheduler, "advance") and hasattr(scheduler, "slots"):
        found["the schedule's next rates"] = _shown(_ahead(scheduler))
    return found


def settings_of(scheduler: Any) -> str:
    """A schedule's kind, settings and position."""
    state: dict[str, Any] = getattr(scheduler, "state_dict", dict)()
    plain = {k: v for k, v in state.items() if _is_plain(v)}
    return f"{type(scheduler).__name__} {_shown(plain)}"


def seeds_of(slots: Iterable[Slot]) -> str:
    """The seeds of the random generators among slots. (Where they stand, rank 0 says.)"""
    return ", ".join(str(int(slot.value[0])) for slot in slots if is_state(slot))


def _options(optimizer: StepOptimizer) -> list[tuple[str, str]]:
    """(name, value) of every option of every group."""
    members: Sequence[Any] = getattr(optimizer, "members", [optimizer])
    able = [m for m in members if hasattr(m, "param_groups")]
    groups = [(m, i, g) for m in able for i, g in enumerate(m.param_groups)]
    found: list[tuple[str, str]] = []
    for member, i, group in groups:
        where = "" if len(groups) == 1 else f" in group {i} of {type(member).__name__}"
        found += [(f"{name}{where}", _shown(group[name])) for name in member.defaults]
    return found


def _ahead(scheduler: Any) -> list[float]:
    """The first numbers of each of the next epochs, as far as the schedule goes."""
    numbers, found = [float(slot.value) for slot in scheduler.slots()], []
    for epoch in range(scheduler.last_epoch + 1, scheduler.last_epoch + 1 + AHEAD):
        try:
            scheduler.require(epoch)
            numbers = scheduler.advance(epoch, numbers)
        except ValueError:  # it ends there, which a run will say if it comes so far
            break
        found.append(numbers[0])
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_shown(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_shown, value))})"
    return number(value) if isinstance(value, float) else str(value)
