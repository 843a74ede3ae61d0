"""Elementwise ops of a part as lines of C++ that call the functors of `kernels/`."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backends.cuda.codegen.index import Index, VectorIndex
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.compiler.parts import Compute, Operand, Part
from gpubp.core import Kind
from gpubp.errors import BackendError


def chain(
    writer: Writer,
    positions: Sequence[int],
    index: Index | VectorIndex,
    whole: str,
    known: dict[int, str],
) -> list[str]:
    """Lines that compute some elementwise ops of the body at one position, and store results.

    Args:
        writer: of the part.
        positions: of the ops in the body, in order.
        index: of the iteration space.
        whole: the element's number in the iteration space, for random numbers.
        known: value number -> expression; values computed here are added.
    """
    part = writer.part
    outputs = dict(part.outputs)
    lines = list(index.lines)
    for i in positions:
        compute = part.body[i]
        made = len(part.inputs) + i
        args = []
        for a in compute.args:
            if a not in known and compute.spec.kind is not Kind.RANDOM:
                operand = part.inputs[a]
                known[a] = f"x{a}"
                lines.append(f"const {ctype_of(operand.dtype)} x{a} = {index.read(operand)};")
            args.append(known.get(a, ""))
        call = _call(writer, i, compute, args, whole)
        lines.append(f"const {ctype_of(compute.dtype)} x{made} = {call};")
        known[made] = f"x{made}"
    for i in positions:
        made = len(part.inputs) + i
        if made in outputs:
            lines.append(index.write(outputs[made], f"x{made}"))
    return lines


def operands_of(part: Part, positions: Sequence[int], also: Sequence[int] = ()) -> list[Operand]:
    """What the ops at `positions` read from memory, and where their results (and `also`'s) go."""
    count = len(part.inputs)
    read = {
        a
        for i in positions
        if part.body[i].spec.kind is not Kind.RANDOM
        for a in part.body[i].args
        if a < count
    }
    written = {count + i for i in (*positions, *also)}
    found = [part.inputs[a] for a in sorted(read)]
    return found + [o for v, o in part.outputs if v in written]


def _call(writer: Writer, position: int, compute: Compute, args: Sequence[str], whole: str) -> str:
    name, dtype = compute.spec.name, ctype_of(compute.dtype)
    if compute.spec.kind is Kind.RANDOM:
        state = writer.pointer(writer.part.inputs[compute.args[0]])
        stream = writer.params.add(f"stream{position}", compute.attrs["stream"])
        return f"gp::{name}<{dtype}>({state}, {whole}, static_cast<gp::u32>({stream}))"
    if compute.spec.kind is not Kind.ELEMENTWISE:
        raise BackendError(f"the CUDA backend cannot compute {name} inside another kernel.")
    if name == "cast":
        return f"gp::cast<{dtype}>({args[0]})"
    name = compute.spec.formula_name(compute.attrs)
    formula = compute.spec.formulas().get(name)
    if formula is None:
        raise BackendError(f"the CUDA backend has no formula of the elementwise op {name!r}.")
    numbers = [
        writer.params.add(f"{letter}{position}", float(value), "double")
        for letter, value in zip("pq", formula.attrs(compute.attrs))
    ]
    # The type is given: conditions and what is chosen by them may be booleans beside numbers.
    kind = compute.dtype if not formula.truth else writer.part.type_of(compute.args[0])[1]
    return f"gp::{name}<{ctype_of(kind)}>({', '.join([*args, *numbers])})"
