"""Random changes of images while a model learns: flips, shifts, crops.

Names and arguments are those of torchvision.transforms. They are layers: put them first in a model.
Each image of a batch gets its own draw from the counter-based generator, inside the program, so one
seed gives the same bits on any backend and any number of workers. In eval mode images stay as they
are.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module
from gpubp.ops.constant import constant
from gpubp.ops.sample import taken

Sides = tuple[int, int]
_FILLS = ("constant", "edge", "reflect", "symmetric")


def images_of(layer: Module, x: Any) -> tuple[int, int, int, int]:
    """(N, C, H, W).

    Raises:
        ShapeError: x has other dimensions.
    """
    if len(x.shape) != 4:
        raise ShapeError(f"{type(layer).__name__}: expected x (N, C, H, W), got {describe(x)}.")
    n, c, h, w = x.shape
    return n, c, h, w


def whole_numbers(layer: Module, name: str, value: Any, counts: Sequence[int]) -> tuple[int, ...]:
    """One of these numbers of whole numbers; a number alone stands for two of it.

    Raises:
        ArgumentError: it is neither, or one is negative.
    """
    parts = value if isinstance(value, (tuple, list)) else (value,) * 2
    try:
        found = tuple(operator.index(p) for p in parts)
    except TypeError:
        found = ()
    if len(found) not in counts or any(p < 0 for p in found):
        raise ArgumentError(
            f"{type(layer).__name__}: {name} is {shown(value)}, expected a whole number of at "
            f"least 0, or {' or '.join(map(str, counts))} of them."
        )
    return found


class _RandomFlip(Module):
    axis: ClassVar[int]

    @checked
    def __init__(self, p: float = 0.5, generator: Any = None) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise DataError(f"{type(self).__name__}: p must be in [0, 1], got {p}.")
        self.p = p
        self.generator = generator

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to the same shape."""
        n = images_of(self, x)[0]
        if not self.training:
            return x
        flipped = ops.less(ops.uniform((n, 1, 1, 1), generator=self.generator), self.p)
        key = [slice(None)] * 4
        key[self.axis] = slice(None, None, -1)
        return ops.where(flipped, ops.getitem(x, tuple(key)), x)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class RandomHorizontalFlip(_RandomFlip):
    """Each image mirrored left to right with probability p.

    Args:
        p: the probability, in [0, 1].
        generator: a `gp.Generator`, or None for the default one.

    Raises:
        DataError: p is outside [0, 1].
    """

    axis = 3


class RandomVerticalFlip(_RandomFlip):
    """Each image mirrored top to bottom with probability p; arguments as of the horizontal one."""

    axis = 2


def _placed(at: Any, size: int, mode: str) -> tuple[Any, Any]:
    """(index, whether an element is there) of whole places, which may lie outside."""
    if mode in ("reflect", "symmetric"):
        ends = 0 if mode == "reflect" else 1
        at = ops.where(ops.less(at, 0), ops.negative(at) - ends, at)
        at = ops.where(ops.greater(at, size - 1), 2 * size - 2 + ends - at, at)
    found = ops.minimum(ops.maximum(at, 0), size - 1)
    return found, ops.equal(found, at)


