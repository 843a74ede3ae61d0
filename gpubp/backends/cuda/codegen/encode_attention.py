"""Launches of attention and its gradients: `kernels/attention.cuh`."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.backends.cuda.launch import THREADS, Context, Launch, source
from gpubp.compiler.parts import Operand, Part
from gpubp.ops.attention_specs import Sizes, sizes_of

SIDE = 32  # queries and keys of a tile, as in attention.cuh


def attention(part: Part, context: Context) -> list[Launch]:
    """The result, the logarithms of sums, or both."""
    writer = Writer(part, context)
    given = [part.inputs[i] for i in part.body[0].args]
    n = sizes_of(*given[:3])
    made = _results(part)
    results = [made.get(name) for name in ("attention", "attention_sums")]
    lines = _common(writer, part, given, n, 3)
    lines += [_heads(writer, name, x) for name, x in zip("qkv", given)]
    lines += [_heads(writer, f"r{i}", x, write=True) for i, x in enumerate(results)]
    call = "gp::attention(sizes, scale, q, k, v, mask, r0, r1);"
    return [_launch(writer, part, [*lines, call], n.batch * n.heads * -(-n.length // SIDE))]


def attention_grad(part: Part, context: Context) -> list[Launch]:
    """The gradient by queries in one kernel, those by keys and values in another."""
    given = [part.inputs[i] for i in part.body[0].args]
    n = sizes_of(*given[:3])
    made = _results(part)
    launches = []
    if "attention_query_grad" in made:
        writer = Writer(part, context)
        lines = _given(writer, part, given, n)
        lines.append(_heads(writer, "r0", made["attention_query_grad"], write=True))
        call = "gp::attention_query_grad(sizes, given, r0);"
        blocks = n.batch * n.heads * -(-n.length // SIDE)
        launches.append(_launch(writer, part, [*lines, call], blocks))
    results = [made.get(f"attention_{name}_grad") for name in ("key", "value")]
    if any(results):
        writer = Writer(part, context)
        lines = _given(writer, part, given, n)
        lines += [_heads(writer, f"r{i}", x, write=True) for i, x in enumerate(results)]
        call = "gp::attention_key_grads(sizes, given, r0, r1);"
        blocks = n.batch * n.groups * -(-n.keys // SIDE)
        launches.append(_launch(writer, part, [*lines, call], blocks))
    return [launch for launch in launches if launch.grid[0]]


def _results(part: Part) -> dict[str, Operand]:
    """What is stored, by the name of the op that makes it."""
    first = len(part.inputs)
    return {part.body[value - first].spec.name: operand for value, operand in part.outputs}


def _launch(writer: Writer, part: Part, lines: Sequence[str], blocks: int) -> Launch:
    body = [*writer.pointers, *lines]
    text = source(["attention"], writer.params, [("kernel", THREADS, body)], blocks=1)
    packed = writer.params.pack()
    return Launch(text, "kernel", (blocks, 1, 1), (THREADS, 1, 1), packed, part.name)


def _given(writer: Writer, part: Part, given: Sequence[Operand], n: Sizes) -> list[str]:
    """What both kernels of gradients read."""
    kind = ctype_of(part.body[0].dtype)
    lines = _common(writer, part, given, n, 6)
    names = ("q", "k", "v", "sums", "delta", "g")
    lines += [_heads(writer, name, x) for name, x in zip(names, given)]
    of_mask = "bool" if len(given) == 6 else ctype_of(given[6].dtype)
    made = f"gp::Given<{kind}, {of_mask}>{{scale, {', '.join(names)}, mask}}"
    return [*lines, f"const gp::Given<{kind}, {of_mask}> given = {made};"]


def _common(
    writer: Writer, part: Part, given: Sequence[Operand], n: Sizes, arrays: int
) -> list[str]:
    """Sizes, the scale and the mask, which is behind so many arrays if there is one."""
    attrs = part.body[0].attrs
    values = {
        "length": n.length,
        "keys": n.keys,
        "heads": n.heads,
        "each": n.heads // n.groups,
        "size": n.size,
        "value_size": n.value_size,
        "causal": int(attrs["causal"]),
    }
    fields = [writer.params.add(name, value) for name, value in values.items()]
    fields[-1] = f"static_cast<int>({fields[-1]})"
    kind = ctype_of(part.body[0].dtype)
    scale = writer.params.add("scale", float(attrs["scale"]), "double")
    lines = [
        f"const gp::Sizes sizes = {{{', '.join(fields)}}};",
        f"const {kind} scale = static_cast<{kind}>({scale});",
    ]
    if len(given) == arrays:
        return [*lines, "const gp::Mask<bool> mask = {nullptr, 0, 0, 0, 0};"]
    mask = given[arrays]
    steps = [0 if size == 1 else step for size, step in zip(mask.shape, mask.strides, strict=True)]
    batch, head, row, column = (
        writer.params.add(f"mask_{i}", step) for i, step in enumerate(steps)
    )
    pointer = writer.pointer(mask)
    fields = [pointer, batch, row, head, column]
    return [*lines, f"const gp::Mask<{ctype_of(mask.dtype)}> mask = {{{', '.join(fields)}}};"]


def _heads(writer: Writer, name: str, operand: Operand | None, write: bool = False) -> str:
    """A declaration of `name`: where the heads of an operand are, or null."""
    kind = ctype_of((operand or writer.part.inputs[0]).dtype)
    kind = kind if write else f"const {kind}"
    if operand is None:
        return f"const gp::Heads<{kind}> {name} = {{nullptr, 0, 0, 0}};"
    steps = [writer.params.add(f"{name}_{i}", step) for i, step in enumerate(operand.strides[:3])]
    pointer = writer.pointer(operand, write)
    return f"const gp::Heads<{kind}> {name} = {{{', '.join([pointer, *steps])}}};"
