"""Arrays of other libraries, by the protocols that they share: DLPack and NumPy's.

Comes in: any object. Goes out: whether it is in a GPU's memory, on which GPU, or, where it is in
the host's, a NumPy array over the same memory. Nothing is copied.

Device types are those of DLPack's `DLDeviceType` (dmlc.github.io/dlpack, "C API").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError

_CUDA, _CUDA_MANAGED = 2, 13


def on_device(value: Any) -> bool:
    """It is an array in the memory of a GPU."""
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return False
    asked = getattr(value, "__dlpack_device__", None)
    if asked is not None:
        return int(asked()[0]) in (_CUDA, _CUDA_MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def device_number(value: Any) -> int | None:
    """The number of the GPU that an array is on; None if it does not say."""
    asked = getattr(value, "__dlpack_device__", None)
    return None if asked is None else int(asked()[1])


def from_host_dlpack(value: Any) -> NDArray[Any]:
    """A NumPy array over another library's host memory.

    Raises:
        DataError: it cannot be shared; says what the library said.
    """
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        raise DataError(
            f"a {type(value).__module__}.{type(value).__name__} cannot be read through DLPack: "
            f"{err} Pass a NumPy array instead."
        ) from err
