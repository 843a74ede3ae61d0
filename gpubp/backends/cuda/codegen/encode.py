"""From parts of a program to kernel launches: one encoder for each kind of kernel.

Comes in: a part and what is known of the program's memory. Goes out: launches, in order. A part
that has nothing to do gives none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gpubp.backends.cuda.codegen.encode_attention import attention, attention_grad
from gpubp.backends.cuda.codegen.encode_conv import CONVOLUTIONS
from gpubp.backends.cuda.codegen.encode_custom import custom
from gpubp.backends.cuda.codegen.encode_elementwise import elementwise, walk
from gpubp.backends.cuda.codegen.encode_matmul import matmul
from gpubp.backends.cuda.codegen.encode_pool import pool, unpool
from gpubp.backends.cuda.codegen.encode_reduce import reduce
from gpubp.backends.cuda.codegen.encode_scatter import cleared, scatter_add
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of, number_of
from gpubp.backends.cuda.launch import (
    THREADS,
    AnyLaunch,
    Context,
    Launch,
    require_written,
    simple,
    source,
    status,
)
from gpubp.compiler.parts import Operand, Part
from gpubp.core.strided import c_strides
from gpubp.errors import BackendError

_UNITS = {16: "int4", 8: "gp::i64", 4: "int", 1: "char"}


def encode(part: Part, context: Context) -> Sequence[AnyLaunch]:
    """The launches that compute a part.

    Raises:
        BackendError: there is no kernel for it.
        VerificationError: the encoder left out an output.
    """
    if part.outputs and all(math.prod(o.shape) == 0 for _, o in part.outputs):
        return []
    encoder = _ENCODERS.get(part.kernel)
    if encoder is None:
        raise BackendError(f"the CUDA backend has no kernel for {part.kernel!r}.")
    context.written.clear()
    made = encoder(part, context)
    require_written(part, context.written)
    return made


def _lanes(columns: int) -> int:
    """Threads that share a row."""
    return next((w for limit, w in ((8, 1), (64, 8), (2048, 32)) if columns <= limit), 256)


def _row_launch(part: Part, writer: Writer, rows: int, lanes: int, call: str) -> list[Launch]:
    body = [*writer.pointers, call]
    text = source(["rowwise"], writer.params, [("kernel", THREADS, body)], blocks=1)
    grid = (-(-rows * lanes // THREADS), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]


def _softmax(part: Part, context: Context) -> list[Launch]:
    writer = Writer(part, context)
    compute = part.body[0]
    columns = compute.shape[-1]
    rows = math.prod(compute.shape) // columns
    lanes = _lanes(columns)
    log = "true" if compute.spec.name == "log_softmax" else "false"
    x = writer.pointer(part.inputs[compute.args[0]])
    y = writer.pointer(part.outputs[0][1], True)
    n, c = writer.params.add("rows", rows), writer.params.add("columns", columns)
    call = f"gp::softmax<{ctype_of(compute.dtype)}, {lanes}, {log}>({n}, {c}, {x}, {y});"
    return _row_launch(part, writer, rows, lanes, call)


def _cross_entropy(part: Part, context: Context) -> list[Launch]:
    writer = Writer(part, context)
    first = part.body[0]
    logits, labels = (part.inputs[i] for i in first.args[:2])
    columns = logits.shape[-1]
    rows = math.prod(logits.shape) // columns
    lanes = _lanes(columns)
    dtype = ctype_of(logits.dtype)
    pointers = {"loss": "nullptr", "dx": "nullptr", "dloss": "nullptr"}
    step = 0
    outputs = dict(part.outputs)
    for i, compute in enumerate(part.body):
        out = outputs.get(len(part.inputs) + i)
        if out is None:
            continue
        if compute.spec.name.endswith("_grad"):
            scale = part.inputs[compute.args[2]]
            step = 0 if all(s == 0 for s in scale.strides) else 1
            pointers["dloss"] = writer.pointer(scale)
            pointers["dx"] = writer.pointer(out, True)
        else:
            pointers["loss"] = writer.pointer(out, True)
    x, found = writer.pointer(logits), writer.pointer(labels)
    numbers = [
        writer.params.add(name, value)
        for name, value in (("rows", rows), ("columns", columns), ("dloss_step", step))
    ]
    reported = status(writer, context)
    typed = {k: f"static_cast<{'const ' if k == 'dloss' else ''}{dtype}*>({v})"
             for k, v in pointers.items()}  # fmt: skip
    call = (
        f"gp::cross_entropy<{dtype}, {ctype_of(labels.dtype)}, {lanes}>({numbers[0]}, "
        f"{numbers[1]}, {x}, {found}, {typed['dloss']}, {numbers[2]}, {typed['loss']}, "
        f"{typed['dx']}, {reported});"
    )
    return _row_launch(part, writer, rows, lanes, call)


def _unit(context: Context, width: int, *operands: Operand) -> int:
    """The largest unit that divides rows of `width` bytes and the places of operands."""
    for unit in _UNITS:
        fits = width % unit == 0
        for operand in operands:
            start, entry = context.locate(operand.buffer)
            moving = entry is not None and unit > operand.dtype.itemsize
            fits = (
                fits
                and not moving
                and (start + operand.offset * operand.dtype.itemsize) % unit == 0
            )
        if fits:
            return unit
    return 1


def _load_batch(part: Part, context: Context) -> list[Launch]:
    writer = Writer(part, context)
    out = part.outputs[0][1]
    nbytes = math.prod(out.shape[1:]) * out.dtype.itemsize
    unit = min(_unit(context, nbytes, out), out.dtype.itemsize if nbytes % 4 else 16)
    source_entry = context.resident + part.body[0].attrs["input"]
    ctype = _UNITS[unit]
    data = writer.raw(source_entry, ctype)
    order = writer.raw(context.order, "gp::i64")
    target = writer.pointer(out, True, ctype)
    rows = writer.params.add("rows", out.shape[0])
    width = writer.params.add("width", nbytes // unit)
    kind = f"{ctype}, {number_of(out.shape[0] * nbytes // unit)}"
    call = f"gp::load_batch<{kind}>({rows}, {width}, {order}, {data}, {target});"
    return [simple(writer, part, "move", [call], out.shape[0] * (nbytes // unit))]


def _gather(part: Part, context: Context) -> list[Launch]:
    writer = Writer(part, context)
    data, indices = (part.inputs[i] for i in part.body[0].args)
    out = part.outputs[0][1]
    axis = part.body[0].attrs["axis"]
    outer, count = math.prod(data.shape[:axis]), math.prod(indices.shape)
    width = math.prod(data.shape[axis + 1 :]) * out.dtype.itemsize
    unit = _unit(context, width, data, out)
    ctype = _UNITS[unit]
    values = [("outer", outer), ("size", data.shape[axis]), ("count", count)]
    values.append(("width", width // unit))
    numbers = ", ".join(writer.params.add(k, v) for k, v in values)
    size = out.dtype.itemsize
    kind = f"{ctype}, {number_of(math.prod(out.shape) * size, math.prod(data.shape) * size)}"
    call = (
        f"gp::gather<{kind}>({numbers}, {writer.pointer(data, ctype=ctype)}, "
        f"{writer.pointer(indices)}, {writer.pointer(out, True, ctype)}, "
        f"{status(writer, context)});"
    )
    return [simple(writer, part, "move", [call], outer * count * (width // unit))]


def _concat(part: Part, context: Context) -> list[Launch]:
    compute = part.body[0]
    out = part.outputs[0][1]
    axis, size = compute.attrs["axis"], out.dtype.itemsize
    outer = math.prod(out.shape[:axis])
    pitch = math.prod(out.shape[axis:]) * size
    launches = []
    start = 0
    for i in compute.args:
        operand = part.inputs[i]
        width = math.prod(operand.shape[axis:]) * size
        if outer * width:
            unit = math.gcd(_unit(context, width, operand, out), math.gcd(pitch, start) or 16)
            unit = max(u for u in _UNITS if u <= unit)
            launches.append(_place(part, context, operand, (outer, width, pitch, start), unit))
        start += width
    return launches


def _place(
    part: Part, context: Context, operand: Operand, sizes: tuple[int, int, int, int], unit: int
) -> Launch:
    writer = Writer(part, context)
    outer, width, pitch, start = sizes
    ctype = _UNITS[unit]
    values = [("outer", outer), ("width", width // unit)]
    numbers = ", ".join(writer.params.add(k, v) for k, v in values)
    target = writer.pointer(part.outputs[0][1], True, ctype)
    kind = f"{ctype}, {number_of(outer * pitch)}"
    call = (
        f"gp::place_rows<{kind}>({numbers}, {writer.pointer(operand, ctype=ctype)}, "
        f"{writer.params.add('pitch', pitch // unit)}, "
        f"{target} + {writer.params.add('start', start // unit)});"
    )
    return simple(writer, part, "move", [call], outer * (width // unit))


def _unslice(part: Part, context: Context) -> list[Launch]:
    """Zeros, then the slice's elements where they belong."""
    compute = part.body[0]
    operand, out = part.inputs[compute.args[0]], part.outputs[0][1]
    launches = [cleared(part, out, context)]
    if math.prod(operand.shape) == 0:
        return launches
    strides = c_strides(out.shape)
    first = sum(a * s for a, s in zip(compute.attrs["starts"], strides))
    steps = tuple(a * s for a, s in zip(compute.attrs["steps"], strides))
    spread = Operand(out.buffer, out.dtype, out.offset + first, operand.shape, steps, -1, None)
    writer = Writer(part, context)
    index = Index(writer, "", operand.shape, [operand, spread], "i")
    n = writer.params.add("n", math.prod(operand.shape))
    a, b = writer.pointer(operand), writer.pointer(spread, True)
    move = f"  {b}[{index.place(spread)}] = {a}[{index.place(operand)}];"
    body = [walk(n), *[f"  {line}" for line in index.lines], move, "}"]
    return [*launches, simple(writer, part, "base", body, math.prod(operand.shape))]


_ENCODERS: dict[str, Callable[[Part, Context], Sequence[AnyLaunch]]] = {
    "elementwise": elementwise,
    "scalar": elementwise,
    "matmul": matmul,
    "reduce": reduce,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "softmax_cross_entropy": _cross_entropy,
    "attention": attention,
    "attention_grad": attention_grad,
    "load_batch": _load_batch,
    "gather": _gather,
    "scatter_add": scatter_add,
    "concat": _concat,
    "unslice": _unslice,
    "custom": custom,
    "max_pool": pool,
    "max_pool_grad": pool,
    "max_pool_indices": pool,
    "max_pool_pick": pool,
    "sum_pool": pool,
    "sum_pool_grad": pool,
    "unpool": unpool,
    **CONVOLUTIONS,
}
