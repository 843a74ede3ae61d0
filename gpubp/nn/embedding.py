"""Learnt vectors by index."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DTypeError, IndexRangeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import normal
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter


class Embedding(Module):
    """A table of vectors, looked up by integers.

    Args:
        num_embeddings: how many vectors; at least 1.
        embedding_dim: the size of each; at least 1.
        padding_idx: the vector of this index starts as 0 and gets no gradient; negative ones count
            from the end.
        dtype: float32 or float64.

    Attributes:
        weight: shape (num_embeddings, embedding_dim), first normal with mean 0 and spread 1.

    Raises:
        ShapeError: a size is below 1.
        IndexRangeError: padding_idx is out of range.
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        if num_embeddings < 1 or embedding_dim < 1:
            raise ShapeError(
                f"Embedding needs sizes of at least 1, got num_embeddings={num_embeddings}, "
                f"embedding_dim={embedding_dim}."
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise IndexRangeError(
                f"Embedding: padding_idx {padding_idx} is out of range for {num_embeddings} "
                "vectors."
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(normal((num_embeddings, embedding_dim), 1.0, dtype))
        if self.padding_idx is not None:
            self.weight.value[self.padding_idx] = 0.0

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map indices (...) to vectors (..., embedding_dim).

        Args:
            x: int32 or int64, from 0 to num_embeddings - 1.

        Raises:
            DTypeError: x is not of integers.
            IndexRangeError: an index is out of range.
        """
        if x.dtype.kind != "i":
            raise DTypeError(
                f"{self.weight.name}: got indices {describe(x)}, expected int32 or int64. "
                "Convert them with x.astype('int64')."
            )
        found = ops.gather(self.weight, x)
        if self.padding_idx is None:
            return found
        padding = ops.expand_dims(ops.equal(x, self.padding_idx), -1)
        return ops.where(padding, ops.stop_gradient(found), found)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
