"""Signals, images and volumes in other sizes; pixels to channels and back."""

from __future__ import annotations

from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.errors import ArgumentError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


def _factor(value: Any) -> Any:
    """A float, or a tuple of them, or None."""
    try:
        if isinstance(value, (tuple, list)):
            return tuple(float(v) for v in value)
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"Upsample: scale_factor is {shown(value)}, expected a number or one for each axis."
        ) from None


class Upsample(Module):
    """Another size by `gp.ops.interpolate`, larger or smaller.

    Args:
        size: of the result, for all axes or each; or
        scale_factor: what sizes are multiplied by, rounded down.
        mode: "nearest", "linear", "bilinear", "bicubic" or "trilinear".
        align_corners: whether the middles of the first and last elements stay in place.
        recompute_scale_factor: take the factor from the rounded sizes, not as given.
    """

    @checked
    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: Any = None,
        recompute_scale_factor: Any = None,
    ) -> None:
        super().__init__()
        self.size = tuple(size) if isinstance(size, list) else size
        self.scale_factor = _factor(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) to (N, C, *other sizes)."""
        return ops.interpolate(
            x,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        by_factor = self.scale_factor is not None
        what = f"scale_factor={self.scale_factor!r}" if by_factor else f"size={self.size!r}"
        return f"{what}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` in the mode "nearest"; arguments: size or scale_factor."""

    kept: ClassVar[tuple[str, bool | None]] = ("nearest", None)

    @checked
    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, *self.kept)


class UpsamplingBilinear2d(UpsamplingNearest2d):
    """`Upsample` in the mode "bilinear", corners aligned; arguments: size or scale_factor."""

    kept = ("bilinear", True)


class PixelShuffle(Module):
    """(N, C r^2, H, W) to (N, C, H r, W r).

    Args:
        upscale_factor: r.
    """

    @checked
    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., C r^2, H, W) to (..., C, H r, W r)."""
        return ops.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """(N, C, H r, W r) to (N, C r^2, H, W).

    Args:
        downscale_factor: r.
    """

    @checked
    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., C, H r, W r) to (..., C r^2, H, W)."""
        return ops.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels in groups, taken one of each group in turn.

    Args:
        groups: that the channels are divisible by.
    """

    @checked
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, ...) to the same shape."""
        return ops.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        """The groups."""
        return f"groups={self.groups}"
