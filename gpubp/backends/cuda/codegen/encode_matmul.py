"""Matrix products: who computes them; our own: their factors, and what follows a product."""

from __future__ import annotations

import math
from functools import partial

from gpubp.backends.cuda.codegen.chain import chain, operands_of
from gpubp.backends.cuda.codegen.encode_copy import copy
from gpubp.backends.cuda.codegen.encode_product import launches, lower
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.staged import rounded, stored
from gpubp.backends.cuda.codegen.tiles import Product
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.backends.cuda.launch import AnyLaunch, Context, Launch
from gpubp.backends.cuda.products import Plan as LibraryPlan
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.views import matrix_batch_stride


def matmul(part: Part, context: Context) -> list[AnyLaunch]:
    """The launches of a part built around a matrix product: the library's, or our own.

    Raises:
        BackendError: the library failed.
    """

    def theirs(here: Context, plan: LibraryPlan) -> list[AnyLaunch]:
        lowered = lower(part, here)
        assert lowered is not None
        return launches(part, lowered, plan, here)

    lowered = lower(part, context)
    if lowered is not None and context.chooser is not None:
        own = partial(tiled, part)
        plan = context.chooser.choose(part, lowered.problem, context, own, theirs)
        if plan is not None:
            return launches(part, lowered, plan, context)
    return [*tiled(part, context)]


def tiled(part: Part, context: Context) -> list[Launch]:
    """The launches of our own kernels."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    a, b = (part.inputs[i] for i in compute.args)
    *batch, m, n = compute.shape
    writer = Writer(part, context)
    form, copies = rounded(part, context), []
    if form:
        copies = [made for o in (a, b) for made in copy(part, context, o, form)]
        found = stored(writer, context, part, form)
    else:
        found = factors(writer, a, b, tuple(batch))
    after = after_product(writer, part)
    product = Product(
        *(math.prod(batch), m, n, a.shape[-1], found, after), grouped=True, staged=bool(form)
    )
    return [*copies, *product.launches(part, writer, context)]


def factors(writer: Writer, a: Operand, b: Operand, batch: tuple[int, ...]) -> list[str]:
    """Declare the operands of this block's product."""
    dtype = ctype_of(a.dtype)
    lines = []
    for name, operand, line, step in (("a", a, -2, -1), ("b", b, -1, -2)):
        walk = matrix_batch_stride(operand.shape, operand.strides, batch)
        assert walk is not None
        numbers = [
            writer.params.add(f"{name}_{what}", value)
            for what, value in (
                ("batch", walk),
                ("line", operand.strides[line]),
                ("step", operand.strides[step]),
            )
        ]
        start = f"{writer.pointer(operand)} + batch * {numbers[0]}"
        along = "true" if operand.strides[step] == 1 else "false"
        kind = f"gp::Matrix<{dtype}, {along}>"
        lines.append(f"const {kind} {name} = {{{start}, {numbers[1]}, {numbers[2]}}};")
    return lines


def after_product(writer: Writer, part: Part) -> list[str]:
    """What is done with a finished sum at (batch, row, column)."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    made = len(part.inputs) + part.anchor
    positions = [i for i in range(len(part.body)) if i != part.anchor]
    operands = operands_of(part, positions, [part.anchor])
    index = Index(writer, "c", compute.shape, operands, "batch", ("row", "column"))
    whole = "((batch * p.m + row) * p.n + column)"
    lines = chain(writer, positions, index, whole, {made: "total"})
    target = dict(part.outputs).get(made)
    if target is not None:
        lines.append(index.write(target, "total"))
    return lines
