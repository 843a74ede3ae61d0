"""The whole state of a training run, to a file and back.

Comes in: a `Trainer`, between two steps. Goes out: a sealed file (`tensorfile`), from which a
trainer built by the same code goes on as if it had never stopped.

Holds in between: everything that a step writes is saved. Weights go by their names, the optimiser's
state in PyTorch's layout, and then every slot that the compiled step writes, in the program's
order: those two again, bit for bit, and what has no other name (random counters, accumulated
gradients, averaged weights). An array that is there twice is stored once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpubp.errors import CheckpointError, GpubpError
from gpubp.ops.random import default_generator
from gpubp.train import modelfile, slots, tensorfile
from gpubp.train.modelfile import CHECKPOINT, PREFIX, VERSION
from gpubp.train.run import Run
from gpubp.train.tensorfile import Path_, Tensors
from gpubp.train.train_state import Pending, TrainState

# What a file holds beside the fields of `TrainState`.
_PARTS = ("optimizer", "slots", "scheduler", "callbacks", "generator", "ema", "loss_scale")
# What files of before have not.
_LATER: dict[str, Any] = {"classes": [], "slot_names": [], "ranks": [1, False]}


def save(run: Run, path: Path_, extra: Mapping[str, Any] | None = None) -> None:
    """Write the state; see `Trainer.save`."""
    tensors: Tensors = {}
    with own_weights(run):
        record = packed(run, extra, tensors)
    if run.ranks.leads or not run.ranks.divide:
        tensorfile.write(path, tensors, record)


def own_weights(run: Run) -> AbstractContextManager[None]:
    """While open, parameters hold their own weights, inside `ema.apply()` too."""
    return nullcontext() if run.ema is None else run.ema.own_weights()


def packed(run: Run, extra: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    """The record of a state; its arrays go to `tensors`.

    Raises:
        CheckpointError: something that cannot be saved.
    """
    tensors.update({PREFIX + k: v for k, v in run.model.state_dict().items()})
    scale, average = run.step.settings.loss_scale, run.ema
    parts = {
        "optimizer": run.optimizer.state_dict(),
        **slots.packed(run),
        "scheduler": _of_schedule(run.scheduler),
        "ema": None if average is None else average.state_dict(),
        "loss_scale": None if scale is None else scale.state_dict(),
        "callbacks": _callbacks(run),
        "generator": [int(n) for n in default_generator.state.value],
        **run.state.state_dict(),
    }
    return {
        "kind": CHECKPOINT,
        "version": VERSION,
        "model": modelfile.structure_of(run.model),
        "extra": tensorfile.pack(dict(extra or {}), {}, "extra"),
        "trainer": {name: tensorfile.pack(value, tensors, name) for name, value in parts.items()},
    }


def check_savable(run: Run, extra: Mapping[str, Any] | None) -> None:
    """Raise CheckpointError for what the user brings, and a file cannot hold."""
    for name, value in (
        ("scheduler", _of_schedule(run.scheduler)),
        ("callbacks", _callbacks(run)),
        ("extra", dict(extra or {})),
    ):
        tensorfile.pack(value, {}, name)


def _of_schedule(scheduler: Any) -> Any:
    if scheduler is not None and not hasattr(scheduler, "state_dict"):
        raise CheckpointError(
            f"{type(scheduler).__name__} has no state_dict(), so a checkpoint cannot hold where "
            "the schedule stands. Give it state_dict() and load_state_dict(state)."
        )
    return None if scheduler is None else scheduler.state_dict()


def add_ended(path: Path_, weights: Tensors) -> None:
    """Add to a checkpoint the weights that its run ended with, which are not its last ones.

    A run that is resumed goes on from the last ones; whoever asks the file for a model gets these.
    """
    tensors, record = tensorfile.read(path)
    record[modelfile.ENDED] = tensorfile.pack(weights, tensors, modelfile.ENDED)
    tensorfile.write(path, tensors, record)


def load(run: Run, path: Path_, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a state; see `Trainer.load`. Returns the file's `extra`.

    Args:
        run: gets it, or if this raises, stays as it is.
        path: the file.
        facts: of the call of `fit` that will go on, whose step is compiled; None outside of one.
    """
    tensors, record = tensorfile.read(path)
    modelfile.check_version(path, record, (CHECKPOINT,))
    found = _parts(path, tensors, record)
    if (found["scheduler"] is None) != (run.scheduler is None):
        has, needs = ("no", "has one") if found["scheduler"] is None else ("a", "has none")
        raise CheckpointError(f"{path} holds {has} scheduler; this trainer {needs}.")
    pending = Pending(found["slots"], found["callbacks"], found["slot_names"], found["ranks"])
    with own_weights(run):
        _put(run, path, found, pending, modelfile.last_weights(tensors, record), facts)
    default_generator.state.value = np.array(found["generator"], np.int64)
    run.state.pending = pending
    return dict(record["extra"])


