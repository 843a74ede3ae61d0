"""Dtypes and arrays, from torch's to NumPy's and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpubp.core.interop import host_array, on_device
from gpubp.errors import DataError, DTypeError

_NUMPY = {
    torch.bool: np.dtype(np.bool_),
    torch.int32: np.dtype(np.int32),
    torch.int64: np.dtype(np.int64),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
_TORCH = {there: here for here, there in _NUMPY.items()}


def numpy_dtype(dtype: Any, name: str = "an array") -> np.dtype[Any]:
    """NumPy's dtype for torch's. Raises DTypeError for one that gpubp has not."""
    found = _NUMPY.get(dtype)
    if found is None:
        raise DTypeError(
            f"{name} is of {dtype}; gpubp computes in float32 and float64, and has bool, int32 and "
            "int64 beside them. Convert it: model.float(), tensor.long()."
        )
    return found


def torch_dtype(dtype: Any) -> Any:
    """torch's dtype for NumPy's."""
    return _TORCH[np.dtype(dtype)]


def as_array(value: Any, name: str = "an argument") -> NDArray[Any]:
    """A tensor (or anything like an array) in the host's memory as NumPy's, nothing copied.

    Raises:
        DataError: it is on a GPU.
    """
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise DataError(
                f"{name} is on {value.device}; gpubp.torch reads tensors in the host's memory. "
                "Pass tensor.cpu()."
            )
        if value.layout is not torch.strided:
            raise DataError(f"{name} is a sparse tensor. Pass tensor.to_dense().")
        array: NDArray[Any] = value.detach().resolve_neg().numpy()
        return array
    if on_device(value):
        raise DataError(f"{name} is on a GPU; expected it in the host's memory.")
    return host_array(value, name)


def as_tensor(value: Any) -> Any:
    """What a step returns as a tensor: NumPy's arrays and scalars; all else as it is."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return torch.tensor(value.item(), dtype=torch_dtype(value.dtype))
