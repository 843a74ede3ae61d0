"""Training steps on a GPU: gpubp beside PyTorch and JAX, in the same run and in turn.

NOT YET RUN ON HARDWARE: written where no GPU was at hand; only its arguments and its refusal
without a GPU have been tried. `--rows` takes the names of train_step's rows, those below, and sizes
such as 64-100-10/200; each with @tf32 or @bf16 behind it. Prints a table on stdout: microseconds
for a step by the host's clock over many steps (median, least and most of the rounds) and by CUDA
events (median), TFLOP/s of the matrix products, their share of the best product that PyTorch
reached in the same rounds and precision, and the time in units of gpubp's.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common.charts import Panel, check_chart, draw
from common.contest import Arena, Outcome, Spread
from common.gpu_roof import COPY_BYTES, SIDE
from common.output import Progress, digits, table
from common.peers import GPU_ROOF, GPUBP, ON_GPU, absence, choose
from common.results import write
from common.rows import OPTIMIZERS, TABLE, Row, Task, find_row

import gpubp as gp
from gpubp.cli.bench import BenchmarkError, check_options, main
from gpubp.errors import UnknownNameError, unknown_name

# Losses of one epoch, relative to the largest: rounding, grown by the updates of the epoch.
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
LARGE = {
    row.name: row
    for row in (
        *(
            Row(f"w{width}-b{batch >> 10}k", (width, width, width, 10), batch, batches=4, epochs=4)
            for width in (64, 128)
            for batch in (1 << 14, 1 << 16, 1 << 18)
        ),
        Row("w4096", (4096, 4096, 4096, 4096), 4096, batches=2, epochs=2),
    )
}
DEFAULT = (*TABLE, *LARGE, "mnistdeep@tf32", "wide@tf32", "w128-b64k@bf16", "w4096@bf16")
HEADER = ("row", "precision", "optimizer", "contender", "us/step", "min", "max", "us by events")
HEADER += ("TFLOP/s", "of GEMM", "x gpubp")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code.

    Raises:
        BenchmarkError: there is no GPU that gpubp can use.
    """
    check_options(options, "gpu", ("threads",))
    check_chart(options.chart)
    rows = [find(name) for name in (options.rows or ",".join(DEFAULT)).split(",")]
    optimizers = (options.optimizers or ",".join(OPTIMIZERS)).split(",")
    for name in optimizers:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer", name, OPTIMIZERS)
    contenders = [replace(GPUBP, required=False), *choose(options.peers or "all", ON_GPU)]
    check_gpu()
    tasks = [Task(row, optimizer) for row, optimizer in itertools.product(rows, optimizers)]
    report = Report()
    everyone = [*contenders, *GPU_ROOF]
    try:
        with (
            Progress(len(tasks) * len(everyone) * options.repeats) as progress,
            Arena(everyone, None, gpu=True) as arena,
        ):
            report.begin(arena)
            for task in tasks:
                progress.begin(str(task))
                tolerance = TOLERANCES[task.row.precision]
                outcome = arena.hold(task, options.repeats, tolerance, progress.advance)
                progress.advance(options.repeats * len(outcome.left_out))
                report.add(task, outcome)
        report.complete = True
    finally:
        # A run takes long: what was measured before an error or an interruption is kept.
        if report.rows:
            report.publish(options.json, options.chart)
    return 0


def find(name: str) -> Row:
    """A row by its name, with the precision behind an @.

    Raises:
        UnknownNameError: no such row or precision.
    """
    plain, _, precision = name.partition("@")
    try:
        row = LARGE[plain] if plain in LARGE else find_row(plain)
    except UnknownNameError as error:
        raise unknown_name("row", plain, [*TABLE, *LARGE, "64-100-10/200"]) from error
    if "@" not in name:
        return row
    if precision not in TOLERANCES:
        raise unknown_name("precision", precision, TOLERANCES)
    return replace(row, precision=precision)


def check_gpu() -> None:
    """Refuse to start without a GPU.

    Raises:
        BenchmarkError: says why gpubp cannot use one.
    """
    reasons = [p.reason for p in gp.backends() if p.name == "cupy" and not p.available]
    if reasons:
        raise BenchmarkError(f"no GPU to measure on: {reasons[0]}")


class Report:
    """What was measured so far; as in train_step.

    Attributes:
        rows: one dict for each (row, optimizer, contender), as in the JSON.
        left_out: contenders that did not take part, and why.
        complete: everything that was asked for is there.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.complete = False
        self._versions: dict[str, str] = {}

    def begin(self, arena: Arena) -> None:
        """Note who is there."""
        self._versions = arena.versions
        self.left_out += [absence(p, p, reason) for p, reason in arena.absent.items()]

    def add(self, task: Task, outcome: Outcome) -> None:
        """Add a contest's numbers."""
        roofs = {c.name for c in GPU_ROOF}
        gemm = outcome.spreads.get(f"gemm-{task.row.precision}")
        roof = None if gemm is None else 2.0 * SIDE**3 / gemm.least * 1e-12
        copy = outcome.spreads.get("copy")
        gpubp = outcome.spreads.get(GPUBP.name)
        for name, spread in outcome.spreads.items():
            if name in roofs:
                continue
            tflops = task.row.flops / spread.median * 1e-12
            device = outcome.device.get(name)
            self.rows.append(
                {
                    **asdict(task.row),
                    "net": list(map(str, task.row.net)),
                    "flops": task.row.flops,
                    "optimizer": task.optimizer,
                    "contender": name,
                    "seconds": asdict(spread),
                    "seconds_by_events": None if device is None else asdict(device),
                    "tflops": tflops,
                    "roof_tflops": roof,
                    "copy_gb_per_s": copy and 2e-9 * COPY_BYTES / copy.least,
                    "share_of_roof": roof and tflops / roof,
                    "times_gpubp": gpubp and spread.median / gpubp.median,
                    "loss_difference": outcome.differences[name],
                }
            )
        for name, reason in outcome.left_out.items():
            line = f"{name} in {task} ({task.row.precision}): {reason}"
            self.left_out += [line] * (line not in self.left_out)

    def publish(self, json: Path | None, chart: Path | None) -> None:
        """Print the table, and write the files that were asked for."""
        print(table(HEADER, [_line(r) for r in self.rows], 4))
        for line in self.left_out:
            print(f"left out: {line}", file=sys.stderr)
        if json is not None:
            extra = {"left_out": self.left_out, "versions": self._versions}
            write(json, "gpu", self.rows, complete=self.complete, **extra)
        if chart is not None:
            draw(chart, "A training step on the GPU", "us", self.panels())

    def panels(self) -> list[Panel]:
        """One for each (optimizer, precision)."""
        found: dict[str, Panel] = {}
        for row in self.rows:
            title = f"{row['optimizer']}, {row['precision']}"
            micro = Spread(**{k: v * 1e6 for k, v in row["seconds"].items()})
            panel = found.setdefault(title, Panel(title))
            panel.add(row["name"], row["contender"], micro, row.get("rounds"))
        return list(found.values())


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    seconds, device = row["seconds"], row["seconds_by_events"]
    return (
        *(row[key] for key in ("name", "precision", "optimizer", "contender")),
        *(digits(seconds[key] * 1e6) for key in ("median", "least", "most")),
        "-" if device is None else digits(device["median"] * 1e6),
        digits(row["tflops"]),
        "-" if row["share_of_roof"] is None else f"{row['share_of_roof']:.0%}",
        "-" if row["times_gpubp"] is None else f"{row['times_gpubp']:.2f}",
    )


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
