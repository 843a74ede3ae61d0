"""Loss, metrics and predictions of a model in eval mode, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends import Backend, get_backend
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.trace import trace
from gpubp.core import active_graph, tree
from gpubp.nn.module import Module
from gpubp.runtime import totals
from gpubp.runtime.arguments import Arguments, built
from gpubp.runtime.batched import Batched, check_rows
from gpubp.runtime.function import compile_function
from gpubp.runtime.program_cache import as_input
from gpubp.train.calling import outputs_of
from gpubp.train.metrics import Metric, accuracy_by_itself, find
from gpubp.train.numbers import rows_of_terms, with_terms
from gpubp.train.ranks import Ranks
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
        loss: takes (outputs, y) or (outputs, y, weights); returns the loss and a dict of other
            numbers.
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
        self._forward = compile_function(self._outputs, backend=self.backend)
        self._batched = Batched(self._outputs, self.backend)
        self._both: dict[int, Callable[..., Any]] = {}

    def _outputs(self, X: Any) -> Any:
        return outputs_of(self._model, X)

    def _measured_by(self, first: int) -> Callable[..., Any]:
        """The compiled function behind `measure`, where samples are those of this array."""
        if first not in self._both:

            def measured(*arguments: Any) -> tuple[Any, ...]:
                samples = tree.flatten(arguments)[0][first].shape[0]
                return self._outputs_and_loss(samples, *arguments)

            self._both[first] = compile_function(measured, backend=self.backend)
        return self._both[first]

    def _outputs_and_loss(self, samples: int, X: Any, *rest: Any) -> tuple[Any, ...]:
        """Outputs, the loss with the sums and counts of its terms, and other numbers by name, each
        with its own; called once, on traced arrays.
        """
        outputs = outputs_of(self._model, X)
        loss, numbers = self._loss(outputs, *rest)
        graph = active_graph()
        assert graph is not None
        notes = graph.notes
        self._reading = Reading(
            notes.get("from_logits"), notes.get("ignore_index"), "one_hot" in notes
        )
        terms = with_terms(graph, loss, samples)
        return outputs, terms, {k: with_terms(graph, v, samples) for k, v in numbers.items()}

    def predict(self, X: Arguments, floating: np.dtype[Any], batch_size: int) -> Any:
        """The outputs of all samples; where they are, on a device or on the host."""
        known = (floating, *_INTEGERS)
        with mode(self._model, training=False):
            # Where batches must be converted one by one, they go to the device one by one.
            if any(isinstance(a, DeviceArray) for a in X.arrays):
                return self._batched(X, batch_size)
            if self.backend.reads_device_arrays and all(a.dtype in known for a in X.arrays):
                return self._batched(X.converted(lambda a, _: np.asarray(a, order="C")), batch_size)
            parts, sizes = [], []
            for batch in _batches(X, batch_size, floating):
                parts.append(self._forward(*batch.parts()))
                sizes.append(batch.samples)
        return _joined(parts, sizes)

    def foreseen(
        self, arrays: Arguments, total: int, floating: np.dtype[Any]
    ) -> tuple[Any, list[str]]:
        """Zeros in the place of the outputs of all samples, and the names of the numbers that the
        loss gives, from traces: nothing is computed.

        What makes `measure` impossible (a batch that the model or the loss does not take) raises
        here as it would there.

        Args:
            arrays: as for `measure`.
            total: how many of their samples will be measured.
            floating: the model's dtype.
        """
        one = arrays.rows(slice(1)).converted(lambda a, name: as_input(a, name, floating))
        with mode(self._model, training=False):
            for size in {min(BATCH, total), total % BATCH or min(BATCH, total)}:
                types = built(one.structure, one.types(size))
                graph, made = trace(partial(self._outputs_and_loss, size), types)
        zeros = []
        for node in graph.outputs:
            shape = (total, *node.shape[1:]) if node.shape[:1] == (size,) else node.shape
            zeros.append(np.broadcast_to(np.zeros((), node.dtype), shape))
        outputs, _, numbers = tree.unflatten(made, zeros)
        return outputs, list(numbers)

    def check(self, metrics: Sequence[Metric], y: Any, outputs: Any) -> None:
        """Raise what the named metrics will raise for these targets; functions are not called."""
        for metric in metrics:
            if metric.named:
                metric.of(y, outputs, self._reading)

    def measure(
        self,
        arrays: Arguments,
        floating: np.dtype[Any],
        metrics: Sequence[Metric] = (),
        ranks: Ranks | None = None,
    ) -> dict[str, float]:
        """The mean loss and metrics of (X, y) and perhaps weights.

        Args:
            arrays: floats may be of any dtype.
            floating: the model's dtype.
            metrics: to compute; accuracy comes by itself if targets are class labels.
            ranks: that do it together, a part of the samples each; all of them call this.

        Returns:
            "loss" first: as of one batch of all samples; so are other numbers that the loss gives.
        """
        ranks = ranks or Ranks(None)
        found, parts, sizes = self._run_over(arrays, floating, ranks)
        # A loss may be of outputs that have no row for each sample; a metric may not.
        plain = isinstance(parts[0], np.ndarray) and parts[0].shape[:1] == (sizes[0],)
        outputs = None
        if plain or metrics:
            kept = len(ranks.batches(arrays.samples, BATCH)) > 0
            outputs = _by_leaf(
                lambda a: ranks.gathered(a if kept else a[:0]), _joined(parts, sizes)
            )
        _, y, *weights = arrays.parts()
        if ranks.own_data and outputs is not None:
            y, *weights = (_by_leaf(ranks.gathered, part) for part in (y, *weights))
        wanted = [*find(accuracy_by_itself(metrics, y, outputs)), *metrics]
        how = replace(self._reading, weights=np.asarray(weights[0]) if weights else None)
        return {**found, **{metric.name: metric.of(y, outputs, how) for metric in wanted}}

    def _run_over(
        self, arrays: Arguments, floating: np.dtype[Any], ranks: Ranks
    ) -> tuple[dict[str, float], list[Any], list[int]]:
        """The loss and its numbers over all samples; outputs of this rank's batches, their sizes.

        A rank with no batch runs the first one, for the outputs' structure: it does not count.
        """
        rows: dict[str, list[NDArray[np.float64]]] = {}
        parts, sizes = [], []
        mine = ranks.batches(arrays.samples, BATCH)
        with mode(self._model, training=False):
            both = self._measured_by(arrays.first)
            for low, high in mine or [(0, 1)]:
                batch = _converted(arrays, low, high, floating)
                outputs, loss, numbers = both(*batch.parts())
                for name, terms in {"loss": loss, **numbers}.items():
                    rows.setdefault(name, []).append(rows_of_terms(batch.samples, *terms))
                parts.append(outputs)
                sizes.append(batch.samples)
        all_rows = {k: ranks.gathered(np.stack(v)[: len(mine)]) for k, v in rows.items()}
        return {name: totals.together(found) for name, found in all_rows.items()}, parts, sizes


def _converted(arrays: Arguments, low: int, high: int, floating: np.dtype[Any]) -> Arguments:
    batch = arrays.rows(slice(low, high))
    return batch.converted(lambda a, name: as_input(a, name, floating))


def _batches(arrays: Arguments, batch_size: int, floating: np.dtype[Any]) -> Iterator[Arguments]:
    for low in range(0, arrays.samples, batch_size):
        yield _converted(arrays, low, low + batch_size, floating)


def _by_leaf(change: Callable[[Any], Any], value: Any) -> Any:
    leaves, structure = tree.flatten(value)
    return tree.unflatten(structure, [change(leaf) for leaf in leaves])


def _joined(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The outputs of batches of these sizes as those of all samples, structured as the model's."""
    leaves = [tree.flatten(part)[0] for part in parts]
    for found, size in zip(leaves, sizes, strict=True):
        check_rows([np.shape(a) for a in found], size)
    structure = tree.flatten(parts[0])[1]
    return tree.unflatten(structure, [np.concatenate(c) for c in zip(*leaves, strict=True)])
