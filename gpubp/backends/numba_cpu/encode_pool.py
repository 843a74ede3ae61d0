"""Encoding of pools and of what undoes one.

Images of fewer than three axes get axes of size 1 before theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, place
from gpubp.backends.numba_cpu.target import lanes
from gpubp.compiler.parts import Part
from gpubp.core import Shape
from gpubp.core.store import round_up
from gpubp.core.strided import c_strides
from gpubp.errors import BackendError

_AXES = 3
Encoding = tuple[str, list[int], int, list[tuple[int, str]]]


class _Result(NamedTuple):
    """A result that is in no memory of the program: what follows reads it from scratch."""

    shape: Shape
    dtype: np.dtype[Any]
    place: tuple[int, int] = (0, 0)


@dataclass
class _Axis:
    """A pool along one axis."""

    size: int
    found: int
    kernel: int
    stride: int
    pad: int
    dilation: int

    def apart(self) -> bool:
        """Windows do not overlap."""
        return self.found == 1 or self.stride > self.dilation * (self.kernel - 1)

    def covers(self) -> bool:
        """Every element is in a window."""
        end = (self.found - 1) * self.stride - self.pad + self.kernel
        dense = self.dilation == 1 or self.kernel == 1
        return dense and (self.found == 1 or self.stride <= self.kernel) and end >= self.size

    def inside(self) -> tuple[int, int]:
        """Windows from the one to the other are cut by no end."""
        first = min(-(-self.pad // self.stride), self.found)
        room = self.size - 1 - self.dilation * (self.kernel - 1) + self.pad
        return first, max(min(room // self.stride + 1, self.found), first)


def _padded(values: Sequence[int], filler: int) -> list[int]:
    return [filler] * (_AXES - len(values)) + list(values)


def _axes(sizes: Shape, found: Shape, attrs: dict[str, Any]) -> list[_Axis]:
    columns = [
        _padded(sizes, 1),
        _padded(found, 1),
        _padded(attrs["kernel"], 1),
        _padded(attrs["stride"], 1),
        _padded([lo for lo, _ in attrs["padding"]], 0),
        _padded(attrs["dilation"], 1),
    ]
    return [_Axis(*column) for column in zip(*columns, strict=True)]


def encode_pool(part: Part) -> Encoding:
    """(kernel, words, scratch bytes, needs) of a pool or a gradient of one, and what follows it.

    Raises:
        BackendError: an image has more places than int32 can count.
    """
    compute = part.body[part.anchor or 0]
    name, made = compute.spec.name, len(part.inputs) + (part.anchor or 0)
    stored = next((o for v, o in part.outputs if v == made), None)
    out = _Result(compute.shape, compute.dtype) if stored is None else stored
    given = [part.inputs[i] for i in compute.args]
    grads = name.endswith("_grad")
    images = out if grads else given[0]
    windows = given[-1] if grads else out
    axes = _axes(images.shape[1:-1], windows.shape[1:-1], compute.attrs)
    sizes = [axis.size for axis in axes]
    channels, item = images.shape[-1], images.dtype.itemsize
    if math.prod(sizes) >= 1 << 31:
        raise BackendError(f"{part.name}: an image of {sizes} has too many places.")
    line = [s * channels * item for s in c_strides((*sizes,))]
    window = channels * windows.dtype.itemsize
    inner, outer = axes[-1].inside()
    code = words.POOL.pack(
        per_row=images.shape[0] // max(part.rows, 1),
        channels=channels,
        image=math.prod(sizes) * channels * item,
        windows=math.prod(axis.found for axis in axes) * window,
        window=window,
        hop=axes[-1].stride * channels * item,
        inner=inner,
        outer=outer,
        loose=_loose(axes[-1].size if grads else axes[-1].found, channels, item),
        a=place(given[0]),
        b=[*(out if grads else given[-1]).place],
        w=[*windows.place],
        in_scratch=int(stored is None),
        **_by_axis(axes, line),
    )
    apart = grads and all(axis.apart() for axis in axes)
    if grads and not (apart and all(axis.covers() for axis in axes)):
        code[words.POOL["clear"]] = 1
    scratch = 0 if stored is not None else round_up(math.prod(out.shape[1:]) * item, words.ALIGN)
    kernel = f"{name}{'_apart' if apart else ''}_{images.dtype.name}"
    return kernel, code, *_followed(part, made, code, scratch)


def _followed(
    part: Part, made: int, code: list[int], scratch: int
) -> tuple[int, list[tuple[int, str]]]:
    """Append what follows the result `made` to the code; (scratch bytes, needs)."""
    positions = [i for i in range(len(part.body)) if i != made - len(part.inputs)]
    if not positions:
        return scratch, []
    compute = part.body[made - len(part.inputs)]
    dtype = compute.dtype.name
    chain = ChainEncoder(part, positions, compute.shape, dtype, made, whole_rows=True).encode(1)
    code[words.POOL["chain"]] = len(code)
    code[words.POOL["scratch_chain"]] = scratch
    needs = [(words.POOL["chain_kernel"], f"chain_{dtype}"), *chain.needs_at(len(code))]
    code += chain.words
    return scratch + chain.scratch, needs


def _loose(line: int, channels: int, item: int) -> int:
    """The last of a line of so many elements, or windows, behind whose whole vectors one fits."""
    width = lanes("float32" if item == 4 else "float64")
    return (line * channels - (channels // width + 1) * width) // channels


def _by_axis(axes: list[_Axis], line: list[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    places = c_strides(tuple(axis.size for axis in axes))
    for letter, axis, step, flat in zip("dhw", axes, line, places, strict=True):
        found |= {f"{name}_{letter}": value for name, value in vars(axis).items()}
        found[f"tap_{letter}"] = axis.dilation * step
        found[f"place_{letter}"] = axis.dilation * flat
    return found


def encode_unpool(part: Part) -> Encoding:
    """(kernel, words, scratch bytes, needs)."""
    values, indices = (part.inputs[i] for i in part.body[0].args)
    out = part.outputs[0][1]
    code = words.UNPOOL.pack(
        count=values.shape[1],
        size=out.shape[1],
        per_row=out.shape[0] // max(part.rows, 1),
        index_bytes=indices.dtype.itemsize,
        values=place(values),
        indices=place(indices),
        out=place(out),
    )
    return f"unpool_{out.dtype.name}", code, 0, []
