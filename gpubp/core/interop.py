"""Arrays from outside: NumPy's, and those of other libraries by DLPack and NumPy's protocols.

Comes in: any object. Goes out: whether it is in a GPU's memory, on which GPU, or, where it is in
the host's, a NumPy array of the same numbers in a dtype that gpubp has. Whatever enters from the
host comes through `host_array`: what cannot be kept to the last digit is refused there. Nothing is
copied but narrow numbers, which are widened.

Device types are those of DLPack's `DLDeviceType` (dmlc.github.io/dlpack, "C API").
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import ArgumentError, DataError, DTypeError

_NATIVE = frozenset("?" + np.dtype(np.int32).char + "lq" + "fd")
_CUDA, _CUDA_MANAGED = 2, 13
# In errors: what copies an array to a GPU, and back.
TO_GPU, TO_HOST = "cupy.asarray or numba.cuda.to_device", ".get() or .copy_to_host()"
_LARGEST = np.iinfo(np.int64).max


def on_device(value: Any) -> bool:
    """It is an array in the memory of a GPU."""
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return False
    asked = getattr(value, "__dlpack_device__", None)
    if asked is not None:
        return int(asked()[0]) in (_CUDA, _CUDA_MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def copied_to_host(array: Any) -> Any:
    """A NumPy copy of an array on a GPU, as CuPy's or Numba's arrays give it."""
    copy = getattr(array, "copy_to_host", None)
    return array.get() if copy is None else copy()


def device_number(value: Any) -> int | None:
    """The number of the GPU that an array is on; None if it does not say."""
    asked = getattr(value, "__dlpack_device__", None)
    return None if asked is None else int(asked()[1])


def host_array(value: Any, name: str = "an argument") -> NDArray[Any]:
    """The same numbers as bool, int32, int64, float32 or float64, in memory that may be shared.

    float16 becomes float32, and narrow or unsigned integers become int64: that is exact.

    Args:
        value: anything array-like in the host's memory.
        name: for errors.

    Raises:
        DTypeError: text, objects, times, complex numbers, floats wider than float64, numbers in
            another machine's byte order, unsigned integers that int64 does not hold.
        ArgumentError: nothing that NumPy makes an array of: rows of unequal lengths, say.
        DataError: a masked array with elements masked, or one that cannot be shared.
    """
    if type(value) is np.ndarray and value.dtype.char in _NATIVE and value.dtype.isnative:
        return value
    masked = _masked(value)
    if masked:
        raise DataError(
            f"{name} is a masked array, and its {masked} masked elements would count as numbers. "
            "Fill them (array.filled(0)), or leave these rows out."
        )
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        require_signed(value, name)
        value = from_host_dlpack(value, name)
    array = as_numpy(value, name)
    dtype = array.dtype
    return array if dtype.char in _NATIVE and dtype.isnative else _widened(array, name)


def as_numpy(value: Any, name: str) -> NDArray[Any]:
    """np.asarray, of any dtype. Raises ArgumentError for rows of unequal lengths and the like."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as err:
        raise ArgumentError(
            f"{name}, a {type(value).__name__}, cannot be made a NumPy array: {err}"
        ) from err


def _masked(value: Any) -> int:
    """How many elements a masked array hides; where none was made, numpy.ma is not imported."""
    # Another thread may be in the middle of importing it: nobody has a masked array then.
    kind = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return int(np.count_nonzero(value.mask)) if kind and isinstance(value, kind) else 0


def require_signed(value: Any, name: str) -> None:
    """Raise DataError for a tensor of torch whose numbers in memory have the other sign.

    Such views (the imaginary part of a conjugate, say) are marked by a bit that no protocol tells.
    """
    marked = getattr(value, "is_neg", None)
    if callable(marked) and marked():
        raise DataError(
            f"{name} is a tensor that torch keeps with the sign changed, which other libraries "
            "cannot see. Pass tensor.resolve_neg()."
        )


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Raise DTypeError for a dtype of which `host_array` takes no array."""
    if dtype.kind not in "biuf":
        parts, other = "Pass real and imaginary parts.", "Encode text and objects first."
        advice = parts if dtype.kind == "c" else other
        raise DTypeError(f"{name} has dtype {dtype}; expected numbers. {advice}")
    if not dtype.isnative:
        raise DTypeError(
            f"{name} has dtype {dtype.str!r}, in another machine's byte order. Convert it with "
            "array.astype(array.dtype.newbyteorder('='))."
        )
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise DTypeError(
            f"{name} has dtype {dtype}, of more digits than float64 has. Round it yourself: "
            "array.astype('float64')."
        )


def _widened(array: NDArray[Any], name: str) -> NDArray[Any]:
    dtype = array.dtype
    check_dtype(dtype, name)
    if dtype.kind == "f":
        return array.astype(np.float32)
    if dtype.kind == "u" and dtype.itemsize == 8 and array.size and array.max() > _LARGEST:
        raise DTypeError(
            f"{name} has dtype {dtype} and holds {array.max()}, but int64 ends at {_LARGEST}. "
            "Encode such numbers first."
        )
    return array.astype(np.int64)


def from_host_dlpack(value: Any, name: str = "an argument") -> NDArray[Any]:
    """A NumPy array over another library's host memory.

    Raises:
        DataError: it cannot be shared; says what the library said.
    """
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        raise DataError(
            f"{name}, a {type(value).__module__}.{type(value).__name__}, cannot be read through "
            f"DLPack: {err} Pass a NumPy array instead."
        ) from err
