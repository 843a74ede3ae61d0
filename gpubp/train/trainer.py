"""Trainer: epochs, validation, history, callbacks and checkpoints around a compiled step.

Comes in: a model, a loss, an optimiser and data. Goes out: a `History`, metrics, predictions.
Evaluation and prediction run in eval mode; afterwards every module is in the mode it was in before.
Training leaves modes as they are, so that what was put into eval mode (a frozen BatchNorm, a
Dropout switched off) stays so; only a model that is in eval mode as a whole is put into train mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.backends import Backend
from gpubp.backends.device_array import DeviceArray
from gpubp.core import note
from gpubp.core.interop import check_dtype
from gpubp.core.noted import Noted
from gpubp.data.checks import check_finite, check_not_empty
from gpubp.errors import DataError, unknown_name
from gpubp.nn.module import Module
from gpubp.ops.random import checked_seed
from gpubp.optim.averaging import EMA
from gpubp.optim.base import Optimizer
from gpubp.runtime.program_cache import as_input
from gpubp.runtime.step import Step, compile_step
from gpubp.train import inputs
from gpubp.train import metrics as metrics_module
from gpubp.train.callbacks import Callback, check_callbacks
from gpubp.train.evaluation import BATCH, Evaluator
from gpubp.train.fit import Fit
from gpubp.train.history import History
from gpubp.train.metrics import Metric, UserMetric
from gpubp.train.plan import Plan
from gpubp.train.scheduling import check_monitor
from gpubp.train.weights import ClassWeight, weighted_loss

if TYPE_CHECKING:
    from gpubp.train.state import Pending
    from gpubp.train.tensorfile import Path_


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


class Trainer:
    """Trains a model.

    Args:
        model: maps a batch of samples to predictions.
        loss_fn: maps (predictions, targets) to a scalar: a loss of `gpubp.nn`, or a function, which
            is taken for a mean over samples but for the losses and `gp.ops.mean_over` it calls. A
            function with the attribute `from_logits = True` takes logits, for metrics.
        optimizer: over the model's parameters.
        device: "auto", "cpu", "cuda" or "cuda:N"; see `gp.compile_step`.
        backend: a backend's name; default is the best one available.
        seed: of the order of the samples and of `validation_split`. Weights and dropout are seeded
            by `gp.manual_seed`.
        scheduler: of `gpubp.optim.lr_scheduler`, or anything with its methods.
        scheduler_every: "epoch": its `step()` is called after each epoch; "step": it moves at each
            step, inside the program.
        monitor: the number of the record that a schedule is fed which takes one
            (ReduceLROnPlateau). Default is val_loss (else loss), for a schedule of mode "max"
            val_accuracy (else accuracy).
        **step_options: passed on to `gp.compile_step`: max_grad_norm and the rest.

    Attributes:
        step: the compiled step; `print(trainer.step.report())` after `fit`.
        history: of all calls of `fit`.
        epoch: whole epochs trained so far.
        steps: batches trained on so far.
        position: samples trained on in the epoch that was left unfinished; else 0.
        model, loss_fn: may be set; what runs from then on is the new one. (optimizer may not, nor
            scheduler where it moves with each step: the step is compiled for them.)
        stop_reason: why the last `fit` ended before its last epoch, else None: "interrupted",
            "max_steps", "max_time", or what a callback gave.
        diverged: that reason was a loss that is not finite (`TerminateOnNaN`).

    Raises:
        DataError: a monitor that the schedule does not watch, or that improves the other way.
        UnknownNameError: an option that there is not.
    """

    model: Any = Noted()
    loss_fn: Any = Noted()
    optimizer: Any = Noted(_only_once("optimizer"))
    scheduler: Any = Noted(_only_once("scheduler"))

    @checked
    def __init__(
        self,
        model: Module,
        loss_fn: Callable[..., Any],
        optimizer: Optimizer,
        device: str = "auto",
        backend: str | Backend | None = None,
        seed: int = 0,
        scheduler: Any = None,
        scheduler_every: str = "epoch",
        monitor: str | None = None,
        **step_options: Any,
    ) -> None:
        known = inspect.signature(compile_step).parameters
        if scheduler_every not in ("epoch", "step"):
            raise unknown_name("scheduler_every", scheduler_every, ("epoch", "step"))
        check_monitor(scheduler, monitor)
        if scheduler is not None and scheduler_every == "step":
            step_options["scheduler"] = scheduler
        for name in step_options:
            if name not in known:
                raise unknown_name("option of Trainer and compile_step", name, known)
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_every = scheduler_every
        self.monitor = monitor
        self.history = History()
        self._made: tuple[str | Backend | None, str, dict[str, Any]]
        self._made = backend, device, step_options
        self._compile()
        self.seed = checked_seed(seed)
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.epoch = self.steps = self.position = 0
        self.stop_reason: str | None = None
        self.diverged = False
        self.callbacks: Sequence[Callback] = ()
        # What checkpoints hold besides: of the unfinished epoch, and of the call of fit.
        self.losses: list[NDArray[np.float64]] = []  # sums and counts; see Step.totals
        self.epoch_rng: Mapping[str, Any] = self.rng.bit_generator.state
        self.fit_start = self.fit_steps = 0
        self.fit_facts: dict[str, Any] = {}
        self.resuming = False
        self.pending: Pending | None = None
        # Of the call of fit: names in its records, and which of them the schedule watches.
        self.numbers: list[str] = []
        self.watched: str | None = None
        # What a resumed run compares its own options with; see `resumption`.
        self.made: dict[str, Any] = {}

    def _compile(self) -> None:
        backend, device, options = self._made
        self.step: Step = compile_step(
            lambda x, *rest: self._loss(self.model(x), *rest),
            self.optimizer,
            backend=backend,
            device=device,
            **options,
        )
        self._evaluator: tuple[Module, Any, Evaluator] | None = None

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
        state = {k: v for k, v in self.__dict__.items() if k not in ("step", "_evaluator")}
        *where, options = self._made
        state["_made"] = (*where, {**options, "loss_scale": self.step.loss_scale})
        return {"trainer": state, "step": self.step.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["trainer"])
        self._compile()
        self.step.load_state_dict(state["step"])

    @checked
    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Sequence[ArrayLike] | None = None,
        shuffle: bool = True,
        verbose: bool = True,
        metrics: Sequence[str | UserMetric | Metric] = (),
        *,
        drop_last: bool = False,
        validation_split: float = 0.0,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        callbacks: Sequence[Callback] = (),
        max_steps: int | None = None,
        max_time: float | None = None,
        checkpoint: Path_ | None = None,
        save_every: int = 1,
        save_every_steps: int | None = None,
        resume: Path_ | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> History:
        """Train for some epochs; a second call goes on from where the first one ended.

        Ctrl-C ends it at the next whole step: the model and the history are usable, and
        `stop_reason` says "interrupted". A second Ctrl-C raises KeyboardInterrupt at once.

        Args:
            X: samples along the first axis; floats are converted to the parameters' dtype. An array
                that is memory-mapped is read in blocks. With y left out, an iterable of batches
                (x, y) or (x, y, weights), or a function that returns one, taken in a thread.
            y: one target a sample.
            epochs: passes over the data, at least 1.
            batch_size: samples a step; the last batch of an epoch may be shorter. Iterables bring
                their own.
            drop_last: leave out a last batch that is shorter.
            validation_data: (X, y) or (X, y, weights) held out: evaluated after each epoch, as
                val_loss, val_accuracy for class labels, and the metrics.
            shuffle: a new order each epoch.
            verbose: show progress on stderr.
            metrics: names, functions of (targets, outputs), or `gpubp.train.metric` with a
                threshold or weights; measured on X, y after each epoch, and on the validation
                data. A name stands once.
            validation_split: the share of X, y to hold out, chosen at random by the trainer's seed.
            sample_weight: one weight a sample: the loss is mean(weight * loss of the sample).
            class_weight: label -> weight, or "balanced"; multiplies the sample weights of the rows
                that are trained on, and is counted over these alone. Held-out rows have none.
            callbacks: called in order; see `gpubp.train.Callback`.
            max_steps: end after so many steps, counted over a fit and its resumptions.
            max_time: end after about so many seconds.
            checkpoint: a file to save the training state to, every `save_every` epochs (and
                `save_every_steps` steps), at the end, and on Ctrl-C. The state of a run that has
                diverged is not saved: the file keeps the last good one.
            save_every: epochs.
            save_every_steps: steps.
            resume: a checkpoint to go on from. `epochs` counts from the start of the call that was
                cut off: the same call with `resume` added ends as if it had never been stopped, bit
                for bit, given the same data, backend and options. Where options differ, a warning
                says which were taken and which stay as in the file.

        Returns:
            The trainer's history, whose "loss" is that of the epoch's samples as of one batch (a
            batch in which nothing counts is left out; a sum is a sum). An epoch that
            was not finished is the last record, numbered by its share (2.5: half of the third).

        Raises:
            DataError: unusable data, with where; or numbers out of range.
            UnknownNameError: an unknown metric.
            CheckpointError: a file that is damaged or does not fit.
        """
        plan = Plan(
            epochs, batch_size, shuffle, verbose, max_steps, max_time,
            checkpoint, save_every, save_every_steps, resume, extra, drop_last,
        )  # fmt: skip
        plan.check()
        data = inputs.prepare(
            self, X, y, validation_data, validation_split, sample_weight, class_weight, metrics,
            batch_size, drop_last,
        )  # fmt: skip
        check_callbacks(callbacks)
        return Fit(self, plan, data, callbacks).run()

    @checked
    def evaluate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        metrics: Sequence[str | UserMetric | Metric] = (),
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, float]:
        """The loss as of one batch of all samples, accuracy for class labels, and metrics.

        Args:
            X: samples along the first axis.
            y: one target a sample.
            metrics: as for `fit`.
            sample_weight: as for `fit`; for the loss, and for metrics that are `weighted`.

        Raises:
            DataError: unusable data, with where.
            UnknownNameError: an unknown metric.
        """
        found = metrics_module.find(metrics)
        given = (X, y) if sample_weight is None else (X, y, sample_weight)
        arrays = inputs.checked(self, given, ("X", "y", "sample_weight"))
        return self.evaluator.measure(arrays, self.floating, found)

    @checked
    def predict(self, X: ArrayLike, batch_size: int = BATCH) -> Any:
        """The model's outputs in eval mode, for all samples; on the device if X is there.

        Args:
            X: samples along the first axis.
            batch_size: samples at a time.

        Raises:
            DataError: X is empty or not finite.
        """
        backend = self.evaluator.backend
        if isinstance(X, np.memmap):
            check_dtype(X.dtype, "X")
        data = X if isinstance(X, np.memmap) else as_input(X, "X", self.floating, backend)
        check_not_empty(data, "X")
        if not isinstance(data, DeviceArray):
            check_finite(data, "X")
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}: expected at least 1.")
        return self.evaluator.predict(data, self.floating, batch_size)

    @checked
    def save(self, path: Path_, extra: Mapping[str, Any] | None = None) -> None:
        """Write the whole training state to a file; it appears as a whole or not at all.

        Weights, optimiser, module state, random counters, place in the epoch, history, scheduler,
        callbacks. `fit(..., resume=path)` or `load` goes on from it, and `gpubp.train.load_model`
        and `load_weights` read the model out of it.

        Args:
            path: the file.
            extra: JSON values to keep with it.

        Raises:
            CheckpointError: it cannot be written, or a callback's state is not made of numbers,
                strings, arrays, lists and dicts.
        """
        from gpubp.train import state

        state.save(self, path, extra)

    @checked
    def load(self, path: Path_) -> dict[str, Any]:
        """Take over the training state of a checkpoint; if it raises, nothing has changed.

        The default random generator is set too.

        Returns:
            The `extra` it was saved with.

        Raises:
            CheckpointError: the file is damaged, or of another model, optimiser or scheduler.
        """
        from gpubp.train import state

        return state.load(self, path)

    def stop(self, reason: str, diverged: bool = False) -> None:
        """Ask `fit` to end: for callbacks. The first reason stays.

        Args:
            reason: why.
            diverged: the weights are of no use any more: the checkpoint keeps what it has.
        """
        self.stop_reason = self.stop_reason or reason
        self.diverged = self.diverged or diverged

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

    def _loss(self, outputs: Any, y: Any, weights: Any = None) -> Any:
        if getattr(self.loss_fn, "from_logits", None):
            note("from_logits", True)
        if weights is None:
            return self.loss_fn(outputs, y)
        return weighted_loss(self.loss_fn, outputs, y, weights)
