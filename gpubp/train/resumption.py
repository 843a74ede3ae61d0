"""What a resumed run does with options that are not those of the run it goes on from.

Optimiser and schedule go on with the numbers of the file, for their state belongs to these; how
batches are made and what the step does with gradients is as this call says. Neither is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp.errors import warn
from gpubp.train.inputs import Data
from gpubp.train.plan import Plan
from gpubp.train.run import Run
from gpubp.train.tensorfile import Path_

# Kinds of options: those that stay as in the file, and those that are taken.
_KEPT, _TAKEN = "kept", "taken"
_OF_STEP = ("max_grad_norm", "max_grad_value", "accumulate")
_OF_PLAN = ("batch_size", "shuffle", "drop_last")


def options_of(run: Run, plan: Plan) -> dict[str, Any]:
    """The options of a run, {kind: {name: value}}, as they were made.

    Training moves some of them (learning rates): of a trainer that has trained they are those of
    before.
    """
    settings = run.step.settings
    taken = {name: getattr(settings, name) for name in _OF_STEP}
    taken |= {name: getattr(plan, name) for name in _OF_PLAN}
    taken["optimizer"] = type(run.optimizer).__name__
    taken["ema decay"] = None if run.ema is None else run.ema.decay
    made = run.state.made.get(_KEPT) if run.state.steps else None
    return {_TAKEN: taken, _KEPT: made or {**_of_groups(run), **_of_schedule(run)}}


def facts_of(run: Run, plan: Plan, data: Data) -> dict[str, Any]:
    """What must be as it was, to go on within an epoch."""
    if data.samples is None:
        return {"samples": None}
    return {
        "samples": data.samples,
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "split": None if data.rows is None else run.seed,
        "drop_last": plan.drop_last,
    }


def _of_groups(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {}
    groups = run.optimizer.param_groups
    for i, group in enumerate(groups):
        label = f" (group {i})" if len(groups) > 1 else ""
        for name, value in group.items():
            if name != "params" and _is_plain(value):
                found[f"{name}{label}"] = _listed(value)
    return found


def _of_schedule(run: Run) -> dict[str, Any]:
    if not hasattr(run.scheduler, "state_dict"):
        return {}
    label = type(run.scheduler).__name__
    state = run.scheduler.state_dict()
    plain = {k: v for k, v in state.items() if isinstance(k, str) and not k.startswith("_")}
    return {f"{label}.{k}": _listed(v) for k, v in plain.items() if _is_plain(v)}


def compared(path: Path_, was: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Warn of options that differ; the options that the run goes on with.

    Args:
        path: of the checkpoint.
        was: the options of its run; empty in files that do not hold them.
        now: those of this call.
    """
    if not was:
        return now
    kept, taken = _differing(was, now, _KEPT), _differing(was, now, _TAKEN)
    said = []
    if kept:
        listed = ", ".join(f"{name}={old} ({new} was not taken)" for name, old, new in kept)
        said.append(
            f"these stay as in the file: {listed}. To change them: trainer.load(path), set them in "
            "trainer.optimizer.param_groups or trainer.scheduler, and fit without resume"
        )
    if taken:
        listed = ", ".join(f"{name}={new} (was {old})" for name, old, new in taken)
        said.append(f"these are new from here on: {listed}")
    if said:
        warn(f"{path} is of a run with other options; {'; '.join(said)}.")
    return {_KEPT: was[_KEPT], _TAKEN: now[_TAKEN]}


def _differing(
    was: Mapping[str, Any], now: Mapping[str, Any], kind: str
) -> list[tuple[str, Any, Any]]:
    """(name, value in the file, value of this call) of each option that both have."""
    old, new = was.get(kind, {}), now[kind]
    return [(n, old[n], new[n]) for n in new if n in old and old[n] != new[n]]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value
