"""Reductions: what is computed before and after, how threads share the axis, partial results."""

from __future__ import annotations

from gpubp.backends.cuda.codegen.chain import chain, operands_of
from gpubp.backends.cuda.codegen.index import Index
from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.backends.cuda.launch import HEADERS, THREADS, Context, Launch, source
from gpubp.compiler.parts import Compute, Part
from gpubp.compiler.views import split_axes

SPLIT_LENGTH = 2048  # of the reduced axis that one block walks at least, where the axis is split
MAX_CHUNKS = 256
_KINDS = {"max": ("true", "false"), "min": ("false", "false"), "argmax": ("true", "true"),
          "argmin": ("false", "true")}  # fmt: skip


def _functor(compute: Compute, taken: str) -> str:
    """The reduction as a class of reduce.cuh. `taken`: the C type of the elements."""
    made = ctype_of(compute.dtype)
    if compute.spec.name == "sum":
        name = "Mean" if compute.attrs.get("mean") else "Sum"
        return f"gp::{name}<{taken}, {made}>"
    largest, index = _KINDS[compute.spec.name]
    return f"gp::Extremum<{taken}, {made}, {largest}, {index}>"


def _threads(red: int, inner: int) -> tuple[int, int]:
    """(outputs of a block, threads of each): neighbours in memory go to neighbouring threads."""
    if inner > 1:
        return (256, 1) if red < 8 else (32, 8)
    return (256, 1) if red <= 8 else ((8, 32) if red <= 512 else (1, 256))


def _chunks(outputs: int, red: int, blocks: int, processors: int) -> int:
    """Into how many pieces the axis is cut so that all multiprocessors have work."""
    wanted = 2 * processors // max(blocks, 1)
    return max(1, min(wanted, red // SPLIT_LENGTH, MAX_CHUNKS))


class Reduction:
    """What a reduction needs of the source.

    Args:
        writer: of the part; declares the pointers.
        part: built around a reduction.

    Attributes:
        outputs, red, inner: sizes; see reduce.cuh.
        across, along: outputs of a block, and threads of each.
        functor: the class of reduce.cuh.
        value, finish: lines that declare the functions of these names.
    """

    def __init__(self, writer: Writer, part: Part) -> None:
        assert part.anchor is not None
        compute = part.body[part.anchor]
        shape, in_dtype = part.type_of(compute.args[0])
        outer, self.red, self.inner = split_axes(shape, compute.attrs["axis"])
        self.outputs = outer * self.inner
        self.across, self.along = _threads(self.red, self.inner)
        self.functor = _functor(compute, ctype_of(in_dtype))
        self.value = _value(writer, part, compute, shape)
        self.finish = _finish(writer, part)

    @property
    def kind(self) -> str:
        """The arguments of the templates that reduce by a block."""
        return f"{self.functor}, {self.across}, {self.along}"


def reduce(part: Part, context: Context) -> list[Launch]:
    """The launches of a part built around a reduction."""
    writer = Writer(part, context)
    found = Reduction(writer, part)
    outputs, red, functor = found.outputs, found.red, found.functor
    blocks = -(-outputs // found.across)
    chunks = _chunks(outputs, red, blocks, context.processors)
    length = max(-(-red // chunks), 1)  # of a chunk
    numbers = {"outputs": outputs, "red": red, "inner": found.inner, "chunk": length}
    sizes = [writer.params.add(name, number) for name, number in numbers.items()]
    state = f"{functor}::State"
    partials = "nullptr"
    if chunks > 1:
        room = context.workspace.need(chunks * outputs * 16)
        partials = f"gp::fixed<{state}>({writer.params.add('partials', room, 'gp::u64')})"
    call = (
        f"gp::reduce<{found.kind}>({', '.join(sizes)}, "
        f"static_cast<{state}*>({partials}), value, finish);"
    )
    used = -(-red // length) if red else 1
    kernels = [("kernel", THREADS, [*writer.pointers, *found.value, *found.finish, call])]
    grids = [("kernel", (blocks, used, 1))]
    if chunks > 1:
        count = writer.params.add("chunks", used)
        given = f"{sizes[0]}, {sizes[1]}, {count}, {partials}, finish"
        join = f"gp::finish_partials<{functor}>({given});"
        kernels.append(("kernel_finish", THREADS, [*writer.pointers, *found.finish, join]))
        grids.append(("kernel_finish", (-(-outputs // THREADS), 1, 1)))
    text, params = source([*HEADERS, "reduce"], writer.params, kernels), writer.params.pack()
    return [Launch(text, name, grid, (THREADS, 1, 1), params, part.name) for name, grid in grids]


def _value(writer: Writer, part: Part, compute: Compute, shape: tuple[int, ...]) -> list[str]:
    """A function that computes or reads element `e` of what is reduced."""
    source_value = compute.args[0]
    assert part.anchor is not None
    before = part.ancestors(part.anchor)
    dtype = ctype_of(part.type_of(source_value)[1])
    if not before:
        read = f"{writer.pointer(part.inputs[source_value])}[e]"
        return [f"auto value = [&](gp::i64 e) -> {dtype} {{ return {read}; }};"]
    index = Index(writer, "v", shape, operands_of(part, before), "e")
    known: dict[int, str] = {}
    lines = chain(writer, before, index, "e", known)
    return [
        f"auto value = [&](gp::i64 e) -> {dtype} {{",
        *[f"  {line}" for line in lines],
        f"  return {known[source_value]};",
        "};",
    ]


def _finish(writer: Writer, part: Part) -> list[str]:
    """A function that takes output `q` and does what follows the reduction."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    made = len(part.inputs) + part.anchor
    before = part.ancestors(part.anchor)
    after = [i for i in range(len(part.body)) if i != part.anchor and i not in before]
    outputs = dict(part.outputs)
    operands = operands_of(part, after, [part.anchor])
    index = Index(writer, "f", compute.shape, operands, "q")
    known = {made: "total"}
    lines = chain(writer, after, index, "q", known)
    if made in outputs:
        target = outputs[made]
        lines.append(index.write(target, "total"))
    return [
        f"auto finish = [&](gp::i64 q, {ctype_of(compute.dtype)} total) {{",
        *[f"  {line}" for line in lines],
        "};",
    ]
