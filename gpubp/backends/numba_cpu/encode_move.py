"""Encoding of what moves data: batches, gather, concat, unslice."""

from __future__ import annotations

import math

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import place
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.compiler.parts import Part
from gpubp.core.strided import c_strides


def load_batch(part: Part, resident: int, order: int) -> EncodedPart:
    """The rows of a resident input that the index order names."""
    _, out = part.outputs[0]
    nbytes = math.prod(out.shape[1:]) * out.dtype.itemsize
    source = resident + part.body[0].attrs["input"]
    code = words.LOAD_BATCH.pack(
        row_bytes=nbytes, order=(order, 0), source=(source, 0), out=place(out)
    )
    return EncodedPart("load_batch", code, 0, [])


def gather(part: Part) -> EncodedPart:
    """`x` at indices."""
    compute = part.body[0]
    data, indices = (part.inputs[i] for i in compute.args)
    axis = compute.attrs["axis"]
    outer, count = math.prod(data.shape[:axis]), math.prod(indices.shape)
    shared = part.rows > 0
    code = words.GATHER.pack(
        outer=outer,
        size=data.shape[axis],
        count=count,
        inner_bytes=math.prod(data.shape[axis + 1 :]) * data.dtype.itemsize,
        index_bytes=indices.dtype.itemsize,
        per_row=count // part.rows if shared and not axis else 0,
        outer_per_row=outer // part.rows if shared and axis else 0,
        data=place(data),
        indices=place(indices),
        out=place(part.outputs[0][1]),
    )
    return EncodedPart("gather", code, 0, [])


def concat(part: Part) -> EncodedPart:
    """Arrays one after the other."""
    compute = part.body[0]
    out = part.outputs[0][1]
    axis, size = compute.attrs["axis"], out.dtype.itemsize
    outer = math.prod(out.shape[:axis])
    joined = math.prod(out.shape[axis:]) * size
    code = words.CONCAT.pack(
        inputs=len(compute.args),
        per_row=outer // max(part.rows, 1),
        row_bytes=joined,
        out=place(out),
    )
    for i in compute.args:
        operand = part.inputs[i]
        code += words.JOINED.pack(
            bytes=math.prod(operand.shape[axis:]) * size, source=place(operand)
        )
    return EncodedPart("concat", code, 0, [])


def unslice(part: Part) -> EncodedPart:
    """An array placed into zeros."""
    compute = part.body[0]
    source, out = part.inputs[compute.args[0]], part.outputs[0][1]
    starts, steps = compute.attrs["starts"], compute.attrs["steps"]
    strides, size = c_strides(out.shape), out.dtype.itemsize
    axes = [(n, s * w) for n, s, w in zip(source.shape[1:], steps[1:], strides[1:], strict=True)]
    run = 1  # elements that lie side by side in both
    while axes and axes[-1][1] == run:
        run *= axes.pop()[0]
    code = words.UNSLICE.pack(
        row_bytes=math.prod(out.shape[1:]) * size if math.prod(out.shape) else 0,
        item=size,
        run=run * size,
        ndim=len(axes),
        source=place(source),
        out=place(out),
        first=sum(a * s for a, s in zip(starts[1:], strides[1:], strict=True)),
        rows=source.shape[0] if source.shape else 1,
        start=starts[0] if starts else 0,
        step=steps[0] if steps else 1,
    )
    for n, step in axes:
        code += words.SLICED.pack(size=n, step=step)
    return EncodedPart("unslice", code, 0, [])
