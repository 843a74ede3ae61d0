"""Traced arrays, and concrete ones made from whatever is no traced array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.core.interop import host_array, on_device
from gpubp.core.node import Node
from gpubp.core.operators import Operators
from gpubp.core.spec import CONST, TO_COME, ConcreteArray, Shape, describe
from gpubp.core.store import Slot
from gpubp.errors import DataError, TraceError


class Array(Operators):
    """A value known by shape and dtype only, while a function is being traced.

    It takes part in arithmetic like a NumPy array; its numbers exist only when the compiled program
    runs. So Python that needs the numbers (`if x > 0`, `float(x)`, `np.sin(x)`) cannot be traced.
    """

    __slots__ = ("graph", "node")

    def __init__(self, graph: Any, node: Node) -> None:
        # A Graph, which is made of nodes and lifts arrays: it stands above this file.
        self.graph = graph
        self.node = node

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return TO_COME if self.node.weak else self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    @property
    def size(self) -> int:
        return self.node.size

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError("a traced scalar has no len(): its shape is ().")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TraceError(
            f"a traced array {describe(self)} cannot be written into: it has no numbers while "
            "tracing. Use gp.ops.where(condition, a, b) or gp.ops.concat, which make a new one."
        )

    def __repr__(self) -> str:
        return f"Array({describe(self)}, traced)"

    def __eq__(self, other: object) -> Any:
        return self.functions["equal"](self, other)

    def __ne__(self, other: object) -> Any:
        return self.functions["not_equal"](self, other)

    __hash__ = object.__hash__

    def _value_needed(self, what: str, instead: str) -> TraceError:
        return TraceError(
            f"{what} needs the numbers of a traced array {describe(self)}, which exist only when "
            f"the compiled program runs. {instead}"
        )

    def _constant(self) -> Any:
        """The number, where it is known while tracing: made of Python's numbers alone."""
        return self.node.payload if self.node.spec is CONST else None

    def __bool__(self) -> bool:
        if self._constant() is not None:
            return bool(self._constant())
        raise self._value_needed(
            "a Python condition (if, while, and, or, not, max(), sorted())",
            "Use gp.ops.where(condition, a, b), or gp.ops.maximum/minimum/logical_and.",
        )

    def __float__(self) -> float:
        if self._constant() is not None:
            return float(self._constant())
        raise self._value_needed("float()", "Keep it as an array, or return it from the function.")

    def __int__(self) -> int:
        if self._constant() is not None:
            return int(self._constant())
        raise self._value_needed("int()", "Keep it as an array, or return it from the function.")

    def __index__(self) -> int:
        raise self._value_needed("indexing by it", "Use gp.ops.gather(x, indices).")

    def __array__(self, *_: Any, **__: Any) -> ConcreteArray:
        if self._constant() is not None:
            return np.array(self._constant())
        raise self._value_needed("a NumPy function", "Use the function of that name in gp.ops.")

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        # A NumPy array on the left of an operator asks here before it asks the reflected method.
        name = "divide" if ufunc is np.true_divide else ufunc.__name__
        if method == "__call__" and not kwargs and name in self.functions:
            return self.functions[name](*args)
        if kwargs.get("out") is not None:
            raise TraceError(
                f"np.{name} cannot write {describe(self)}, which is traced, into a NumPy array. "
                "Write a = a + b instead of a += b, and leave out=... away."
            )
        known = [a._constant() if isinstance(a, Array) else a for a in args]
        if method == "__call__" and all(a is not None for a in known):
            found = np.asarray(ufunc(*known, **kwargs))
            weak = found.dtype == np.float64
            return Array(self.graph, self.graph.constant(found, weak)) if weak else found
        raise self._value_needed(f"np.{name}", "Use the function of that name in gp.ops.")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        known = {np.shape: self.shape, np.ndim: self.ndim, np.size: self.size}
        if func in known and len(args) == 1 and not kwargs:
            return known[func]
        name = func.__name__
        raise self._value_needed(f"np.{name}", "Use the function of that name in gp.ops.")


def concrete(value: Any, name: str = "an argument") -> ConcreteArray:
    """A NumPy array from anything array-like that is not traced; no copy where none is needed.

    Raises:
        TraceError: a traced array.
        DataError, DTypeError: what `gpubp.core.interop.host_array` refuses, or an array on a GPU.
    """
    if isinstance(value, Array):
        raise TraceError(
            f"a traced array {describe(value)} was used outside the function it was traced in. "
            "Return it from that function instead of keeping it."
        )
    if isinstance(value, Slot):
        return value.value
    if not isinstance(value, np.ndarray) and on_device(value):
        raise DataError(
            f"a {type(value).__name__} on a GPU was used as a constant of a traced function, "
            "or where a host array is needed. Pass it as an argument, or copy it with .get()."
        )
    array = host_array(value, name)
    python_float = isinstance(value, float) and not isinstance(value, np.generic)
    return array.astype(np.float32) if python_float else array
