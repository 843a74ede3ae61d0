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

from numpy.typing import ArrayLike

from gpubp.arguments import checked
from gpubp.backends import Backend
from gpubp.data.frames import computed
from gpubp.errors import unknown_name
from gpubp.nn.module import Module
from gpubp.ops.random import checked_seed
from gpubp.optim.base import Optimizer
from gpubp.runtime.step import compile_step
from gpubp.train import inputs, labels, members
from gpubp.train import metrics as metrics_module
from gpubp.train.fit import Fit
from gpubp.train.history import History
from gpubp.train.hooks import Hooks, check_callbacks
from gpubp.train.metrics import Metric, UserMetric
from gpubp.train.plan import Plan
from gpubp.train.predicting import Predicting
from gpubp.train.ranks import share
from gpubp.train.scheduling import check_monitor, check_owner
from gpubp.train.weights import ClassWeight

if TYPE_CHECKING:
    from gpubp.train.tensorfile import Path_


class Trainer(Predicting):
    """Trains a model.

    Args:
        model: maps a batch of samples to predictions.
        loss_fn: maps (predictions, targets) to a scalar: a loss of `gpubp.nn`, or a function, which
            is taken for a mean over samples but for the losses and `gp.ops.mean_over` it calls. A
            function with the attribute `from_logits = True` takes logits, for metrics.
        optimizer: over the model's parameters.
        device: "auto", "cpu", "cuda", "cuda:N" or "cuda-emulated"; see `gp.compile_step`.
        backend: a backend's name; default is the best one available.
        seed: of the order of the samples and of `validation_split`. Weights and dropout are seeded
            by `gp.manual_seed`.
        scheduler: of `gpubp.optim.lr_scheduler`, or anything with its methods.
        scheduler_every: "epoch": its `step()` is called after each epoch; "step": it moves at each
            step, inside the program.
        monitor: the number of the record that a schedule is fed which takes one
            (ReduceLROnPlateau). Default is val_loss (else loss), for a schedule of mode "max"
            val_accuracy (else accuracy).
        population: train so many models side by side, or {"n": 16, "lr": [...], ...}, arguments of
            `gp.compile_population`; `fit` then leaves the best one's weights in the model.
        **step_options: passed on to `gp.compile_step`: max_grad_norm and the rest.

    Attributes:
        step: the compiled step; `print(trainer.step.report())` after `fit`.
        history: of all calls of `fit`.
        epoch: whole epochs trained so far.
        steps: batches trained on so far.
        position: samples trained on in the epoch that was left unfinished; else 0.
        population, histories, best: of a population: itself, one history for each member, and the
            member whose last validation loss (else loss, or what `EarlyStopping` watches) is best.
        model, loss_fn: may be set; what runs from then on is the new one. (optimizer may not, nor
            scheduler where it moves with each step: the step is compiled for them.)
        classes: the labels, if they were texts, in the order of the model's outputs.
        stop_reason: why the last `fit` ended before its last epoch, else None: "interrupted",
            "max_steps", "max_time", or what a callback gave.
        diverged: that reason was a loss that is not finite (`TerminateOnNaN`).

    Raises:
        DataError: a monitor that the schedule does not watch, or that improves the other way; a
            schedule of another optimiser.
        UnknownNameError: an option that there is not.
    """

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
        population: Any = None,
        **step_options: Any,
    ) -> None:
        if scheduler_every not in ("epoch", "step"):
            raise unknown_name("scheduler_every", scheduler_every, ("epoch", "step"))
        check_monitor(scheduler, monitor)
        check_owner(scheduler, optimizer)
        if scheduler is not None and scheduler_every == "step":
            step_options["scheduler"] = scheduler
        known = inspect.signature(compile_step).parameters
        for name in step_options:
            if name not in known:
                raise unknown_name("option of Trainer and compile_step", name, known)
        share(step_options)
        super().__init__(
            model, loss_fn, optimizer, scheduler, scheduler_every, monitor, checked_seed(seed),
            (backend, device), step_options,
        )  # fmt: skip
        self.population: Any = None
        self.best, self.histories = 0, list[History]()
        members.prepare(self, population, scheduler, backend, device, step_options)

    @checked
    def fit(
        self,
        X: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        verbose: bool = True,
        metrics: Sequence[str | UserMetric | Metric] = (),
        *,
        drop_last: bool = False,
        validation_split: float = 0.0,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        callbacks: Sequence[Hooks] = (),
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
            X: samples along the first axis; floats are converted to the parameters' dtype. A tuple
                of arrays goes to `forward` as positional arguments, where it takes so many, a dict
                as keyword arguments, where it has these names; else as one argument. Arrays without
                samples are marked by `gp.whole`. An array that is memory-mapped is read in blocks.
                A data frame is its columns of numbers. What Dask has yet to compute is computed.
                With y left out, an array is its own target, as of an autoencoder; or an iterable of
                batches (x, y) or (x, y, weights), or a function that returns one, taken in a
                thread.
            y: one target a sample; tuples and dicts of such go to the loss as they are. Labels that
                are texts become class indices, in the order of `classes`.
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
            The trainer's history: "loss" is that of the epoch's samples as of one batch (a batch in
            which nothing counts is left out; a sum is a sum); numbers that the loss function gives,
            as (loss, {name: number}), are beside it. An epoch that
            was not finished is the last record, numbered by its share (2.5: half of the third).

        Raises:
            DataError: unusable data, with where; or numbers out of range.
            UnknownNameError: an unknown metric.
            CheckpointError: a file that is damaged or does not fit.
        """
        if self.population is not None:
            with self.ranks.telling():
                return members.fit_members(self, {k: v for k, v in locals().items() if k != "self"})
        plan = Plan(
            epochs, batch_size, shuffle, verbose and self.ranks.leads, max_steps, max_time,
            checkpoint, save_every, save_every_steps, resume, extra, drop_last,
        )  # fmt: skip
        with self.ranks.telling():
            plan.check()
            X, y = computed((X, y))
            with labels.noted(self.state, y):
                data = inputs.prepare(
                    self, X, y, validation_data, validation_split, sample_weight, class_weight,
                    metrics, batch_size, drop_last,
                )  # fmt: skip
            check_callbacks(callbacks)
            return Fit(self, plan, data, callbacks).run()

    @checked
    def evaluate(
        self,
        X: Any,
        y: Any = None,
        metrics: Sequence[str | UserMetric | Metric] = (),
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, float]:
        """The loss as of one batch of all samples, accuracy for class labels, and metrics.

        Args:
            X, y: as for `fit`, but no iterable of batches.
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
    def save(self, path: Path_, extra: Mapping[str, Any] | None = None) -> None:
        """Write the whole training state to a file; it appears as a whole or not at all.

        Weights, optimiser, module state, random counters, place in the epoch, history, scheduler,
        callbacks. `fit(..., resume=path)` or `load` goes on from it, and `gpubp.train.load_model`
        and `load_weights` read the model out of it.

        Args:
            path: the file.
            extra: JSON values to keep with it.

        With `shard_optimizer` all ranks call it together, and rank 0 writes the file.

        Raises:
            CheckpointError: it cannot be written, or a callback's state is not made of numbers,
                strings, arrays, lists and dicts.
        """
        from gpubp.train import checkpoint

        checkpoint.save(self, path, extra)

    @checked
    def load(self, path: Path_) -> dict[str, Any]:
        """Take over the training state of a checkpoint; if it raises, nothing has changed.

        The default random generator is set too.

        Returns:
            The `extra` it was saved with.

        Raises:
            CheckpointError: the file is damaged, or of another model, optimiser or scheduler.
        """
        from gpubp.train import checkpoint

        return checkpoint.load(self, path)
