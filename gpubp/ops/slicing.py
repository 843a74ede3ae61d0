"""Slices of any steps, and their transpose: a part put into zeros.

`slice` has one (start, stop, step) an axis as `slice.indices` gives them, so a stop of -1 with a
negative step means "through element 0".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.core.strided import Strided
from gpubp.errors import ShapeError
from gpubp.ops.shape import by_axes, view
from gpubp.ops.spec import promote, register

_Cotangents = tuple[Array | None, ...]


def _slices(starts: Shape, stops: Shape, steps: Shape) -> tuple[slice, ...]:
    return tuple(
        slice(start, None if stop < 0 else stop, step)
        for start, stop, step in zip(starts, stops, steps, strict=True)
    )


def _slice_infer(x: Typed, *, starts: Shape, stops: Shape, steps: Shape) -> ArrayType:
    if not len(starts) == len(stops) == len(steps) == len(x.shape) or 0 in steps:
        raise ShapeError(f"slice: {starts}, {stops}, {steps} do not describe {describe(x)}.")
    shape = tuple(len(range(*part)) for part in zip(starts, stops, steps, strict=True))
    for n, size, start, step in zip(shape, x.shape, starts, steps, strict=True):
        if n and not (0 <= start < size and 0 <= start + (n - 1) * step < size):
            raise ShapeError(f"slice: {starts}, {stops}, {steps} leave {describe(x)}.")
    return ArrayType(shape, x.dtype)


def _slice_reference(x: Any, *, starts: Shape, stops: Shape, steps: Shape) -> Any:
    return x[_slices(starts, stops, steps)]


def _slice_layout(
    source: Strided, shape: Shape, /, *, starts: Shape, stops: Shape, steps: Shape
) -> Strided:
    offset = source.offset + sum(a * s for a, s in zip(starts, source.strides))
    return Strided(offset, shape, tuple(a * s for a, s in zip(steps, source.strides)))


def _slice_vjp(
    g: Array, y: Array, x: Array, *, starts: Shape, stops: Shape, steps: Shape
) -> _Cotangents:
    return (bind(UNSLICE, g, shape=x.shape, starts=starts, steps=steps),)


def _stops(lengths: Shape, starts: Shape, steps: Shape) -> Shape:
    """The stops that give slices of these lengths."""
    return tuple(max(a + n * s, -1) for n, a, s in zip(lengths, starts, steps, strict=True))


def _unslice_infer(g: Typed, *, shape: Shape, starts: Shape, steps: Shape) -> ArrayType:
    whole = ArrayType(shape, g.dtype)
    part = _slice_infer(whole, starts=starts, stops=_stops(g.shape, starts, steps), steps=steps)
    if part.shape != g.shape:
        raise ShapeError(f"unslice: {describe(g)} does not fit into {shape} at {starts}.")
    return whole


def _unslice_reference(g: Any, *, shape: Shape, starts: Shape, steps: Shape) -> Any:
    out = np.zeros(shape, g.dtype)
    out[_slices(starts, _stops(g.shape, starts, steps), steps)] = g
    return out


def _unslice_rows(
    inputs: int, *, shape: Shape, starts: Shape, steps: Shape
) -> Sequence[int] | None:
    """Rows of the result are those of the input where there are as many, and in their order."""
    return (0,) if starts[:1] == (0,) and steps[:1] == (1,) else ()


def _unslice_vjp(
    g: Array, y: Array, x: Array, *, shape: Shape, starts: Shape, steps: Shape
) -> _Cotangents:
    stops = _stops(x.shape, starts, steps)
    return (bind(SLICE, g, starts=starts, stops=stops, steps=steps),)


def _slice_batched(
    spec: OpSpec, samples: int, given: Any, inputs: Any, attrs: dict[str, Shape]
) -> dict[str, Any]:
    """See `OpSpec.batched`: all of the first axis, and the rest as it was."""
    first = {"starts": 0, "stops": samples, "steps": 1, "shape": samples}
    return {name: (first[name], *values) for name, values in attrs.items()}


SLICE = view(
    "slice",
    _slice_infer,
    _slice_reference,
    _slice_vjp,
    _slice_layout,
    by_axes,
    _slice_batched,
)
UNSLICE = register(
    OpSpec(
        "unslice",
        Kind.MOVE,
        _unslice_infer,
        _unslice_reference,
        _unslice_vjp,
        flops=0.0,
        row_inputs=_unslice_rows,
        turned=by_axes,
        batched=_slice_batched,
    )
)


def strided_slice(x: Any, slices: Sequence[slice]) -> Any:
    """`x[slices]` with one slice for each axis, of any steps."""
    (x,) = promote(x)
    parts = []
    for part, n in zip(slices, x.shape, strict=True):
        start, stop, step = part.indices(n)
        parts.append((start, stop, step) if len(range(start, stop, step)) else (0, 0, 1))
    if all(p == (0, n, 1) for p, n in zip(parts, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*parts, strict=True)
    return bind(SLICE, x, starts=starts, stops=stops, steps=steps)