def _put(
    run: Run,
    path: Path_,
    found: Mapping[str, Any],
    pending: Pending,
    weights: Tensors,
    facts: dict[str, Any] | None,
) -> None:
    """Give weights, optimiser, schedule and averages what was found; all of them, or none."""
    before: list[tuple[Any, Any]] = [(run.model, run.model.state_dict())]
    modelfile.put_weights(path, run.model, weights)
    try:
        if facts is not None:
            _check_fits(run, path, pending)
            _check_facts(path, found["position"], found["fit_facts"], facts)
        for owner, content in _owners(run, found):
            before.append((owner, owner.state_dict()))
            owner.load_state_dict(content)
        run.state.load_state_dict(found)
    except (GpubpError, LookupError, TypeError, ValueError) as error:
        for owner, content in reversed(before):
            owner.load_state_dict(content)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} does not fit the optimizer: {error}") from error


def _owners(run: Run, found: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Whoever has a state of its own beside the model, and what was found for it."""
    yield run.optimizer, found["optimizer"]
    if run.scheduler is not None:
        yield run.scheduler, found["scheduler"]
    scale = run.step.settings.loss_scale
    if run.ema is not None and found["ema"] is not None:
        yield run.ema, {k: v for k, v in found["ema"].items() if k != "decay"}
    if scale is not None and found["loss_scale"] is not None:
        yield scale, found["loss_scale"]


def _parts(path: Path_, tensors: Tensors, record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a state, each there and of its kind."""
    try:
        found = {k: tensorfile.unpack(v, tensors) for k, v in record["trainer"].items()}
        for name, default in _LATER.items():
            found.setdefault(name, default)
        missing = [n for n in (*TrainState.saved(), *_PARTS) if n not in found]
        if missing:
            raise LookupError(f"it has no {missing[0]}")
        for sums in (found["losses"], *found["numbers_so_far"].values()):
            if sums.ndim != 3 or sums.shape[2] != 2 or sums.dtype != np.float64:
                raise LookupError(f"its losses are {sums.dtype} of shape {sums.shape}")
        if len(found["generator"]) != 2:
            raise LookupError(f"its generator has {len(found['generator'])} numbers")
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is incomplete: {error}.") from error
    return found


def _check_facts(path: Path_, position: int, was: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raise CheckpointError if the order of an epoch in progress would be another one."""
    if position and was != facts:
        raise CheckpointError(
            f"{path} stands within an epoch of {was}; this call has {facts}. To go on, they must "
            "be the same."
        )


def _check_fits(run: Run, path: Path_, pending: Pending) -> None:
    """Raise CheckpointError unless step and callbacks are those that the file was made with."""
    slots.check(run, path, pending)
    kinds = [type(callback).__name__ for callback in run.state.callbacks]
    if kinds != [kind for kind, _ in pending.callbacks]:
        raise CheckpointError(
            f"{path} was made with the callbacks {[k for k, _ in pending.callbacks]}; this call "
            f"has {kinds}."
        )


def put_pending(run: Run, path: Path_ | None, facts: dict[str, Any]) -> None:
    """Give the compiled step's slots and the callbacks what a checkpoint held for them.

    Args:
        run: whose step is compiled.
        path: of the checkpoint, which was read just now; None if `Trainer.load` did it earlier.
            What has a name of its own may have been changed since then, and is left as it is.
        facts: of the call of `fit`.

    Raises:
        CheckpointError: other slots, other callbacks, or another order within an epoch.
    """
    pending = run.state.pending
    assert pending is not None
    where = path or "the state that was loaded"
    _check_fits(run, where, pending)
    _check_facts(where, run.state.position, run.state.fit_facts, facts)
    named = set() if path is not None else _named(run)
    for slot, value in slots.pairs(run, pending):
        if id(slot) not in named:
            slot.value = value
    for callback, (_, content) in zip(run.state.callbacks, pending.callbacks, strict=True):
        callback.load_state_dict(content)
    run.state.pending = None


def _named(run: Run) -> set[int]:
    """Slots that loading has set by their names: weights, buffers, learning rates."""
    model, groups = run.model, run.optimizer.param_groups
    return {id(s) for s in (*model.parameters(), *model.buffers(), *(g.lr for g in groups))}


def _callbacks(run: Run) -> list[Any]:
    if run.state.pending is not None:
        return run.state.pending.callbacks
    return [[type(c).__name__, c.state_dict()] for c in run.state.callbacks]
