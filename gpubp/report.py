"""What a program does, as a table: instructions, fusion, arithmetic, bytes, memory."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.errors import GpubpError
from gpubp.program import Part
from gpubp.runner import Ready


def report(ready: Ready | None, backend: str, times: Sequence[float] | None = None) -> str:
    """A readable description of a compiled program.

    Args:
        ready: the program; None if none was compiled yet.
        backend: the name of the backend that runs it.
        times: seconds that each part takes, to show beside its arithmetic and bytes.
    """
    if ready is None:
        raise GpubpError("nothing is compiled yet: call the step or function once, then report().")
    program = ready.program
    lines = [
        f"backend {backend}: {len(program.instructions)} instructions for {program.unfused_ops} "
        f"ops, {program.syncs} SYNCs a step",
        f"{'':4}{'instruction':<58}{'kFLOP':>10}{'kB moved':>10}"
        + (f"{'us':>9}{'GFLOP/s':>9}{'GB/s':>7}" if times is not None else "")
        + "  shared by",
    ]
    measured = iter(times or ())
    for i, instruction in enumerate(program.instructions):
        if instruction.sync:
            lines.append("    -- SYNC --")
        for j, part in enumerate(instruction.parts):
            seconds = None if times is None else next(measured)
            lines.append(_line(f"{i:3d} " if j == 0 else "  & ", part, seconds))
    lines.append("    -- SYNC --")
    share = program.bytes_moved / max(program.unfused_bytes, 1)
    grads = [b.name for b in program.buffers if b.name.startswith("grads")]
    lines += [
        f"arithmetic {program.flops / 1e3:.1f} kFLOP a step",
        f"bytes moved {program.bytes_moved / 1e3:.1f} kB fused, {program.unfused_bytes / 1e3:.1f} "
        f"kB with one kernel per op ({share:.0%})",
        f"arena {program.arena_bytes / 1e3:.1f} kB",
        f"gradient buffers: {', '.join(grads) if grads else 'none'}",
    ]
    if times is not None:
        lines.append(f"measured {sum(times) * 1e6:.1f} us a step, each part alone on one worker")
    return "\n".join(lines)


def _line(mark: str, part: Part, seconds: float | None) -> str:
    name = f"{part.kernel}: {part.name}" if part.kernel not in part.name else part.name
    if len(name) > 56:
        name = name[:53] + "..."
    share = f"{part.rows} rows" if part.rows else "one worker"
    line = f"{mark}{name:<58}{part.flops / 1e3:>10.1f}{part.bytes_moved / 1e3:>10.1f}"
    if seconds is not None:
        rate = max(seconds, 1e-12) * 1e9
        line += f"{seconds * 1e6:>9.2f}{part.flops / rate:>9.1f}{part.bytes_moved / rate:>7.1f}"
    return f"{line}  {share}"
