"""Encoding of sums at indices, and of what follows them."""

from __future__ import annotations

import math

from gpubp.backends.epilogues import find_epilogue
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, place
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.kernels.scatter import DIGIT
from gpubp.compiler.parts import Operand, Part
from gpubp.core import dtype_name
from gpubp.core.store import round_up
from gpubp.errors import BackendError

BLOCK = 16384  # bytes of sums that are followed at once,
SPARSE_BLOCK = 1024  # and where untouched ones are passed over


def scatter_add(part: Part) -> EncodedPart:
    """Updates added at indices, and what is made of the sums.

    Raises:
        BackendError: there are more updates, or rows, than 32 bits can count.
    """
    compute, made = part.body[part.anchor or 0], len(part.inputs) + (part.anchor or 0)
    updates, indices = (part.inputs[i] for i in compute.args)
    axis, shape = compute.attrs["axis"], compute.shape
    inner, count = math.prod(shape[axis + 1 :]), math.prod(indices.shape)
    stored = next((o for v, o in part.outputs if v == made), None)
    code = words.SCATTER_ADD.pack(
        size=shape[axis],
        count=count,
        inner=inner,
        index_bytes=indices.dtype.itemsize,
        outer_per_row=math.prod(shape[:axis]) // part.rows if axis else 0,
        updates=place(updates),
        indices=place(indices),
        out=[0, 0] if stored is None else place(stored),
        in_scratch=int(stored is None),
    )
    kernel = f"scatter_add_{dtype_name(compute.dtype)}"
    if len(part.body) == 1:
        return EncodedPart(kernel, code, 0, [])
    if max(count, shape[axis]) >= 1 << 31:
        raise BackendError(f"{part.name}: {count} updates of {shape[axis]} rows are too many.")
    rate = _rate_of_descent(part)
    if rate is not None:
        code[words.SCATTER_ADD["skips"]] = 1
        first = words.SCATTER_ADD["rate"]
        code[first : first + 2] = place(rate)
    return EncodedPart(kernel, code, *_followed(part, made, code, inner, rate is not None))


def _rate_of_descent(part: Part) -> Operand | None:
    """The learning rate, where a step of gradient descent in place is all that follows."""
    found = find_epilogue(part, ("sgd",))
    if found is None or not isinstance(found.numbers[0], Operand):
        return None
    return found.numbers[0]


def _followed(
    part: Part, made: int, code: list[int], inner: int, sparse: bool
) -> tuple[int, list[tuple[int, str]]]:
    """Append what follows the sums to the code; (scratch bytes, needs)."""
    at, compute = words.SCATTER_ADD, part.body[made - len(part.inputs)]
    positions = [i for i in range(len(part.body)) if i != made - len(part.inputs)]
    dtype, whole = dtype_name(compute.dtype), compute.attrs["axis"] + 1 < len(compute.shape)
    row = inner * compute.dtype.itemsize
    block = max(1, (SPARSE_BLOCK if sparse else BLOCK) // max(row, 1))
    keys = round_up(block * row, words.ALIGN)
    counts = keys + round_up(16 * code[at["count"]], words.ALIGN)
    scratch = counts + round_up(8 * (DIGIT + 1), words.ALIGN)
    code[at["block"]], code[at["scratch_keys"]] = block, keys
    code[at["scratch_counts"]], code[at["scratch_chain"]] = counts, scratch
    chain = ChainEncoder(part, positions, compute.shape, dtype, made, whole_rows=whole).encode(1)
    code[at["chain"]] = len(code)
    needs = [(at["chain_kernel"], f"chain_{dtype}"), *chain.needs_at(len(code))]
    code += chain.words
    return scratch + chain.scratch, needs
