"""What a program does, as a table: instructions, fusion, arithmetic, bytes, memory.

A `Report` is a text, and in a notebook a table; `plot` draws it, `rows` holds its numbers.
With a profile, each part's measured time stands beside its roofline bound: the time that its
arithmetic or its bytes, whichever is longer, take at the best rates of the backend (`Peak`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from gpubp.backends.base import Peak, feed_of_zeros
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.errors import BackendError, GpubpError
from gpubp.runtime.program_cache import Ready, Runner
from gpubp.runtime.report_rows import ReportRow, Timing

# Widths of the column of names: a profile needs the room.
_PLAIN, _PROFILED = 58, 50
_MEASURES = f"{'us':>9}{'GFLOP/s':>9}{'GB/s':>7}{'bound':>9}{'of peak':>9}"


class Report(str):
    """What a program does: print it, `plot` it, or read its `rows`.

    Attributes:
        rows: one for each part, in the order in which they run.
        backend: its name.
        peak: the best rates of the backend; None without a profile, or where it is not known.
    """

    rows: tuple[ReportRow, ...]
    backend: str
    peak: Peak | None

    def __new__(
        cls, text: str, rows: Sequence[ReportRow], backend: str, peak: Peak | None
    ) -> Report:
        made = super().__new__(cls, text)
        made.rows, made.backend, made.peak = tuple(rows), backend, peak
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.rows, self.backend, self.peak

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the time of each part beside its roof; without a profile, arithmetic and bytes.

        Args:
            path: a file to write the figure to (.png, .svg, .pdf); None for none.

        Returns:
            The matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
            DataError: the program has no parts, or another ending.
        """
        from gpubp import pictures
        from gpubp.runtime import report_picture

        figure = report_picture.draw(self.rows, self.backend)
        if path is not None:
            pictures.save(figure, path)
        return figure

    def _repr_html_(self) -> str:
        from gpubp.runtime import report_picture

        return report_picture.as_table(self.rows, self.backend, self)


def report(runner: Runner, profile: bool = False) -> Report:
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
    program, backend = ready.program, runner.backend.name
    remarks = list(runner.backend.remarks(ready.loaded))
    if not profile:
        lines = _table(program, backend) + _summary(program) + remarks
        return Report("\n".join(lines), _rows(program, None), backend, None)
    with runner.lock:
        times = _measure(runner, ready)
        peak = _peak(runner)
    bounds = [
        peak.bound(p.flops, p.bytes_moved) if peak and time else 0.0
        for p, time in zip(program.parts, times)
    ]
    timings = [Timing(*pair) for pair in zip(times, bounds)]
    lines = _table(program, backend, timings) + _summary(program) + remarks
    lines += _roofline(timings, peak)
    return Report("\n".join(lines), _rows(program, timings), backend, peak)


def _rows(program: Program, timings: Sequence[Timing] | None) -> list[ReportRow]:
    measured, found = iter(timings or ()), []
    for i, instruction in enumerate(program.instructions):
        for part in instruction.parts:
            row = (i, _name(part), part.kernel, part.flops, part.bytes_moved, _shared(part))
            found.append(ReportRow(*row, next(measured, None)))
    return found


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
    name = _name(part)
    width = _PLAIN if timing is None else _PROFILED
    if len(name) > width - 2:
        name = name[: width - 5] + "..."
    line = f"{mark}{name:<{width}}{part.flops / 1e3:>10.1f}{part.bytes_moved / 1e3:>10.1f}"
    if timing is not None:
        rate = timing.seconds * 1e9 if timing.seconds > 0 else math.inf  # nothing had to be done
        line += f"{timing.seconds * 1e6:>9.2f}{part.flops / rate:>9.1f}"
        line += f"{part.bytes_moved / rate:>7.1f}{timing.bound * 1e6:>9.2f}{timing.share:>9}"
    return f"{line}  {_shared(part)}"


def _name(part: Part) -> str:
    return f"{part.kernel}: {part.name}" if part.kernel not in part.name else part.name


def _shared(part: Part) -> str:
    return f"{part.rows} {part.shared}" if part.rows else "one worker"
