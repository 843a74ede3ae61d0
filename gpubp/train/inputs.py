"""From the arguments of `fit` to checked data: a source to train on, arrays to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import nn
from gpubp.compiler.trace import trace
from gpubp.core.interop import check_dtype
from gpubp.data.checks import check_finite, check_labels, check_samples
from gpubp.data.frames import computed, from_frame
from gpubp.data.sources import ArraySource, BatchSource, MappedSource, Source, is_mapped
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments, built
from gpubp.runtime.program_cache import as_input
from gpubp.train import metrics as metrics_module
from gpubp.train.calling import outputs_of
from gpubp.train.evaluation import mode
from gpubp.train.labels import by_index, indices_of, is_array
from gpubp.train.metrics import Metric, UserMetric
from gpubp.train.run import Run
from gpubp.train.weights import ClassWeight, sample_weights

HELD_OUT = ("validation X", "validation y", "validation weights")


@dataclass(frozen=True)
class Data:
    """What one `fit` works on.

    Attributes:
        source: to train on.
        rows: the rows of it to train on; None for all, or where their number is not known.
        dropped: how many of them each epoch leaves out, because they do not fill a batch.
        train: (X, y) and perhaps sample weights, for metrics on the training data; None for
            streams.
        held_out: the same held out, or None.
        metrics: to measure on both.
    """

    source: Source
    rows: NDArray[np.int64] | None
    train: Arguments | None
    held_out: Arguments | None
    metrics: list[Metric]
    dropped: int = 0

    @property
    def samples(self) -> int | None:
        """Samples that an epoch trains on, if known."""
        found = self.source.samples if self.rows is None else len(self.rows)
        return None if found is None else found - self.dropped

    def order(self, rng: np.random.Generator, shuffle: bool) -> NDArray[np.int64]:
        """The rows of an epoch in the order of training; none where they are not known."""
        if self.samples is None:
            return np.zeros(0, np.int64)
        rows = self.rows
        if rows is None:
            rows = np.arange(self.source.samples or 0)
        return (rng.permutation(rows) if shuffle else rows)[: self.samples]


def prepare(
    run: Run,
    X: Any,
    y: Any,
    validation_data: Sequence[Any] | None,
    validation_split: float,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    metrics: Sequence[str | UserMetric | Metric],
    batch_size: int,
    drop_last: bool,
) -> Data:
    """Check and convert; the arguments are those of `Trainer.fit`."""
    found = metrics_module.find(metrics)
    if y is None and is_array(X) and not _by_index(run):
        y = X
    held_out = None if validation_data is None else checked(run, validation_data, HELD_OUT)
    if not 0.0 <= validation_split < 1.0:
        raise DataError(f"validation_split is {validation_split}, expected a share in [0, 1).")
    if held_out is not None and validation_split:
        raise DataError("give validation_data or validation_split, not both.")
    if y is None:
        if validation_split or sample_weight is not None or class_weight is not None:
            raise DataError(
                "an iterable of batches has no validation_split, sample_weight or class_weight: "
                "give validation_data, and batches (x, y, weights)."
            )
        return _of_stream(run, X, held_out, found, drop_last)
    given = (X, y) if sample_weight is None else (X, y, sample_weight)
    arrays = checked(run, given, ("X", "y", "sample_weight"))
    class_weight = by_index(run.state.classes, class_weight)
    rows = None
    if validation_split:
        rows, held = _split(arrays.samples, validation_split, run.seed)
        held_out = arrays.rows(held)
    trained = arrays
    if class_weight is not None:
        trained = _class_weighted(run, arrays, class_weight, rows)
    source: Source = ArraySource(trained)
    if any(map(is_mapped, trained.arrays)):
        source = MappedSource(trained, run.floating)
    count = arrays.samples if rows is None else len(rows)
    if drop_last and count < batch_size:
        raise DataError(
            f"drop_last=True leaves nothing of {count} samples in batches of {batch_size}: choose "
            "smaller batches."
        )
    dropped = count % batch_size if drop_last else 0
    return Data(source, rows, arrays, held_out, found, dropped)


def _of_stream(
    run: Run, X: Any, held_out: Arguments | None, metrics: list[Metric], drop_last: bool
) -> Data:
    if metrics and held_out is None:
        raise DataError(
            "metrics of an iterable of batches are measured on validation_data: give it, or "
            "leave metrics out."
        )
    if drop_last:
        raise DataError("drop_last is for arrays: an iterable makes its own batches.")
    return Data(_stream(X, run.floating), None, None, held_out, metrics)


def _class_weighted(
    run: Run,
    arrays: Arguments,
    class_weight: ClassWeight,
    rows: NDArray[np.int64] | None,
) -> Arguments:
    """(X, y) and the samples' weights times those of the classes, counted over `rows`."""
    _, y, *given = arrays.parts()
    if not isinstance(y, np.ndarray):
        raise DataError(
            f"class_weight needs one integer label a sample; y is a {type(y).__name__} of arrays."
        )
    classes = _classes(run, arrays) if _takes_classes(run, y) else None
    ignored = _ignored(run.loss_fn)
    weights = sample_weights(
        y, given[0] if given else None, class_weight, run.floating, "sample_weight",
        rows, classes, ignored,
    )  # fmt: skip
    if weights is None:
        return arrays
    if given:
        return replace(arrays, arrays=[*arrays.arrays[:-1], weights])
    return arrays.beside(weights, "sample_weight")


