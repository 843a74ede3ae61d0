"""Pools by the size of their result; formulas in `gpubp.ops.pool_adaptive`."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import ArgumentError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module
from gpubp.nn.pooling import kept
from gpubp.ops.pool_fractional import fractional_sizes
from gpubp.ops.spatial import each_axis


class _Adaptive(Module):
    """A pool over `_axes` axes, by the functions of `ops` that begin with `_function`."""

    _axes, _function = 0, ""

    def _sizes(self, output_size: Any) -> Any:
        given = kept(output_size)
        some = given if isinstance(given, tuple) else (given,)
        filled = tuple(1 if n is None else n for n in some)
        each_axis(
            type(self).__name__,
            "output_size",
            filled if isinstance(given, tuple) else filled[0],
            self._axes,
            0,
        )
        return given

    def _call(self, x: Any, *args: Any) -> Any:
        return getattr(ops, f"{self._function}{self._axes}d")(x, *args)

    def extra_repr(self) -> str:
        """The size, as torch shows it."""
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_Adaptive):
    """Averages of windows that share each axis evenly; see `gp.ops.adaptive_avg_pool2d`.

    Args:
        output_size: of the result; one number or one an axis, None: as the input's.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "adaptive_avg_pool"

    @checked
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = self._sizes(output_size)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to output_size."""
        return self._call(x, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Averages of windows along one axis; arguments as for `AdaptiveAvgPool2d`."""

    _axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Averages of windows over three axes; arguments as for `AdaptiveAvgPool2d`."""

    _axes = 3


class _AdaptiveMaxPool(_Adaptive):
    """The largest of windows that share each axis evenly; see `gp.ops.adaptive_max_pool2d`.

    Args:
        output_size: of the result; one number or one an axis, None: as the input's.
        return_indices: also return where each one stands, as a flat index over the sizes.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "adaptive_max_pool"

    @checked
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = self._sizes(output_size)
        self.return_indices = return_indices

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to output_size; with indices, if asked."""
        return self._call(x, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest of windows along one axis; arguments as for `AdaptiveMaxPool2d`."""

    _axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest of windows over three axes; arguments as for `AdaptiveMaxPool2d`."""

    _axes = 3


class _FractionalMaxPool(_Adaptive):
    """The largest of windows at random places (Graham, 2014, arXiv:1412.6071).

    Args:
        kernel_size: of a window; one number or one an axis.
        output_size: how many windows; one number or one an axis.
        output_ratio: or which part of the input's sizes, between 0 and 1.
        return_indices: also return where each one stands, as a flat index over the sizes.
        _random_samples: (N, C, axes), numbers in [0, 1) that decide where windows begin; drawn from
            the default generator if None.

    Raises:
        ArgumentError: neither or both of size and ratio, or a number that cannot be.
    """

    _function = "fractional_max_pool"

    @checked
    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Any = None,
    ) -> None:
        super().__init__()
        owner, axes = type(self).__name__, self._axes
        self.kernel_size = each_axis(owner, "kernel_size", kept(kernel_size), axes)
        fractional_sizes(owner, axes, None, kept(output_size), kept(output_ratio))
        self.output_size = self._each(output_size)
        self.output_ratio = self._each(output_ratio)
        self.return_indices = return_indices
        if isinstance(_random_samples, bool):
            raise ArgumentError(f"{owner}: _random_samples is a bool, expected an array or None.")
        if _random_samples is None:
            self._random_samples = None
        else:
            self.register_buffer("_random_samples", _random_samples)

    def _each(self, value: Any) -> Any:
        given = kept(value)
        return given if given is None or isinstance(given, tuple) else (given,) * self._axes

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to as many windows; with indices, if asked."""
        given = self.kernel_size, self.output_size, self.output_ratio, self.return_indices
        return self._call(x, *given, self._random_samples)

    def extra_repr(self) -> str:
        """Nothing, as in torch."""
        return ""


class FractionalMaxPool2d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    _axes = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """The largest of windows at random places; arguments as for `FractionalMaxPool2d`."""

    _axes = 3
