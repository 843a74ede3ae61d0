"""Kernels that copy an operand for products; see `copies.py`."""

from __future__ import annotations

from gpubp.backends.cuda.codegen.encode_elementwise import VECTOR_BYTES
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of, number_of
from gpubp.backends.cuda.copies import reach, size_of
from gpubp.backends.cuda.launch import THREADS, Context, Launch, blocks_for, source
from gpubp.compiler.parts import Operand, Part

# Form of a copy -> C type of an element ("": as in the source), the value of x.
_FORMS = {
    "bfloat16": ("unsigned short", "gp::Bf16::round(x)"),
    "float16": ("unsigned short", "gp::Fp16::round(x)"),
    "tf32": ("gp::u32", "gp::Tf32::round(x)"),
    "same": ("", "x"),
    "negative": ("", "-x"),
}


def copy(part: Part, context: Context, operand: Operand, form: str) -> list[Launch]:
    """The launch that makes a copy, if it is not current; `part` is who wants it."""
    if not context.copies.need(operand, form):
        return []
    first, last = reach(operand)
    writer = Writer(part, context)
    kind, *turned = form.split()
    taken, (made, value) = ctype_of(operand.dtype), _FORMS[kind]
    made = made or taken
    found = writer.pointer(operand)  # without negative strides, the first element that is copied
    out = writer.params.add("out", context.copies.address(operand, form), "gp::u64")
    n = writer.params.add("n", last - first)
    lanes, rest = 1 if turned else _lanes(context, operand, form), ""
    name = f"convert<{lanes}>"
    if turned:
        name = f"convert_filters<{number_of(last - first)}>"
        sizes = zip(("channels", "taps"), map(int, turned))
        rest = "".join(f"{writer.params.add(*size)}, " for size in sizes)
    call = (
        f"gp::{name}({n}, {rest}{found}, gp::fixed<{made}>({out}), "
        f"[]({taken} x) -> {made} {{ return {value}; }});"
    )
    kernels = [("kernel", THREADS, [*writer.pointers, call])]
    headers = ["convert"] if made == taken else ["narrow", "convert"]
    text = source(headers, writer.params, kernels)
    grid = (blocks_for(-(-(last - first) // lanes)), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]


def _lanes(context: Context, operand: Operand, form: str) -> int:
    """Elements that one thread takes at a time, from VECTOR_BYTES of the source."""
    start, entry = context.locate(operand.buffer)
    size, lanes = operand.dtype.itemsize, VECTOR_BYTES // operand.dtype.itemsize
    target = context.copies.address(operand, form) % (lanes * size_of(operand, form))
    misplaced = (start + operand.offset * size) % VECTOR_BYTES or target
    return 1 if entry is not None or misplaced else lanes
