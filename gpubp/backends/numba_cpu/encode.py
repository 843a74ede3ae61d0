"""Encoding: parts of a program as int64 words for the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, op_words, place
from gpubp.backends.numba_cpu.encode_matmul import encode_matmul
from gpubp.backends.numba_cpu.gathered import Gathered, find_gathered
from gpubp.backends.numba_cpu.opcodes import DTYPE_CODES
from gpubp.compiler.group import arithmetic
from gpubp.compiler.program import Operand, Part, Program
from gpubp.compiler.views import split_axes
from gpubp.core.strided import c_strides
from gpubp.errors import BackendError, VerificationError

CROSS_BYTES = 16384


@dataclass
class EncodedPart:
    """A part ready for the run loop.

    Attributes:
        kernel: its name in `kernels.registry`.
        words: its code. Kernel addresses that the code itself needs are listed in `needs`.
        scratch: bytes of scratch for each worker.
        needs: (word, kernel name): to be filled in with the kernel's address.
    """

    kernel: str
    words: list[int]
    scratch: int
    needs: list[tuple[int, str]]


def encode(
    part: Part, resident: int, order: int, gathered: Mapping[int, Gathered] | None = None
) -> EncodedPart | None:
    """Encode a part; None if it has nothing to do.

    Args:
        part: of a program.
        resident: number of the buffer that stands for the first resident input.
        order: number of the buffer that stands for the index order at the step's position.
        gathered: batches that products read where they are.

    Raises:
        VerificationError: the encoder left out an output.
    """
    gathered = gathered or {}
    if part.outputs and all(math.prod(o.shape) == 0 for _, o in part.outputs):
        return None
    if part.kernel == "load_batch":
        in_place = part.outputs[0][1].value in gathered
        return None if in_place else _load_batch(part, resident, order)
    if part.kernel == "matmul":
        encoded = _matmul(part, gathered)
    elif part.kernel in _ENCODERS:
        encoded = _ENCODERS[part.kernel](part)
    else:
        raise BackendError(f"the CPU backend has no kernel for {part.kernel!r}.")
    if part.kernel != "custom":  # whose function finds its operands itself
        _require_outputs(part, encoded)
    return encoded


def encoded_parts(program: Program) -> list[EncodedPart | None]:
    """Every part of a program, in order; None for one that has nothing to do.

    The address table has a word for each buffer, then one for each resident input, then the index
    order.
    """
    resident = len(program.buffers)
    order = resident + (len(program.input_types) if program.batched else 0)
    gathered = find_gathered(program, resident, order)
    return [encode(part, resident, order, gathered) for part in program.parts]


def _require_outputs(part: Part, encoded: EncodedPart) -> None:
    """The code says where each output goes: none was forgotten."""
    pairs = set(zip(encoded.words, encoded.words[1:]))
    for _, operand in part.outputs:
        if operand.place not in pairs:
            raise VerificationError(
                f"{part.name}: the CPU encoder left out %{operand.value}, one of its results."
            )


def _body_type(part: Part, positions: list[int]) -> str:
    """The arithmetic of some elementwise ops; logic on booleans alone is done in int64."""
    ops = [part.body[i] for i in positions]
    dtypes = [c.dtype for c in ops] + [part.type_of(a)[1] for c in ops for a in c.args]
    return arithmetic(dtypes) or "int64"


def _elementwise(part: Part) -> EncodedPart:
    positions = list(range(len(part.body)))
    dtype = _body_type(part, positions)
    shape = part.body[-1].shape
    chain = ChainEncoder(part, positions, shape, dtype, whole_rows=True)
    encoded = chain.encode(math.prod(shape) // max(part.rows, 1))
    return EncodedPart(f"chain_{dtype}", encoded.words, encoded.scratch, encoded.needs)


def _scalar(part: Part) -> EncodedPart:
    count = len(part.inputs)
    code = [count, len(part.body), len(part.outputs)]
    for operand in part.inputs:
        code += [DTYPE_CODES[operand.dtype.name], *place(operand)]
    for i, compute in enumerate(part.body):
        of_integers = all(part.type_of(a)[1].kind != "f" for a in compute.args)
        code += op_words(compute, "int64" if of_integers else "float32", count + i, compute.args)
        code[-1] += words.OF_INTEGERS if of_integers else 0
    for value, operand in part.outputs:
        code += [value, DTYPE_CODES[operand.dtype.name], *place(operand)]
    return EncodedPart("scalar", code, 16 * (count + len(part.body)), [])


def _matmul(part: Part, gathered: Mapping[int, Gathered]) -> EncodedPart:
    assert part.anchor is not None
    dtype = part.body[part.anchor].dtype.name
    return EncodedPart(f"matmul_{dtype}", *encode_matmul(part, gathered))


def _reduce(part: Part) -> EncodedPart:
    assert part.anchor is not None
    compute = part.body[part.anchor]
    source = compute.args[0]
    shape, in_dtype = part.type_of(source)
    dtype = in_dtype.name if in_dtype.kind == "f" else "int64"
    outer, red, inner = split_axes(shape, compute.attrs["axis"])
    made = len(part.inputs) + part.anchor
    before = part.ancestors(part.anchor)
    after = [i for i in range(len(part.body)) if i != part.anchor and i not in before]
    stored = next((o for v, o in part.outputs if v == made), None)
    code = [0] * words.RED_WORDS
    code[words.RED_OP] = words.RED_CODES[compute.spec.name]
    code[words.RED_RED], code[words.RED_INNER] = red, inner
    code[words.RED_MEAN] = int(compute.attrs.get("mean", False))
    code[words.RED_PER_ROW] = outer * inner // max(part.rows, 1)
    code[words.RED_IN_DTYPE] = DTYPE_CODES[in_dtype.name]
    code[words.RED_OUT_SCRATCH] = int(stored is None)
    if stored is not None:
        code[words.RED_OUT : words.RED_OUT + 2] = place(stored)
        code[words.RED_OUT_DTYPE] = DTYPE_CODES[stored.dtype.name]
    code[words.RED_STEP] = inner
    if not before:
        operand = part.inputs[source]
        code[words.RED_IN : words.RED_IN + 2] = place(operand)
        if not operand.contiguous:
            code[words.RED_STEP] = operand.row_step
    scratch = 16 * words.RED_BLOCK + words.STRIP_BYTES + 64
    chains = []
    if before:
        encoder = ChainEncoder(part, before, shape, dtype, tile_out=source)
        chains.append((words.RED_PROLOGUE, encoder))
    if after:
        encoder = ChainEncoder(part, after, compute.shape, dtype, tile_in=made)
        chains.append((words.RED_EPILOGUE, encoder))
    largest = 0
    needs = [(words.RED_CHAIN_KERNEL, f"chain_{dtype}")] if chains else []
    for at, encoder in chains:
        chain = encoder.encode(1)
        needs += chain.needs_at(len(code))
        code[at] = len(code)
        code += chain.words
        largest = max(largest, chain.scratch)
    return EncodedPart(f"reduce_{dtype}", code, scratch + largest, needs)


def _rowwise(part: Part) -> EncodedPart:
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
    return EncodedPart(f"softmax_{compute.dtype.name}", code, 0, [])


def _cross_entropy(part: Part) -> EncodedPart:
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
    return EncodedPart(f"cross_entropy_{logits.dtype.name}", code, scratch, [])


def _load_batch(part: Part, resident: int, order: int) -> EncodedPart:
    _, out = part.outputs[0]
    nbytes = math.prod(out.shape[1:]) * out.dtype.itemsize
    source = resident + part.body[0].attrs["input"]
    code = words.LOAD_BATCH.pack(
        row_bytes=nbytes, order=(order, 0), source=(source, 0), out=place(out)
    )
    return EncodedPart("load_batch", code, 0, [])


def _indexed(part: Part) -> tuple[dict[str, int], int, Operand, Operand, Operand]:
    """Words shared by gather and scatter_add, and (inner, data or updates, indices, output)."""
    compute = part.body[0]
    data, indices = (part.inputs[i] for i in compute.args)
    out = part.outputs[0][1]
    axis = compute.attrs["axis"]
    indexed = data.shape if compute.spec.name == "gather" else out.shape
    outer, inner = math.prod(indexed[:axis]), math.prod(indexed[axis + 1 :])
    count = math.prod(indices.shape)
    shared = {"outer": outer, "size": indexed[axis], "count": count}
    return shared | {"index_bytes": indices.dtype.itemsize}, inner, data, indices, out


def _gather(part: Part) -> EncodedPart:
    shared, inner, data, indices, out = _indexed(part)
    code = words.GATHER.pack(
        **shared,
        inner_bytes=inner * data.dtype.itemsize,
        per_row=shared["count"] // part.rows if part.rows else 0,
        data=place(data),
        indices=place(indices),
        out=place(out),
    )
    return EncodedPart("gather", code, 0, [])


def _scatter_add(part: Part) -> EncodedPart:
    shared, inner, updates, indices, out = _indexed(part)
    code = words.SCATTER_ADD.pack(
        **shared, inner=inner, updates=place(updates), indices=place(indices), out=place(out)
    )
    return EncodedPart(f"scatter_add_{out.dtype.name}", code, 0, [])


def _concat(part: Part) -> EncodedPart:
    compute = part.body[0]
    out = part.outputs[0][1]
    axis, size = compute.attrs["axis"], out.dtype.itemsize
    outer = math.prod(out.shape[:axis])
    joined = math.prod(out.shape[axis:]) * size
    code = words.CONCAT.pack(
        inputs=len(compute.args),
        per_row=outer // max(part.rows, 1),
        row_bytes=joined,
        out=place(out),
    )
    for i in compute.args:
        operand = part.inputs[i]
        code += words.JOINED.pack(
            bytes=math.prod(operand.shape[axis:]) * size, source=place(operand)
        )
    return EncodedPart("concat", code, 0, [])


def _unslice(part: Part) -> EncodedPart:
    compute = part.body[0]
    source, out = part.inputs[compute.args[0]], part.outputs[0][1]
    starts, steps = compute.attrs["starts"], compute.attrs["steps"]
    strides = c_strides(out.shape)
    size = out.dtype.itemsize
    first = sum(a * s for a, s in zip(starts, strides))
    code = words.UNSLICE.pack(
        bytes=math.prod(out.shape) * size,
        item=size,
        ndim=len(out.shape),
        source=place(source),
        out=place(out),
        first=first,
    )
    for n, step, stride in zip(source.shape, steps, strides):
        code += words.SLICED.pack(size=n, step=step * stride)
    return EncodedPart("unslice", code, 0, [])


def _custom(part: Part) -> EncodedPart:
    return EncodedPart("custom", [0], 0, [])


_ENCODERS: dict[str, Callable[[Part], EncodedPart]] = {
    "elementwise": _elementwise,
    "scalar": _scalar,
    "reduce": _reduce,
    "softmax": _rowwise,
    "log_softmax": _rowwise,
    "softmax_cross_entropy": _cross_entropy,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "concat": _concat,
    "unslice": _unslice,
    "custom": _custom,
}