class _RandomPart(Module):
    """What takes a part of each image, padded before, at a place of its own."""

    def __init__(self, fill: float, padding_mode: str, generator: Any) -> None:
        super().__init__()
        if padding_mode not in _FILLS:
            raise ArgumentError(
                f"{type(self).__name__}: padding_mode is {shown(padding_mode)}, expected one of "
                f"{', '.join(_FILLS)}."
            )
        self.fill = fill
        self.padding_mode = padding_mode
        self.generator = generator

    def _part(self, x: Any, part: tuple[int, ...], sides: tuple[Sides, Sides]) -> Any:
        """`part`: (height, width); `sides`: (before, after) of both."""
        n, _, *sizes = images_of(self, x)
        self._fits(x, part, sides)
        rooms = [m + sum(side) - out for out, m, side in zip(part, sizes, sides, strict=True)]
        starts = self._starts(x, rooms)
        places, there = [], []
        for start, out, size, (low, _) in zip(starts, part, sizes, sides, strict=True):
            at = start + constant(np.arange(out)[None] - low, x)
            index, found = _placed(at, size, self.padding_mode)
            places.append(ops.broadcast_to(index, (n, out)))
            there.append(found)
        y = taken(x, *places)
        if self.padding_mode != "constant" or not any(map(any, sides)):
            return y
        inside = ops.logical_and(
            ops.expand_dims(there[0], (1, 3)), ops.expand_dims(there[1], (1, 2))
        )
        return ops.where(inside, y, self.fill)

    def _fits(self, x: Any, part: tuple[int, ...], sides: tuple[Sides, Sides]) -> None:
        most = {"reflect": -1, "symmetric": 0}
        for out, size, (low, high) in zip(part, x.shape[2:], sides, strict=True):
            far = self.padding_mode in most and max(low, high) > size + most[self.padding_mode]
            if out < 1 or size < 1 or size + low + high < out or far:
                raise ShapeError(
                    f"{type(self).__name__}: a part {part} does not fit into {describe(x)} with "
                    f"padding {sides} in the mode {self.padding_mode!r}."
                )

    def _starts(self, x: Any, rooms: list[int]) -> list[Any]:
        """Where the parts begin along each axis: (N, 1) drawn whole numbers, or the middle."""
        if not self.training:
            return [constant(np.full((1, 1), room // 2), x) for room in rooms]
        # One draw for both axes: at once and in a program it is the same one.
        drawn = ops.uniform((2, x.shape[0], 1), generator=self.generator)
        wide = [ops.getitem(drawn, i) * float(room + 1) for i, room in enumerate(rooms)]
        return [ops.astype(ops.floor(at), "int64") for at in wide]


class RandomCrop(_RandomPart):
    """A part of each image at a place of its own; in eval mode the middle of each.

    Args:
        size: of the part, (height, width) or one number.
        padding: elements around the images before: of all sides, (left and right, top and bottom),
            or (left, top, right, bottom).
        pad_if_needed: more of them where the images are smaller than `size`.
        fill: what "constant" puts there.
        padding_mode: "constant", "edge", "reflect" (the ends stand once) or "symmetric" (twice).
        generator: a `gp.Generator`, or None for the default one.

    Raises:
        ArgumentError: sizes that are none, or another mode.
    """

    @checked
    def __init__(
        self,
        size: Any,
        padding: Any = None,
        pad_if_needed: bool = False,
        fill: float = 0.0,
        padding_mode: str = "constant",
        generator: Any = None,
    ) -> None:
        super().__init__(fill, padding_mode, generator)
        self.size = whole_numbers(self, "size", size, (2,))
        self.padding = None if padding is None else whole_numbers(self, "padding", padding, (2, 4))
        self.pad_if_needed = pad_if_needed

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to (N, C, *size).

        Raises:
            ShapeError: the images are too small.
        """
        _, _, h, w = images_of(self, x)
        given = self.padding or (0, 0)
        left, top, right, bottom = given if len(given) == 4 else (*given, *given)
        if self.pad_if_needed:
            more = max(self.size[1] - (w + left + right), 0)
            left, right = left + more, right + more
            more = max(self.size[0] - (h + top + bottom), 0)
            top, bottom = top + more, bottom + more
        return self._part(x, self.size, ((top, bottom), (left, right)))

    def extra_repr(self) -> str:
        """The sizes."""
        return f"size={self.size}, padding={self.padding}"


class RandomShift(_RandomPart):
    """Each image moved by whole pixels, a draw of its own along each axis.

    Args:
        shift: at most so many pixels either way, (down, right) or one number for both.
        fill: what "constant" puts where nothing is left.
        padding_mode: as of RandomCrop.
        generator: a `gp.Generator`, or None for the default one.

    Raises:
        ArgumentError: a shift that is none, or another mode.
    """

    @checked
    def __init__(
        self,
        shift: Any,
        fill: float = 0.0,
        padding_mode: str = "constant",
        generator: Any = None,
    ) -> None:
        super().__init__(fill, padding_mode, generator)
        self.shift = whole_numbers(self, "shift", shift, (2,))

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to the same shape.

        Raises:
            ShapeError: "reflect" and "symmetric" have too little to take from.
        """
        images_of(self, x)
        if not self.training:
            return x
        down, right = self.shift
        return self._part(x, tuple(x.shape[2:]), ((down, down), (right, right)))

    def extra_repr(self) -> str:
        """The distance."""
        return f"shift={self.shift}"
