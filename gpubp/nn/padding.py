"""Padding of signals, images and volumes: (N, C, *sizes) or (C, *sizes)."""

from __future__ import annotations

import operator
from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


class _Pad(Module):
    """(before, after) of the last axis, then of the one before: one number stands for all.

    Attributes:
        padding: as a tuple of two numbers for each of `axes` axes.
    """

    axes: ClassVar[int]
    mode: ClassVar[str]

    @checked
    def __init__(self, padding: Any) -> None:
        super().__init__()
        count = 2 * self.axes
        parts = padding if isinstance(padding, (tuple, list)) else (padding,) * count
        try:
            self.padding = tuple(operator.index(p) for p in parts)
        except TypeError:
            self.padding = ()
        if len(self.padding) != count:
            raise ArgumentError(
                f"{type(self).__name__}: padding is {shown(padding)}, expected a whole number, or "
                f"{count} of them: (before, after) of the last axis first."
            )

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Pad x of the shape (N, C, *sizes) or (C, *sizes).

        Raises:
            ShapeError: x has other dimensions, or is too small for the padding.
        """
        if len(x.shape) not in (self.axes + 1, self.axes + 2):
            sizes = ", ".join("DHW"[-self.axes :])
            raise ShapeError(
                f"{type(self).__name__}: expected x (N, C, {sizes}) or (C, {sizes}), got "
                f"{describe(x)}."
            )
        return ops.pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The padding."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    @checked
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Pad x, of any shape with at least as many axes."""
        return ops.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_Pad):
    mode = "constant"

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Pad x, of any shape with at least as many axes."""
        return ops.pad(x, self.padding, self.mode)


class ConstantPad1d(_ConstantPad):
    """`value` around the last axis, fewer elements where padding is negative.

    Args:
        padding: of both ends, or (left, right).
        value: what is put there.
    """

    axes = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes, fewer elements where padding is negative.

    Args:
        padding: of all sides, or (left, right, top, bottom).
        value: what is put there.
    """

    axes = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three axes, fewer elements where padding is negative.

    Args:
        padding: of all sides, or (left, right, top, bottom, front, back).
        value: what is put there.
    """

    axes = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around the last axis; padding: of both ends, or (left, right)."""

    axes = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two axes; padding: of all sides, or (left, right, top, bottom)."""

    axes = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three axes; padding: of all sides, or six of them, the last first."""

    axes = 3


class ReflectionPad1d(_Pad):
    """The signal mirrored at its ends, which stand once: padding must be smaller than it is."""

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The image mirrored at its edges, which stand once: padding must be smaller than it is."""

    axes, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The volume mirrored at its faces, which stand once: padding must be smaller than it is."""

    axes, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The first and last elements, repeated."""

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The elements at the edges, repeated."""

    axes, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The elements at the faces, repeated."""

    axes, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The signal continued with its other end: padding may be as large as it is, not larger."""

    axes, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The image continued with its other side: padding may be as large as it is, not larger."""

    axes, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The volume continued with its other side: padding may be as large as it is, not larger."""

    axes, mode = 3, "circular"
