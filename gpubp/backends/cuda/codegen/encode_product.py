"""Matrix products by the library: from rows to columns, what its epilogue does, what follows.

Comes in: a part built around a product. Goes out: its problem in the library's terms, or None where
the library has nothing to offer; then, with a plan, the launches.

C = A B by rows is C^T = B^T A^T by columns, in the same memory: the library's first factor is our
B, its rows are our columns, and a bias for each column of C is what its epilogue takes. What no
epilogue can do is done by an elementwise kernel over the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpubp.backends.cuda.codegen.encode_copy import copy
from gpubp.backends.cuda.codegen.encode_elementwise import elementwise
from gpubp.backends.cuda.copies import ROUNDED, SHORT
from gpubp.backends.cuda.launch import AnyLaunch, Context, ProductLaunch
from gpubp.backends.cuda.products import ALIGNED, Addresses, Matrix, Plan, Problem
from gpubp.backends.epilogues import find_epilogue
from gpubp.compiler.parts import Compute, Operand, Part
from gpubp.compiler.views import matrix_batch_stride
from gpubp.core import Shape
from gpubp.core.strided import c_strides
from gpubp.ops.spec import SPECS

# Operations (2 m n k) from which the library is tried beside our own kernels. The choice between
# them is measured, so this only saves the measuring of products that are ours anyhow. It has not
# been measured on hardware.
LEAST_FLOPS = 2.0 * 256**3
MOST = 2**31 - 1  # sizes that the library counts in 32 bits
BIAS_ALIGNED = 16  # bytes; its epilogues read a bias by vectors
RESULT = -1  # number of the buffer that stands for a result which something follows


@dataclass(frozen=True)
class Source:
    """An operand that the library reads: as it is, or a copy of some form."""

    operand: Operand
    form: str

    def address(self, context: Context) -> int:
        """Of the first element."""
        if self.form:
            return context.copies.address(self.operand, self.form)
        return _fixed(context, self.operand)


@dataclass(frozen=True)
class Lowered:
    """A part in the library's terms.

    Attributes:
        problem: the product.
        a, b: the library's factors: our B and A.
        target: where the result goes; in the buffer RESULT if `rest` takes it from there.
        bias: for the epilogue.
        rate: of a step of gradient descent, which the product makes in place.
        rest: what is computed afterwards.
    """

    problem: Problem
    a: Source
    b: Source
    target: Operand
    bias: Source | None = None
    rate: Operand | None = None
    rest: Part | None = None


def lower(part: Part, context: Context) -> Lowered | None:
    """The part in the library's terms; None if it is too small or has strides it cannot walk."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    a, b = (part.inputs[i] for i in compute.args)
    *batch, m, n = compute.shape
    sizes = (m, n, a.shape[-1], math.prod(batch))
    chooser = context.chooser
    if min(sizes) < 1 or max(sizes) > MOST or 2.0 * math.prod(sizes) < LEAST_FLOPS:
        return None
    if chooser is None or chooser.products is None:  # asked last: it may have to be loaded
        return None
    first, second = (_source(o, context, compute.dtype.name) for o in (b, a))
    left, right = (_matrix(s, s.address(context), tuple(batch)) for s in (first, second))
    if left is None or right is None:
        return None
    ending = _ending(part, context) or _followed(part, context)
    result = _matrix(Source(ending.target, ""), ending.address, tuple(batch))
    assert result is not None
    problem = Problem(
        *(left[0], right[0], result[0], left[1], right[1]),
        compute=_compute(compute, context),
        epilogue=ending.epilogue,
        update=ending.rate is not None,
        batches=math.prod(batch),
    )
    return Lowered(*(problem, first, second, ending.target, ending.bias, ending.rate, ending.rest))


def launches(part: Part, lowered: Lowered, plan: Plan, context: Context) -> list[AnyLaunch]:
    """Copies that are not current, the product, what follows."""
    chooser = context.chooser
    assert chooser is not None
    made: list[AnyLaunch] = []
    for source in (lowered.a, lowered.b, lowered.bias):
        if source is not None and source.form:
            made += copy(part, context, source.operand, source.form)
    alpha = beta = 0
    if lowered.rate is not None:
        made += copy(part, context, lowered.rate, "negative")
        alpha = context.copies.address(lowered.rate, "negative")
        beta = chooser.one(lowered.rate.dtype.name)
    at = Addresses(
        lowered.a.address(context),
        lowered.b.address(context),
        _result(context, lowered.target),
        lowered.bias.address(context) if lowered.bias else 0,
        *(alpha, beta),
    )
    made.append(ProductLaunch(lowered.problem, plan, at, part.name))
    context.written.add(lowered.target.place)
    if lowered.rest is not None:
        made += follow(part, lowered.rest, context)
    return made


def follow(part: Part, rest: Part, context: Context) -> list[AnyLaunch]:
    """The elementwise kernel over the result."""
    assert part.anchor is not None
    found = elementwise(rest, with_room(part, context), part.body[part.anchor].shape)
    return [replace(launch, part=part.name) for launch in found]


