"""Training steps: gpubp beside JAX, PyTorch and scikit-learn, in the same run and in turn.

Cross-entropy, float32, SGD and Adam, one and more threads; every step's loss is returned. Prints a
table on stdout: microseconds for a step (median, least and most of the rounds), GFLOP/s of the
products and convolutions, their share of the sgemm that NumPy reached in the same rounds, and the
time in units of gpubp's.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.charts import Panel, check_chart, draw
from common.contest import Arena, Contender, Outcome, Spread
from common.output import Progress, digits, table
from common.peers import GPUBP, ROOF, SINGLE, absence, choose, suits
from common.results import write
from common.rows import OPTIMIZERS, TABLE, Row, Task, find_row

from gpubp.cli.bench import check_options, main, numbers
from gpubp.errors import unknown_name

HEADER = ("row", "optimizer", "threads", "contender", "us/step", "min", "max")
HEADER += ("GFLOP/s", "of sgemm", "x gpubp")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "train_step", ())
    check_chart(options.chart)
    rows = [find_row(name) for name in (options.rows or ",".join(TABLE)).split(",")]
    optimizers = _optimizers(options.optimizers)
    threads = numbers(options.threads, "1,2", "--threads")
    contenders = [GPUBP, SINGLE, *choose(options.peers or "all"), *ROOF]
    tasks = [Task(row, optimizer) for row, optimizer in itertools.product(rows, optimizers)]
    report = Report()
    try:
        with Progress(len(tasks) * len(threads) * len(contenders) * options.repeats) as progress:
            for count in threads:
                _measure_threads(contenders, tasks, count, options.repeats, progress, report)
        report.complete = True
    finally:
        # A run takes long: what was measured before an error or an interruption is kept.
        if report.rows:
            report.publish(options.json, options.chart)
    return 0


class Report:
    """What was measured so far.

    Attributes:
        rows: one dict for each (row, optimizer, threads, contender), as in the JSON.
        left_out: contenders that did not take part, and why.
        versions: of every contender.
        complete: everything that was asked for is there.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.versions: dict[str, str] = {}
        self.complete = False

    def leave_out(self, line: str) -> None:
        """Note it once."""
        if line not in self.left_out:
            self.left_out.append(line)

    def add(self, task: Task, threads: int, outcome: Outcome) -> None:
        """Add a contest's numbers."""
        products = zip(*[outcome.rounds[c.name] for c in ROOF], strict=True)
        roof_rounds = [1e-9 / min(seconds) for seconds in products]
        roof = max(roof_rounds)
        gpubp = outcome.spreads[GPUBP.name].median
        for name, spread in outcome.spreads.items():
            if name in [c.name for c in ROOF]:
                continue
            gflops = task.row.flops / spread.median * 1e-9
            self.rows.append(
                {
                    **_describe(task.row),
                    "optimizer": task.optimizer,
                    "threads": threads,
                    "contender": name,
                    "seconds": asdict(spread),
                    "rounds": outcome.rounds[name],
                    "gflops": gflops,
                    "roof_gflops": roof,
                    "roof_rounds": roof_rounds,
                    "share_of_roof": gflops / roof,
                    "times_gpubp": spread.median / gpubp,
                    "loss_difference": outcome.differences[name],
                }
            )

    def publish(self, json: Path | None, chart: Path | None) -> None:
        """Print the table, and write the files that were asked for."""
        print(table(HEADER, [_line(r) for r in self.rows], 4))
        for line in self.left_out:
            print(f"left out: {line}", file=sys.stderr)
        if json is not None:
            extra = {"left_out": self.left_out, "versions": self.versions}
            write(json, "train_step", self.rows, complete=self.complete, **extra)
        if chart is not None:
            draw(chart, "A training step", "us", self.panels())

    def panels(self) -> list[Panel]:
        """One for each (optimizer, threads)."""
        found: dict[str, Panel] = {}
        for row in self.rows:
            title = f"{row['optimizer']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
            panel = found.setdefault(title, Panel(title))
            micro = Spread(**{k: v * 1e6 for k, v in row["seconds"].items()})
            panel.add(row["row"], row["contender"], micro, row["rounds"])
        return list(found.values())


def _measure_threads(
    contenders: list[Contender],
    tasks: list[Task],
    threads: int,
    repeats: int,
    progress: Progress,
    report: Report,
) -> None:
    with Arena(contenders, threads) as arena:
        report.versions |= arena.versions
        for peer, reason in arena.absent.items():
            report.leave_out(absence(peer, peer, reason))
        for task in tasks:
            title = f"{task}, threads: {threads}"
            progress.begin(title)
            asked = [c for c in contenders if suits(c, task.row)]
            outcome = arena.hold(task, repeats, task.row.tolerance, progress.advance, asked)
            progress.advance(repeats * (len(contenders) - len(outcome.rounds)))
            report.add(task, threads, outcome)
            absent = [c.name for c in contenders if c.peer in arena.absent]
            for name, reason in outcome.left_out.items():
                if name not in absent:
                    report.leave_out(f"{name} in {title}: {reason}")


def _optimizers(text: str | None) -> list[str]:
    found = (text or ",".join(OPTIMIZERS)).split(",")
    for name in found:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer", name, OPTIMIZERS)
    return found


def _describe(row: Row) -> dict[str, Any]:
    return {
        "row": row.name,
        "layers": list(row.layers or map(str, row.net)),
        "sample": list(row.sample),
        "batch": row.batch,
        "activation": row.activation,
        "flops": row.flops,
    }


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    seconds = row["seconds"]
    return (
        row["row"],
        row["optimizer"],
        str(row["threads"]),
        row["contender"],
        *(digits(seconds[key] * 1e6) for key in ("median", "least", "most")),
        digits(row["gflops"]),
        f"{row['share_of_roof']:.0%}",
        f"{row['times_gpubp']:.2f}",
    )


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
