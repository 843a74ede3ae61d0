"""What a program does, as a table: instructions, fusion, arithmetic, bytes, memory.

With a profile, each part's measured time stands beside its roofline bound: the time that its
arithmetic or its bytes, whichever is longer, take at the best rates of the backend (`Peak`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gpubp.backends.base import Peak, feed_of_zeros
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.errors import BackendError, GpubpError
from gpubp.runtime.program_cache import Ready, Runner

# Widths of the column of names: a profile needs the room.
_PLAIN, _PROFILED = 58, 50
_MEASURES = f"{'us':>9}{'GFLOP/s':>9}{'GB/s':>7}{'bound':>9}{'of peak':>9}"


class Timing(NamedTuple):
    """One part, alone on one worker.

    Attributes:
        seconds: measured; 0 if it had nothing to do.
        bound: seconds at the peak; 0 if that is not known.
    """

    seconds: float
    bound: float

    @property
    def share(self) -> str:
        """How near to its peak it is; nothing where there was no work."""
        if self.seconds <= 0 or self.bound <= 0:
            return "-"
        return f"{self.bound / self.seconds:.0%}"


def report(runner: Runner, profile: bool = False) -> str:
    """A readable description of the program that ran last.

    Args:
        runner: of a step or a function.
        profile: also measure each part, on inputs of zeros.

    Raises:
        GpubpError: nothing was compiled yet.
        BackendError: the backend cannot measure.
    """
    ready = runner.last
    if ready is None:
        raise GpubpError("nothing is compiled yet: call the step or function once, then report().")
    program = ready.program
    if not profile:
        return "\n".join(_table(program, runner.backend.name) + _summary(program))
    with runner.lock:
        times = _measure(runner, ready)
        peak = _peak(runner)
    bounds = [
        peak.bound(p.flops, p.bytes_moved) if peak and time else 0.0
        for p, time in zip(program.parts, times)
    ]
    timings = [Timing(*pair) for pair in zip(times, bounds)]
    lines = _table(program, runner.backend.name, timings) + _summary(program)
    return "\n".join(lines + _roofline(timings, peak))


def _peak(runner: Runner) -> Peak | None:
    """The backend's peak; None if it measures parts but not that."""
    try:
        return runner.backend.peak()
    except BackendError:
        return None


def _measure(runner: Runner, ready: Ready) -> list[float]:
    return runner.backend.profile(ready.loaded, feed_of_zeros(ready.program))


def _table(program: Program, backend: str, timings: Sequence[Timing] | None = None) -> list[str]:
    width = _PLAIN if timings is None else _PROFILED
    lines = [
        f"backend {backend}: {len(program.instructions)} instructions for {program.unfused_ops} "
        f"ops, {program.syncs} SYNCs a step",
        f"{'':4}{'instruction':<{width}}{'kFLOP':>10}{'kB moved':>10}"
        + (_MEASURES if timings is not None else "")
        + "  shared by",
    ]
    measured = iter(timings or ())
    for i, instruction in enumerate(program.instructions):
        if instruction.sync:
            lines.append("    -- SYNC --")
        for j, part in enumerate(instruction.parts):
            mark = f"{i:3d} " if j == 0 else "  & "
            lines.append(_line(mark, part, next(measured, None)))
    return [*lines, "    -- SYNC --"]


def _summary(program: Program) -> list[str]:
    share = program.bytes_moved / max(program.unfused_bytes, 1)
    grads = [b.name for b in program.buffers if b.name.startswith("grads")]
    return [
        f"arithmetic {program.flops / 1e3:.1f} kFLOP a step",
        f"bytes moved {program.bytes_moved / 1e3:.1f} kB fused, {program.unfused_bytes / 1e3:.1f} "
        f"kB with one kernel per op ({share:.0%})",
        f"arena {program.arena_bytes / 1e3:.1f} kB",
        f"gradient buffers: {', '.join(grads) if grads else 'none'}",
    ]


def _roofline(timings: Sequence[Timing], peak: Peak | None) -> list[str]:
    total = Timing(sum(t.seconds for t in timings), sum(t.bound for t in timings))
    if peak is None:
        return [f"measured {total.seconds * 1e6:.1f} us a step, each part alone"]
    return [
        f"measured {total.seconds * 1e6:.1f} us a step, each part alone on one worker; "
        f"bound {total.bound * 1e6:.1f} us, share {total.share}",
        f"peak {peak.flops / 1e9:.1f} GFLOP/s and {peak.bytes / 1e9:.1f} GB/s (each operand once), "
        "one worker in cache",
    ]


def _line(mark: str, part: Part, timing: Timing | None) -> str:
    name = f"{part.kernel}: {part.name}" if part.kernel not in part.name else part.name
    width = _PLAIN if timing is None else _PROFILED
    if len(name) > width - 2:
        name = name[: width - 5] + "..."
    share = f"{part.rows} {part.shared}" if part.rows else "one worker"
    line = f"{mark}{name:<{width}}{part.flops / 1e3:>10.1f}{part.bytes_moved / 1e3:>10.1f}"
    if timing is not None:
        rate = timing.seconds * 1e9 if timing.seconds > 0 else math.inf  # nothing had to be done
        line += f"{timing.seconds * 1e6:>9.2f}{part.flops / rate:>9.1f}"
        line += f"{part.bytes_moved / rate:>7.1f}{timing.bound * 1e6:>9.2f}{timing.share:>9}"
    return f"{line}  {share}"
