"""Users' own ops on the device: by CUDA source, or by a kernel of `numba.cuda`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gpubp.backends.cuda.codegen.encode_copy import copy
from gpubp.backends.cuda.codegen.encode_elementwise import elementwise, walk
from gpubp.backends.cuda.codegen.encode_product import RESULT
from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.backends.cuda.launch import AnyLaunch, Context, KernelLaunch, Launch, simple
from gpubp.compiler.parts import Compute, Operand, Part
from gpubp.core.strided import c_strides
from gpubp.ops.spec import SPECS


def custom(part: Part, context: Context) -> Sequence[AnyLaunch]:
    """The user's function, called for each element of the result; or the user's kernel."""
    if isinstance(part.body[0].spec.cuda, str):
        return _by_source(part, context)
    return _by_kernel(part, context)


def _numbers(compute: Compute) -> list[tuple[str, float]]:
    return [(name, float(compute.attrs[name])) for name in sorted(compute.attrs)]


def _by_source(part: Part, context: Context) -> list[Launch]:
    compute = part.body[0]
    writer = Writer(part, context)
    out = part.outputs[0][1]
    n = writer.params.add("n", math.prod(out.shape))
    arrays = [writer.pointer(part.inputs[i]) for i in compute.args] + [writer.pointer(out, True)]
    for name, number in _numbers(compute):
        arrays.append(writer.params.add(f"attr_{name}", number, "double"))
    call = f"  ::{compute.spec.name}(i, {', '.join(arrays)});"
    launch = simple(writer, part, "functors", [walk(n), call, "}"], math.prod(out.shape))
    return [replace(launch, source=f"{compute.spec.cuda}\n{launch.source}")]


def _by_kernel(part: Part, context: Context) -> list[AnyLaunch]:
    """The kernel, on arrays that stay where they are: what moves from step to step is copied there
    before, and from there after.
    """
    compute, out = part.body[0], part.outputs[0][1]
    made: list[AnyLaunch] = []
    places = []
    for operand in (part.inputs[i] for i in compute.args):
        if context.locate(operand.buffer)[1] is None:
            at = _fixed(context, operand)
        else:
            made += copy(part, context, operand, "same")
            at = context.copies.address(operand, "same")
        places.append((at, operand.shape, operand.dtype))
    moves = context.locate(out.buffer)[1] is not None
    room = context.workspace.need(math.prod(out.shape) * out.dtype.itemsize) if moves else 0
    places.append((room if moves else _fixed(context, out), out.shape, out.dtype))
    numbers = tuple(number for _, number in _numbers(compute))
    made.append(KernelLaunch(compute.spec.cuda, tuple(places), numbers, part.name))
    if moves:
        made += _copied(part, out, room, context)
    else:
        context.written.add(out.place)
    return made


def _fixed(context: Context, operand: Operand) -> int:
    return context.locate(operand.buffer)[0] + operand.offset * operand.dtype.itemsize


def _copied(part: Part, out: Operand, room: int, context: Context) -> list[Launch]:
    """The result goes from the workspace to where it belongs."""
    source = Operand(RESULT, out.dtype, 0, out.shape, c_strides(out.shape), -1, None)
    step = Compute(SPECS["copy"], (0,), {}, out.shape, out.dtype)
    rest = Part("elementwise", [step], None, [source], [(1, out)], part.rows)

    def locate(buffer: int) -> tuple[int, int | None]:
        return (room, None) if buffer == RESULT else context.locate(buffer)

    found = elementwise(rest, replace(context, locate=locate))
    return [replace(launch, part=part.name) for launch in found]
