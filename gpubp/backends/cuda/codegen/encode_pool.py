"""Launches of pools and of what undoes one: `kernels/pool.cuh`."""

from __future__ import annotations

import math
from typing import Any

from gpubp.backends.cuda.codegen.chain import chain, operands_of
from gpubp.backends.cuda.codegen.encode_elementwise import walk
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.backends.cuda.launch import (
    HEADERS,
    THREADS,
    Context,
    Launch,
    blocks_for,
    simple,
    source,
    status,
)
from gpubp.compiler.parts import Part
from gpubp.core import Shape
from gpubp.errors import BackendError


def pool(part: Part, context: Context) -> list[Launch]:
    """A pool or a gradient of one, and what follows it: a thread an element of the result."""
    writer = Writer(part, context)
    compute = part.body[part.anchor or 0]
    made = len(part.inputs) + (part.anchor or 0)
    name = compute.spec.name
    given = [part.inputs[i] for i in compute.args]
    grads = name.endswith("_grad")
    images = compute.shape if grads else given[0].shape
    windows = given[-1].shape if grads else compute.shape
    for sizes in (images, windows):
        if math.prod(sizes[1:]) >= 1 << 31:
            raise BackendError(f"{part.name}: images of {sizes[1:]} have too many elements.")
    pointers = ", ".join(writer.pointer(operand) for operand in given)
    shape = _pool(writer, images, windows, compute.attrs)
    count = math.prod(compute.shape)
    body = [
        f"const gp::Pool pool = {shape};",
        walk(writer.params.add("count", count)),
        f"  const {ctype_of(compute.dtype)} total = gp::{name}(pool, {pointers}, i);",
        *[f"  {line}" for line in _after(writer, part, made)],
        "}",
    ]
    text = source(
        [*HEADERS, "pool"],
        writer.params,
        [("kernel", THREADS, [*writer.pointers, *body])],
        blocks=1,
    )
    grid = (blocks_for(count), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]


def _after(writer: Writer, part: Part, made: int) -> list[str]:
    """What is done with element i of the result, which is `total`."""
    anchor = made - len(part.inputs)
    positions = [i for i in range(len(part.body)) if i != anchor]
    operands = operands_of(part, positions, [anchor])
    index = Index(writer, "", part.body[anchor].shape, operands, "i")
    lines = chain(writer, positions, index, "i", {made: "total"})
    target = dict(part.outputs).get(made)
    return lines if target is None else [*lines, index.write(target, "total")]


def _int(writer: Writer, name: str, value: int) -> str:
    """A size of an axis, which leaves registers for others."""
    return f"static_cast<int>({writer.params.add(name, value)})"


def _pool(writer: Writer, images: Shape, windows: Shape, attrs: dict[str, Any]) -> str:
    """A `gp::Pool`; images of fewer axes get axes of size 1 before theirs."""
    values = {
        "size": (images[1:-1], 1),
        "found": (windows[1:-1], 1),
        "kernel": (attrs["kernel"], 1),
        "stride": (attrs["stride"], 1),
        "pad": (tuple(lo for lo, _ in attrs["padding"]), 0),
        "dilation": (attrs["dilation"], 1),
    }
    axes = []
    for i, letter in enumerate("dhw"):
        names = []
        for name, (given, filler) in values.items():
            padded: Shape = (filler,) * (3 - len(given)) + tuple(given)
            names.append(_int(writer, f"{name}_{letter}", padded[i]))
        axes.append(f"{{{', '.join(names)}}}")
    channels = _int(writer, "channels", images[-1])
    return f"{{{', '.join(axes)}, {channels}}}"


def unpool(part: Part, context: Context) -> list[Launch]:
    """A thread a row."""
    writer = Writer(part, context)
    values, indices = (part.inputs[i] for i in part.body[0].args)
    out = part.outputs[0][1]
    sizes = [("rows", out.shape[0]), ("count", values.shape[1]), ("size", out.shape[1])]
    numbers = ", ".join(writer.params.add(k, v) for k, v in sizes)
    call = (
        f"gp::unpool<{ctype_of(out.dtype)}>({numbers}, {writer.pointer(values)}, "
        f"{writer.pointer(indices)}, {writer.pointer(out, True)}, {status(writer, context)});"
    )
    return [simple(writer, part, "pool", [call], out.shape[0])]