def with_room(part: Part, context: Context) -> Context:
    """The context in which the buffer `RESULT` is room in the workspace for the anchor's result."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    room = context.workspace.need(math.prod(compute.shape) * compute.dtype.itemsize)

    def locate(buffer: int) -> tuple[int, int | None]:
        return (room, None) if buffer == RESULT else context.locate(buffer)

    return replace(context, locate=locate)


@dataclass(frozen=True)
class _Ending:
    """How a part ends: see `Lowered`; `address`: of the target."""

    target: Operand
    address: int
    epilogue: str = "none"
    bias: Source | None = None
    rate: Operand | None = None
    rest: Part | None = None


def _ending(part: Part, context: Context) -> _Ending | None:
    """What the library does by itself with the product, if that is all; else None."""
    assert part.anchor is not None
    outputs = dict(part.outputs)
    names = [c.spec.name for i, c in enumerate(part.body) if i != part.anchor]
    made = len(part.inputs) + part.anchor
    if not names or (names == ["relu"] and made not in outputs):
        (target,) = outputs.values()
        return _if_written(context, _Ending(target, 0, names[0] if names else "none"))
    found = find_epilogue(part, ("bias", "bias_relu", "sgd"))
    if found is None:
        return None
    if found.name == "sgd":
        (rate,) = (x for x in found.numbers if isinstance(x, Operand))
        return _if_written(context, _Ending(found.target, 0, rate=rate))
    assert found.bias is not None
    bias = _source(found.bias, context, "")
    if bias.address(context) % BIAS_ALIGNED:
        return None
    return _if_written(context, _Ending(found.target, 0, found.name, bias))


def _if_written(context: Context, ending: _Ending) -> _Ending | None:
    """The ending with its address; None if the library cannot write there."""
    target = ending.target
    start, entry = context.locate(target.buffer)
    address = start + target.offset * target.dtype.itemsize
    found = _matrix(Source(target, ""), address, target.shape[:-2])
    if entry is not None or found is None or found[1] or 0 in target.strides[:-2]:
        return None
    return replace(ending, address=address)


def _followed(part: Part, context: Context) -> _Ending:
    """A product whose result an elementwise kernel takes up."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    base, strides = len(part.inputs), c_strides(compute.shape)
    kept = dict(part.outputs).get(base + part.anchor)
    plain = None
    if kept is not None and not any(kept.meets(o) for o in part.inputs):
        plain = _if_written(context, _Ending(kept, 0))
    result = Operand(RESULT, compute.dtype, 0, compute.shape, strides, -1, None)
    if plain is not None:
        result = plain.target
    rest = rest_of(part, result, kept if plain is None else None)
    return _Ending(result, plain.address if plain else 0, rest=rest)


def rest_of(part: Part, result: Operand, copied: Operand | None) -> Part:
    """The part without its anchor, which has become an input; it may be copied to an output."""
    assert part.anchor is not None
    base, anchor = len(part.inputs), part.anchor

    def renumbered(value: int) -> int:
        if value < base:
            return value
        return base if value == base + anchor else value + (value < base + anchor)

    body = [
        c._replace(args=tuple(map(renumbered, c.args)))
        for i, c in enumerate(part.body)
        if i != anchor
    ]
    outputs = [(renumbered(v), o) for v, o in part.outputs if v != base + anchor]
    if copied is not None:
        compute = part.body[anchor]
        outputs.append((base + 1 + len(body), copied))
        body.append(Compute(SPECS["copy"], (base,), {}, compute.shape, compute.dtype))
    return Part("elementwise", body, None, [*part.inputs, result], outputs, part.rows)


def _source(operand: Operand, context: Context, product: str) -> Source:
    """An operand as the library reads it; `product`: the product's dtype, for its factors."""
    if product == "float32" and context.precision in ROUNDED:
        return Source(operand, ROUNDED[context.precision])
    moving = context.locate(operand.buffer)[1] is not None
    return Source(operand, "same" if moving else "")


def _matrix(source: Source, address: int, batch: Shape) -> tuple[Matrix, bool] | None:
    """An operand as stored by columns, and whether that is the operand itself.

    Stored by rows, it is the transposed operand that is stored by columns, as the library wants it.
    None if neither is so.
    """
    operand = source.operand
    (rows, columns), (down, along) = operand.shape[-2:], operand.strides[-2:]
    walk = matrix_batch_stride(operand.shape, operand.strides, batch)
    if walk is None or walk < 0:
        return None
    dtype = source.form if source.form in SHORT else operand.dtype.name
    size = 2 if source.form in SHORT else operand.dtype.itemsize
    aligned = math.gcd(ALIGNED, address, walk * size)
    for lines, length, step, unit, own in (
        (rows, columns, down, along, False),
        (columns, rows, along, down, True),
    ):
        leading = step if lines > 1 else length
        if (unit == 1 or length == 1) and leading >= length:
            return Matrix(dtype, length, lines, leading, walk, aligned), own
    return None


def _compute(compute: Compute, context: Context) -> str:
    if compute.dtype.name == "float64":
        return "float64"
    return "tf32" if context.precision == "tf32" else "float32"


def _fixed(context: Context, operand: Operand) -> int:
    return context.locate(operand.buffer)[0] + operand.offset * operand.dtype.itemsize


def _result(context: Context, target: Operand) -> int:
    return context.workspace.address if target.buffer == RESULT else _fixed(context, target)
