"""Rotary position embeddings as a layer."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, DTypeError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.module import Module
from gpubp.ops.constant import constant


class RotaryEmbedding(Module):
    """Turn pairs of numbers of queries and keys by angles that grow with the position.

    Pair i of position p is turned by p / base^(2 i / dim). Su et al., "RoFormer" (2021,
    arXiv:2104.09864). It has no parameters, and no state.

    Args:
        dim: how many numbers of each head are turned, from the first on; even.
        max_length: positions go up to max_length - 1, where they are given.
        base: of the angles, above 0.
        interleaved: whether pairs are neighbours; else a number of the first half and one of the
            second half.

    Raises:
        ShapeError: dim is odd or below 2, or max_length below 1.
        DataError: base is not a finite number above 0.
    """

    @checked
    def __init__(
        self, dim: int, max_length: int = 4096, base: float = 10000.0, interleaved: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.max_length, self.base, self.interleaved = dim, max_length, base, interleaved
        self._check()

    def _check(self) -> None:
        dim, max_length, base = self.dim, self.max_length, self.base
        if dim < 2 or dim % 2 or max_length < 1:
            raise ShapeError(
                f"RotaryEmbedding: got dim={dim} and max_length={max_length}, expected an even "
                "dim from 2 on, and a max_length from 1 on."
            )
        if not 0 < base < math.inf:
            raise DataError(f"RotaryEmbedding: base is {base}, expected a finite number above 0.")

    def forward(self, x: Any, position_ids: Any = None) -> Any:
        """Map (N, heads, L, D) to the same shape; D is dim or more.

        Args:
            x: queries or keys.
            position_ids: (L,) or (N, L) integers; None: 0 to L - 1.

        Raises:
            ShapeError: shapes do not fit.
            DTypeError: position_ids are not integers.
            IndexRangeError: a position is max_length or more, or negative.
        """
        self._check()
        x = as_array(self, x)
        if len(x.shape) != 4:
            raise ShapeError(f"RotaryEmbedding: got x {describe(x)}, expected (N, heads, L, D).")
        length = x.shape[2] if position_ids is None else self.max_length
        kind = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
        tables = [constant(t.astype(kind), x) for t in _tables(length, self.dim, self.base)]
        if position_ids is not None:
            position_ids = as_array(self, position_ids)
            if position_ids.dtype.kind != "i":
                raise DTypeError(
                    f"RotaryEmbedding: got position_ids {describe(position_ids)}, expected int32 "
                    "or int64."
                )
            tables = [ops.gather(t, position_ids) for t in tables]
        cos, sin = tables
        return ops.rotary_embedding(x, cos, sin, None, self.interleaved, 0, self.dim)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"{self.dim}, max_length={self.max_length}, base={self.base}, "
            f"interleaved={self.interleaved}"
        )


@functools.lru_cache(maxsize=8)
def _tables(length: int, dim: int, base: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines and sines (length, dim / 2), of angles in float64."""
    rates = base ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(length)[:, None] * rates
    return np.cos(angles), np.sin(angles)
