"""Types of values, and op specs: all that the pipeline knows about an op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpubp.core.formula import Formula, Variants
from gpubp.errors import DTypeError

DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64")
)
_SUPPORTED = frozenset(DTYPES)
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


class WholeType(NamedTuple):
    """The type of an argument that has no axis of samples: each step reads all of it."""

    shape: Shape
    dtype: np.dtype[Any]
    whole: bool = True


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
    CONV = "conv"  # products whose rows are windows of images, (N, *sizes, C)
    MOVE = "move"  # indexed data movement: concat, gather, scatter
    RANDOM = "random"  # element-wise from a generator's state: input 0 is (seed, counter) int64[2]
    CUSTOM = "custom"  # the user's own: a black box run by one worker
    LOOP = "loop"  # a body that runs again and again; its value is none, but the PIECEs of it are
    PIECE = "piece"  # one result of a LOOP, which is its input; computed by the loop itself


class Indices(NamedTuple):
    """Which input of an op holds class labels or indices, and their limit.

    Attributes:
        input: its position.
        limit: (*types, **attrs) -> n: they are 0 to n - 1.
    """

    input: int
    limit: Callable[..., int]


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
        flops: arithmetic for each element of the largest of result and inputs; or a function
            (result, *inputs: types, **attrs) -> arithmetic in all.
        formula: of an elementwise op: what backends make their code from.
        cuda: of a custom op: CUDA source of its function, or a `numba.cuda.jit` kernel, if the user
            gave one.
        view: of a view: (source: Strided, shape: of the result, **attrs) -> the result as Strided
            over the same memory, or None where strides cannot say it and a copy is to be made.
        kernel: that computes it, if it is not elementwise; default is one of its own name (of the
            kind's, where one kernel computes all ops of a kind).
        indices: its input of class labels or indices that a run checks before any work.
        row_inputs: (number of inputs, **attrs) -> positions of the inputs of which a worker that
            makes some rows of the result reads the same rows only; None: one worker makes it all.
            Of ops of the kinds ROWWISE (default: all inputs), CONV and MOVE (default: None).
        scalar_inputs: inputs that its kernel also reads where one number stands for all.
        strided: inputs that its kernel reads wherever their rows are, of ops whose kernels want
            contiguous memory otherwise: only the last axis must be contiguous.
        joins: an op in whose pass over its inputs this one can be computed too: a second result of
            the same inputs, or its gradient, which takes the same inputs and then the cotangent.
        accumulates: of a reduction: a sum, inside of which its input can be computed, and which can
            run over the columns of a matrix beside a product that walks them.
        followed: its kernel can go on with elementwise ops over its result, as products do.
        turned: of an op that moves or views data, where it can be done in another order of axes:
            (order, **attrs) -> the attributes with which op(x) is made of arrays whose axis
            order[i] is axis i of x, or None. Elementwise ops and reductions need none.
        batched: (spec, samples, given, inputs, attrs) -> the op once a sample: `inputs` have an
            axis of samples in front where `given` says so. The result with that axis, or the
            attributes with which the op itself makes it. None: what its kind does.
        settles: its result has a dtype of its own even where its inputs are weak.
    """

    name: str
    kind: Kind
    infer: Callable[..., ArrayType]
    reference: Callable[..., Any]
    vjp: Callable[..., Sequence[Any]] | None = None
    flops: float | Callable[..., float] = 1.0
    cuda: Any = None
    formula: Formula | Variants | None = None
    view: Callable[..., Any] | None = None
    kernel: str = ""
    indices: Indices | None = None
    row_inputs: Callable[..., Sequence[int] | None] | None = None
    scalar_inputs: tuple[int, ...] = ()
    strided: tuple[int, ...] = ()
    joins: OpSpec | None = None
    accumulates: bool = False
    followed: bool = False
    turned: Callable[..., dict[str, Any] | None] | None = None
    settles: bool = False
    batched: Callable[..., Any] | None = None

    def arithmetic(self, out: Typed, *inputs: Typed, **attrs: Any) -> float:
        """Floating-point operations that make a result of type `out`."""
        flops = self.flops
        if callable(flops):
            return flops(out, *inputs, **attrs)
        return flops and flops * max([math.prod(t.shape) for t in (out, *inputs)])

    def formulas(self) -> dict[str, Formula]:
        """Its formulas by their names in the tables of backends."""
        if isinstance(self.formula, Variants):
            return {f"{self.name}_{k}": f for k, f in self.formula.formulas.items()}
        return {} if self.formula is None else {self.name: self.formula}

    def formula_name(self, attrs: Mapping[str, Any]) -> str:
        """Which of `formulas` these static attributes ask for."""
        if isinstance(self.formula, Variants):
            return f"{self.name}_{attrs[self.formula.attribute]}"
        return self.name

    def numbers(self, attrs: Mapping[str, Any]) -> int:
        """How many numbers a kernel may be told of its static attributes."""
        formula = self.formula
        if isinstance(formula, Variants):
            formula = formula.formulas.get(attrs[formula.attribute])
        return len(attrs) if formula is None else max(len(attrs), formula.numbers)

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
    "alias",
    Kind.VIEW,
    _alias_infer,
    lambda x, tag: x,
    lambda g, y, x, tag: (g,),
    flops=0.0,
    view=lambda source, shape, tag: source,
    turned=lambda order, **attrs: attrs,
)


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """`float32`: NumPy makes its name anew each time it is asked."""
    return dtype.name


def describe(value: Typed) -> str:
    """`float32[200, 64]`: how types are written everywhere."""
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


# What weak values (see `ops.weak`) say that their dtype is: equal to float64, and known to be one
# to come, so that what is made "of the dtype of x" is as weak as x.
TO_COME = np.dtype(np.float64, metadata={"to come": True})


def is_to_come(dtype: np.dtype[Any]) -> bool:
    """It is the dtype of a weak value."""
    return dtype.metadata is not None and "to come" in dtype.metadata


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype, if gpubp has it."""
    if isinstance(dtype, np.dtype) and dtype in _SUPPORTED:
        return dtype
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as err:
        raise DTypeError(f"{dtype!r} is not a dtype.") from err
    if found not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise DTypeError(f"dtype {found} is not supported; convert to one of {names}.")
    return found
