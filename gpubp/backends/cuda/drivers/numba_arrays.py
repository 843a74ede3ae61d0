"""All that is asked of numba-cuda: its device arrays, pinned memory, and users' kernels.

numba-cuda is in maintenance, and its successor (numba-cuda-mlir) has the same names under another
package: what has to change for it is this file. Kernels cannot be swapped blindly: `//` by 0, and
uint64 with int64, mean different things in the two.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.strided import c_strides

THREADS = 256  # of a block of a user's kernel
Place = tuple[int, tuple[int, ...], np.dtype[Any]]  # address, shape, dtype


class NumbaCuda:
    """`numba.cuda`, which is numba-cuda's where that is installed.

    All but `why_not` and `version` must be called with the device's context current.

    Raises:
        ImportError: it is not installed, or cannot be imported.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("numba_cuda") is None:
            raise ImportError("numba-cuda is not installed")
        self._cuda: Any = importlib.import_module("numba.cuda")
        self.version = str(importlib.import_module("numba_cuda").__version__)

    def why_not(self) -> str:
        """What Numba says where it finds no driver of NVIDIA's; empty if it finds one."""
        self._cuda.is_available()  # looks for it
        return " ".join(str(self._cuda.cuda_error() or "").split())

    def count(self) -> int:
        """How many GPUs there are."""
        return len(self._cuda.gpus)

    def array(
        self, place: Place, stream: int | None, owner: Any, strides: Sequence[int] | None = None
    ) -> Any:
        """An array in memory that is there, which `owner` keeps alive.

        Args:
            place: of its elements.
            stream: named in its interface, so that other libraries order themselves after it; what
                Numba does with the array (copies to the host, say) goes there by default.
            owner: kept by the array.
            strides: in bytes; None if the elements lie in C order.
        """
        address, shape, dtype = place
        packed = tuple(s * dtype.itemsize for s in c_strides(shape))
        described = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
            "strides": packed if strides is None or 0 in shape else tuple(strides),
            "stream": stream,
            "version": 3,
        }
        return self._cuda.from_cuda_array_interface(described, owner=owner, sync=False)

    def shared(self, value: Any) -> Any:
        """An array over another library's, by the CUDA array interface; waits for nothing."""
        return self._cuda.as_cuda_array(value, sync=False)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Host memory that the device can read by itself; freed with the array."""
        found: NDArray[np.uint8] = self._cuda.pinned_array(nbytes, np.uint8)
        return found

    def bound(
        self, kernel: Any, places: Sequence[Place], numbers: Sequence[float], stream: int
    ) -> Callable[[], None]:
        """What launches a user's `numba.cuda.jit` kernel.

        Args:
            kernel: of the arrays and then the numbers, all float64; the last array is the result.
                There are as many threads as that has elements, or more.
            places: of the arrays.
            numbers: after the arrays.
            stream: where it is launched.
        """
        arrays = [self.array(place, stream, None) for place in places]
        blocks = max(1, -(-math.prod(places[-1][1]) // THREADS))
        with warnings.catch_warnings():  # a small result is a small grid
            warnings.simplefilter("ignore")
            launcher = kernel[blocks, THREADS, self._cuda.external_stream(stream)]
        arguments = (*arrays, *map(np.float64, numbers))
        return lambda: launcher(*arguments)


def is_array(value: Any) -> bool:
    """It is one of Numba's device arrays."""
    return bool(getattr(value, "__cuda_ndarray__", False))
