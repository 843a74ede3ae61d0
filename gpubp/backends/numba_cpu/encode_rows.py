"""Encoding of reductions, softmax and cross-entropy: what walks along rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, place
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.opcodes import DTYPE_CODES
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.views import split_axes
from gpubp.core import dtype_name

CROSS_BYTES = 16384


def reduction(part: Part) -> EncodedPart:
    """A sum or an extremum, and the chains before and after it."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    source = compute.args[0]
    shape, in_dtype = part.type_of(source)
    dtype = dtype_name(in_dtype) if in_dtype.kind == "f" else "int64"
    outer, red, inner = split_axes(shape, compute.attrs["axis"])
    made = len(part.inputs) + part.anchor
    before = part.ancestors(part.anchor)
    after = [i for i in range(len(part.body)) if i != part.anchor and i not in before]
    code = words.RED.pack(
        op=words.RED_CODES[compute.spec.name],
        red=red,
        inner=inner,
        per_row=outer * inner // max(part.rows, 1),
        mean=int(compute.attrs.get("mean", False)),
        in_dtype=DTYPE_CODES[dtype_name(in_dtype)],
        **_ends(part, None if before else part.inputs[source], made, inner),
    )
    chains = []
    if before:
        encoder = ChainEncoder(part, before, shape, dtype, None, source, whole_rows=True)
        chains.append((words.RED_PROLOGUE, encoder))
    if after:
        encoder = ChainEncoder(part, after, compute.shape, dtype, tile_in=made)
        chains.append((words.RED_EPILOGUE, encoder))
    needs = [(words.RED_CHAIN_KERNEL, f"chain_{dtype}")] if chains else []
    scratch = 16 * words.RED_BLOCK + words.RED_MADE + 64
    scratch += _append(chains, code, needs)
    return EncodedPart(f"reduce_{dtype}", code, scratch, needs)


def _ends(
    part: Part, source: Operand | None, made: int, inner: int
) -> dict[str, int | Sequence[int]]:
    """What is read in place, if it is, and where the result goes, if it is stored."""
    found: dict[str, int | Sequence[int]] = {"step": inner}
    if source is not None:
        found["in"] = place(source)
        if not source.contiguous:
            found["step"] = source.row_step
    stored = next((o for v, o in part.outputs if v == made), None)
    found["out_scratch"] = int(stored is None)
    if stored is not None:
        found |= {"out": place(stored), "out_dtype": DTYPE_CODES[dtype_name(stored.dtype)]}
    return found


def _append(
    chains: Sequence[tuple[int, ChainEncoder]], code: list[int], needs: list[tuple[int, str]]
) -> int:
    """Write chains behind the code, and where they begin into it; returns their scratch."""
    largest = 0
    for at, encoder in chains:
        chain = encoder.encode(1)
        needs += chain.needs_at(len(code))
        code[at] = len(code)
        code += chain.words
        largest = max(largest, chain.scratch)
    return largest


def softmax(part: Part) -> EncodedPart:
    """Softmax or its logarithm."""
    compute = part.body[0]
    columns = compute.shape[-1]
    rows = math.prod(compute.shape) // columns
    code = words.SOFTMAX.pack(
        columns=columns,
        per_row=rows // max(part.rows, 1),
        logarithm=int(compute.spec.name == "log_softmax"),
        source=place(part.inputs[compute.args[0]]),
        out=place(part.outputs[0][1]),
    )
    return EncodedPart(f"softmax_{dtype_name(compute.dtype)}", code, 64, [])  # eight sums


def cross_entropy(part: Part) -> EncodedPart:
    """The loss, its gradient, or both in one pass."""
    first = part.body[0]
    logits, labels = (part.inputs[i] for i in first.args[:2])
    columns = logits.shape[-1]
    rows = math.prod(logits.shape) // columns
    what, step = 0, 0
    cotangent, loss, gradient = [0, 0], [0, 0], [0, 0]
    for i, compute in enumerate(part.body):
        out = next((o for v, o in part.outputs if v == len(part.inputs) + i), None)
        if out is None:
            continue
        if compute.spec.name.endswith("_grad"):
            what |= 2
            gradient = place(out)
            scale = part.inputs[compute.args[2]]
            cotangent = place(scale)
            step = 0 if all(s == 0 for s in scale.strides) else 1
        else:
            what |= 1
            loss = place(out)
    size = logits.dtype.itemsize
    block = min(64, max(32, CROSS_BYTES // (columns * size) // 8 * 8))  # rows turned together
    code = words.CROSS_ENTROPY.pack(
        columns=columns,
        per_row=rows // max(part.rows, 1),
        what=what,
        label_bytes=labels.dtype.itemsize,
        cotangent_step=step,
        block=block,
        logits=place(logits),
        labels=place(labels),
        cotangent=cotangent,
        loss=loss,
        gradient=gradient,
    )
    scratch = block * (16 + (columns + 2) * size)
    return EncodedPart(f"cross_entropy_{dtype_name(logits.dtype)}", code, scratch, [])
