"""The user's arrays on the device, and the order between the user's streams and the backend's.

Comes in: arrays of CuPy, PyTorch, JAX or others, by DLPack or the CUDA array interface (version 3,
numba.readthedocs.io). Goes out: `DeviceArray`s.

Holds in between: a run starts after what was queued before on the user's current stream and on the
streams that its inputs name; what is queued on these after it comes after the run. So memory that
is freed, written or read there later is safe without the host waiting. Where an input does not say
on which stream its owner works, the host waits for the end of the run instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.base import Feed
from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.device_array import DeviceArray, as_device_array
from gpubp.core.interop import device_number, require_signed
from gpubp.errors import DataError

# The widest unit in which a step loads rows of resident arrays.
ALIGNED = 16


def import_array(
    driver: Driver, value: Any, name: str, floating: np.dtype[Any] | None = None
) -> DeviceArray:
    """An array on a GPU, as an input of a run.

    Args:
        driver: of the device that will read it.
        value: with `__dlpack__` or `__cuda_array_interface__`.
        name: for errors.
        floating: what float arrays must be.

    Raises:
        DataError: it is on another GPU, cannot be shared, or does not lie in one piece.
        DTypeError: of another dtype.
    """
    _require_device(driver, value, name)
    require_signed(value, name)
    found = getattr(value, "__cuda_array_interface__", {}) if _says_stream(value) else {}
    if found.get("stream") is None and hasattr(value, "__dlpack__"):
        try:
            value = driver.to_user_array(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as err:
            raise DataError(f"{name} cannot be read through DLPack: {err}") from err
        return _unknown_stream(as_device_array(value, name, floating))
    array = as_device_array(value, name, floating)
    return _unknown_stream(array) if driver.borrowed(value) else array


def _says_stream(value: Any) -> bool:
    """Version 3 of the array interface; a library may refuse to give it (PyTorch, for leaves)."""
    try:
        return value.__cuda_array_interface__.get("stream") is not None
    except (AttributeError, RuntimeError, TypeError):
        return False


def _unknown_stream(array: DeviceArray) -> DeviceArray:
    return DeviceArray(array.address, array.shape, array.dtype, None, array.owner)


def _require_device(driver: Driver, value: Any, name: str) -> None:
    number = device_number(value)
    if number is None:
        address = int(value.__cuda_array_interface__["data"][0])
        number = driver.device_of(address) if address else driver.number
    if number != driver.number:
        raise DataError(
            f"{name} is on cuda:{number}, but this runs on cuda:{driver.number}. Copy the array, "
            f"or pass device='cuda:{number}'."
        )


def _shared(feed: Feed) -> list[DeviceArray]:
    """The user's arrays that a run reads and writes."""
    arrays = [*feed.inputs, *(a for outputs in feed.outputs for a in outputs)]
    return [a for a in arrays if isinstance(a, DeviceArray)]


def _streams(driver: Driver, arrays: list[DeviceArray]) -> list[int]:
    named = [a.stream for a in arrays if a.stream is not None]
    return list(dict.fromkeys([driver.current_stream(), *named]))


def begin(driver: Driver, feed: Feed) -> None:
    """Order a run after the work on its arrays."""
    arrays = _shared(feed)
    if arrays:
        for stream in _streams(driver, arrays):
            driver.wait_for(stream)


def end(driver: Driver, feed: Feed) -> bool:
    """Order what comes next on the user's streams after the run; False if that is not enough."""
    arrays = _shared(feed)
    if not arrays or any(a.stream is None for a in feed.inputs if isinstance(a, DeviceArray)):
        return False
    for stream in _streams(driver, arrays):
        driver.make_wait(stream)
    return True


def require_aligned(feed: Feed) -> None:
    """Rows of resident arrays are loaded in units of up to 16 bytes.

    Raises:
        DataError: an array on the device starts elsewhere.
    """
    for i, array in enumerate(feed.inputs):
        if isinstance(array, DeviceArray) and array.address % ALIGNED:
            raise DataError(
                f"argument {i} is on the GPU and starts at an address that is no multiple of "
                f"{ALIGNED} bytes, as parts of arrays may: pass array.copy()."
            )
