"""Loss, metrics and predictions of a model in eval mode, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.backends import Backend, get_backend
from gpubp.device_array import DeviceArray
from gpubp.function import compile_function
from gpubp.inference import Batched
from gpubp.nn.module import Module
from gpubp.runner import as_input
from gpubp.train.metrics import Metric, accuracy, is_labelled

BATCH = 1024
_INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))
_OF_LOGITS = ("BCEWithLogitsLoss", "SoftMarginLoss", "HingeEmbeddingLoss")


@contextmanager
def mode(model: Module, training: bool) -> Iterator[None]:
    """Train or eval mode for a while; afterwards every module is in the mode it was in before."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


class Evaluator:
    """Runs a model and its loss on data of any size.

    Args:
        model: the model.
        loss: takes (outputs, y) or (outputs, y, weights).
        loss_fn: whose class says what a single output means.
        backend, device: see `gp.compile`.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Any],
        loss_fn: Any,
        backend: str | Backend | None,
        device: str,
    ) -> None:
        self._model = model
        self._loss = loss
        self._loss_fn = loss_fn
        self._threshold = 0.0 if type(loss_fn).__name__ in _OF_LOGITS else 0.5
        self.backend = get_backend(backend, device)
        self._forward = compile_function(model, backend=self.backend)
        self._batched = Batched(model, self.backend)
        self._both = compile_function(self._outputs_and_loss, backend=self.backend)

    def is_of(self, model: Module, loss_fn: Any) -> bool:
        """It was made for these very objects."""
        return self._model is model and self._loss_fn is loss_fn

    def _outputs_and_loss(self, x: Any, *rest: Any) -> tuple[Any, Any]:
        outputs = self._model(x)
        return outputs, self._loss(outputs, *rest)

    def predict(self, X: Any, floating: np.dtype[Any], batch_size: int) -> Any:
        """The outputs of all samples; where they are, on a device or on the host."""
        with mode(self._model, training=False):
            # Where batches must be converted one by one, they go to the device one by one.
            if isinstance(X, DeviceArray):
                return self._batched(X, batch_size)
            if self.backend.reads_device_arrays and X.dtype in (floating, *_INTEGERS):
                return self._batched(np.asarray(X, order="C"), batch_size)
            parts = [
                self._forward(as_input(X[i : i + batch_size], "X", floating))
                for i in range(0, len(X), batch_size)
            ]
        return np.concatenate(parts)

    def measure(
        self, arrays: Sequence[Any], floating: np.dtype[Any], metrics: Sequence[Metric] = ()
    ) -> dict[str, float]:
        """The mean loss and metrics of X, y and perhaps weights.

        Args:
            arrays: of equal length; floats may be of any dtype.
            floating: the model's dtype.
            metrics: to compute; accuracy comes by itself if targets are class labels.

        Returns:
            "loss" first: the mean of the batches' losses, weighted by their sizes.
        """
        loss = 0.0
        parts = []
        total = len(arrays[0])
        with mode(self._model, training=False):
            for i in range(0, total, BATCH):
                batch = [as_input(a[i : i + BATCH], "data", floating) for a in arrays]
                outputs, mean = self._both(*batch)
                loss += float(mean) * len(batch[0])
                parts.append(outputs)
        outputs, y = np.concatenate(parts), np.asarray(arrays[1])
        found = {"loss": loss / total}
        wanted = {metric.name: metric.compute for metric in metrics}
        if is_labelled(y, outputs) and "accuracy" not in wanted:
            wanted = {"accuracy": accuracy, **wanted}
        for name, compute in wanted.items():
            found[name] = compute(y, outputs, self._threshold)
        return found
