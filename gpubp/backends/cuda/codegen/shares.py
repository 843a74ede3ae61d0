"""One block's share of a part, as a function of its rows: what a kernel of many parts is made of.

Comes in: a part and what is known of the program's memory. Goes out: the text of a function that
computes rows `first` to `stop`, with the numbers for its parameters. What computes is the text that
launched kernels have, in `kernels/` or printed by the same encoders; sums are added in their order.
A part without such a function has a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpubp.backends.cuda.codegen.encode_batch import Batch, Slices
from gpubp.backends.cuda.codegen.encode_elementwise import elementwise_rows
from gpubp.backends.cuda.codegen.encode_matmul import after_product, factors
from gpubp.backends.cuda.codegen.encode_reduce import Reduction
from gpubp.backends.cuda.codegen.encode_rowwise import Rows
from gpubp.backends.cuda.codegen.tiles import row_tile
from gpubp.backends.cuda.codegen.writer import SHORT, LocalWriter, Own, Params, ctype_of
from gpubp.backends.cuda.kept import Published
from gpubp.backends.cuda.launch import Context, require_used, require_written
from gpubp.compiler.parts import PRODUCT, Part
from gpubp.core import Shape

HEADERS = ("functors", "random", "gemm", "reduce", "rowwise", "move")
_ROW_THREADS = 256  # of rowwise.cuh
# What is copied as one: bytes that divide a row's, and a C type.
_COPIED = {16: "gp::Vector<gp::u32, 4>", 4: "gp::u32", 1: "unsigned char"}
# Why some parts have no share, for reports.
_CONVOLUTION = "its tiles cross images, and a form by rows, which blocks share, is not built"
_ATTENTION = "its blocks take tiles of heads, and a form by rows, which blocks share, is not built"
_WITHOUT = {
    "loop": "its rounds are one kernel of their own, or launched one by one",
    **dict.fromkeys(("conv", "conv_input", "conv_weight"), _CONVOLUTION),
    **dict.fromkeys(("attention", "attention_grad"), _ATTENTION),
}
Access = tuple[int, int, bool]  # a buffer, a byte in it, whether it is written


class NoShareError(Exception):
    """The part has no function of a share; says why."""


@dataclass(frozen=True)
class Share:
    """A block's share of a part.

    Attributes:
        params: what the function reads.
        lines: its body.
        scratch: bytes of shared memory that it works in; 0 for none.
        rows: that blocks share; 0: the first block computes all.
    """

    params: Params
    lines: Sequence[str]
    scratch: int
    rows: int

    def text(self, name: str) -> str:
        """The function, of that name: of its parameters, the block's table of addresses, its rows,
        scratch memory, and temporaries of its own. Sizes are parameters, so equal structures have
        equal texts.
        """
        struct = self.params.text().replace("struct Params", f"struct {name}_params")
        head = (
            f"template <class Scratch>\n__device__ __forceinline__ void {name}("
            f"const {name}_params& p, const gp::u64* at, gp::i64 first, gp::i64 stop, "
            "const Scratch& scratch, unsigned char* own) {"
        )
        return "\n".join([struct, head, *[f"  {line}" for line in self.lines], "}"])


def share(part: Part, context: Context, blocks: int, own: Mapping[Access, Own]) -> Share:
    """The share of one of so many blocks; `own`: see `LocalWriter`.

    Raises:
        NoShareError: there is none.
        VerificationError: the text leaves out an output.
    """
    encode = _PARTS.get(part.kernel)
    if encode is None or part.body_program is not None:
        why = _WITHOUT.get("loop" if part.body_program is not None else part.kernel, "")
        raise NoShareError(f"{part.name} has no function of a share{why and ': '}{why}")
    if part.shared != "rows":
        raise NoShareError(f"{part.name} is shared by {part.shared}")
    if part.rows >= SHORT:
        raise NoShareError(f"{part.name} has {part.rows:,} rows, {SHORT - 1:,} are counted")
    writer = LocalWriter(part, context, own)
    context.written.clear()
    writer.params.add("shared_rows", part.rows)
    lines, scratch = encode(part, writer, context, blocks)
    require_written(part, context.written)
    found = [*writer.pointers, *lines]
    require_used(found)
    return Share(writer.params, found, scratch, part.rows)


def publication(one: Published, context: Context) -> Share:
    """The copy of a block's rows of a temporary to where other blocks read them."""
    size = next(n for n in _COPIED if one.place.row % n == 0)
    start, entry = context.locate(one.buffer)
    assert entry is None, "temporaries stay where they are"
    params = Params()
    params.add("shared_rows", one.rows)
    row, own = params.add("row", one.place.row), params.add("own", one.place.start)
    to = params.add("to", start + one.start, "gp::u64")
    line = f"gp::publish<{_COPIED[size]}>(own + {own}, {to}, first * {row}, stop * {row});"
    return Share(params, [line], 0, one.rows)


