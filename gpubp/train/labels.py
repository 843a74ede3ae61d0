"""Labels that are texts: which there are, and their indices.

Comes in: targets as a user has them. Goes out: class indices, in the order of the sorted labels of
the first `fit`, which the state of the run keeps. Targets of another kind pass as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.data.frames import as_texts, is_frame
from gpubp.errors import DataError
from gpubp.train.train_state import TrainState
from gpubp.train.weights import ClassWeight


def is_array(value: Any) -> bool:
    """Samples, and no iterable of batches."""
    return hasattr(value, "dtype") or is_frame(value)


@contextmanager
def noted(state: TrainState, y: Any) -> Iterator[None]:
    """A run remembers the labels of its first call of `fit`, unless that call is refused."""
    before = state.classes
    texts = None if before else as_texts(y)
    if texts is not None:
        state.classes = sorted(set(texts))
    try:
        yield
    except BaseException:
        state.classes = before
        raise


def indices_of(classes: Sequence[str], y: Any, name: str) -> Any:
    """Class indices, int64, of labels that are texts; other targets as they are.

    Raises:
        DataError: a label that the run has not learned.
    """
    texts = as_texts(y)
    if texts is None or not classes:
        return y
    index = {label: i for i, label in enumerate(classes)}
    for i, label in enumerate(texts):
        if label not in index:
            known = ", ".join(map(repr, classes[:8])) + (", ..." if len(classes) > 8 else "")
            raise DataError(f"{name}[{i}] is {label!r}, which is none of the labels: {known}.")
    return np.array([index[label] for label in texts], np.int64)


def by_index(classes: Sequence[str], weights: ClassWeight | None) -> ClassWeight | None:
    """Class weights by the indices of their labels.

    Raises:
        DataError: a label that the run has not learned.
    """
    if not classes or weights is None or isinstance(weights, str):
        return weights
    labels = [str(label) for label in weights]
    indices = indices_of(classes, labels, "class_weight")
    return dict(zip(indices.tolist(), weights.values(), strict=True))
