"""Convolutions and their transposes: products that read windows of images, and direct sums.

Comes in: a part built around one of the three ops of `gpubp/ops/conv.py`. Goes out: the launches.
What is computed is said in `kernels/conv.cuh`; `conv` and `conv_input` go on with elementwise ops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from gpubp.backends.cuda.codegen.chain import chain, operands_of
from gpubp.backends.cuda.codegen.conv_geometry import Geometry, geometry_of
from gpubp.backends.cuda.codegen.encode_elementwise import walk
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.staged_conv import Rounded, rounded
from gpubp.backends.cuda.codegen.tiles import Product
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of, number_of
from gpubp.backends.cuda.launch import HEADERS, THREADS, Context, Launch, blocks_for, source
from gpubp.compiler.parts import Part

_LANES = (32, 8)  # weights of a block, threads of each
_ROWS_A_PIECE = 2048  # that a block adds up at least, where they are shared
_MAX_PIECES = 64


def conv(part: Part, context: Context) -> list[Launch]:
    """The launches of a convolution and what follows it."""
    shape, writer = geometry_of(part), Writer(part, context)
    if shape.few:
        return _direct(part, context, shape, writer)
    rows = shape.images * math.prod(shape.found)
    sizes = (shape.groups, rows, shape.filters, shape.channels * math.prod(shape.kernel))
    before = rounded(part, context, shape, writer, sizes)
    i = shape.coordinates
    if before is not None:
        factors = before.conv(shape)
    elif shape.pointwise:
        x, w = _inputs(part, writer)
        filters = f"{w} + batch * p.filters * p.channels"
        factors = [
            _matrix(part, "a", f"{x} + batch * p.channels", "p.channels * p.groups", "1"),
            _matrix(part, "b", filters, "p.channels", "1"),
        ]
    else:
        x, w = _inputs(part, writer)
        factors = [
            f"const auto a = gp::patches<{i}>(shape, {x}, batch);",
            f"const auto b = gp::filters<{i}>(shape, {w}, batch);",
        ]
    after = _after(writer, part)
    product = Product(*sizes, factors, after, opening=[shape.declare(writer)])
    return _launches(product, before, part, writer, context)


def conv_input(part: Part, context: Context) -> list[Launch]:
    """The launches of a convolution's transpose by images, and what follows it."""
    shape, writer = geometry_of(part), Writer(part, context)
    if shape.few:
        return _direct(part, context, shape, writer)
    starts = [min(s, n) for s, n in zip(shape.stride, shape.size)]
    turns = math.prod(starts)
    taps = (-(-k * c // s) for k, c, s in zip(shape.kernel, shape.common, shape.stride))
    longest = (-(-n // s) for n, s in zip(shape.size, shape.stride))
    rows, k = shape.images * math.prod(longest), shape.filters * math.prod(taps)
    before = rounded(part, context, shape, writer, (shape.groups * turns, rows, shape.channels, k))
    turn = "turn" if turns > 1 else "gp::i64(0)"
    turned = f"const auto turned = gp::turn<{shape.coordinates}>(shape, {turn});"
    if before is not None:
        factors = before.conv_input(shape, turned)
    elif shape.pointwise:
        dy, w = _inputs(part, writer)
        filters = f"{w} + batch * p.filters * p.channels"
        factors = [
            _matrix(part, "a", f"{dy} + batch * p.filters", "p.filters * p.groups", "1"),
            _matrix(part, "b", filters, "1", "p.channels"),
        ]
    else:
        dy, w = _inputs(part, writer)
        factors = [
            turned,
            f"const auto a = gp::patches(shape, turned, {dy}, batch);",
            f"const auto b = gp::filters(shape, turned, {w}, batch);",
        ]
    product = Product(
        *(shape.groups, rows, shape.channels, k),
        factors,
        _after(writer, part),
        turns=turns,
        result_rows=shape.images * math.prod(shape.size),
        rows="turned.rows()" if turns > 1 else "p.m",
        depth="p.k" if shape.pointwise else "turned.depth",
        place="turned.row(shape, line)" if turns > 1 else "line",
        opening=[shape.declare(writer)],
    )
    return _launches(product, before, part, writer, context)


def conv_weight(part: Part, context: Context) -> list[Launch]:
    """The launches of a convolution's transpose by weights, in sums over chunks of images."""
    shape, writer = geometry_of(part), Writer(part, context)
    if shape.few:
        return _direct_weights(part, context, shape, writer)
    sizes = (
        *(part.body[0].shape[0] * shape.groups, shape.channels * math.prod(shape.kernel)),
        *(shape.filters, shape.chunk * math.prod(shape.found) if shape.images else 0),
    )
    before = rounded(part, context, shape, writer, sizes)
    x, dy = before.pointers if before is not None else _inputs(part, writer)
    each = writer.params.add("each", shape.chunk)
    positions = writer.params.add("positions", math.prod(shape.found))
    rows = f"{dy} + image * {positions} * p.filters * p.groups + group * p.filters"
    pixels = f"{x} + image * {positions} * p.channels * p.groups + group * p.channels"
    if before is not None:
        factors = before.weights(shape, pixels, rows)
    elif shape.pointwise:
        factors = [
            _matrix(part, "a", pixels, "1", "p.channels * p.groups"),
            _matrix(part, "b", rows, "1", "p.filters * p.groups"),
        ]
    else:
        factors = [
            f"const auto a = gp::columns<{shape.coordinates}>(shape, {x}, image, group);",
            _matrix(part, "b", rows, "1", "p.filters * p.groups"),
        ]
    factors = [
        f"const gp::i64 group = batch % p.groups, image = batch / p.groups * {each};",
        f"const gp::i64 left = gp::least({each}, p.images - image) * {positions};",
        *factors,
    ]
    out = writer.pointer(part.outputs[0][1], True)
    line = "(batch / p.groups * p.m + row) * p.filters * p.groups"
    product = Product(
        *sizes,
        factors,
        [f"{out}[{line} + batch % p.groups * p.n + column] = total;"],
        depth="left",
        opening=[shape.declare(writer)],
    )
    return _launches(product, before, part, writer, context)


def _launches(
    product: Product, before: Rounded | None, part: Part, writer: Writer, context: Context
) -> list[Launch]:
    """Those of a convolution's products, and of the copies that they read."""
    headers = ["conv" if before is None else "conv_staged"]
    product = replace(product, headers=headers, staged=before is not None)
    copies = before.launches if before is not None else []
    return [*copies, *product.launches(part, writer, context)]


def _inputs(part: Part, writer: Writer) -> list[str]:
    """Pointers to what the convolution reads: all of it is contiguous."""
    compute = part.body[part.anchor or 0]
    return [writer.pointer(part.inputs[i]) for i in compute.args]


def _matrix(part: Part, name: str, start: str, line: str, step: str) -> str:
    """Declare a factor that lies in memory as a matrix."""
    dtype = ctype_of(part.body[part.anchor or 0].dtype)
    along = "true" if step == "1" else "false"
    return f"const gp::Matrix<{dtype}, {along}> {name} = {{{start}, {line}, {step}}};"


def _after(writer: Writer, part: Part) -> list[str]:
    """What is done with a finished sum of the group `batch` at (row, column)."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    made = len(part.inputs) + part.anchor
    positions = [i for i in range(len(part.body)) if i != part.anchor]
    operands = operands_of(part, positions, [part.anchor])
    index = Index(writer, "c", compute.shape, operands, "row", ("channel",))
    channels = writer.params.add("result_channels", compute.shape[-1])
    lines = chain(writer, positions, index, f"(row * {channels} + channel)", {made: "total"})
    target = dict(part.outputs).get(made)
    if target is not None:
        lines.append(index.write(target, "total"))
    return ["const gp::i64 channel = batch * p.n + column;", *lines]


def _direct(part: Part, context: Context, shape: Geometry, writer: Writer) -> list[Launch]:
    """One kernel, an element of the result a thread, and what follows."""
    compute = part.body[part.anchor or 0]
    count = writer.params.add("count", math.prod(compute.shape))
    first, second = _inputs(part, writer)
    call = f"gp::direct_{compute.spec.name}<{shape.coordinates}>(shape, {first}, {second}, "
    after, kind = _after(writer, part), number_of(math.prod(compute.shape))
    body = [
        shape.declare(writer),
        walk(count),
        f"  const {kind} at = static_cast<{kind}>(i);",
        f"  const {kind} channels = static_cast<{kind}>(p.result_channels);",
        "  const gp::i64 row = at / channels, channel = at % channels;",
        f"  const {ctype_of(compute.dtype)} total = {call}row, channel);",
        *[f"  {line}" for line in after[1:]],
        "}",
    ]
    kernels = [("kernel", THREADS, [*writer.pointers, *body])]
    text = source([*HEADERS, "conv_direct"], writer.params, kernels, blocks=1)
    grid = (blocks_for(math.prod(compute.shape)), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]


def _direct_weights(part: Part, context: Context, shape: Geometry, writer: Writer) -> list[Launch]:
    """Sums of products of single elements; long ones in pieces, which are added up in order."""
    outputs = math.prod(part.body[0].shape)
    rows = shape.chunk * math.prod(shape.found)
    blocks = -(-outputs // _LANES[0])
    pieces = max(1, min(2 * context.processors // blocks, rows // _ROWS_A_PIECE, _MAX_PIECES))
    piece = max(1, -(-rows // pieces))
    pieces = max(1, -(-rows // piece))
    dtype = ctype_of(part.body[0].dtype)
    x, dy = _inputs(part, writer)
    out = writer.pointer(part.outputs[0][1], True)
    numbers = [
        writer.params.add(name, value)
        for name, value in (("each", shape.chunk), ("outputs", outputs), ("piece", piece))
    ]
    partials = "nullptr"
    if pieces > 1:
        room = context.workspace.need(pieces * outputs * 8)
        partials = f"gp::fixed<double>({writer.params.add('partials', room, 'gp::u64')})"
    lanes = ", ".join(map(str, _LANES))
    opening = [
        *writer.pointers,
        shape.declare(writer),
        f"auto finish = [&](gp::i64 q, {dtype} total) {{",
        f"  {out}[q] = total;",
        "};",
    ]
    call = f"gp::direct_weights<{lanes}, {shape.coordinates}>(shape, {x}, {dy}, "
    call += f"{', '.join(numbers)}, static_cast<double*>({partials}), finish);"
    kernels = [("kernel", THREADS, [*opening, call])]
    if pieces > 1:
        count = writer.params.add("pieces", pieces)
        join = f"gp::finish_partials<gp::Sum<{dtype}, {dtype}>>({numbers[1]}, 1, {count}, "
        kernels.append(("kernel_finish", THREADS, [*opening, f"{join}{partials}, finish);"]))
    # Rather registers than blocks: some compilers would put a few aside for the sake of a fifth.
    text = source([*HEADERS, "conv_direct"], writer.params, kernels, 1)
    params = writer.params.pack()
    made = [Launch(text, "kernel", (blocks, pieces, 1), (THREADS, 1, 1), params, part.name)]
    if pieces > 1:
        grid = (-(-outputs // THREADS), 1, 1)
        made.append(Launch(text, "kernel_finish", grid, (THREADS, 1, 1), params, part.name))
    return made


CONVOLUTIONS: dict[str, Callable[[Part, Context], list[Launch]]] = {
    "conv": conv,
    "conv_input": conv_input,
    "conv_weight": conv_weight,
}
