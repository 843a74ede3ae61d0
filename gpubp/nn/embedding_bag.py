"""Bags of learnt vectors: sums, means and maxima of some rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, DTypeError, ShapeError, unknown_name
from gpubp.nn.arrays import of_arrays
from gpubp.nn.embedding import Table, pretrained
from gpubp.nn.layer_functions import embedding
from gpubp.ops.spec import float_limits, promote

MODES = ("sum", "mean", "max")


class EmbeddingBag(Table):
    """The sum, mean or maximum of the vectors of each bag of indices.

    Args:
        num_embeddings: how many vectors; at least 1.
        embedding_dim: the size of each; at least 1.
        max_norm, norm_type, scale_grad_by_freq, sparse: as of `Embedding`. (torch's bags divide by
            the frequency of another row on CPUs; here it is the row's own.)
        mode: "sum", "mean" or "max".
        include_last_offset: offsets end with the number of all indices.
        padding_idx: indices that count for nothing.
        dtype: float32 or float64.

    Attributes:
        weight: shape (num_embeddings, embedding_dim), first normal with mean 0 and spread 1.

    Raises:
        ShapeError: a size is below 1. IndexRangeError: padding_idx is out of range.
        UnknownNameError: another mode. DataError: max_norm is negative.
        ArgumentError: maxima with scale_grad_by_freq, or sparse, as in torch.
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype: Any = "float32",
    ) -> None:
        how = padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        super().__init__(num_embeddings, embedding_dim, *how, dtype)
        _require_sums(mode, scale_grad_by_freq, sparse)
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.mode, self.include_last_offset = mode, include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """A bag over a table (rows, columns) that is given; with `freeze` it is not trained."""
        rows, columns, dtype = pretrained(embeddings)
        how = max_norm, norm_type, scale_grad_by_freq, mode, sparse
        made = cls(rows, columns, *how, include_last_offset, padding_idx, dtype)
        made.weight.value = np.asarray(embeddings)
        made.weight.requires_grad_(not freeze)
        return made

    @of_arrays
    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        """Bags of indices as vectors (bags, embedding_dim); those of empty bags are 0.

        Args:
            input: integers: (bags, indices of each), or (n,) with offsets.
            offsets: where in (n,) each bag begins, from 0 on.
            per_sample_weights: of the input's shape, for sums only.

        Raises:
            DTypeError: indices are no integers. ShapeError: other shapes.
            ArgumentError: weights for means or maxima; offsets missing, or given beside rows.
        """
        return embedding_bag(
            input,
            self.weight,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            **self.lookup(),
        )

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        lookup = self.differing("max_norm", "norm_type", "scale_grad_by_freq")
        padding = self.differing("padding_idx")
        return f"{self.num_embeddings}, {self.embedding_dim}{lookup}, mode={self.mode!r}{padding}"


def _require_sums(mode: str, scale_grad_by_freq: bool, sparse: bool) -> None:
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ArgumentError(
            "EmbeddingBag: maxima take neither scale_grad_by_freq nor sparse, as in torch."
        )


@checked
def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """`nn.EmbeddingBag` with a table that is given: an nn.Parameter or nn.Buffer for max_norm."""
    _require_sums(mode, scale_grad_by_freq, sparse)
    table, (input,), (weight,) = weight, promote(input), promote(weight)
    offsets = None if offsets is None else promote(offsets)[0]
    if per_sample_weights is not None:
        (per_sample_weights,) = promote(per_sample_weights)
    if len(weight.shape) != 2:
        raise ShapeError(f"embedding_bag: got a table {describe(weight)}, expected a matrix.")
    if input.dtype.kind != "i":
        raise DTypeError(f"embedding_bag: got indices {describe(input)}, expected int32 or int64.")
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if per_sample_weights is not None and mode != "sum":
        raise ArgumentError(f"embedding_bag: weights of samples are for sums, not for {mode!r}.")
    if (len(input.shape) == 1) != (offsets is not None) or len(input.shape) not in (1, 2):
        raise ArgumentError(
            f"embedding_bag: got indices {describe(input)}, expected (bags, n), or (n,) and "
            "offsets."
        )
    vectors = embedding(input, table, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if per_sample_weights is not None:
        if tuple(per_sample_weights.shape) != tuple(input.shape):
            raise ShapeError(
                f"embedding_bag: got weights {describe(per_sample_weights)} for {describe(input)}."
            )
        vectors = ops.multiply(vectors, ops.expand_dims(per_sample_weights, -1))
    counted = None if padding_idx is None else ops.not_equal(input, padding_idx % weight.shape[0])
    if counted is None:
        counted = ops.ones_like(input, "bool")
    if offsets is None:
        return _of_rows(vectors, counted, mode)
    if len(offsets.shape) != 1 or offsets.dtype.kind != "i":
        raise ShapeError(f"embedding_bag: got offsets {describe(offsets)}, expected a vector.")
    starts = offsets[:-1] if include_last_offset else offsets
    return _of_offsets(vectors, counted, starts, mode)


def _first_of_largest(x: Any) -> Any:
    """Maxima along axis 1, of equal ones the first: it alone has a gradient, as in torch."""
    return ops.squeeze(ops.take_along_dim(x, ops.argmax(x, 1, keepdims=True), 1), 1)


def _of_rows(vectors: Any, counted: Any, mode: str) -> Any:
    seen = ops.expand_dims(counted, -1)
    if mode == "max":
        low = float(float_limits(vectors).min)
        if not vectors.shape[1]:
            return ops.zeros_like(ops.sum(vectors, 1))
        best = _first_of_largest(ops.where(seen, vectors, low))
        return ops.where(ops.expand_dims(ops.any(counted, 1), -1), best, 0.0)
    total = ops.sum(ops.where(seen, vectors, 0.0), 1)
    if mode == "sum":
        return total
    many = ops.sum(ops.astype(counted, vectors.dtype), 1, keepdims=True)
    return ops.divide(total, ops.maximum(many, 1.0))


def _of_offsets(vectors: Any, counted: Any, starts: Any, mode: str) -> Any:
    """Each index belongs to the last bag that begins at or before it."""
    n, bags = vectors.shape[0], starts.shape[0]
    at = np.arange(n).reshape(-1, 1)
    begun = ops.greater_equal(at, ops.expand_dims(starts, 0))
    bag = ops.subtract(ops.sum(ops.astype(begun, "int64"), 1), 1)
    seen = ops.expand_dims(counted, -1)
    if mode == "max":
        if not n:
            return ops.broadcast_to(ops.sum(vectors, 0), (bags, vectors.shape[1]))
        inside = ops.equal(ops.expand_dims(bag, 0), np.arange(bags).reshape(-1, 1))
        inside = ops.logical_and(inside, ops.expand_dims(counted, 0))
        low = float(float_limits(vectors).min)
        spread = ops.where(ops.expand_dims(inside, -1), ops.expand_dims(vectors, 0), low)
        best = _first_of_largest(spread)
        return ops.where(ops.expand_dims(ops.any(inside, 1), -1), best, 0.0)
    total = ops.scatter_add(ops.where(seen, vectors, 0.0), bag, bags)
    if mode == "sum":
        return total
    many = ops.scatter_add(ops.astype(counted, vectors.dtype), bag, bags)
    return ops.divide(total, ops.expand_dims(ops.maximum(many, 1.0), -1))
