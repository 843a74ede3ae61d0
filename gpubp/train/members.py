"""`Trainer(population=n)`: n models of one architecture trained side by side, and who is best.

Comes in: a model as `gpubp.train.architecture` can describe it, a loss, an optimiser, numbers for
each member. Goes out: histories, and the best member's weights in the model.

Holds in between: a member's numbers are those of the trainer's step alone (see
`gp.compile_population`). Validation runs on all members with one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.backends import Backend
from gpubp.errors import ArgumentError, DataError, unknown_name
from gpubp.nn.module import Module
from gpubp.optim.base import Optimizer
from gpubp.runtime.settings import require_count
from gpubp.train import architecture, inputs
from gpubp.train import metrics as metrics_module
from gpubp.train.calling import outputs_of
from gpubp.train.history import History
from gpubp.train.numbers import loss_and_numbers

if TYPE_CHECKING:
    from gpubp.runtime.population import Population

_SPLIT = "validation_split"
_PLANNED = ("epochs", "batch_size", "shuffle", "drop_last", "checkpoint", "save_every", "resume")


def prepare(
    trainer: Any,
    asked: Any,
    scheduler: Any,
    backend: str | Backend | None,
    device: str,
    options: Mapping[str, Any],
) -> None:
    """Give a trainer its population, if one is asked for; DataError beside a schedule."""
    if asked is None:
        return
    if scheduler is not None:
        raise DataError(
            "members of a population have schedules of their own: leave out the trainer's, and "
            'pass population={"n": ..., "scheduler": lambda optimizer: CosineAnnealingLR(...)}.'
        )
    trainer.population = population_of(
        asked,
        trainer.model,
        trainer.loss_fn,
        trainer.optimizer,
        backend,
        device,
        trainer.seed,
        options,
    )
    trainer.histories = [History() for _ in range(trainer.population.n)]


def population_of(
    asked: Any,
    model: Module,
    loss_fn: Callable[..., Any],
    optimizer: Optimizer,
    backend: str | Backend | None,
    device: str,
    seed: int,
    options: Mapping[str, Any],
) -> Population:
    """The population that `Trainer(population=...)` asks for.

    Args:
        asked: how many members; or the arguments of `gp.compile_population` that say how they
            differ: {"n": 16, "lr": [...], "seeds": [...]}.
        model, loss_fn, optimizer, backend, device: the trainer's.
        seed: of member 0; those of the others follow, unless seeds are given.
        options: of the step.

    Raises:
        ArgumentError: neither.
        DataError: members that cannot be.
    """
    given = {"n": asked} if isinstance(asked, (int, np.integer)) else asked
    if isinstance(asked, bool) or not isinstance(given, Mapping) or "n" not in given:
        raise ArgumentError(
            f'population is {shown(asked)}; expected how many, or a dict: {{"n": 16, "lr": [...]}}.'
        )
    given = dict(given)
    n = given.pop("n")
    require_count("population", n)
    seeds = given.pop("seeds", range(seed, seed + n))
    initial = given.pop("initial", None) or architecture.again(model)

    def loss(X: Any, *rest: Any) -> Any:
        # Other numbers that it gives are measured on the validation data.
        return loss_and_numbers(loss_fn(outputs_of(model, X), *rest))[0]

    from gpubp.runtime.populate import compile_population

    return compile_population(
        loss,
        optimizer,
        n=n,
        model=model,
        initial=initial,
        seeds=list(seeds),
        backend=backend,
        device=device,
        **options,
        **given,
    )


@dataclass
class MemberPlan:
    """What a fit of a population is to do; the arguments of `Trainer.fit`.

    Attributes:
        epochs, batch_size, shuffle, drop_last, checkpoint, save_every, resume: as there.
        stopping: an `EarlyStopping`, by which each member stops for itself, and the best is chosen.
    """

    epochs: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    checkpoint: Any
    save_every: int
    resume: Any
    stopping: Any = None


class MemberFit:
    """One fit of a population.

    Args:
        trainer: whose model holds a member's weights while that is measured, and whose histories
            grow.
        plan: what to do.
        held_out: (X, y) to validate on, or None.
        metrics: to measure on it.
    """

    def __init__(self, trainer: Any, plan: MemberPlan, held_out: Any, metrics: Any) -> None:
        self._trainer, self._plan = trainer, plan
        self._held_out, self._metrics = held_out, metrics
        self._waited: dict[int, tuple[float, int]] = {}
        self._done = 0

    def run(self, X: Any, y: Any) -> History:
        """Train to the end of the plan, or until no member is left; the history of the best."""
        plan, population = self._plan, self._trainer.population
        if plan.resume is not None:
            self._resume()
        if self._done < plan.epochs and population.active:
            population.run(
                X,
                y,
                batch_size=plan.batch_size,
                epochs=plan.epochs - self._done,
                shuffle=plan.shuffle,
                drop_last=plan.drop_last,
                callback=self._epoch_ends,
            )
        histories: list[History] = self._trainer.histories
        monitor = "val_loss" if any("val_loss" in h for h in histories) else "loss"
        told = (monitor, "min") if plan.stopping is None else self._watched()
        best = best_member(histories, *told)
        self._trainer.model.load_state_dict(population.state_dict(best))
        self._trainer.best = best
        return histories[best]

    def _resume(self) -> None:
        from gpubp.train.populations import load_population

        extra = load_population(self._plan.resume, self._trainer.population)
        self._done = int(extra["epochs"])
        self._waited = {int(i): (best, since) for i, best, since in extra["waited"]}
        for history, records in zip(self._trainer.histories, extra["records"], strict=True):
            history.restore(records)

    def _epoch_ends(self, population: Population, epoch: int) -> None:
        trainer, active = self._trainer, population.active
        measured = trainer.ranks.each(len(active), lambda k: self._measured(active[k]))
        for i, found in zip(active, measured, strict=True):
            record: dict[str, float] = {"epoch": len(trainer.histories[i].records) + 1}
            record = {**record, "loss": population.histories[i][-1], **found}
            trainer.histories[i].add(record)
            self._look(i, record)
        done, plan = self._done + epoch, self._plan
        last = done == plan.epochs or not population.active
        leads = trainer.ranks.leads
        if leads and plan.checkpoint is not None and (done % plan.save_every == 0 or last):
            self._save(done)

    def _measured(self, member: int) -> dict[str, float]:
        """A member's numbers on what is held out."""
        if self._held_out is None:
            return {}
        self._trainer.model.load_state_dict(self._trainer.population.state_dict(member))
        X, y, *weights = self._held_out
        found = self._trainer.evaluate(X, y, self._metrics, *weights)
        return {f"val_{name}": value for name, value in found.items()}

    def _watched(self) -> tuple[str, str]:
        """The number that early stopping watches, and which way is better."""
        return self._plan.stopping.monitor, self._plan.stopping.mode

    def _look(self, member: int, record: Mapping[str, float]) -> None:
        """Stop a member that has not improved for as long as patience lasts."""
        stopping = self._plan.stopping
        if stopping is None or record["epoch"] < stopping.start_from_epoch:
            return
        monitor, mode = self._watched()
        if monitor not in record:
            raise unknown_name("number to monitor", monitor, [n for n in record if n != "epoch"])
        value = -record[monitor] if mode == "max" else record[monitor]
        best, since = self._waited.get(member, (np.inf, 0))
        best, since = (value, 0) if value < best - stopping.min_delta else (best, since + 1)
        self._waited[member] = best, since
        if since >= stopping.patience:
            self._trainer.population.stop(member)

    def _save(self, epochs: int) -> None:
        from gpubp.train.populations import save_population

        extra = {
            "epochs": epochs,
            "waited": [[i, best, since] for i, (best, since) in self._waited.items()],
            "records": [list(history.records) for history in self._trainer.histories],
        }
        save_population(self._plan.checkpoint, self._trainer.population, extra)


