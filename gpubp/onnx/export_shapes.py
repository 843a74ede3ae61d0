"""Views and moves of data as operators of ONNX: shapes, axes, parts, elements at indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp.errors import FixedSizeError
from gpubp.onnx.rules import Op, rule
from gpubp.onnx.sizes import Affine, Size, Sizes, product, whole
from gpubp.onnx.writer import Writer

_BACK = -(2**62)  # before the first element


@rule("reshape")
def _reshape(w: Writer, op: Op) -> str:
    return w.reshape(op.names[0], op.inputs[0].shape, op.shape)


@rule("transpose")
def _transpose(w: Writer, op: Op) -> str:
    return w.transpose(op.names[0], op.attrs["axes"])


@rule("broadcast_to")
def _broadcast(w: Writer, op: Op) -> str:
    return w.expand(op.names[0], op.inputs[0].shape, op.shape)


@rule("slice")
def _slice(w: Writer, op: Op) -> str:
    """Only along axes of which something is left out."""
    sizes, steps = op.inputs[0].shape, whole(op.attrs["steps"], "the step of a slice")
    parts = zip(op.attrs["starts"], op.attrs["stops"], steps, sizes, strict=True)
    chosen = [
        (axis, start, _BACK if step < 0 and stop == -1 else stop, step)
        for axis, (start, stop, step, n) in enumerate(parts)
        if (start, stop, step) != (0, n, 1)
    ]
    if not chosen:
        return op.names[0]
    axes, starts, stops, by = (list(column) for column in zip(*chosen, strict=True))
    return w.slice(op.names[0], starts, stops, axes, by)


@rule("unslice")
def _unslice(w: Writer, op: Op) -> str:
    """A part put into zeros: gaps between elements first, then what stands around."""
    (x,), shape = op.inputs, op.attrs["shape"]
    name, sizes = x.name, list(x.shape)
    before, after = [], []
    starts, steps = whole(op.attrs["starts"], "a start"), whole(op.attrs["steps"], "a step")
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        count = sizes[axis]
        if step < 0:
            name = w.slice(name, [-1], [_BACK], [axis], [-1])
            start, step = start + (_fixed(count) - 1) * step, -step
        if step > 1 and count != 1:
            name = _with_gaps(w, name, tuple(sizes), axis, step, op)
            sizes[axis] = _fixed(count) * step - step + 1
        before.append(start)
        after.append(_rest(shape[axis], start, sizes[axis]))
    return padded(w, name, before, after, w.constant(0, op.dtype))


def _fixed(size: Size) -> int:
    if isinstance(size, Affine):
        raise FixedSizeError("a part with steps of an axis that follows the batch.")
    return size


def _rest(whole_size: Size, start: int, size: Size) -> Size:
    found = whole_size + size * -1 + -start
    return found.offset if isinstance(found, Affine) and not found.slope else found


def _with_gaps(w: Writer, name: str, sizes: Sizes, axis: int, step: int, op: Op) -> str:
    """Zeros between the elements along an axis."""
    count = _fixed(sizes[axis])
    apart = (*sizes[: axis + 1], 1, *sizes[axis + 1 :])
    name = w.reshape(name, sizes, apart)
    after = [step - 1 if i == axis + 1 else 0 for i in range(len(apart))]
    name = padded(w, name, [0] * len(apart), after, w.constant(0, op.dtype))
    wide = (*sizes[: axis + 1], step, *sizes[axis + 1 :])
    joined = (*sizes[:axis], count * step, *sizes[axis + 1 :])
    name = w.reshape(name, wide, joined)
    return w.slice(name, [0], [count * step - step + 1], [axis], [1])


def padded(w: Writer, name: str, before: Sequence[Size], after: Sequence[Size], filler: str) -> str:
    """Elements put around an array."""
    ends = [*before, *after]
    return name if not any(ends) else w.node("Pad", name, w.whole(ends), filler)


@rule("concat")
def _concat(w: Writer, op: Op) -> str:
    return w.node("Concat", *op.names, axis=op.attrs["axis"])


@rule("gather")
def _gather(w: Writer, op: Op) -> str:
    return w.node("Gather", *op.names, axis=op.attrs["axis"])


@rule("scatter_add")
def _scatter_add(w: Writer, op: Op) -> str:
    """As (before, indices, after), into zeros (before, size, after)."""
    updates, indices = op.inputs
    axis, size = op.attrs["axis"], op.attrs["size"]
    end = axis + len(indices.shape)
    rows, count = product(updates.shape[:axis]), product(indices.shape)
    columns = product(updates.shape[end:])
    flat = (rows, count, columns)
    data = w.reshape(updates.name, updates.shape, flat)
    at = w.reshape(indices.name, indices.shape, (1, count, 1))
    at = w.expand(at, (1, count, 1), flat)
    zeros = w.expand(w.constant(0, op.dtype), (), (rows, size, columns))
    found = w.node("ScatterElements", zeros, at, data, axis=1, reduction="add")
    return w.reshape(found, (rows, size, columns), op.shape)


@rule("unpool")
def _unpool(w: Writer, op: Op) -> str:
    values, indices = op.inputs
    zeros = w.expand(w.constant(0, op.dtype), (), op.shape)
    return w.node("ScatterElements", zeros, indices.name, values.name, axis=1)


@rule("argsort")
def _argsort(w: Writer, op: Op) -> str:
    """All elements in order: equal ones keep theirs, and so does TopK."""
    (x,) = op.inputs
    count = w.whole([x.shape[-1]])
    largest = int(op.attrs["descending"])
    return w.several("TopK", [x.name, count], 2, axis=-1, largest=largest, sorted=1)[1]


@rule("last_update")
def _last_update(w: Writer, op: Op) -> str:
    """For each place the number of the last update of it, -1 for none."""
    (places,), size = op.inputs, op.attrs["size"]
    (count,) = whole(places.shape, "the number of updates")
    none = w.expand(w.constant(np.int64(-1)), (), (size,))
    numbers = w.constant(np.arange(count))
    return w.node("ScatterElements", none, places.name, numbers, axis=0, reduction="max")
