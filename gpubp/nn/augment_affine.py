"""Random rotations and other affine maps of images while a model learns, by sampling a grid.

Names, arguments and definitions are those of torchvision.transforms; see `gpubp.nn.augment`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.errors import ArgumentError, DataError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.augment import images_of
from gpubp.nn.module import Module

_KERNELS = ("nearest", "bilinear")
_DEGREE = math.pi / 180.0


def _numbers(layer: Module, name: str, value: Any, counts: tuple[int, ...]) -> tuple[float, ...]:
    """Finite numbers, as many as one of `counts` says.

    Raises:
        ArgumentError: they are none.
    """
    try:
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        found = ()
    if len(found) not in counts or not all(map(math.isfinite, found)):
        many = " or ".join(map(str, counts))
        raise ArgumentError(
            f"{type(layer).__name__}: {name} is {shown(value)}, expected {many} finite numbers."
        )
    return found


def _span(layer: Module, name: str, value: Any, counts: tuple[int, ...] = (2,)) -> Any:
    """(least, most) from a pair, or from one number of at least 0, which stands for both signs."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0.0 <= value < math.inf:
            raise DataError(
                f"{type(layer).__name__}: {name} is {value}, expected a finite number of at least "
                "0, or (least, most)."
            )
        return (-float(value), float(value))
    return _numbers(layer, name, value, counts)


def _between(span: tuple[float, ...], drawn: Any) -> Any:
    """Numbers of [0, 1) spread over (least, most)."""
    least, most = span
    return drawn * (most - least) + least


