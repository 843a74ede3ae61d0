"""Python's operators and NumPy's method names, for everything that ops accept.

Traced arrays and parameters inherit them. The functions behind them are filled in by `gpubp.ops`,
which stands above this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class Operators:
    """Mixin: each operator calls the op of that name."""

    __slots__ = ()
    __array_priority__ = 1000
    __array_ufunc__: Any = None
    functions: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __add__(self, other: Any) -> Any:
        return self.functions["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return self.functions["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return self.functions["subtract"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.functions["subtract"](other, self)

    def __mul__(self, other: Any) -> Any:
        return self.functions["multiply"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.functions["multiply"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.functions["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.functions["divide"](other, self)

    def __pow__(self, other: Any) -> Any:
        return self.functions["power"](self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.functions["power"](other, self)

    def __matmul__(self, other: Any) -> Any:
        return self.functions["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self.functions["matmul"](other, self)

    def __neg__(self) -> Any:
        return self.functions["negative"](self)

    def __abs__(self) -> Any:
        return self.functions["abs"](self)

    def __mod__(self, other: Any) -> Any:
        return self.functions["remainder"](self, other)

    def __rmod__(self, other: Any) -> Any:
        return self.functions["remainder"](other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self.functions["floor_divide"](self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self.functions["floor_divide"](other, self)

    def __gt__(self, other: Any) -> Any:
        return self.functions["greater"](self, other)

    def __ge__(self, other: Any) -> Any:
        return self.functions["greater_equal"](self, other)

    def __lt__(self, other: Any) -> Any:
        return self.functions["less"](self, other)

    def __le__(self, other: Any) -> Any:
        return self.functions["less_equal"](self, other)

    def __getitem__(self, key: Any) -> Any:
        return self.functions["getitem"](self, key)

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        return self.functions["transpose"](self)

    def reshape(self, *shape: Any) -> Any:
        return self.functions["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        return self.functions["transpose"](self, axes or None)

    def astype(self, dtype: Any) -> Any:
        return self.functions["astype"](self, dtype)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        return self.functions["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        return self.functions["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return self.functions["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return self.functions["min"](self, axis=axis, keepdims=keepdims)
