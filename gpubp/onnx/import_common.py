"""What rules of ONNX's operators share: refusals, dtypes, numbers that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

DTYPES = {1: "float32", 11: "float64", 6: "int32", 7: "int64", 9: "bool"}


class RefusedError(Exception):
    """gpubp has no such option; the text says which. Users see an `OperatorError`."""


def refuse(why: str) -> NoReturn:
    raise RefusedError(why)


def text(value: Any) -> str:
    """Texts in lists come as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def whole(*arrays: Any) -> bool:
    """Shapes and the like: whole numbers that are known."""
    return all(isinstance(a, (np.ndarray, np.generic)) and a.dtype.kind == "i" for a in arrays)


def dtype_name(code: Any) -> str:
    return DTYPES[code] if code in DTYPES else refuse("a dtype that gpubp has not: of a cast")


def ints(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(value).reshape(-1))


def counted(x: Any, axis: int) -> int:
    return axis % x.ndim if x.ndim else 0


def attribute(fn: Callable[..., Any], name: str, default: Any) -> Callable[..., Any]:
    def adapted(x: Any, **given: Any) -> Any:
        return fn(x, given.get(name, default))

    return adapted


def itself(x: Any) -> Any:
    return x
