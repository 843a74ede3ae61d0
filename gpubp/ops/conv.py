"""Convolutions of one to three axes, and transposed ones, as users call them: channels first."""

from __future__ import annotations

from typing import Any

from gpubp.core import bind, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.conv_specs import CONV, CONV_INPUT
from gpubp.ops.elementwise import add
from gpubp.ops.spatial import (
    batched,
    channels_first,
    channels_last,
    each_axis,
    paddings,
    positive,
    unbatched,
)
from gpubp.ops.spec import promote, require_possible


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution over one axis; see `conv2d`. x (N, C, W), weight (O, C / groups, K)."""
    return _convolved("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution (cross-correlation, as everywhere) over two axes.

    Args:
        x: (N, C, H, W) or (C, H, W).
        weight: (O, C / groups, KH, KW).
        bias: (O,), or None.
        stride: from window to window; one number or one an axis, as all that follow.
        padding: zeros on both sides, or "same" (as many results as elements) or "valid" (none).
        dilation: from tap to tap.
        groups: channels are divided into so many groups, each with O / groups filters.

    Returns:
        (N, O, H', W') or (O, H', W'), H' = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.

    Raises:
        ShapeError: shapes do not fit each other, or no window fits.
        ArgumentError: a number that cannot be.
    """
    return _convolved("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolution over three axes; see `conv2d`. x (N, C, D, H, W)."""
    return _convolved("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution over one axis; see `conv_transpose2d`."""
    given = stride, padding, output_padding, groups, dilation
    return _transposed("conv_transpose1d", 1, x, weight, bias, *given)


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The transpose of a convolution with the same arguments: sizes grow by the stride.

    Args:
        x: (N, C, H, W) or (C, H, W).
        weight: (C, O / groups, KH, KW).
        bias: (O,), or None.
        stride, padding, dilation: of the convolution that is transposed.
        output_padding: cells added after each axis of the result (they hold what the convolution
            would have read there, not zeros); smaller than stride or dilation.
        groups: as in `conv2d`.

    Returns:
        (N, O, H', W'), H' = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1.

    Raises:
        ShapeError: shapes do not fit each other, or nothing would be left.
        ArgumentError: a number that cannot be.
    """
    given = stride, padding, output_padding, groups, dilation
    return _transposed("conv_transpose2d", 2, x, weight, bias, *given)


def conv_transpose3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution over three axes; see `conv_transpose2d`."""
    given = stride, padding, output_padding, groups, dilation
    return _transposed("conv_transpose3d", 3, x, weight, bias, *given)


def _operands(op: str, axes: int, x: Any, weight: Any, bias: Any) -> tuple[Any, Any, Any, bool]:
    """All of one dtype, x with its batch axis."""
    given = [x, weight] if bias is None else [x, weight, bias]
    x, weight, *rest = promote(*given, floating=True)
    x, added = batched(op, x, axes)
    if len(weight.shape) != axes + 2 or 0 in weight.shape:
        raise ShapeError(f"{op}: expected weight of {axes + 2} dimensions, got {describe(weight)}.")
    return x, weight, rest[0] if rest else None, added


def _finished(op: str, y: Any, bias: Any, added: bool) -> Any:
    """Channels last with the bias, then as users see it."""
    if bias is not None:
        if tuple(bias.shape) != (y.shape[-1],):
            raise ShapeError(f"{op}: expected bias ({y.shape[-1]},), got {describe(bias)}.")
        y = add(y, bias)
    return unbatched(channels_first(y), added)


def _convolved(
    op: str,
    axes: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Any:
    x, weight, bias, added = _operands(op, axes, x, weight, bias)
    kernel, groups = tuple(weight.shape[2:]), positive(op, "groups", groups)
    steps = each_axis(op, "stride", stride, axes)
    spread = each_axis(op, "dilation", dilation, axes)
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"{op}: expected {weight.shape[1] * groups} channels for weight {describe(weight)} "
            f"in {groups} groups, got x {describe(x)}."
        )
    around = paddings(op, padding, kernel, spread, steps)
    y = bind(
        CONV,
        channels_last(x),
        weight,
        stride=steps,
        padding=around,
        dilation=spread,
        groups=groups,
    )
    return _finished(op, y, bias, added)


def _transposed(
    op: str,
    axes: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> Any:
    x, weight, bias, added = _operands(op, axes, x, weight, bias)
    kernel, groups = tuple(weight.shape[2:]), positive(op, "groups", groups)
    steps = each_axis(op, "stride", stride, axes)
    spread = each_axis(op, "dilation", dilation, axes)
    around = each_axis(op, "padding", padding, axes, least=0)
    extra = each_axis(op, "output_padding", output_padding, axes, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread, strict=True)):
        raise ArgumentError(
            f"{op}: output_padding {extra} must be below stride {steps} or dilation {spread}."
        )
    if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise ShapeError(
            f"{op}: expected {weight.shape[0]} channels for weight {describe(weight)} in {groups} "
            f"groups, got x {describe(x)}."
        )
    sizes = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], steps, around, spread, kernel, extra, strict=True)
    )
    if any(n < 1 for n in sizes):
        raise ShapeError(f"{op}: padding {around} leaves nothing of {describe(x)}: {sizes}.")
    require_possible(op, (x.shape[0], *sizes, weight.shape[1] * groups), x.dtype)
    y = bind(
        CONV_INPUT,
        channels_last(x),
        weight,
        stride=steps,
        padding=tuple((p, p - e) for p, e in zip(around, extra, strict=True)),
        dilation=spread,
        groups=groups,
        sizes=sizes,
    )
    return _finished(op, y, bias, added)
