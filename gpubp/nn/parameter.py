"""Arrays that a module owns: trained ones (`Parameter`) and others (`Buffer`).

Both are slots: they outlive every program that reads or updates them, and `value` is always the
live array. Inside a traced function they take part in arithmetic as arrays do.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import habits
from gpubp.core import active_graph, checked_dtype, describe
from gpubp.core.announce import announce
from gpubp.core.noted import Noted
from gpubp.core.operators import Operators
from gpubp.core.store import Bank, Slot
from gpubp.errors import ArgumentError, DTypeError, ShapeError, TraceError


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

    @property
    def data(self) -> NDArray[Any]:
        """`value`, by torch's name. Raises TraceError inside of a traced function."""
        return self._at_rest("data")

    @data.setter
    def data(self, new: ArrayLike) -> None:
        self.value = new

    def item(self) -> Any:
        """The number of a buffer of one element; in a traced function, TraceError."""
        return self._at_rest("item()").item()

    def tolist(self) -> Any:
        """The numbers as nested lists; in a traced function, TraceError."""
        return self._at_rest("tolist()").tolist()

    def _at_rest(self, what: str) -> NDArray[Any]:
        if active_graph() is not None:
            raise TraceError(
                f"{what} of {self.name} ({describe(self)}) was read inside a traced function: its "
                "value would be frozen into the program. Use the array itself, or "
                "gp.ops.stop_gradient of it."
            )
        return self.value

    def convert(self, dtype: Any) -> None:
        """Go on in another dtype; the numbers are rounded to it.

        Raises:
            DTypeError: a dtype that gpubp has not, or a program uses the array already.
        """
        wanted = checked_dtype(dtype)
        if wanted == self.dtype:
            return
        if self.bank is not None:
            raise DTypeError(
                f"{self.name} is {describe(self)}, and compiled programs use it. Convert a model "
                "before its first step; or build a new one, convert that, and give it the weights: "
                "new.load_state_dict(model.state_dict())."
            )
        self._take(wanted)
        announce()

    def _take(self, dtype: np.dtype[Any]) -> None:
        self._value = self._value.astype(dtype)
        self.dtype = dtype

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of this shape can be kept here."""
        return shape == self.shape

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
    hints = habits.PARAMETER

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


class _Uninitialized(Buffer):
    """What has a dtype but no shape: it becomes `_kind` when it gets its first value.

    Everything that needs the shape raises.
    """

    _kind: ClassVar[type[Buffer]]

    def __init__(self, dtype: Any = "float32", name: str = "parameter") -> None:
        self.name = name
        self.dtype = checked_dtype(dtype)
        self.bank: Bank | None = None
        self.offset = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("_value", "shape"):
            raise ShapeError(
                f"{self.name} has no shape and no values yet: its layer makes them when it is "
                "first called. Call the model once on a batch (or nn.summary on the shape of one) "
                "before its parameters are used."
            )
        return super().__getattr__(name)

    def _take(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, dtype={self.dtype})"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Any shape does."""
        return True

    def fitting(self, new: ArrayLike) -> NDArray[Any]:
        """A value in the dtype of this slot."""
        return Slot(self.name, new, self.dtype).value

    @property
    def value(self) -> NDArray[Any]:
        """There is none; given one, this becomes an ordinary slot."""
        return self._value

    @value.setter
    def value(self, new: ArrayLike) -> None:
        self._value = self.fitting(new)
        self.shape = self._value.shape
        object.__setattr__(self, "__class__", self._kind)


class UninitializedBuffer(_Uninitialized):
    """A buffer of a lazy layer before its first call."""

    _kind = Buffer


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter of a lazy layer before its first call: it can be frozen, but not yet used.

    Args:
        dtype: float32 or float64.
        name: shown in reports and errors.
        requires_grad: as for Parameter.
    """

    _kind = Parameter

    def __init__(
        self, dtype: Any = "float32", name: str = "parameter", requires_grad: bool = True
    ) -> None:
        super().__init__(dtype, name)
        self.requires_grad = requires_grad
