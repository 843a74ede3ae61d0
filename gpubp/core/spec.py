"""Types of values, and op specs: all that the pipeline knows about an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DTypeError

DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64")
)
Shape: TypeAlias = tuple[int, ...]
ConcreteArray: TypeAlias = NDArray[Any]


class ArrayType(NamedTuple):
    """The static type of a value: what shape rules take and give."""

    shape: Shape
    dtype: np.dtype[Any]


class NumberType(NamedTuple):
    """The type of an argument that is a Python float: it takes the dtype of what it meets."""

    shape: Shape = ()
    dtype: np.dtype[Any] = np.dtype(np.float64)
    weak: bool = True


class Typed(Protocol):
    """Anything with a shape and a dtype: a node, an array, a slot."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


class Kind(Enum):
    """How the compiler may treat an op."""

    LEAF = "leaf"  # input, constant, slot: no computation
    VIEW = "view"  # the same memory read through other strides
    ELEMENTWISE = "elementwise"  # output[i] from inputs[i], inputs broadcast
    REDUCE = "reduce"  # over the axes in attrs["axis"], kept as 1 if attrs["keepdims"]
    MATMUL = "matmul"  # (..., M, K) @ (..., K, N)
    ROWWISE = "rowwise"  # independent along the first axis
    MOVE = "move"  # indexed data movement: concat, gather, scatter
    RANDOM = "random"  # element-wise from a generator's state: input 0 is (seed, counter) int64[2]
    CUSTOM = "custom"  # the user's own: a black box run by one worker


@dataclass(frozen=True, eq=False, slots=True)
class OpSpec:
    """One kernel-level op: all that the pipeline knows about it.

    Attributes:
        name: unique; the name used in graphs, programs and reports.
        kind: how it may be fused.
        infer: (*types, **attrs) -> ArrayType; raises ShapeError or DTypeError on misuse.
        reference: (*arrays, **attrs) -> array; the definition of the op, in NumPy. Never writes
            into its inputs.
        vjp: (cotangent, output, *inputs, **attrs) -> one cotangent (or None) for each input, all
            traced arrays; None where the op has no gradient.
        flops: arithmetic per output element, for reports (matmul and reductions count by size).
        cuda: of a custom op: CUDA source of its function, if the user gave one.
    """

    name: str
    kind: Kind
    infer: Callable[..., ArrayType]
    reference: Callable[..., Any]
    vjp: Callable[..., Sequence[Any]] | None = None
    flops: float = 1.0
    cuda: str | None = None

    def __repr__(self) -> str:
        return f"OpSpec({self.name})"


def _leaf(name: str) -> OpSpec:
    def infer(**_: Any) -> ArrayType:
        raise TypeError(f"{name} is a leaf: its type is given, not inferred")

    return OpSpec(name, Kind.LEAF, infer, infer, flops=0.0)


INPUT = _leaf("input")
CONST = _leaf("const")
SLOT = _leaf("slot")


def _alias_infer(x: Typed, **_: Any) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


# A second name for a value: differentiating by it ignores every other use of the value.
ALIAS = OpSpec(
    "alias", Kind.VIEW, _alias_infer, lambda x, tag: x, lambda g, y, x, tag: (g,), flops=0.0
)


def describe(value: Typed) -> str:
    """`float32[200, 64]`: how types are written everywhere."""
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype, if gpubp has it."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError as err:
        raise DTypeError(f"{dtype!r} is not a dtype.") from err
    if found not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise DTypeError(f"dtype {found} is not supported; convert to one of {names}.")
    return found
