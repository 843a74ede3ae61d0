"""Programs as text, a line for each instruction, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp.compiler.parts import Buffer, Instruction, Operand, Part


def lines_of(buffers: Sequence[Buffer], instructions: Sequence[Instruction]) -> list[str]:
    """Buffers and instructions, a line each: results, kernel, ops, operands, what is shared.

    An operand is `buffer@offset:shape`, with its strides where it is not contiguous.
    """
    lines = [f"buffer {b.name}: {b.kind} {b.dtype}[{b.size}]" for b in buffers]
    for i, instruction in enumerate(instructions):
        if instruction.sync:
            lines.append("SYNC")
        for part in instruction.parts:
            ins = ", ".join(_described(o, buffers) for o in part.inputs)
            outs = ", ".join(_described(o, buffers) for _, o in part.outputs)
            share = f"{part.shared} {part.rows}" if part.rows else "one worker"
            lines.append(f"{i:3d} {outs} = {part.kernel}<{part.name}>({ins})  [{share}]")
            if part.body_program is not None:
                lines += [f"      | {line}" for line in str(part.body_program.program).splitlines()]
    return lines


def _described(operand: Operand, buffers: Sequence[Buffer]) -> str:
    shape = "x".join(map(str, operand.shape)) or "scalar"
    strides = "" if operand.contiguous else f" by {','.join(map(str, operand.strides))}"
    return f"{buffers[operand.buffer].name}@{operand.offset}:{shape}{strides}"


def part_dict(part: Part) -> dict[str, Any]:
    """A part as JSON has it."""
    return {
        "kernel": part.kernel,
        "rows": part.rows,
        "grain": part.grain,
        "anchor": part.anchor,
        "body": [
            {
                "op": c.spec.name,
                "args": list(c.args),
                "attrs": {k: _plain(v) for k, v in c.attrs.items()},
                "shape": list(c.shape),
                "dtype": str(c.dtype),
            }
            for c in part.body
        ],
        "inputs": [_operand_dict(o) for o in part.inputs],
        "outputs": [{"result": v, **_operand_dict(o)} for v, o in part.outputs],
        **({} if part.body_program is None else {"program": part.body_program.program.to_dict()}),
    }


def _plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    if type(value) is tuple:
        return list(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)


def _operand_dict(operand: Operand) -> dict[str, Any]:
    return {
        "buffer": operand.buffer,
        "dtype": str(operand.dtype),
        "offset": operand.offset,
        "shape": list(operand.shape),
        "strides": list(operand.strides),
        "value": operand.value,
        "axis": operand.axis,
    }
