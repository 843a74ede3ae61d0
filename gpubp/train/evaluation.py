"""Loss, metrics and predictions of a model in eval mode, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends import Backend, get_backend
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, active_graph
from gpubp.nn.module import Module
from gpubp.runtime import totals
from gpubp.runtime.batched import Batched
from gpubp.runtime.function import compile_function
from gpubp.runtime.program_cache import as_input
from gpubp.train.metrics import Metric, accuracy_by_itself, find
from gpubp.train.reading import Reading

BATCH = 1024
_INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))


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


@contextmanager
def training_mode(model: Module) -> Iterator[None]:
    """The modes to train in: the user's.

    A model in train mode stays as it is, so that modules which were put into eval mode (a frozen
    BatchNorm, a Dropout switched off) are trained around. A model that is in eval mode as a whole,
    as after predicting, is put into train mode for a while.
    """
    if model.training:
        yield
        return
    with mode(model, training=True):
        yield


class Evaluator:
    """Runs a model and its loss on data of any size.

    Args:
        model: the model.
        loss: takes (outputs, y) or (outputs, y, weights).
        backend, device: see `gp.compile`.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Any],
        backend: str | Backend | None,
        device: str,
    ) -> None:
        self._model = model
        self._loss = loss
        self._reading = Reading()
        self.backend = get_backend(backend, device)
        self._forward = compile_function(model, backend=self.backend)
        self._batched = Batched(model, self.backend)
        self._both = compile_function(self._outputs_and_loss, backend=self.backend)

    def _outputs_and_loss(self, x: Any, *rest: Any) -> tuple[Any, ...]:
        """Outputs, loss, and the sums and counts of its terms; called once, on traced arrays."""
        outputs = self._model(x)
        loss = self._loss(outputs, *rest)
        graph = active_graph()
        assert graph is not None
        notes = graph.notes
        self._reading = Reading(
            notes.get("from_logits"), notes.get("ignore_index"), "one_hot" in notes
        )
        terms = totals.terms_of(graph, graph.lift(loss), x.shape[0])
        return outputs, loss, [t.total for t in terms], [t.count for t in terms]

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

    def foreseen(self, arrays: Sequence[Any], total: int, floating: np.dtype[Any]) -> NDArray[Any]:
        """Zeros in the place of the outputs of all samples, from traces: nothing is computed.

        What makes `measure` impossible (a batch that the model or the loss does not take) raises
        here as it would there.

        Args:
            arrays: as for `measure`.
            total: how many of their samples will be measured.
            floating: the model's dtype.
        """
        like = [as_input(a[:1], "data", floating) for a in arrays]
        with mode(self._model, training=False):
            for size in {min(BATCH, total), total % BATCH or min(BATCH, total)}:
                types = [ArrayType((size, *a.shape[1:]), a.dtype) for a in like]
                graph, _ = trace(self._outputs_and_loss, types)
        outputs = graph.outputs[0]
        return np.broadcast_to(np.zeros((), outputs.dtype), (total, *outputs.shape[1:]))

    def check(self, metrics: Sequence[Metric], y: Any, outputs: NDArray[Any]) -> None:
        """Raise what the named metrics will raise for these targets; functions are not called."""
        for metric in metrics:
            if metric.named:
                metric.of(np.asarray(y), outputs, self._reading)

    def measure(
        self, arrays: Sequence[Any], floating: np.dtype[Any], metrics: Sequence[Metric] = ()
    ) -> dict[str, float]:
        """The mean loss and metrics of X, y and perhaps weights.

        Args:
            arrays: of equal length; floats may be of any dtype.
            floating: the model's dtype.
            metrics: to compute; accuracy comes by itself if targets are class labels.

        Returns:
            "loss" first: as of one batch of all samples.
        """
        rows, parts = [], []
        with mode(self._model, training=False):
            for i in range(0, len(arrays[0]), BATCH):
                batch = [as_input(a[i : i + BATCH], "data", floating) for a in arrays]
                outputs, *loss = self._both(*batch)
                rows.append(_row(len(batch[0]), *loss))
                parts.append(outputs)
        outputs, y = np.concatenate(parts), np.asarray(arrays[1])
        found = {"loss": totals.together(np.stack(rows))}
        wanted = [*find(accuracy_by_itself(metrics, y, outputs)), *metrics]
        how = replace(self._reading, weights=np.asarray(arrays[2]) if len(arrays) > 2 else None)
        return {**found, **{metric.name: metric.of(y, outputs, how) for metric in wanted}}


def _row(size: int, loss: Any, sums: Sequence[Any], counts: Sequence[Any]) -> NDArray[np.float64]:
    """Sums and counts of a batch, (terms, 2); of a mean over samples if it has no terms."""
    if not sums:
        return np.array([[float(loss) * size, size]])
    found = [(s, totals.NO_COUNT if c is None else c) for s, c in zip(sums, counts, strict=True)]
    return np.array(found, np.float64)
