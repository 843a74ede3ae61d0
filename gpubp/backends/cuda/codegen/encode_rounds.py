"""Loops as one kernel: each block runs all rounds for its own rows, and meets no other block.

Comes in: a loop whose workers share rows, and where its body's buffers are. Goes out: a kernel with
the body's parts one behind the other (products of the state with what follows them, elementwise
ops, pieces put side by side), or nothing, if the body has other parts: then it is launched round by
round. The sums of a product are added up in the order of `gemm`, each by one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gpubp.backends.cuda.codegen.encode_elementwise import elementwise_rows, over_rows
from gpubp.backends.cuda.codegen.encode_matmul import after_product, factors
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.writer import LocalWriter, Params, Writer, ctype_of, number_of
from gpubp.backends.cuda.launch import (
    HEADERS,
    THREADS,
    Context,
    Launch,
    require_used,
    require_written,
    source,
)
from gpubp.compiler.loop_body import Loop
from gpubp.compiler.parts import PRODUCT, Operand, Part
from gpubp.compiler.program import Program
from gpubp.core.strided import c_strides

MOST_PARAMS = 4096  # bytes that a kernel takes
# Of a block in a round; beyond, all multiprocessors share each product. A guess, as yet.
MOST_MULTIPLICATIONS = 1 << 20


class _Nested(Params):
    """The parameters of a kernel, with those of each part inside, and the parts' functions."""

    def __init__(self, inner: Sequence[tuple[Writer, list[str]]]) -> None:
        super().__init__()
        self._inner = inner

    def text(self) -> str:
        lines = []
        for i, (writer, body) in enumerate(self._inner):
            require_used(body)
            lines.append(writer.params.text().replace("struct Params", f"struct Part{i}"))
            head = f"__device__ __forceinline__ void part{i}(const Part{i}& p, const gp::u64* at, "
            lines += [f"{head}gp::i64 first, gp::i64 stop) {{", *[f"  {x}" for x in body], "}"]
        own = super().text().removesuffix("};")
        members = [f"  Part{i} part{i};" for i in range(len(self._inner))]
        return "\n".join([*lines, own + "\n".join(members), "};"])

    def pack(self) -> bytes:
        return b"".join([super().pack(), *[writer.params.pack() for writer, _ in self._inner]])


def rounds_kernel(part: Part, body: Context, places: int, state: int) -> Launch | None:
    """The kernel of all rounds.

    Args:
        part: of the loop.
        body: what is known of the body's memory.
        places: the address of the places of the body's buffers; see `kernels/loop.cuh`.
        state: the address of the word that tells how many rounds are done.

    Returns:
        None: there is no such kernel.
    """
    assert part.body_program is not None
    program = part.body_program.program
    share = -(-part.rows // body.processors)
    if part.rows == 0 or body.precision != "float32":
        return None
    if share * _work(program) > MOST_MULTIPLICATIONS:
        return None
    inner = []
    for one in program.parts:
        encode = _PARTS.get(one.kernel)
        if encode is None or not _rows_first(one, part.rows):
            return None
        writer = LocalWriter(one, body)
        body.written.clear()
        lines = encode(one, writer)
        require_written(one, body.written)
        inner.append((writer, [*writer.pointers, *lines]))
    loop: Loop = part.body[0].attrs["loop"]
    params = _Nested(inner)
    numbers = {"places": places, "state": state, "rows": part.rows, "share": share}
    for name, number in {**numbers, "rounds": loop.length, "reverse": loop.reverse}.items():
        params.add(name, int(number))
    packed = params.pack()
    if len(packed) > MOST_PARAMS:
        return None
    text = source(
        [*HEADERS, "loop"],
        params,
        [("kernel", THREADS, _rounds(len(program.buffers), len(inner)))],
        blocks=1,  # rows are shared so that there is one a multiprocessor
    )
    grid = (-(-part.rows // share), 1, 1)
    return Launch(text, "kernel", grid, (THREADS, 1, 1), packed, part.name)


def _work(program: Program) -> int:
    """Multiplications in the products of a row."""
    found = 0
    for part in program.parts:
        if part.kernel == PRODUCT and part.anchor is not None:
            compute = part.body[part.anchor]
            found += compute.shape[-1] * int(part.type_of(compute.args[0]).shape[-1])
    return found


def _rounds(buffers: int, parts: int) -> list[str]:
    calls = []
    for i in range(parts):
        calls += [f"  part{i}(p.part{i}, at, first, stop);", "  __syncthreads();"]
    return [
        f"__shared__ gp::u64 at[{max(buffers, 1)}];",
        "const gp::Place* places = gp::fixed<const gp::Place>(p.places);",
        "const gp::i64 first = blockIdx.x * p.share, stop = gp::least(first + p.share, p.rows);",
        "for (gp::i64 done = 0; done < p.rounds; ++done) {",
        "  const gp::i64 t = p.reverse != 0 ? p.rounds - 1 - done : done;",
        f"  gp::fill(places, {buffers}, at, t, done);",
        "  __syncthreads();",
        *calls,
        "}",
        "if (gp::thread_number() == 0) *gp::fixed<gp::i64>(p.state) = p.rounds;",
    ]


def _rows_first(part: Part, rows: int) -> bool:
    """The part's rows are the first axis of what it computes."""
    shape = part.body[-1 if part.anchor is None else part.anchor].shape
    if part.kernel == PRODUCT and len(shape) != 2:
        return False
    if part.kernel == "concat" and part.body[0].attrs["axis"] == 0:
        return False
    return part.rows == rows and shape[:1] == (rows,)


def _matmul(part: Part, writer: Writer) -> list[str]:
    assert part.anchor is not None
    compute = part.body[part.anchor]
    a, b = (part.inputs[i] for i in compute.args)
    m, n = compute.shape
    opening = ["const gp::i64 batch = 0;", *factors(writer, a, b, ())]
    writer.params.add("m", m)
    k = writer.params.add("k", a.shape[-1])
    total = f"gp::dot<{ctype_of(compute.dtype)}>(a, b, row, column, {k})"
    kind = number_of(m * n)
    lines = [
        f"const {kind} place = static_cast<{kind}>(i), width = static_cast<{kind}>(p.n);",
        "const gp::i64 row = place / width, column = place % width;",
        f"const {ctype_of(compute.dtype)} total = {total};",
        *after_product(writer, part),
    ]
    return [*opening, *over_rows(writer, "n", n, lines)]


def _concat(part: Part, writer: Writer) -> list[str]:
    compute, out = part.body[0], part.outputs[0][1]
    axis, strides, found = compute.attrs["axis"], c_strides(out.shape), []
    start = out.offset
    for k, number in enumerate(compute.args):
        operand = part.inputs[number]
        target = Operand(out.buffer, out.dtype, start, operand.shape, strides, out.value, 0)
        index = Index(writer, f"c{k}", operand.shape, [operand, target], "i")
        lines = [*index.lines, index.write(target, index.read(operand))]
        found += over_rows(writer, f"each{k}", math.prod(operand.shape[1:]), lines)
        start += operand.shape[axis] * strides[axis]
    return found


_PARTS: dict[str, Callable[[Part, Writer], list[str]]] = {
    "elementwise": elementwise_rows,
    PRODUCT: _matmul,
    "concat": _concat,
}