def _stream(batches: Any, floating: np.dtype[Any]) -> BatchSource:
    if hasattr(batches, "dtype") or not (callable(batches) or hasattr(batches, "__iter__")):
        raise DataError(
            f"y is missing: X is a {type(batches).__name__}. Pass y, or an iterable of batches."
        )
    return BatchSource(batches, floating)


def _split(samples: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, in the order of the data."""
    held = -int(-share * samples // 1)
    if not 0 < held < samples:
        raise DataError(f"{samples} samples cannot be split with validation_split={share}.")
    order = np.random.default_rng(seed).permutation(samples)
    return np.sort(order[held:]), np.sort(order[:held])


def checked(run: Run, given: Sequence[Any], names: Sequence[str]) -> Arguments:
    """(X, y) and perhaps weights: converted, of equal length, not empty, finite, labels in range.

    Large memory-mapped arrays stay on disk as they are.
    """
    given = [computed(part) for part in given]
    if len(given) == 2 and given[1] is None:
        given = given[:1]
    if len(given) == 1 and not _by_index(run):  # each sample is its own target
        given = (given[0], given[0])
    if len(given) not in (2, 3):
        alone = "y is missing: " if len(given) == 1 else ""
        raise DataError(
            f"{alone}got {len(given)} arrays, expected (X, y) or (X, y, weights). (Batches from an "
            "iterable are for fit; what is evaluated is given as arrays.)"
        )
    floating = run.floating
    given = (given[0], indices_of(run.state.classes, given[1], names[1]), *given[2:])
    taken = Arguments.taken(given[:2], names)
    arrays = taken.converted(lambda a, name: _converted(a, name, floating))
    check_samples(arrays)
    for array, name in zip(arrays.arrays, arrays.names):
        check_finite(array, name)
    y = arrays.parts()[1]
    _check_classes(run, arrays, y, names[1])
    if len(given) == 3:
        like = y if isinstance(y, np.ndarray) else np.zeros(arrays.samples)
        weights = sample_weights(like, given[2], None, floating, names[2])
        assert weights is not None
        arrays = arrays.beside(weights, names[2])
    return arrays


def _converted(value: Any, name: str, floating: np.dtype[Any]) -> NDArray[Any]:
    if is_mapped(value):
        check_dtype(value.dtype, name)
        mapped: NDArray[Any] = value
        return mapped
    converted: NDArray[Any] = as_input(from_frame(value, name), name, floating)
    return converted


def _check_classes(run: Run, arrays: Arguments, y: Any, name: str) -> None:
    """Labels in range, for losses that take class indices."""
    if not _takes_classes(run, y):
        return
    ignored = _ignored(run.loss_fn)
    labels = y if ignored is None else np.where(y == ignored, 0, y)
    outputs = _classes(run, arrays)
    if len(run.state.classes) > outputs:
        raise DataError(
            f"{name} has {len(run.state.classes)} different labels; the model has {outputs} "
            "outputs. Give its last layer one for each."
        )
    check_labels(labels, outputs, name)


def _ignored(loss_fn: Any) -> int | None:
    """The label that a loss, or one inside of it, ignores."""
    inside = loss_fn.modules() if isinstance(loss_fn, nn.Module) else [loss_fn]
    found = [getattr(module, "ignore_index", None) for module in inside]
    return next((index for index in found if index is not None), None)


def _by_index(run: Run) -> bool:
    """Whether targets of the loss are class indices."""
    return isinstance(run.loss_fn, (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss))


def _takes_classes(run: Run, y: Any) -> bool:
    return _by_index(run) and isinstance(y, np.ndarray) and y.dtype.kind == "i"


def _classes(run: Run, arrays: Arguments) -> int:
    """How many classes the model tells apart."""
    one = arrays.rows(slice(1)).converted(lambda a, name: as_input(a, name, run.floating))
    with mode(run.model, training=False):
        graph, _ = trace(lambda X, *_: outputs_of(run.model, X), built(one.structure, one.types(1)))
    shape = graph.outputs[0].shape
    return shape[1] if len(shape) > 1 else shape[-1]
