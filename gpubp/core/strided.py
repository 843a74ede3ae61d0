"""Arrays over the memory of others: an offset and strides, in elements."""

from __future__ import annotations

from typing import NamedTuple

from gpubp.core.spec import Shape


class Strided(NamedTuple):
    """Elements at `offset + sum(index[i] * strides[i])` of some memory."""

    offset: int
    shape: Shape
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """They lie back to back in C order, from the offset on."""
        return is_contiguous(self.shape, self.strides)


def is_contiguous(shape: Shape, strides: tuple[int, ...]) -> bool:
    """Elements of this shape lie back to back in C order (an axis of size 1 has any stride)."""
    return all(n == 1 or s == c for n, s, c in zip(shape, strides, c_strides(shape)))


def c_strides(shape: Shape) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    out = []
    step = 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))
