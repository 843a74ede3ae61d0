"""What trains, and where that stands: the part of a trainer that the loop and checkpoints take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends import Backend
from gpubp.core import active_graph, note
from gpubp.core.noted import Noted
from gpubp.errors import DataError
from gpubp.nn.module import Module
from gpubp.optim.averaging import EMA
from gpubp.optim.base import Optimizer
from gpubp.runtime.step import Step, compile_step
from gpubp.train.calling import outputs_of
from gpubp.train.evaluation import Evaluator
from gpubp.train.history import History
from gpubp.train.hooks import Hooks
from gpubp.train.numbers import loss_and_numbers, with_terms
from gpubp.train.ranks import Ranks
from gpubp.train.tensorfile import Path_
from gpubp.train.train_state import TrainState
from gpubp.train.weights import weighted_loss


def _only_once(name: str) -> Callable[[Any, Any], Any]:
    """A check that refuses another optimiser, or another schedule inside the program."""

    def checked(trainer: Any, value: Any) -> Any:
        known = trainer.__dict__
        fixed = name == "optimizer" or known.get("scheduler_every") == "step"
        if fixed and value is not known.get(name, value):
            raise DataError(
                f"the trainer's step is compiled for its {name}. Make a new Trainer, or change the "
                f"options of the {name} that it has."
            )
        return value

    return checked


class _OfState:
    """An attribute of a run that is a field of its state."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, run: Any, kind: type | None = None) -> Any:
        return self if run is None else getattr(run.state, self._name)

    def __set__(self, run: Any, value: Any) -> None:
        setattr(run.state, self._name, value)


def _of_state() -> Any:
    return _OfState()


class Run(ABC):
    """A model, a loss, an optimiser and a schedule, the step compiled for them, and a state.

    Args:
        model, loss_fn, optimizer, scheduler, scheduler_every, monitor: as of `Trainer`.
        seed: of the order of the samples.
        where: backend and device.
        step_options: for `gp.compile_step`.

    Attributes:
        state: where training stands; what users read of it is found on the run as well.
        step: the compiled step.
        ranks: that train together, if there are several.
        numbers_of_loss: names of what the loss function gives beside the loss, once compiled.
    """

    model: Any = Noted()
    loss_fn: Any = Noted()
    optimizer: Any = Noted(_only_once("optimizer"))
    scheduler: Any = Noted(_only_once("scheduler"))
    history: History = _of_state()
    epoch: int = _of_state()
    steps: int = _of_state()
    position: int = _of_state()
    losses: list[NDArray[np.float64]] = _of_state()
    rng: np.random.Generator = _of_state()
    stop_reason: str | None = _of_state()
    diverged: bool = _of_state()
    classes: list[str] = _of_state()
    resuming: bool = _of_state()
    callbacks: Sequence[Hooks] = _of_state()

    def __init__(
        self,
        model: Module,
        loss_fn: Any,
        optimizer: Optimizer,
        scheduler: Any,
        scheduler_every: str,
        monitor: str | None,
        seed: int,
        where: tuple[str | Backend | None, str],
        step_options: dict[str, Any],
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_every = scheduler_every
        self.monitor = monitor
        self._made = (*where, step_options)
        self.numbers_of_loss: list[str] = []
        self._compile()
        self.seed = seed
        self.state = TrainState(np.random.Generator(np.random.PCG64(seed)))

    def _compile(self) -> None:
        backend, device, options = self._made
        self.step: Step = compile_step(
            self._step,
            self.optimizer,
            backend=backend,
            device=device,
            **options,
        )
        self._evaluator: tuple[Module, Any, Evaluator] | None = None
        self.ranks = Ranks(self.step.settings.parallel)

    @property
    def evaluator(self) -> Evaluator:
        """Runs the model and the loss that the trainer has now."""
        made = self._evaluator
        if made is None or made[0] is not self.model or made[1] is not self.loss_fn:
            backend, device, _ = self._made
            evaluator = Evaluator(self.model, self._loss, backend, device)
            made = self._evaluator = self.model, self.loss_fn, evaluator
        return made[2]

    def __getstate__(self) -> dict[str, Any]:
        """A copy is whole: model, optimiser, schedule and callbacks of its own, and a step that is
        compiled for them.
        """
        state = {k: v for k, v in self.__dict__.items() if k not in ("step", "_evaluator", "ranks")}
        *where, options = self._made
        state["_made"] = (*where, {**options, "loss_scale": self.step.loss_scale})
        return {"trainer": state, "step": self.step.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["trainer"])
        self._compile()
        self.step.load_state_dict(state["step"])

    @abstractmethod
    def save(self, path: Path_, extra: Mapping[str, Any] | None = None) -> None:
        """Write the whole training state to a file; see `Trainer.save`."""

    def stop(self, reason: str, diverged: bool = False) -> None:
        """Ask `fit` to end: for callbacks. The first reason stays.

        Args:
            reason: why.
            diverged: the weights are of no use any more: the checkpoint keeps what it has.
        """
        self.state.stop(reason, diverged)

    def weights_are_finite(self) -> bool:
        """No trained weight is NaN or infinite."""
        return all(bool(np.isfinite(p.value).all()) for p in self.optimizer.parameters())

    @property
    def ema(self) -> EMA | None:
        """The average of the weights that the step keeps; None for none."""
        found = self.step.settings.ema
        return found if isinstance(found, EMA) else None

    @property
    def floating(self) -> np.dtype[Any]:
        """The parameters' dtype."""
        found: np.dtype[Any] = self.optimizer.parameters()[0].dtype
        return found

    def _step(self, X: Any, *rest: Any) -> Any:
        """What is compiled: the loss, and the terms of other numbers if it gives some."""
        loss, numbers = self._loss(outputs_of(self.model, X), *rest)
        self.numbers_of_loss = list(numbers)
        if not numbers:
            return loss
        graph = active_graph()
        assert graph is not None
        return loss, {k: with_terms(graph, v, graph.samples) for k, v in numbers.items()}

    def _loss(self, outputs: Any, y: Any, weights: Any = None) -> tuple[Any, dict[str, Any]]:
        """The loss, and other numbers that its function gives."""
        if getattr(self.loss_fn, "from_logits", None):
            note("from_logits", True)
        if weights is None:
            return loss_and_numbers(self.loss_fn(outputs, y))
        return loss_and_numbers(weighted_loss(self.loss_fn, outputs, y, weights))
