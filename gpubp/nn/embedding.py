"""Learnt vectors by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DTypeError, IndexRangeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import normal
from gpubp.nn.layer_functions import embedding
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter
from gpubp.nn.table_functions import checked_norm


def pretrained(table: Any) -> tuple[int, int, str]:
    """Rows, columns and dtype of a table; ShapeError or DTypeError if it is none."""
    found = np.asarray(table)
    if found.ndim != 2:
        raise ShapeError(f"from_pretrained: got {describe(found)}, expected (rows, columns).")
    if found.dtype not in (np.float32, np.float64):
        raise DTypeError(f"from_pretrained: got {describe(found)}, expected float32 or float64.")
    return found.shape[0], found.shape[1], str(found.dtype)


_LOOKED_UP = ("max_norm", "norm_type", "scale_grad_by_freq")
_DEFAULTS = {
    "padding_idx": None,
    "max_norm": None,
    "norm_type": 2.0,
    "scale_grad_by_freq": False,
    "sparse": False,
}


class Table(Module):
    """A table of vectors: what `Embedding` and `EmbeddingBag` share; see them for the arguments."""

    @checked
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        dtype: Any,
    ) -> None:
        super().__init__()
        checked_norm(type(self).__name__, max_norm, norm_type)
        if num_embeddings < 1 or embedding_dim < 1:
            raise ShapeError(
                f"{type(self).__name__} needs sizes of at least 1, got "
                f"num_embeddings={num_embeddings}, embedding_dim={embedding_dim}."
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise IndexRangeError(
                f"{type(self).__name__}: padding_idx {padding_idx} is out of range for "
                f"{num_embeddings} vectors."
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        self.weight = Parameter(normal((num_embeddings, embedding_dim), 1.0, dtype))
        if self.padding_idx is not None:
            self.weight.value[self.padding_idx] = 0.0

    def lookup(self) -> dict[str, Any]:
        """How rows are looked up: arguments of `functional.embedding` and `embedding_bag`."""
        names = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        """The arguments, as torch shows them: those that are not the defaults."""
        names = ("padding_idx", *_LOOKED_UP, "sparse")
        return f"{self.num_embeddings}, {self.embedding_dim}{self.differing(*names)}"

    def differing(self, *names: str) -> str:
        """ ", name=value" for each of these arguments that is not its default."""
        given = [(name, getattr(self, name)) for name in names]
        return "".join(f", {name}={value}" for name, value in given if value != _DEFAULTS[name])


class Embedding(Table):
    """A table of vectors, looked up by integers.

    Args:
        num_embeddings: how many vectors; at least 1.
        embedding_dim: the size of each; at least 1.
        padding_idx: the vector of this index starts as 0 and gets no gradient; negative ones count
            from the end.
        max_norm: rows that are looked up and whose norm is larger are scaled to it, in the table.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it is looked up in a call.
        sparse: as in torch, but gradients are dense: updates pass over rows without one where that
            changes nothing, and `optim.SparseAdam` finds the rows by itself.
        dtype: float32 or float64.

    Attributes:
        weight: shape (num_embeddings, embedding_dim), first normal with mean 0 and spread 1.

    Raises:
        ShapeError: a size is below 1.
        IndexRangeError: padding_idx is out of range.
        DataError: max_norm is negative.
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        dtype: Any = "float32",
    ) -> None:
        how = padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        super().__init__(num_embeddings, embedding_dim, *how, dtype)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """A table (rows, columns) that is given; with `freeze` it is not trained.

        Raises:
            ShapeError: it is no matrix. DTypeError: it is not of floats.
        """
        rows, columns, dtype = pretrained(embeddings)
        how = padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        made = cls(rows, columns, *how, dtype)
        made.weight.value = np.asarray(embeddings)
        made.weight.requires_grad_(not freeze)
        return made

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
        return embedding(x, self.weight, **self.lookup())
