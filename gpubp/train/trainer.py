"""Trainer: epochs, validation, history and progress around a compiled step.

Comes in: a model, a loss, an optimiser and arrays. Goes out: a `History`, metrics, predictions.
Training runs in train mode, evaluation and prediction in eval mode; afterwards the model is in the
mode it was in before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.backends import Backend
from gpubp.core import ArrayType
from gpubp.data.checks import check_finite, check_labels, check_not_empty, check_pair
from gpubp.errors import DataError, unknown_name
from gpubp.function import compile_function
from gpubp.nn.loss import CrossEntropyLoss
from gpubp.nn.module import Module
from gpubp.optim.base import Optimizer
from gpubp.runner import as_input
from gpubp.step import Step, compile_step
from gpubp.trace import trace
from gpubp.train.history import History
from gpubp.train.progress import EpochProgress

METRICS = ("accuracy",)
EVALUATION_BATCH = 1024
SECONDS_BETWEEN_UPDATES = 0.25
FIRST_CHUNK_BATCHES = 16


class Trainer:
    """Trains a model.

    Args:
        model: maps a batch of samples to predictions.
        loss_fn: maps (predictions, targets) to a scalar: the mean over the batch.
        optimizer: over the model's parameters.
        device: "auto" or "cpu"; see `gp.compile_step`.
        backend: a backend's name; default is the best one available.
        seed: of the order of the samples. Weights and dropout are seeded by `gp.manual_seed`.

    Attributes:
        step: the compiled step; `print(trainer.step.report())` after `fit`.
        history: of all calls of `fit`.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Any,
        optimizer: Optimizer,
        device: str = "auto",
        backend: str | Backend | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.history = History()
        self.step: Step = compile_step(
            lambda x, y: loss_fn(model(x), y), optimizer, backend=backend, device=device
        )
        self._forward = compile_function(model, backend=backend, device=device)
        self._measure = compile_function(self._outputs_and_loss, backend=backend, device=device)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._rate = 0.0

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        epochs: int,
        batch_size: int = 32,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        verbose: bool = True,
        metrics: Sequence[str] = (),
    ) -> History:
        """Train for some epochs; a second call goes on from where the first one ended.

        Args:
            X: samples along the first axis; floats are converted to the parameters' dtype.
            y: one target a sample.
            epochs: passes over the data, at least 1.
            batch_size: samples a step; the last batch of an epoch may be shorter.
            validation_data: (X, y) held out: evaluated after each epoch, as val_loss and, for class
                labels, val_accuracy.
            shuffle: a new order each epoch.
            verbose: show progress on stderr.
            metrics: "accuracy" to measure it on X, y after each epoch too.

        Returns:
            The trainer's history, whose "loss" is the mean over the epoch's samples.

        Raises:
            DataError: unusable data, with where; or epochs or batch_size below 1.
            UnknownNameError: an unknown metric.
        """
        for metric in metrics:
            if metric not in METRICS:
                raise unknown_name("metric", metric, METRICS)
        if epochs < 1 or batch_size < 1:
            raise DataError(f"epochs={epochs}, batch_size={batch_size}: expected at least 1.")
        X, y = self._checked(X, y, ("X", "y"))
        held_out = None
        if validation_data is not None:
            held_out = self._checked(*validation_data, ("validation X", "validation y"))
        self._compile(X, y, batch_size)
        first = len(self.history.records) + 1
        for epoch in range(first, first + epochs):
            order = self._rng.permutation(len(X)) if shuffle else np.arange(len(X))
            with EpochProgress(epoch, first + epochs - 1, len(X), verbose) as progress:
                record = {"loss": self._epoch(X, y, order, batch_size, progress)}
                if metrics:
                    record["accuracy"] = self._accuracy_on(X, y)
                if held_out is not None:
                    found = self._evaluate(*held_out)
                    record.update({f"val_{key}": value for key, value in found.items()})
                progress.finish(record)
            self.history.add({"epoch": epoch, **record})
        return self.history

    def evaluate(self, X: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """The mean loss, and the accuracy if the targets are class labels.

        Raises:
            DataError: unusable data, with where.
        """
        return self._evaluate(*self._checked(X, y, ("X", "y")))

    def predict(self, X: ArrayLike, batch_size: int = EVALUATION_BATCH) -> NDArray[Any]:
        """The model's outputs in eval mode, for all samples.

        Args:
            X: samples along the first axis.
            batch_size: samples at a time.

        Raises:
            DataError: X is empty or not finite.
        """
        data = as_input(X, "X", self._floating)
        check_not_empty(data, "X")
        check_finite(data, "X")
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}: expected at least 1.")
        with self._mode(training=False):
            parts = [
                self._forward(data[i : i + batch_size]) for i in range(0, len(data), batch_size)
            ]
        return np.concatenate(parts)

    @property
    def _floating(self) -> np.dtype[Any]:
        return self.optimizer.parameters()[0].dtype

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        before = [(module, module.training) for module in self.model.modules()]
        self.model.train(training)
        try:
            yield
        finally:
            for module, mode in before:
                module.training = mode

    def _checked(
        self, X: ArrayLike, y: ArrayLike, names: tuple[str, str]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        data = as_input(X, names[0], self._floating)
        targets = as_input(y, names[1], self._floating)
        check_pair(data, targets, names)
        if isinstance(self.loss_fn, CrossEntropyLoss) and targets.dtype.kind == "i":
            graph, _ = trace(self.model, [ArrayType((2, *data.shape[1:]), data.dtype)])
            check_labels(targets, graph.outputs[0].shape[-1], names[1])
        return data, targets

    def _compile(self, X: NDArray[Any], y: NDArray[Any], batch_size: int) -> None:
        """Compile ahead, so that the first epoch's rate is the rate of training."""
        size = min(batch_size, len(X))
        with self._mode(training=True):
            self.step.prepare(*[ArrayType((size, *a.shape[1:]), a.dtype) for a in (X, y)])

    def _epoch(
        self,
        X: NDArray[Any],
        y: NDArray[Any],
        order: NDArray[Any],
        batch_size: int,
        progress: EpochProgress,
    ) -> float:
        """Train on all samples in `order`; returns the mean loss of a sample."""
        total = 0.0
        start = 0
        with self._mode(training=True):
            while start < len(order):
                chunk = order[start : start + self._chunk(len(order), batch_size, progress)]
                begin = time.perf_counter()
                losses = self.step.run(
                    X, y, batch_size=min(batch_size, len(chunk)), order=chunk, shuffle=False
                )
                self._rate = len(chunk) / max(time.perf_counter() - begin, 1e-9)
                sizes = np.full(len(losses), batch_size)
                sizes[-1] = len(chunk) - batch_size * (len(losses) - 1)
                total += float(np.dot(losses.astype(np.float64), sizes))
                start += len(chunk)
                progress.advance(len(chunk))
        return total / len(order)

    def _chunk(self, samples: int, batch_size: int, progress: EpochProgress) -> int:
        """Samples to train on between two updates of the bar: whole batches."""
        if not progress.live:
            return samples
        batches = FIRST_CHUNK_BATCHES
        if self._rate:
            batches = max(1, int(self._rate * SECONDS_BETWEEN_UPDATES / batch_size))
        return batches * batch_size

    def _outputs_and_loss(self, x: Any, y: Any) -> tuple[Any, Any]:
        outputs = self.model(x)
        return outputs, self.loss_fn(outputs, y)

    def _evaluate(self, X: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        loss = 0.0
        correct = 0
        is_labels = False
        with self._mode(training=False):
            for i in range(0, len(X), EVALUATION_BATCH):
                targets = y[i : i + EVALUATION_BATCH]
                outputs, mean = self._measure(X[i : i + EVALUATION_BATCH], targets)
                loss += float(mean) * len(targets)
                is_labels = targets.dtype.kind == "i" and targets.shape == outputs.shape[:-1]
                if is_labels:
                    correct += int(np.sum(outputs.argmax(axis=-1) == targets))
        found = {"loss": loss / len(X)}
        if is_labels:
            found["accuracy"] = correct / len(X)
        return found

    def _accuracy_on(self, X: NDArray[Any], y: NDArray[Any]) -> float:
        found = self._evaluate(X, y)
        if "accuracy" not in found:
            raise DataError(
                "accuracy needs integer class labels and a model with one output a class; leave it "
                "out of metrics for other targets."
            )
        return found["accuracy"]
