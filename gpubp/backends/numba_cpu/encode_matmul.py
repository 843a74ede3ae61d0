"""Encoding of matrix products: blocks, copies, and what follows the product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gpubp.backends.epilogues import Epilogue, find_epilogue
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, Encoded, float_bits, place
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.indexed_operands import IndexedOperand
from gpubp.backends.numba_cpu.target import lanes, tile_rows
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.views import matrix_batch_stride
from gpubp.core import dtype_name
from gpubp.core.store import round_up

# Sizes of what should stay in a cache, and measured crossovers; see docs/design/cpu.md.
L1_BYTES = 16384  # a block of C that a chain follows
L2_BYTES = 3 << 16  # a block of B
FAR_BLOCK_BYTES = 3 << 16  # a block of C that a chain follows, where B does not fit
A_BYTES, FAR_A_BYTES = 1 << 17, 1 << 22  # a copied block of A; the same, where B does not fit
PACK_ROWS = 32  # copy B where so many rows of C use the copy ...
PACK_ROW_BYTES = 128  # ... and its rows are longer than this
# Copy A strip by strip for more than one panel of columns of C, where a strip read in place does
# not stay in the first-level cache; for so many columns, where it only just does.
FAR_COLUMNS = 256
L1_LINES, L1_SETS, LINE_BYTES = 512, 64, 64
FEW_ROWS = 16  # share an update of so few rows by columns
SPLIT_BYTES = 1 << 15  # share by columns where B is at least so large ...
SPLIT_ROWS = 4  # ... and C has at most so many times more rows than columns


@dataclass
class _Shape:
    """A product as the kernel sees it: C (m, n) = A (m, k) B (k, n), strides in bytes."""

    m: int
    n: int
    k: int
    size: int
    dtype: str

    @property
    def panel(self) -> int:
        return 2 * lanes(self.dtype)


def encode_matmul(
    part: Part, indexed: Mapping[int, IndexedOperand]
) -> tuple[str, list[int], int, list[tuple[int, str]]]:
    """(kernel, words, scratch bytes, needs) of a part built around a matrix product."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    a, b = (part.inputs[i] for i in compute.args)
    *batch, m, n = compute.shape
    shape = _Shape(m, n, a.shape[-1], compute.dtype.itemsize, dtype_name(compute.dtype))
    made = len(part.inputs) + part.anchor
    epilogue = find_epilogue(part, words.epilogues(shape.dtype))
    chain = _chain(part, made) if epilogue is None and len(part.body) > 1 else None
    assert chain is None or part.shared == "rows", "a chain runs over whole rows"
    stored = next((o for v, o in part.outputs if v == made), None)
    stored = epilogue.target if epilogue is not None else stored
    code = [0] * words.MM_WORDS
    code[words.MM_M], code[words.MM_N], code[words.MM_K] = m, n, shape.k
    code[words.MM_BATCH] = math.prod(batch) // batch[0] if batch else 0
    orders = words.MM_A_ORDER, words.MM_B_ORDER
    for at, order, operand in zip((words.MM_A, words.MM_B), orders, (a, b)):
        code[at : at + 5] = _matrix(operand, tuple(batch), shape.size)
        source = indexed.get(operand.value)
        code[order] = -1 if source is None else source.order
        if source is not None:
            code[at : at + 2] = source.place(operand)
    code[words.MM_C + 2] = n * shape.size
    if stored is not None:
        assert stored.contiguous or not batch, "matrices of a batch lie back to back"
        code[words.MM_C : words.MM_C + 3] = *place(stored), stored.row_step * shape.size
    code[words.MM_C_SCRATCH] = int(stored is None)
    scratch = _plan(code, shape, a, b, chain is not None)
    code[words.MM_BY_COLUMNS] = int(part.shared == "columns")
    describe_epilogue(code, epilogue)
    follows = words.EPILOGUES[code[words.MM_EPILOGUE]]
    needs = [(words.MM_TILES, f"tiles_{follows}_{shape.dtype}")]
    if chain is not None:
        code[words.MM_CHAIN] = len(code)
        needs += [(words.MM_CHAIN_KERNEL, f"chain_{shape.dtype}"), *chain.needs_at(len(code))]
        code += chain.words
        scratch += chain.scratch
    return "matmul", code, scratch, needs


def keep_b(part: Part, encoded: EncodedPart) -> bool:
    """Let a product copy all of B into panels, to be used by calls to come; False if it cannot."""
    assert part.anchor is not None
    compute, code = part.body[part.anchor], encoded.words
    if len(compute.shape) != 2 or part.shared != "rows" or code[words.MM_B_ORDER] >= 0:
        return False
    size = compute.dtype.itemsize
    panel = 2 * lanes(dtype_name(compute.dtype))
    code[words.MM_PACK] = 2
    code[words.MM_SCRATCH_B] = round_up(encoded.scratch, words.ALIGN)
    copied = code[words.MM_K] * round_up(code[words.MM_N], panel) * size
    encoded.scratch = code[words.MM_SCRATCH_B] + copied
    return True


