"""Sums at indices, and the elementwise kernel that follows them."""

from __future__ import annotations

import math

from gpubp.backends.cuda.codegen.encode_elementwise import walk
from gpubp.backends.cuda.codegen.encode_product import RESULT, follow, rest_of, with_room
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of, number_of
from gpubp.backends.cuda.launch import AnyLaunch, Context, Launch, simple, status
from gpubp.compiler.parts import Operand, Part
from gpubp.core.strided import c_strides


def cleared(part: Part, out: Operand, context: Context) -> Launch:
    """Zeros in contiguous memory."""
    writer = Writer(part, context)
    n = writer.params.add("n", math.prod(out.shape))
    target = writer.pointer(out, True)
    body = [walk(n), f"  {target}[i] = {ctype_of(out.dtype)}(0);", "}"]
    return simple(writer, part, "base", body, math.prod(out.shape))


def scatter_add(part: Part, context: Context) -> list[AnyLaunch]:
    """Zeros, the sums, and what follows: over the sums in the workspace."""
    anchor = part.anchor or 0
    compute = part.body[anchor]
    kept = dict(part.outputs).get(len(part.inputs) + anchor)
    if len(part.body) == 1:
        assert kept is not None
        return [*_sums(part, kept, context, context)]
    strides = c_strides(compute.shape)
    result = Operand(RESULT, compute.dtype, 0, compute.shape, strides, -1, None)
    launches: list[AnyLaunch] = [*_sums(part, result, with_room(part, context), context)]
    return launches + follow(part, rest_of(part, result, kept), context)


def _sums(part: Part, out: Operand, inner: Context, context: Context) -> list[Launch]:
    """Zeros, and the updates added to them; `inner` knows where `out` is."""
    compute = part.body[part.anchor or 0]
    writer = Writer(part, inner)
    updates, indices = (part.inputs[i] for i in compute.args)
    axis, shape = compute.attrs["axis"], compute.shape
    outer, width = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    values = [("outer", outer), ("size", shape[axis]), ("count", math.prod(indices.shape))]
    numbers = ", ".join(writer.params.add(k, v) for k, v in [*values, ("inner", width)])
    number = number_of(outer * shape[axis] * width, math.prod(updates.shape))
    call = (
        f"gp::scatter_add<{ctype_of(out.dtype)}, {number}>({numbers}, {writer.pointer(updates)}, "
        f"{writer.pointer(indices)}, {writer.pointer(out, True)}, {status(writer, context)});"
    )
    add = simple(writer, part, "move", [call], outer * width)
    return [cleared(part, out, inner), add]
