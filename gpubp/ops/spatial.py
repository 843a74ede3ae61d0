"""What convolutions, pools and their kin share: sizes an axis, and where channels stand.

Users give images channels first, (N, C, *sizes). Kernels read them channels last, (N, *sizes, C):
the functions turn them with views on the way in and out, and the compiler moves such views past
what is elementwise, so that memory is turned only where a program begins and ends.
"""

from __future__ import annotations

import operator
from typing import Any

from gpubp.arguments import shown
from gpubp.core import Shape, Typed, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.shape import reshape, transpose
from gpubp.ops.spec import LARGEST, require_possible

Padding = tuple[tuple[int, int], ...]


def each_axis(op: str, name: str, value: Any, axes: int, least: int = 1) -> Shape:
    """One whole number for each of `axes` axes, from one for all, alone or in a sequence.

    Raises:
        ArgumentError: it is neither, or has another length, or a number below `least` or beyond all
            memory.
    """
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    parts = parts * axes if len(parts) == 1 else parts
    try:
        found = tuple(operator.index(n) for n in parts)
    except TypeError:
        found = ()
    if len(found) != axes or any(n < least for n in found):
        raise ArgumentError(
            f"{op}: {name} is {shown(value)}, expected a whole number of at least {least}, or one "
            f"for each of {axes} axes."
        )
    if any(n > LARGEST for n in found):
        raise ArgumentError(f"{op}: {name} is {found}, more than an axis can have.")
    return found


def positive(op: str, name: str, value: Any) -> int:
    """A whole number of at least 1; ArgumentError if it is none."""
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise ArgumentError(
            f"{op}: {name} is {shown(value)}, expected a whole number of at least 1."
        )
    return found


def paddings(op: str, value: Any, kernel: Shape, dilation: Shape, stride: Shape = ()) -> Padding:
    """(before, after) an axis, from a number, one an axis, "valid" or "same".

    "same": as many results as there are elements. Where the reach of the kernel is odd, one more
    stands after than before, as in PyTorch.

    Raises:
        ArgumentError: another text, or "same" with a stride.
    """
    if isinstance(value, str):
        if value == "valid":
            return ((0, 0),) * len(kernel)
        if value != "same":
            raise ArgumentError(f'{op}: padding is {value!r}, expected "same", "valid" or sizes.')
        if any(s != 1 for s in stride):
            raise ArgumentError(f'{op}: padding="same" needs stride 1, got {stride}.')
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((r // 2, r - r // 2) for r in reach)
    return tuple((p, p) for p in each_axis(op, "padding", value, len(kernel), least=0))


def windows_along(
    op: str, sizes: Shape, kernel: Shape, stride: Shape, padding: Padding, dilation: Shape
) -> Shape:
    """How many whole windows fit along each axis.

    Raises:
        ShapeError: not one does, or padding makes more than any memory holds.
    """
    found = tuple(
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )
    if any(n < 1 for n in found):
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        raise ShapeError(
            f"{op}: a window of {reach} does not fit into {tuple(sizes)} with padding {padding}."
        )
    require_possible(op, [n + sum(p) for n, p in zip(sizes, padding, strict=True)])
    return found


def batched(op: str, x: Any, axes: int, what: str = "x") -> tuple[Any, bool]:
    """`x` as (N, C, *sizes), and whether the N was added here.

    Raises:
        ShapeError: it has neither `axes` + 2 nor `axes` + 1 dimensions.
    """
    if len(x.shape) == axes + 2:
        return x, False
    if len(x.shape) == axes + 1:
        return reshape(x, (1, *x.shape)), True
    sizes = ", ".join("DHW"[-axes:]) if axes < 4 else "..."
    raise ShapeError(f"{op}: expected {what} (N, C, {sizes}) or (C, {sizes}), got {describe(x)}.")


def unbatched(y: Any, added: bool) -> Any:
    """`y` without the N that `batched` added."""
    return reshape(y, tuple(y.shape[1:])) if added else y


def channels_last(x: Any) -> Any:
    """(N, C, *sizes) as (N, *sizes, C): a view."""
    return transpose(x, (0, *range(2, len(x.shape)), 1))


def channels_first(x: Any) -> Any:
    """(N, *sizes, C) as (N, C, *sizes): a view."""
    last = len(x.shape) - 1
    return transpose(x, (0, last, *range(1, last)))


def sizes_of(images: Typed) -> Shape:
    """The sizes of (N, *sizes, C)."""
    return tuple(images.shape[1:-1])
