"""`gp.compile_population`: many models that share one compiled training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.backends import get_backend
from gpubp.backends.base import Backend
from gpubp.compiler.pipeline import Options
from gpubp.core.store import Slot, pack
from gpubp.distributed.parallel import as_parallel
from gpubp.errors import ArgumentError, DataError
from gpubp.ops.random import checked_seed, default_generator, manual_seed
from gpubp.runtime.ensemble import slots_of
from gpubp.runtime.hyper import Group, Hyper
from gpubp.runtime.loss_scale import as_loss_scale
from gpubp.runtime.member_schedules import MemberSchedules
from gpubp.runtime.member_state import MemberState
from gpubp.runtime.memory import Memory
from gpubp.runtime.population import Population
from gpubp.runtime.rank_members import for_members
from gpubp.runtime.settings import Settings, StepAverage, require_count, searches
from gpubp.runtime.step_programs import StepPrograms
from gpubp.runtime.update import UpdateBuilder

__all__ = ["Population", "compile_population"]


@checked
def compile_population(
    fn: Callable[..., Any],
    optimizer: Any,
    *,
    n: int,
    model: Any = None,
    initial: Any = None,
    seeds: Sequence[int] | None = None,
    slots: Mapping[Any, Any] | None = None,
    scheduler: Any = None,
    scheduler_every: str = "step",
    backend: str | Backend | None = None,
    device: str | None = None,
    max_grad_norm: float | None = None,
    max_grad_value: float | None = None,
    accumulate: int = 1,
    ema: StepAverage | None = None,
    loss_scale: Any = None,
    options: Options | None = None,
    communicator: Any = None,
    **hyper: Any,
) -> Population:
    """Compile one training step for n members, each of which is trained as if it were alone.

    Member i computes, bit for bit, what this makes:

    ```python
    gp.manual_seed(seeds[i])
    model = initial()
    optimizer = ...  # with member i's rate; other numbers that are given here, and what is in
    optimizer.param_groups[0].in_slot("momentum").value = ...  # `slots`, must be in slots here too
    step = gp.compile_step(fn, optimizer, seed=seeds[i])
    step.run(X[rows[i]], y[rows[i]], ...)
    ```

    (A number that a lone program has baked in, `SGD(..., momentum=0.9)`, is contracted with its
    neighbours to one operation where one in a slot takes two: the last bit may differ.)

    On the CPU each thread takes whole members, so there are no barriers between workers. On a GPU
    members are run one after the other.

    Args:
        fn: as of `gp.compile_step`; it calls the model whose parameters the optimiser has. These
            keep their values: members have theirs beside them.
        optimizer: of `gpubp.optim`.
        n: how many members.
        model: fn's model: needed for buffers that are no parameters, `state_dict`, `predict` and
            `initial`.
        initial: how members start: a function that returns a model like `model`, called with the
            default generator seeded for each; or n state dicts. Default: all start as `model` is.
        seeds: of each member's initial weights, random numbers and order; default 0 to n - 1.
        slots: other slots in which members differ: {slot: (n, ...) or (...)}; a `gpubp.nn.Buffer`
            that fn or the model reads as a number, say.
        scheduler: a function from the optimiser to a schedule, or n such functions: each member has
            its own.
        scheduler_every: "step": it moves after each of the member's updates, inside the program;
            "epoch": after each of its epochs, and one that watches a number
            (ReduceLROnPlateau) is given the epoch's loss.
        backend, device, max_grad_norm, max_grad_value, accumulate, ema, loss_scale, options: as of
            `gp.compile_step`. Gradients that wait at the end of an epoch update there.
        communicator: of `gp.distributed`: each rank trains some of the members; after each epoch
            all ranks have all of them. All call what changes or trains members, alike.
        **hyper: numbers of the optimiser, one for all members or one for each: lr, weight_decay,
            momentum (of Adam and its kin: the first of the betas).

    Raises:
        DataError: an argument out of its range, or one that is part of the program and cannot
            differ: for such, make a population for each value.
        UnknownNameError, ShapeError: `initial` gives another model.
    """
    require_count("n", n)
    ranks = for_members(as_parallel(communicator))
    groups = _groups(optimizer, hyper)
    if searches(optimizer):
        raise DataError(f"{type(optimizer).__name__} searches outside of the program: it cannot.")
    target = get_backend(backend, device)
    numbers = _seeds(seeds, n)
    named = _named(model, optimizer)
    memory = Memory(n)
    pack("params", optimizer.parameters())
    pack("slots", [*named.values(), default_generator.state])
    _start(memory, model, initial, numbers, named)
    members = Hyper(groups, hyper, slots or {}, memory)
    schedules = None
    if scheduler is not None:
        schedules = MemberSchedules(scheduler, optimizer, memory, scheduler_every)
    if loss_scale is None and target.precision == "float16":
        loss_scale = "dynamic"
    settings = Settings(
        max_grad_norm,
        max_grad_value,
        False,
        accumulate,
        None if schedules is None else schedules.template,
        ema,
        as_loss_scale(loss_scale),
    )
    settings.check(optimizer)
    builder = UpdateBuilder(optimizer, settings)
    programs = StepPrograms(fn, builder, target, None, options)
    others = [default_generator.state, *members.slots, *(schedules.slots if schedules else [])]
    state = MemberState(memory, programs, builder.waiting, optimizer.parameters(), named, others)
    made = Population(programs, state, members, schedules, accumulate, model, ranks)
    made.seed(numbers)
    return made


def _groups(optimizer: Any, hyper: Mapping[str, Any]) -> Sequence[Group]:
    """Where the optimiser's numbers stand; a rule without groups has its numbers in slots.

    Raises:
        ArgumentError: no optimiser, or numbers by name for one that has none.
    """
    found = getattr(optimizer, "param_groups", None)
    if found is None and (hyper or not hasattr(optimizer, "emit")):
        raise ArgumentError(f"optimizer is {shown(optimizer)}, expected one of gpubp.optim.")
    return found or []


def _seeds(seeds: Sequence[int] | None, n: int) -> list[int]:
    found = list(range(n)) if seeds is None else [checked_seed(seed) for seed in seeds]
    if len(found) != n:
        raise DataError(f"seeds has {len(found)} entries, expected {n}: one for each member.")
    return found


def _named(model: Any, optimizer: Any) -> dict[str, Slot]:
    """The model's slots by name; without it, the parameters'."""
    if model is not None:
        return slots_of(model)
    found: dict[str, Slot] = {}
    for i, slot in enumerate(optimizer.parameters()):
        found[slot.name if slot.name not in found else f"{slot.name}.{i}"] = slot
    return found


def _start(
    memory: Memory, model: Any, initial: Any, seeds: Sequence[int], named: Mapping[str, Slot]
) -> None:
    """Give members their first weights, and their random numbers.

    Raises:
        DataError: no model to go with `initial`, or another number of states than members.
    """
    if initial is not None and model is None:
        raise DataError("initial needs model=...: it tells which weight is which.")
    if not (initial is None or callable(initial) or isinstance(initial, (list, tuple))):
        raise ArgumentError(
            f"initial is {shown(initial)}; expected a function that makes a model, or a list of "
            "state dicts."
        )
    if isinstance(initial, (list, tuple)) and len(initial) != len(seeds):
        raise DataError(f"initial has {len(initial)} states, expected {len(seeds)}: one a member.")
    random = default_generator.state
    before = random.value.copy()
    try:
        for i, seed in enumerate(seeds):
            manual_seed(seed)
            if initial is not None:
                made = initial() if callable(initial) else initial[i]
                _put(memory, i, named, _state_of(made))
            memory.stacked(random)[i] = random.value
    finally:
        random.value = before


def _state_of(made: Any) -> Mapping[str, Any]:
    """Of a model, or a state itself. Raises ArgumentError if it is neither."""
    if isinstance(made, Mapping):
        return made
    if not hasattr(made, "state_dict"):
        raise ArgumentError(f"initial gives {shown(made)}, expected a gpubp.nn.Module, or a state.")
    state: Mapping[str, Any] = made.state_dict()
    return state


def _put(memory: Memory, i: int, named: Mapping[str, Slot], state: Mapping[str, Any]) -> None:
    odd = sorted(set(named) ^ set(state))
    if odd:
        raise DataError(f"initial gives another model than `model`: only one has {odd[0]}.")
    for name, slot in named.items():
        memory.stacked(slot)[i] = slot.fitting(np.asarray(state[name]))
