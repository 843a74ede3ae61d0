"""Arrays that a module owns: trained ones (`Parameter`) and others (`Buffer`).

Both are slots: they outlive every program that reads or updates them, and `value` is always the
live array. Inside a traced function they take part in arithmetic as arrays do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core import active_graph, checked_dtype, describe
from gpubp.core.noted import Noted
from gpubp.core.operators import Operators
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DTypeError, TraceError


class Buffer(Operators, Slot):
    """Module state that no optimiser trains: running statistics, recurrent state.

    Args:
        value: the initial value; copied.
        name: shown in reports; a module that registers the array replaces it.
        dtype: default is the dtype of `value`.
    """

    def __init__(self, value: ArrayLike, name: str = "buffer", dtype: Any = None) -> None:
        super().__init__(name, value, None if dtype is None else checked_dtype(dtype))
        checked_dtype(self.dtype)

    def numpy(self) -> NDArray[Any]:
        """A copy of the live value."""
        return self.value.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if active_graph() is not None:
            raise TraceError(
                f"a NumPy function was called on {self.name} ({describe(self)}) inside a traced "
                "function: its value would be frozen into the program. Use the function of that "
                "name in gp.ops."
            )
        return np.array(self.value, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentError(f"{self.name} is a scalar and has no len(): its shape is ().")
        return self.shape[0]


class Parameter(Buffer):
    """An array that an optimiser trains.

    Args:
        value: the initial value, of a float dtype; copied.
        requires_grad: False freezes it: steps compute no gradient of it and leave it as it is.
        name: shown in reports; a module that registers the parameter replaces it.
        dtype: default is the dtype of `value`.

    Raises:
        DTypeError: `value` is not of a float dtype.
    """

    requires_grad = Noted()

    def __init__(
        self,
        value: ArrayLike,
        requires_grad: bool = True,
        name: str = "parameter",
        dtype: Any = None,
    ) -> None:
        super().__init__(value, name, dtype)
        if self.dtype.kind != "f":
            raise DTypeError(
                f"a Parameter needs a float dtype, got {describe(self)}. "
                "Pass dtype='float32', or use a Buffer."
            )
        self.requires_grad = requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Freeze (False) or train (True) it from the next step on; returns self.

        Steps that know it are traced again.
        """
        self.requires_grad = bool(requires_grad)
        return self