class RandomAffine(Module):
    """Each image turned, moved, scaled and sheared around its middle by draws of its own.

    Args:
        degrees: of the rotation, clockwise: (least, most), or one number for both signs.
        translate: (right, down), at most so much of the width and height either way, each a whole
            number of pixels; None: not at all.
        scale: (least, most); None: not at all.
        shear: degrees along x, (least, most), or one number for both signs, or four numbers: of x
            and y; None: not at all.
        interpolation: "nearest" or "bilinear".
        fill: what stands outside of the image.
        center: (x, y) in pixels from the upper left corner; None: the middle.
        generator: a `gp.Generator`, or None for the default one.

    Raises:
        ArgumentError: what is no such numbers, or another interpolation.
        DataError: numbers out of their range.
    """

    clockwise: ClassVar[float] = 1.0

    @checked
    def __init__(
        self,
        degrees: Any,
        translate: Any = None,
        scale: Any = None,
        shear: Any = None,
        interpolation: str = "nearest",
        fill: float = 0.0,
        center: Any = None,
        generator: Any = None,
    ) -> None:
        super().__init__()
        self.degrees = _span(self, "degrees", degrees)
        self.translate = None if translate is None else _numbers(self, "translate", translate, (2,))
        self.scale = None if scale is None else _numbers(self, "scale", scale, (2,))
        self.shear = None if shear is None else _span(self, "shear", shear, (2, 4))
        if self.translate and not all(0.0 <= t <= 1.0 for t in self.translate):
            raise DataError(
                f"{type(self).__name__}: translate must be in [0, 1], got {self.translate}."
            )
        if self.scale and min(self.scale) <= 0.0:
            raise DataError(f"{type(self).__name__}: scale must be positive, got {self.scale}.")
        if interpolation not in _KERNELS:
            raise ArgumentError(
                f"{type(self).__name__}: interpolation is {shown(interpolation)}, expected one of "
                f"{', '.join(_KERNELS)}."
            )
        self.interpolation = interpolation
        self.fill = fill
        self.center = None if center is None else _numbers(self, "center", center, (2,))
        self.generator = generator

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to the same shape."""
        shape = images_of(self, x)
        if not self.training:
            return x
        n, _, h, w = shape
        theta = ops.astype(self._maps(n, h, w), x.dtype)
        grid = ops.affine_grid(theta, shape, align_corners=False)
        fill = float(self.fill)
        y = x - fill if fill else x
        y = ops.grid_sample(y, grid, self.interpolation, "zeros", align_corners=False)
        return y + fill if fill else y

    def _maps(self, n: int, h: int, w: int) -> Any:
        """(N, 2, 3): from places in results to places in images, both from -1 to 1.

        Rotation, shear, scale and translation in this order, turned around, as torchvision's
        `_get_inverse_affine_matrix` has them.
        """
        # One draw for all: at once and in a program it is the same one.
        drawn = ops.uniform((6, n), generator=self.generator)
        u = [ops.getitem(drawn, i) for i in range(6)]
        turn = self.clockwise * _DEGREE * _between(self.degrees, u[0])
        right, down = self._moves(h, w, u[1], u[2])
        size = _between(self.scale, u[3]) if self.scale else 1.0
        lean = (*(self.shear or (0.0, 0.0)), 0.0, 0.0)
        along_x, along_y = _between(lean[:2], u[4]) * _DEGREE, _between(lean[2:4], u[5]) * _DEGREE
        cos_y, tan_x = ops.cos(along_y), ops.sin(along_x) / ops.cos(along_x)
        cos, sin = ops.cos(turn - along_y) / cos_y, ops.sin(turn - along_y) / cos_y
        inverse = [ops.cos(turn) - sin * tan_x, cos * tan_x + ops.sin(turn), -sin, cos]
        a, b, c, d = (v / size for v in inverse)
        x, y = self._middle(h, w)
        first = x - a * (right + x) - b * (down + y)
        second = y - c * (right + x) - d * (down + y)
        rows = [a, b * (h / w), first * (2.0 / w), c * (w / h), d, second * (2.0 / h)]
        return ops.reshape(ops.stack(rows, 1), (n, 2, 3))

    def _moves(self, h: int, w: int, across: Any, along: Any) -> tuple[Any, Any]:
        """Whole pixels to the right and down."""
        if self.translate is None:
            return 0.0, 0.0
        right, down = (part * n for part, n in zip(self.translate, (w, h), strict=True))
        return (
            ops.floor(_between((-right, right), across) + 0.5),
            ops.floor(_between((-down, down), along) + 0.5),
        )

    def _middle(self, h: int, w: int) -> tuple[float, float]:
        """The centre, in pixels from the middle of the image."""
        if self.center is None:
            return 0.0, 0.0
        return self.center[0] - 0.5 * w, self.center[1] - 0.5 * h

    def extra_repr(self) -> str:
        """The arguments that are given."""
        names = ("degrees", "translate", "scale", "shear")
        return ", ".join(f"{k}={getattr(self, k)}" for k in names if getattr(self, k) is not None)


class RandomRotation(RandomAffine):
    """Each image turned around its middle by an angle of its own.

    Args:
        degrees: counter-clockwise: (least, most), or one number for both signs.
        interpolation: "nearest" or "bilinear".
        expand: False: results have the size of the images, since sizes are static.
        center: (x, y) in pixels from the upper left corner; None: the middle.
        fill: what stands outside of the image.
        generator: a `gp.Generator`, or None for the default one.

    Raises:
        ArgumentError: what is no such numbers, or another interpolation.
        DataError: a negative number for both signs, or `expand`.
    """

    clockwise = -1.0

    @checked
    def __init__(
        self,
        degrees: Any,
        interpolation: str = "nearest",
        expand: bool = False,
        center: Any = None,
        fill: float = 0.0,
        generator: Any = None,
    ) -> None:
        super().__init__(degrees, None, None, None, interpolation, fill, center, generator)
        self.expand = expand
        self._check()

    def _check(self) -> None:
        if self.expand:
            raise DataError(
                "RandomRotation: expand is True, but results have the size of the images: pad them "
                "first, with nn.ZeroPad2d."
            )

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to the same shape."""
        self._check()
        return super().forward(x)
