"""From parts of a program to kernel launches: one encoder for each kind of kernel.

Comes in: a part and what is known of the program's memory. Goes out: launches, in order. A part
that has nothing to do gives none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gpubp.backends.cuda.codegen.encode_attention import attention, attention_grad
from gpubp.backends.cuda.codegen.encode_batch import UNITS, gather, load_batch, unit_of
from gpubp.backends.cuda.codegen.encode_conv import CONVOLUTIONS
from gpubp.backends.cuda.codegen.encode_custom import custom
from gpubp.backends.cuda.codegen.encode_elementwise import elementwise, walk
from gpubp.backends.cuda.codegen.encode_matmul import matmul
from gpubp.backends.cuda.codegen.encode_pool import pool, unpool
from gpubp.backends.cuda.codegen.encode_reduce import reduce
from gpubp.backends.cuda.codegen.encode_rowwise import rowwise
from gpubp.backends.cuda.codegen.encode_scatter import cleared, scatter_add
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.writer import Writer, number_of
from gpubp.backends.cuda.launch import (
    AnyLaunch,
    Context,
    Launch,
    require_written,
    simple,
)
from gpubp.compiler.parts import Operand, Part
from gpubp.core.strided import c_strides
from gpubp.errors import BackendError


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
            unit = math.gcd(unit_of(context, width, operand, out), math.gcd(pitch, start) or 16)
            unit = max(u for u in UNITS if u <= unit)
            launches.append(_place(part, context, operand, (outer, width, pitch, start), unit))
        start += width
    return launches


def _place(
    part: Part, context: Context, operand: Operand, sizes: tuple[int, int, int, int], unit: int
) -> Launch:
    writer = Writer(part, context)
    outer, width, pitch, start = sizes
    ctype = UNITS[unit]
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
    "softmax": rowwise,
    "log_softmax": rowwise,
    "softmax_cross_entropy": rowwise,
    "attention": attention,
    "attention_grad": attention_grad,
    "load_batch": load_batch,
    "gather": gather,
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
