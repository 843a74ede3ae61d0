"""The slots that a step writes, in checkpoints: by their order, or by their names.

A run that goes on at the same number of ranks writes the same slots, which are taken in their
order. At another number, programs differ: weights, optimiser, schedule and averages have names in
the file, under which they were restored, and of the rest each is looked for by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import Slot
from gpubp.errors import CheckpointError
from gpubp.ops.random import is_state
from gpubp.train.run import Run
from gpubp.train.tensorfile import Path_
from gpubp.train.train_state import Pending

WAITING = "batches"  # the slot that counts batches which wait for an update


def packed(run: Run) -> dict[str, Any]:
    """The parts of a state that hold them."""
    pending = run.state.pending
    if pending is not None:
        names, values, ranks = pending.slot_names, pending.slots, pending.ranks
    else:
        found = run.step.shared_slots()
        names, values = _numbered(found), [slot.value.copy() for slot in found]
        ranks = run.ranks.kind
    return {"slots": values, "slot_names": names, "ranks": ranks}


def check(run: Run, path: Path_, pending: Pending) -> None:
    """Raise CheckpointError unless the step is the one that the file was made with, or that at
    another number of ranks."""
    slots = run.step.shared_slots()
    was = [(a.shape, str(a.dtype)) for a in pending.slots]
    now = [(s.shape, str(s.dtype)) for s in slots]
    if not was or was == now:
        return
    if pending.ranks != run.ranks.kind and pending.slot_names:
        _check_named(run, path, pending)
        return
    differ = [f"{s.name} is {n}, was {w}" for s, n, w in zip(slots, now, was) if n != w]
    raise CheckpointError(
        f"{path} does not fit: its step wrote {len(was)} arrays, this one writes {len(now)}"
        f"{'; ' + differ[0] if differ else ''}."
    )


def pairs(run: Run, pending: Pending) -> list[tuple[Slot, NDArray[Any]]]:
    """Each slot of the step, and what the file holds for it."""
    slots = run.step.shared_slots()
    if [(a.shape, a.dtype) for a in pending.slots] == [(s.shape, s.dtype) for s in slots]:
        return list(zip(slots, pending.slots))
    found = dict(zip(pending.slot_names, pending.slots))
    named = zip(slots, _numbered(slots))
    return [(s, found[n]) for s, n in named if n in found and _fits(s, found[n])]


def _check_named(run: Run, path: Path_, pending: Pending) -> None:
    found = dict(zip(pending.slot_names, pending.slots))
    waiting = found.get(f"{WAITING} 0", np.zeros(()))
    if waiting.any():
        raise CheckpointError(
            f"{path} was saved with {int(waiting)} batches that wait for an update, and "
            f"{run.ranks.size} ranks cannot go on from there. Save after an update."
        )
    slots = run.step.shared_slots()
    for slot, name in zip(slots, _numbered(slots)):
        if is_state(slot) and (name not in found or not _fits(slot, found[name])):
            raise CheckpointError(f"{path} does not hold the random generator {slot.name}.")


def _fits(slot: Slot, value: NDArray[Any]) -> bool:
    return value.shape == slot.shape and value.dtype == slot.dtype


def _numbered(slots: Sequence[Slot]) -> list[str]:
    """Their names, with a number that tells those of one name apart."""
    seen: Counter[str] = Counter()
    names = []
    for slot in slots:
        names.append(f"{slot.name} {seen[slot.name]}")
        seen[slot.name] += 1
    return names
