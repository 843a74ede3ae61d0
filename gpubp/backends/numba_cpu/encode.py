"""Encoding: parts of a program as int64 words for the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from gpubp.backends.numba_cpu import encode_move, encode_rows, words
from gpubp.backends.numba_cpu.encode_attention import attention, attention_grad
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, op_words, place
from gpubp.backends.numba_cpu.encode_conv import (
    encode_conv,
    encode_conv_input,
    encode_conv_weight,
)
from gpubp.backends.numba_cpu.encode_loop import encode_loop
from gpubp.backends.numba_cpu.encode_matmul import encode_matmul
from gpubp.backends.numba_cpu.encode_pool import encode_pool, encode_unpool
from gpubp.backends.numba_cpu.encode_scatter import scatter_add
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.indexed_operands import IndexedOperand, find_indexed_operands
from gpubp.backends.numba_cpu.opcodes import DTYPE_CODES
from gpubp.compiler.group import arithmetic
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.core import dtype_name
from gpubp.errors import BackendError, VerificationError


def encode(
    part: Part, resident: int, order: int, indexed: Mapping[int, IndexedOperand] | None = None
) -> EncodedPart | None:
    """Encode a part; None if it has nothing to do.

    Args:
        part: of a program.
        resident: number of the buffer that stands for the first resident input.
        order: number of the buffer that stands for the index order at the step's position.
        indexed: batches that products read where they are.

    Raises:
        VerificationError: the encoder left out an output.
    """
    indexed = indexed or {}
    if part.outputs and all(math.prod(o.shape) == 0 for _, o in part.outputs):
        return None
    if part.kernel == "load_batch":
        in_place = part.outputs[0][1].value in indexed
        return None if in_place else encode_move.load_batch(part, resident, order)
    if part.kernel in _OVER_BATCHES:
        encoded = _over_batches(part, indexed)
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
    indexed = find_indexed_operands(program, resident, order)
    return [encode(part, resident, order, indexed) for part in program.parts]


def _require_outputs(part: Part, encoded: EncodedPart) -> None:
    """The code says where each output goes: none was forgotten."""
    code = encoded.words
    for _, operand in part.outputs:
        if operand.place not in pairwise(code):
            raise VerificationError(
                f"{part.name}: the CPU encoder left out %{operand.value}, one of its results."
            )


def _body_type(part: Part, positions: list[int]) -> str:
    """The arithmetic of some elementwise ops; logic on booleans alone is done in int64."""
    ops = [part.body[i] for i in positions]
    dtypes = {c.dtype for c in ops} | {part.type_of(a)[1] for c in ops for a in c.args}
    return arithmetic(*dtypes) or "int64"


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
        code += [DTYPE_CODES[dtype_name(operand.dtype)], *place(operand)]
    for i, compute in enumerate(part.body):
        of_integers = all(part.type_of(a)[1].kind != "f" for a in compute.args)
        code += op_words(compute, "int64" if of_integers else "float32", count + i, compute.args)
        code[-1] += words.OF_INTEGERS if of_integers else 0
    for value, operand in part.outputs:
        code += [value, DTYPE_CODES[dtype_name(operand.dtype)], *place(operand)]
    return EncodedPart("scalar", code, 16 * (count + len(part.body)), [])


def _over_batches(part: Part, indexed: Mapping[int, IndexedOperand]) -> EncodedPart:
    """A part that may read the rows of a batch where they are."""
    assert part.anchor is not None
    dtype = dtype_name(part.body[part.anchor].dtype)
    kernel, code, scratch, needs = _OVER_BATCHES[part.kernel](part, indexed)
    return EncodedPart(f"{kernel}_{dtype}", code, scratch, needs)


def _pool(part: Part) -> EncodedPart:
    return EncodedPart(*encode_pool(part))


def _unpool(part: Part) -> EncodedPart:
    return EncodedPart(*encode_unpool(part))


def _custom(part: Part) -> EncodedPart:
    return EncodedPart("custom", [0], 0, [], [(0, part)])


def _loop(part: Part) -> EncodedPart:
    return encode_loop(part, encoded_parts)


_OVER_BATCHES = {
    "matmul": encode_matmul,
    "conv": encode_conv,
    "conv_input": encode_conv_input,
    "conv_weight": encode_conv_weight,
}
_ENCODERS: dict[str, Callable[[Part], EncodedPart]] = {
    "elementwise": _elementwise,
    "scalar": _scalar,
    "reduce": encode_rows.reduction,
    "softmax": encode_rows.softmax,
    "log_softmax": encode_rows.softmax,
    "softmax_cross_entropy": encode_rows.cross_entropy,
    "attention": attention,
    "attention_grad": attention_grad,
    "gather": encode_move.gather,
    "scatter_add": scatter_add,
    "concat": encode_move.concat,
    "unslice": encode_move.unslice,
    "custom": _custom,
    "max_pool": _pool,
    "max_pool_grad": _pool,
    "max_pool_indices": _pool,
    "max_pool_pick": _pool,
    "sum_pool": _pool,
    "sum_pool_grad": _pool,
    "unpool": _unpool,
    "loop": _loop,
}
