"""What undoes a max pool; formulas in `gpubp.ops.unpool`."""

from __future__ import annotations

from typing import Any

from gpubp.arguments import checked
from gpubp.nn.arrays import of_arrays
from gpubp.nn.pooling import Pool


class _MaxUnpool(Pool):
    """Each value back where a max pool found it, zeros elsewhere; see `gp.ops.max_unpool2d`.

    Args:
        kernel_size, stride, padding: of the pool that is undone.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "max_unpool"

    @checked
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self._windows(kernel_size, stride, padding)
        self._tuples()

    @of_arrays
    def _arrays(self, x: Any, indices: Any) -> Any:
        return x, indices

    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Any:
        """Map values and their indices, (N, C, *sizes) or (C, *sizes), to the sizes before.

        Args:
            x: the values.
            indices: of x's shape, as the pool returned them.
            output_size: the sizes before, where several give the same x.
        """
        x, indices = self._arrays(x, indices)
        given = self.kernel_size, self.stride, self.padding
        return self._call(x, indices, *given, output_size)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """What undoes a `MaxPool1d`; arguments as for `MaxUnpool2d`."""

    _axes = 1


class MaxUnpool2d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    _axes = 2


class MaxUnpool3d(_MaxUnpool):
    """What undoes a `MaxPool3d`; arguments as for `MaxUnpool2d`."""

    _axes = 3
