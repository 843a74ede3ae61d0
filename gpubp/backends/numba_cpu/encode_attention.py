"""Encoding of attention and its gradients: where heads are, and blocks that stay in cache."""

from __future__ import annotations

import struct

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import place
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.target import lanes
from gpubp.compiler.parts import Operand, Part
from gpubp.core import dtype_name
from gpubp.core.store import round_up
from gpubp.ops.attention_specs import sizes_of

# A block of keys, turned, beside a strip of queries and what meets it.
TURNED_BYTES = 32 << 10
ROWS = 64  # queries a block, of gradients
ATT = words.ATTENTION
_RESULTS = {
    "attention": ("out", 1),
    "attention_sums": ("sums", 2),
    "attention_query_grad": ("dq", 1),
    "attention_key_grad": ("dk", 2),
    "attention_value_grad": ("dv", 4),
}


def attention(part: Part) -> EncodedPart:
    """The result, the sums, or both."""
    code, scratch = _described(part, ("q", "k", "v"), products=2)
    size, length = part.body[0].dtype.itemsize, code[ATT["length"]]
    keys = code[ATT["block"]]
    for name, nbytes in (
        ("turned", keys * code[ATT["size"]] * size),
        ("p", words.TILE_STRIP * code[ATT["pitch"]]),
        ("tops", length * size),
        ("totals", 8 * length),
    ):
        code[ATT[f"scratch_{name}"]] = scratch
        scratch += round_up(nbytes, words.ALIGN)
    return _encoded("attention", part, code, scratch)


def attention_grad(part: Part) -> EncodedPart:
    """Some of the three gradients, or all."""
    code, scratch = _described(part, ("q", "k", "v", "sums", "delta", "g"), products=5)
    size, keys = part.body[0].dtype.itemsize, code[ATT["block"]]
    code[ATT["rows"]] = ROWS
    for name, nbytes in (
        ("turned", keys * code[ATT["size"]] * size),
        ("turned_v", keys * code[ATT["value_size"]] * size),
        ("p", ROWS * code[ATT["pitch"]]),
        ("d", ROWS * code[ATT["pitch"]]),
    ):
        code[ATT[f"scratch_{name}"]] = scratch
        scratch += round_up(nbytes, words.ALIGN)
    return _encoded("attention_grad", part, code, scratch)


def _encoded(kernel: str, part: Part, code: list[int], scratch: int) -> EncodedPart:
    dtype = dtype_name(part.body[0].dtype)
    needs = [(ATT["tiles"], f"tiles_plain_{dtype}"), (ATT["add"], f"windows_add_{dtype}")]
    return EncodedPart(f"{kernel}_{dtype}", code, scratch, needs)


def _described(part: Part, names: tuple[str, ...], products: int) -> tuple[list[int], int]:
    """The code but for its scratch, and where in the scratch there is room: behind the parameters
    of so many products, and a word that is 0.
    """
    compute = part.body[0]
    given = [part.inputs[i] for i in compute.args]
    n = sizes_of(*given[:3])
    size = compute.dtype.itemsize
    panel = 2 * lanes(compute.dtype.name)
    wide = max(n.size, n.value_size, 1) * size
    block = min(max(TURNED_BYTES // wide // panel * panel, panel), round_up(max(n.keys, 1), panel))
    (scale,) = struct.unpack("<q", struct.pack("<d", compute.attrs["scale"]))
    code = ATT.pack(
        length=n.length,
        keys=n.keys,
        heads=n.heads,
        each=n.heads // n.groups,
        size=n.size,
        value_size=n.value_size,
        causal=int(compute.attrs["causal"]),
        scale=scale,
        block=block,
        pitch=block * size,
    )
    for name, operand in zip(names, given):
        code[ATT[name] : ATT[name] + words.HEADS] = _steps(operand)
    if len(given) > len(names):
        _mask(code, given[-1])
    outputs = dict(part.outputs)
    for i, made in enumerate(part.body):
        name, bit = _RESULTS[made.spec.name]
        if (out := outputs.get(len(part.inputs) + i)) is not None:
            at = ATT[name]
            code[at : at + words.HEADS] = _steps(out)
            code[ATT["what"]] |= bit
    return code, round_up(products * 8 * words.TILE_PARAMS + 8, words.ALIGN)


def _steps(operand: Operand) -> list[int]:
    """A place, and bytes from sequence to sequence, row to row, head to head."""
    return [*place(operand), *(s * operand.dtype.itemsize for s in operand.strides[:3])]


def _mask(code: list[int], mask: Operand) -> None:
    steps = [
        0 if n == 1 else s * mask.dtype.itemsize
        for n, s in zip(mask.shape, mask.strides, strict=True)
    ]
    batch, head, row, column = steps
    at = ATT["mask"]
    code[at : at + words.HEADS] = [*place(mask), batch, row, head]
    code[ATT["mask_kind"]] = 1 if mask.dtype.kind == "b" else 2
    code[ATT["mask_column"]] = column
