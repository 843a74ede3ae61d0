"""Kernels: gpubp's own, through compiled programs, beside NumPy and SciPy with as many threads.

Matrix products of a dense layer (forward X W, weight gradient X^T dY, input gradient dY W^T),
activations on 1e5 elements, updates of 1e6 parameters, and what a barrier between workers costs.
gpubp repeats a program inside one native call; NumPy is called from Python, with `out=`. Prints a
table on stdout: microseconds a call, and GFLOP/s or millions of elements per second.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from common.charts import Panel, check_chart, draw
from common.contest import Arena, Contender, Outcome, Spread
from common.kernel_tasks import GROUPS, KernelTask, find_tasks
from common.output import Progress, digits, table
from common.results import write

from gpubp.cli.bench import check_options, main, numbers
from gpubp.errors import unknown_name

GPUBP = Contender("gpubp", "gpubp", "common.kernels_gpubp", required=True)
NUMPY = Contender("numpy", "numpy", "common.kernels_numpy")
ONE, ALL = (
    Contender(name, "gpubp", "common.kernels_gpubp", compared=False)
    for name in ("one-worker", "all-workers")
)
# Of results, relative to the largest: sums of up to 1024 products in another order.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
HEADER = ("kernel", "size", "dtype", "contender", "threads", "us", "min", "max")
HEADER += ("rate", "unit", "x gpubp")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "kernels", ("optimizers",))
    check_chart(options.chart)
    tasks = find_tasks((options.rows or ",".join(GROUPS)).split(","))
    threads = numbers(options.threads, "1,2", "--threads")
    contenders = [GPUBP, *_peers(options.peers)]
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    versions: dict[str, str] = {}
    with Progress(len(tasks) * len(threads) * len(contenders) * options.repeats) as progress:
        for count in threads:
            with Arena([*contenders, ONE, ALL], count) as arena:
                versions |= arena.versions
                for task in tasks:
                    if task.group == "barrier" and count == 1:
                        continue
                    progress.begin(f"{task}, threads: {count}")
                    outcome = arena.hold(
                        task,
                        options.repeats,
                        TOLERANCES[task.dtype],
                        progress.advance,
                        (ONE, ALL) if task.group == "barrier" else contenders,
                    )
                    rows += _rows(task, count, outcome)
                    left_out += [f"{n}: {reason}" for n, reason in outcome.left_out.items()]
    print(table(HEADER, [_line(r) for r in rows], 4))
    for line in dict.fromkeys(left_out):
        print(f"left out: {line}", file=sys.stderr)
    if options.json is not None:
        extra = {"left_out": list(dict.fromkeys(left_out)), "versions": versions}
        write(options.json, "kernels", rows, **extra)
    if options.chart is not None:
        draw(options.chart, "A kernel", "us", _panels(rows))
    return 0


def _peers(text: str | None) -> list[Contender]:
    found = {"all": [NUMPY], "numpy": [NUMPY], "none": []}
    if text is not None and text not in found:
        raise unknown_name("peer", text, found)
    return found[text or "all"]


def _rows(task: KernelTask, threads: int, outcome: Outcome) -> list[dict[str, Any]]:
    spreads = outcome.spreads
    if task.group == "barrier":
        if ONE.name not in spreads or ALL.name not in spreads:
            return []
        # The same work without anyone to wait for is taken off.
        alone = spreads[ONE.name].median
        all_of_them = spreads[ALL.name]
        cost = Spread(*(max(0.0, s - alone) for s in asdict(all_of_them).values()))
        spreads = {GPUBP.name: cost}
    unit, scale = task.unit
    return [
        {
            "group": task.group,
            "kernel": task.name,
            "size": task.size,
            "dtype": task.dtype,
            "threads": threads,
            "contender": name,
            "seconds": asdict(spread),
            "rate": None if task.group == "barrier" else task.work / spread.median / scale,
            "unit": unit,
            "times_gpubp": spread.median / max(spreads[GPUBP.name].median, 1e-12),
        }
        for name, spread in spreads.items()
    ]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    seconds = row["seconds"]
    rate = row["rate"]
    return (
        row["kernel"],
        str(row["size"]),
        row["dtype"],
        row["contender"],
        str(row["threads"]),
        *(digits(seconds[key] * 1e6) for key in ("median", "least", "most")),
        "" if rate is None else digits(rate),
        "" if rate is None else row["unit"],
        f"{row['times_gpubp']:.2f}",
    )


def _panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """One for each (group, threads)."""
    found: dict[str, Panel] = {}
    for row in rows:
        title = f"{row['group']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
        panel = found.setdefault(title, Panel(title))
        micro = Spread(**{k: v * 1e6 for k, v in row["seconds"].items()})
        group = f"{row['kernel']} {row['size']} {row['dtype']}"
        panel.add(group, row["contender"], micro, row.get("rounds"))
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