def fit_members(trainer: Any, arguments: Mapping[str, Any]) -> History:
    """What `Trainer.fit` does for a population.

    Args:
        trainer: a `Trainer` with a population.
        arguments: of its `fit`.

    Raises:
        DataError: unusable data, or an argument that populations do not take.
        UnknownNameError: an unknown metric.
    """
    given = dict(arguments)
    plan = {name: given.pop(name) for name in _PLANNED}
    X, y, held_out = given.pop("X"), given.pop("y"), given.pop("validation_data")
    metrics, callbacks = given.pop("metrics"), given.pop("callbacks")
    given.pop("verbose")
    odd = [k for k, v in given.items() if v is not None and not (k == _SPLIT and v == 0)]
    # By what it has: `EarlyStopping` knows the trainer, which knows this file.
    stopping = [c for c in callbacks if hasattr(c, "patience") and hasattr(c, "monitor")]
    if odd or y is None or stopping != list(callbacks) or len(stopping) > 1:
        what = odd[0] if odd else "an iterable of batches" if y is None else "a callback"
        raise DataError(
            f"{what} is not for populations, whose fit takes X, y, epochs, batch_size, shuffle, "
            "drop_last, validation_data, metrics, checkpoint, save_every, resume, and one "
            "EarlyStopping (each member stops for itself)."
        )
    if stopping and stopping[0].restore_best_weights:
        raise DataError("restore_best_weights is not for populations: each member keeps its last.")
    metrics_module.find(metrics)
    if metrics and held_out is None:
        raise DataError("metrics of populations are measured on validation_data: give it.")
    inputs.checked(trainer, (X, y), ("X", "y"))
    if held_out is not None:
        inputs.checked(trainer, held_out, inputs.HELD_OUT)
    require_count("epochs", plan["epochs"])
    require_count("save_every", plan["save_every"])
    made = MemberPlan(**plan, stopping=next(iter(stopping), None))
    return MemberFit(trainer, made, held_out, metrics).run(X, y)


def best_member(histories: Sequence[History], monitor: str, mode: str) -> int:
    """The member whose last record is best; those that diverged come last.

    Raises:
        UnknownNameError: no such number was recorded.
        DataError: no member has a finite one.
    """
    last = [history.last for history in histories]
    if not any(monitor in record for record in last):
        known = sorted({name for record in last for name in record})
        raise unknown_name("number of the histories", monitor, known)
    scores: NDArray[np.float64] = np.array([record.get(monitor, np.nan) for record in last])
    if not np.isfinite(scores).any():
        raise DataError(f"no member has a finite {monitor}: all have diverged. Lower the rates.")
    sign = 1.0 if mode == "min" else -1.0
    return int(np.argmin(np.where(np.isfinite(scores), sign * scores, np.inf)))
