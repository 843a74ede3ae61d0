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
    step = 1
    for n, stride in zip(shape[::-1], strides[::-1]):
        if stride != step and n != 1:
            return False
        step *= n
    return True


def c_strides(shape: Shape) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    if not shape:
        return ()
    out = [1]
    for n in shape[:0:-1]:
        out.append(out[-1] * n)
    return tuple(out[::-1])
