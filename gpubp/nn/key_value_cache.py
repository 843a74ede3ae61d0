"""Keys and values of earlier calls, for models that write a sequence one token at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.init import filled
from gpubp.nn.module import Module


class KeyValueCache(Module):
    """Room for the keys and values of `max_length` positions, and how many are filled.

    Shapes never change, so one compiled program serves every position: new keys are written where
    `position` says, and a mask hides the places behind it. Attention over the cache gives what one
    causal pass over the whole sequence gives, within rounding.

    Args:
        batch_size: sequences at a time.
        num_heads: of keys and values.
        max_length: the positions there is room for.
        head_dim: the width of a key, and of a value.
        dtype: float32 or float64.

    Attributes:
        keys, values: buffers (batch_size, num_heads, max_length, head_dim).
        position: a buffer int64[], the number of positions that are filled.

    Raises:
        ShapeError: a size is below 1.
    """

    @checked
    def __init__(
        self,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        shape = (batch_size, num_heads, max_length, head_dim)
        if min(shape) < 1:
            raise ShapeError(
                "KeyValueCache needs sizes of at least 1, got (batch_size, num_heads, max_length, "
                f"head_dim) {shape}."
            )
        self.batch_size, self.num_heads = batch_size, num_heads
        self.max_length, self.head_dim = max_length, head_dim
        zeros = filled(shape, 0.0, dtype)
        self.register_buffer("keys", zeros)
        self.register_buffer("values", zeros)
        self.register_buffer("position", np.zeros((), np.int64))

    def reset(self) -> None:
        """Forget everything: the next keys are those of position 0."""
        for slot in (self.keys, self.values, self.position):
            ops.assign(slot, np.zeros(slot.shape, slot.dtype))

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Append keys and values.

        Args:
            key, value: (batch_size, num_heads, n, head_dim) of the next n positions.

        Returns:
            All keys and all values, (batch_size, num_heads, max_length, head_dim), and the mask
            (n, max_length) for attention: True where the i-th new position may look, at itself and
            at what is before it.

        Raises:
            ShapeError: another shape.
            IndexRangeError: there is no room for them; compiled programs find it as they run.
        """
        key, value = as_array(self, key), as_array(self, value)
        wanted = (self.batch_size, self.num_heads, self.head_dim)
        for name, x in (("keys", key), ("values", value)):
            n = tuple(x.shape)[2] if len(x.shape) == 4 else 0
            if not n or (*x.shape[:2], x.shape[3]) != wanted or key.shape != value.shape:
                raise ShapeError(
                    f"KeyValueCache: got {name} {describe(x)}, expected {wanted[:2]} and one or "
                    f"more positions of {wanted[2]}, as many keys as values."
                )
        places = np.arange(self.max_length)
        # A lookup, so that a position without room is an error wherever the program runs.
        new = ops.gather(places, ops.add(self.position, np.arange(key.shape[2])))
        keys, values = (
            self._written(slot, x) for slot, x in ((self.keys, key), (self.values, value))
        )
        ops.assign(self.keys, keys)
        ops.assign(self.values, values)
        ops.assign(self.position, ops.add(self.position, key.shape[2]))
        return keys, values, ops.less_equal(places, ops.expand_dims(new, 1))

    def _written(self, slot: Any, x: Any) -> Any:
        """The slot's numbers with those of x from `position` on."""
        count = x.shape[2]
        behind = ops.subtract(np.arange(self.max_length), self.position)
        inside = ops.logical_and(ops.greater_equal(behind, 0), ops.less(behind, count))
        picked = x if count == 1 else ops.gather(x, ops.where(inside, behind, 0), 2)
        return ops.where(ops.expand_dims(inside, 1), ops.astype(picked, slot.dtype), slot)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.batch_size}, {self.num_heads}, {self.max_length}, {self.head_dim}"


def checked_cache(owner: object, cache: Any) -> None:
    """Raise ArgumentError if it is no KeyValueCache."""
    if not isinstance(cache, KeyValueCache):
        raise ArgumentError(
            f"{type(owner).__name__}: cache is {shown(cache)}, expected a KeyValueCache or None."
        )
