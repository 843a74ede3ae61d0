"""Ops made by users: NumPy code as a black box, with a gradient made of `gp.ops`.

Comes in: a function on NumPy arrays and, if wanted, its vjp and its shape rule. Goes out: a
function that works like those of `gp.ops`, on concrete arrays and in a trace. A program runs such
an op by calling back into Python, on one worker; on a GPU by the CUDA source or Numba's kernel, if
there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.core import (
    Array,
    ArrayType,
    Kind,
    OpSpec,
    Typed,
    active_graph,
    bind,
    checked_dtype,
    describe,
)
from gpubp.errors import ArgumentError, DTypeError, GradientError, ShapeError, TraceError
from gpubp.ops.shape import as_shape
from gpubp.ops.spec import SPECS, promote
from gpubp.ops.weak import settled_together

_Infer = Callable[..., tuple[Sequence[int], Any]]


@checked
def custom_op(
    name: str,
    forward: Callable[..., Any],
    vjp: Callable[..., Any] | None = None,
    infer: _Infer | None = None,
    cuda: str | Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """An op of your own.

    Args:
        name: shown in graphs, programs and errors; not the name of a built-in op.
        forward: (*arrays, **attrs) -> array, in NumPy. The arrays are read-only.
        vjp: (cotangent, output, *inputs, **attrs) -> one cotangent, or None, for each input; made
            of `gp.ops`, so that it can be traced. Without it the op has no gradient.
        infer: (*types, **attrs) -> (shape, dtype) of the result; types have `shape` and `dtype`.
            By default the result is like the first input.
        cuda: CUDA C++ that defines `__device__ void NAME(long long i, const T* x, ..., T* y)`, NAME
            being the op's name: writes element i of the result y, given all inputs, which lie in C
            order; static attributes follow as doubles, in the order of their names. T is the C type
            of each array's dtype (bool, int, long long, float, double), or a template's parameter.
            Or a kernel made by `numba.cuda.jit`, of (*inputs, y, *attributes): it is launched with
            a thread for each element of y at least, in blocks of 256 along one axis, so
            `i = cuda.grid(1)` must be held to `y.size`; attributes are float64. Of int32 arrays and
            the others as they are: Numba compiles it for their dtypes.
            Without either a GPU run goes through the host's memory and `forward` at each step.

    Returns:
        A function of arrays and keyword attributes (hashable: numbers, strings, tuples).

    Raises:
        ArgumentError: the name is that of a built-in op; `cuda` is neither source nor a kernel.
    """
    if name in SPECS:
        raise ArgumentError(f"custom_op: {name!r} is the name of a built-in op; choose another.")
    _require_cuda(name, cuda)
    shape_rule = _shape_rule(name, infer)
    rule = None if vjp is None else _gradient_rule(name, vjp)
    reference = _checked(name, forward, shape_rule)
    spec = OpSpec(name, Kind.CUSTOM, shape_rule, reference, rule, cuda=cuda, settles=True)

    def call(*arrays: Any, **attrs: Any) -> Any:
        _require_hashable(name, attrs)
        return bind(spec, *settled_together([promote(a)[0] for a in arrays]), **attrs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = forward.__doc__
    return call


def _require_cuda(name: str, cuda: Any) -> None:
    if isinstance(cuda, str) and not name.isidentifier():
        raise ArgumentError(f"custom_op: {name!r} cannot be the name of a CUDA function.")
    if not (cuda is None or isinstance(cuda, str)) and not hasattr(cuda, "configure"):
        raise ArgumentError(
            f"custom_op: cuda is {cuda!r}, expected CUDA C++ in a string, or a function that "
            "numba.cuda.jit has made a kernel."
        )


def _shape_rule(name: str, infer: _Infer | None) -> Callable[..., ArrayType]:
    def rule(*types: Typed, **attrs: Any) -> ArrayType:
        if not types:
            raise ShapeError(f"{name}: a custom op needs at least one array.")
        if infer is None:
            return ArrayType(types[0].shape, types[0].dtype)
        shape, dtype = infer(*types, **attrs)
        return ArrayType(as_shape(shape, name), checked_dtype(dtype))

    return rule


def _checked(
    name: str, forward: Callable[..., Any], rule: Callable[..., ArrayType]
) -> Callable[..., Any]:
    """`forward` on read-only inputs, its result held to what the shape rule says."""

    def reference(*arrays: Any, **attrs: Any) -> Any:
        expected = rule(*[ArrayType(a.shape, a.dtype) for a in arrays], **attrs)
        out = np.array(forward(*[_read_only(a) for a in arrays], **attrs))
        if out.shape == expected.shape and out.dtype == expected.dtype:
            return out
        error = ShapeError if out.shape != expected.shape else DTypeError
        raise error(
            f"{name}: forward returned {describe(out)}, but its shape rule says "
            f"{describe(expected)}. Change forward, or give custom_op an infer function."
        )

    return reference


def _read_only(array: Any) -> Any:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _gradient_rule(name: str, vjp: Callable[..., Any]) -> Callable[..., Sequence[Array | None]]:
    def rule(g: Array, y: Array, *xs: Array, **attrs: Any) -> Sequence[Array | None]:
        found = vjp(g, y, *xs, **attrs)
        parts = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(parts) != len(xs):
            raise GradientError(
                f"the vjp of {name} returned {len(parts)} cotangents for {len(xs)} inputs; return "
                "one for each, None where there is none."
            )
        return [None if p is None else _traced(p) for p in parts]

    return rule


def _traced(part: Any) -> Array:
    """A cotangent that happens to be constant, as a traced array."""
    graph = active_graph()
    if graph is None or isinstance(part, Array):
        assert isinstance(part, Array)
        return part
    return Array(graph, graph.lift(part))


def _require_hashable(name: str, attrs: dict[str, Any]) -> None:
    for key, value in attrs.items():
        try:
            hash(value)
        except TypeError as err:
            raise TraceError(
                f"{name}: the attribute {key} must be hashable, got {type(value).__name__}. Give "
                "arrays as positional arguments, and lists as tuples."
            ) from err