def splits_columns(part: Part, why: str) -> bool:
    """Workers that share this product by columns exchange less than they do by rows.

    They save the exchange of B, the weights, or of what follows the product and is shared by
    columns, and read all of A; an update of few rows saves copies of B. See docs/design/cpu.md.
    """
    assert part.anchor is not None
    compute = part.body[part.anchor]
    m, n = compute.shape
    k, size = part.type_of(compute.args[0])[0][-1], compute.dtype.itemsize
    whole_lines = n * size % LINE_BYTES == 0
    worth = {
        "weight": whole_lines and k * n * size >= SPLIT_BYTES and m <= SPLIT_ROWS * n,
        "follows": whole_lines,
        "update": m <= FEW_ROWS and n >= 2 * FEW_ROWS,
    }
    if not worth[why]:
        return False
    known = words.epilogues(dtype_name(compute.dtype))
    return len(part.body) == 1 or find_epilogue(part, known) is not None


def _matrix(operand: Operand, batch: tuple[int, ...], size: int) -> list[int]:
    """Buffer, byte offset, row, column and batch stride in bytes."""
    row, column = (s * size for s in operand.strides[-2:])
    step = matrix_batch_stride(operand.shape, operand.strides, batch)
    assert step is not None
    return [*place(operand), row, column, step * size]


def _chain(part: Part, made: int) -> Encoded:
    positions = [i for i in range(len(part.body)) if i != part.anchor]
    compute = part.body[made - len(part.inputs)]
    dtype = dtype_name(compute.dtype)
    return ChainEncoder(part, positions, compute.shape, dtype, made, whole_rows=True).encode(1)


def _plan(code: list[int], shape: _Shape, a: Operand, b: Operand, chained: bool) -> int:
    """Decide on blocks and copies, and lay out the scratch; returns its size before the chain."""
    m, n, k, size, panel = shape.m, shape.n, shape.k, shape.size, shape.panel
    columns = max(panel, L2_BYTES // max(k * size, 1) // panel * panel)
    turned = b.strides[-1] != 1 and n > 1
    pack = turned or code[words.MM_B_ORDER] >= 0 or (m >= PACK_ROWS and n * size > PACK_ROW_BYTES)
    pack_a = _overfills(a.strides[-1] * size, k) > (1 if n >= FAR_COLUMNS else 2)
    pack_a = pack_a and n > panel
    rows, strip = max(m, 1), tile_rows()
    if chained:
        rows = _fitting(L1_BYTES if columns >= n else FAR_BLOCK_BYTES, n * size, strip)
    if pack_a:
        rows = min(rows, _fitting(A_BYTES if columns >= n else FAR_A_BYTES, k * size, strip))
    strips = -(-min(rows, m) // strip)
    whole = pack and rows < m and (chained or columns >= n)
    copied = round_up(n, panel) if whole else min(round_up(n, panel), columns)
    sizes = (
        8 * words.TILE_PARAMS,
        min(rows, m) * n * size if code[words.MM_C_SCRATCH] else 0,
        k * copied * size if pack else 0,
        strips * k * strip * size if pack_a else 0,
    )
    ends = [0]
    for part in sizes:
        ends.append(ends[-1] + round_up(part, words.ALIGN))
    code[words.MM_SCRATCH_C : words.MM_SCRATCH_CHAIN + 1] = ends[1:]
    code[words.MM_PACK] = (2 if whole else 1) if pack else 0
    code[words.MM_PACK_A] = int(pack_a)
    code[words.MM_BLOCK], code[words.MM_COLUMNS] = rows, columns
    return ends[-1]


def _fitting(room: int, row: int, strip: int) -> int:
    """Rows of `row` bytes that fit, in whole strips."""
    return max(strip, room // max(row, 1) // strip * strip)


def _overfills(stride: int, count: int) -> float:
    """How often elements so many bytes apart fill the cache lines that they can map to."""
    if stride < LINE_BYTES:
        return 0.0
    step = max(math.gcd(stride, L1_SETS * LINE_BYTES), LINE_BYTES)
    return count / (L1_LINES * LINE_BYTES / step)


def describe_epilogue(code: list[int], epilogue: Epilogue | None) -> None:
    """Write down the operands of the epilogue."""
    code[words.MM_BIAS] = -1
    for i in range(2):
        code[words.MM_STATE + 2 * i] = -1
    for i in range(words.TILE_MAX_NUMBERS):
        code[words.MM_NUMBERS + 3 * i] = -1
    if epilogue is None:
        return
    code[words.MM_EPILOGUE] = words.EPILOGUES.index(epilogue.name)
    if epilogue.bias is not None:
        code[words.MM_BIAS : words.MM_BIAS + 2] = place(epilogue.bias)
    for i, operand in enumerate(epilogue.state):
        at = words.MM_STATE + 2 * i
        code[at : at + 2] = place(operand)
    for i, number in enumerate(epilogue.numbers):
        at = words.MM_NUMBERS + 3 * i
        if isinstance(number, Operand):
            code[at : at + 2] = place(number)
        else:
            code[at + 2] = float_bits(float(number))
