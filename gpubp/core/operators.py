"""Python's operators, NumPy's method names and torch's, for everything that ops accept.

Traced arrays and parameters inherit them. The functions behind them are filled in by `gpubp.ops`,
which stands above this file; `gpubp.ops.torch_names` has the methods that are not spelled out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar

from gpubp.habits import ARRAY, missing


class Operators:
    """Mixin: each operator calls the op of that name."""

    __slots__ = ()
    __array_priority__ = 1000
    __array_ufunc__: Any = None
    functions: ClassVar[dict[str, Callable[..., Any]]] = {}
    methods: ClassVar[dict[str, Callable[..., Any]]] = {}
    hints: ClassVar[Mapping[str, str]] = ARRAY

    def __getattr__(self, name: str) -> Any:
        method = self.methods.get(name)
        if method is not None:
            return MethodType(method, self)
        kind = type(self).__name__
        if name.startswith("__"):  # a protocol that somebody asks for: often, and in vain
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        raise missing(self, f"{kind!r} object", name, self.hints)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.methods})

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
        single = len(axes) == 1 and isinstance(axes[0], (tuple, list))
        return self.functions["transpose"](self, (axes[0] if single else axes) or None)

    def astype(self, dtype: Any) -> Any:
        return self.functions["astype"](self, dtype)

    def sum(self, *axis: Any, **keepdims: Any) -> Any:
        return self.functions["sum"](self, *axis, **keepdims)

    def mean(self, *axis: Any, **keepdims: Any) -> Any:
        return self.functions["mean"](self, *axis, **keepdims)

    def max(self, *axis: Any, **keepdims: Any) -> Any:
        return self.functions["max"](self, *axis, **keepdims)

    def min(self, *axis: Any, **keepdims: Any) -> Any:
        return self.functions["min"](self, *axis, **keepdims)
