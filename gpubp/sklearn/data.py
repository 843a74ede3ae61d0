"""Training data as a step takes them: dense, C-contiguous, of the network's dtype.

Sparse rows are made dense: all at once while that is small, else some batches at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from gpubp.sklearn.network import Network

DENSE_BYTES = 1 << 28  # sparse data up to this size are made dense once
CHUNK_BYTES = 1 << 25  # larger ones: rows at a time
WIDE_FEATURES, THIN_DENSITY = 4096, 0.05  # beyond these, scikit-learn's sparse products win

Run = Callable[[list[NDArray[Any]], NDArray[np.int64], int], NDArray[Any]]


def is_sparse(X: Any) -> bool:
    """A SciPy sparse matrix or array."""
    return bool(scipy.sparse.issparse(X))


def too_sparse(X: Any) -> bool:
    """So wide and thin that dense products would do mostly nothing."""
    if not is_sparse(X) or X.shape[1] <= WIDE_FEATURES:
        return False
    density: float = X.nnz / max(1, X.shape[0] * X.shape[1])
    return density < THIN_DENSITY


def targets(network: Network, y: NDArray[Any]) -> NDArray[Any]:
    """Targets as `network.data_loss` takes them, from scikit-learn's two-dimensional ones."""
    if network.output == "softmax":
        labels: NDArray[np.int64] = np.argmax(y, axis=1).astype(np.int64)
        return labels
    if network.output == "logistic":
        return np.ascontiguousarray(y, dtype=bool)
    return np.ascontiguousarray(y, dtype=network.dtype)


def loss_type(X: Any, y: Any, weights: Any) -> np.dtype[Any]:
    """The type that NumPy gives to scikit-learn's loss; labels make it float64."""
    types = [np.dtype(X.dtype), y.dtype if y.dtype.kind == "f" else np.dtype(np.float64)]
    return np.result_type(*types, *([] if weights is None else [weights.dtype]))


class Rows:
    """Samples, targets and weights of one fit.

    Args:
        network: the architecture.
        X: (n, inputs), dense or sparse.
        y: (n, outputs) as scikit-learn has them.
        weights: (n,) or None.

    Attributes:
        weights: (n,) of the network's dtype, or None.
        dense: X is held as one dense array.
        size: n.
    """

    def __init__(self, network: Network, X: Any, y: NDArray[Any], weights: Any) -> None:
        self.size = X.shape[0]
        self._dtype = np.dtype(network.dtype)
        self._row_bytes = X.shape[1] * self._dtype.itemsize
        self._rest = [targets(network, y)]
        self.weights: NDArray[Any] | None = None
        if weights is not None:
            self.weights = np.ascontiguousarray(weights, dtype=network.dtype)
            self._rest.append(self.weights)
        self.dense = not is_sparse(X) or self.size * self._row_bytes <= DENSE_BYTES
        self._X: Any = self._make_dense(X) if self.dense else X.tocsr()

    def _make_dense(self, X: Any) -> NDArray[Any]:
        rows = X.toarray(order="C") if is_sparse(X) else X
        return np.ascontiguousarray(rows, dtype=self._dtype)

    @property
    def usable(self) -> bool:
        """Held dense, and without weights that are infinite in the network's dtype: nothing that
        would be refused stands in the way of others' training."""
        return self.dense and (self.weights is None or bool(np.isfinite(self.weights).all()))

    def like(self, batch_size: int) -> list[NDArray[Any]]:
        """Arrays of a batch's types."""
        shape = (batch_size, self._X.shape[1])
        return [np.zeros(shape, self._dtype), *[a[:batch_size] for a in self._rest]]

    def whole(self) -> list[NDArray[Any]]:
        """All arrays, if X is held dense."""
        assert self.dense
        return [self._X, *self._rest]

    def run(self, orders: NDArray[np.int64], batch_size: int, run: Run) -> NDArray[Any]:
        """Train on the rows in these orders.

        Args:
            orders: (epochs, n).
            batch_size: samples a step.
            run: trains on (arrays, orders, batch size); returns losses (epochs, steps).

        Returns:
            Losses, (epochs, steps).
        """
        if self.dense:
            return run(self.whole(), orders, batch_size)
        epochs = []
        for order in orders:
            pieces = [
                run(arrays, np.arange(len(arrays[0]))[None], min(batch_size, len(arrays[0])))
                for arrays in self._chunks(order, batch_size)
            ]
            epochs.append(np.concatenate(pieces, axis=1))
        return np.concatenate(epochs)

    def _chunks(self, order: NDArray[np.int64], batch_size: int) -> Iterator[list[NDArray[Any]]]:
        batches = max(1, CHUNK_BYTES // max(1, self._row_bytes * batch_size))
        step = batches * batch_size
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            yield [self._make_dense(self._X[rows]), *[a[rows] for a in self._rest]]