def _require_rows(part: Part, shape: Shape) -> int:
    """How many elements of an iteration space each of the part's rows has.

    Raises:
        NoShareError: the rows are not its first axis.
    """
    count = math.prod(shape)
    first = next((n for n in shape if n != 1), 1)
    if part.rows > 1 and first != part.rows:
        raise NoShareError(f"the rows of {part.name} are not its first axis")
    if count == 0:
        raise NoShareError(f"{part.name} is empty")
    return count // max(part.rows, 1)


def _elementwise(part: Part, writer: LocalWriter, *_: object) -> tuple[list[str], int]:
    _require_rows(part, part.body[-1].shape)
    return elementwise_rows(part, writer), 0


def _gathered(
    part: Part, writer: LocalWriter, context: Context, blocks: int
) -> tuple[list[str], int]:
    out = part.outputs[0][1]
    _require_rows(part, out.shape[:1] if part.kernel == "load_batch" else out.shape)
    kind: type[Batch] | type[Slices] = Batch if part.kernel == "load_batch" else Slices
    found = kind(writer, part, context)
    each = writer.params.add("each", found.count // max(part.rows, 1))
    units = f"gp::of_block<{found.number}>(first * {each}, stop * {each})"
    return [found.call(units)], 0


def _rowwise(
    part: Part, writer: LocalWriter, context: Context, blocks: int
) -> tuple[list[str], int]:
    rows = Rows(writer, part, context)
    shape = part.type_of(part.body[0].args[0]).shape
    each = writer.params.add("each", _require_rows(part, shape[:-1]))
    call = rows.call("row", f"stop * {each}")
    step = _ROW_THREADS // rows.lanes
    walk = f"for (gp::i64 row = first * {each}; row < stop * {each}; row += {step}) {{"
    # Lanes of several warps are joined in memory, which the next row takes again.
    after = ["  __syncthreads();"] if rows.lanes > 32 else []
    return ["#pragma unroll 1", walk, f"  {call}", *after, "}"], 0


def _product(
    part: Part, writer: LocalWriter, context: Context, blocks: int
) -> tuple[list[str], int]:
    assert part.anchor is not None
    compute = part.body[part.anchor]
    if len(compute.shape) != 2:
        raise NoShareError(f"{part.name} has several products")
    if context.precision != "float32" and compute.dtype.itemsize == 4:
        raise NoShareError(f"products in {context.precision} have no function of a share")
    _require_rows(part, compute.shape)
    a, b = (part.inputs[i] for i in compute.args)
    m, n = compute.shape
    rows, k, size = -(-m // blocks) if part.rows else m, a.shape[-1], compute.dtype.itemsize
    tile, groups = row_tile(rows, k, size)
    for name, number in {"m": m, "n": n, "k": k}.items():
        writer.params.add(name, number)
    dtype = ctype_of(compute.dtype)
    kind = ", ".join(map(str, (dtype, *tile, groups)))
    lines = [
        "const gp::i64 batch = 0;",
        *factors(writer, a, b, ()),
        f"auto store = [&](gp::i64 row, gp::i64 column, {dtype} total) {{",
        *[f"  {line}" for line in after_product(writer, part)],
        "};",
        f"gp::gemm_rows<{kind}>(scratch, a, b, first, {'stop' if part.rows else 'p.m'}, p.n, p.k, "
        "store);",
    ]
    words = 16 // size
    along = (a.strides[-1] == 1, b.strides[-2] == 1)
    pitches = [x + words * inner for x, inner in zip(tile[:2], along)]
    return lines, groups * 2 * tile[2] * sum(pitches) * size


def _reduce(
    part: Part, writer: LocalWriter, context: Context, blocks: int
) -> tuple[list[str], int]:
    assert part.anchor is not None
    found = Reduction(writer, part)
    each = writer.params.add("each", _require_rows(part, part.body[part.anchor].shape))
    red, inner = writer.params.add("red", found.red), writer.params.add("inner", found.inner)
    rows = f"first * {each}, stop * {each}"
    call = f"gp::reduce_rows<{found.kind}>(scratch, {rows}, {red}, {inner}, value, finish);"
    return [*found.value, *found.finish, call], _ROW_THREADS * 16


_Encode = Callable[[Part, LocalWriter, Context, int], tuple[list[str], int]]
_PARTS: dict[str, _Encode] = {
    "elementwise": _elementwise,
    "scalar": _elementwise,
    "load_batch": _gathered,
    "gather": _gathered,
    "softmax": _rowwise,
    "log_softmax": _rowwise,
    "softmax_cross_entropy": _rowwise,
    PRODUCT: _product,
    "reduce": _reduce,
}
