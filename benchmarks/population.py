"""Populations: 64 small models side by side, beside JAX's vmap of a scan; and a grid search.

A step of a member: gather its own batch, forward, cross-entropy, backward, SGD, in float32; members
have weights, orders and rates of their own. `gpubp-loop` trains the same models one after the
other, each with a step of its own; `gpubp-one` is the first of them alone. `search` is a
GridSearchCV of scikit-learn's interface, 12 settings and 5 folds on digits; there `gpubp-loop` is
scikit-learn's own loop, in one process, over gpubp's networks. Prints a table on stdout:
microseconds a member-step (seconds of the search), median, least and most of the rounds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from common.contest import Arena, Contender, Outcome
from common.output import Progress, digits, table
from common.population_tasks import MEMBERS, SEARCH, SearchTask, find_tasks
from common.results import write

from gpubp.cli.bench import check_options, main, numbers
from gpubp.errors import DataError, unknown_name

_GPUBP = "common.population_gpubp"
OURS = [
    Contender("gpubp", "gpubp", _GPUBP, required=True),
    Contender("gpubp-loop", "gpubp", _GPUBP, required=True),
    Contender("gpubp-one", "gpubp", _GPUBP, compared=False, required=True),
]
JAX = Contender("jax-vmap", "jax", "common.population_jax")
SEARCHES = [
    Contender("gpubp", "gpubp-search", "common.population_search"),
    Contender("gpubp-loop", "gpubp-search", "common.population_search"),
    Contender("sklearn", "sklearn", "common.population_search", False),
]
TOLERANCE = 1e-4  # of losses after one epoch, relative to the largest
HEADER = ("row", "threads", "contender", "median", "min", "max", "unit", "x gpubp")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "population", ("optimizers",))
    if options.chart is not None:
        raise DataError("--chart means nothing to the benchmark population; leave it out.")
    names = (options.rows or ",".join([*MEMBERS, SEARCH])).split(",")
    threads = numbers(options.threads, "2", "--threads")
    peers = _peers(options.peers)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    versions: dict[str, str] = {}
    for count in threads:
        tasks = find_tasks(names, count)
        searches = any(isinstance(task, SearchTask) for task in tasks)
        trained = [*OURS, *([JAX] if "jax" in peers else [])]
        searching = [c for c in SEARCHES if c.name != "sklearn" or "sklearn" in peers]
        everyone = [*trained, *(searching if searches else [])]
        with (
            Progress(len(tasks) * len(trained) * options.repeats) as progress,
            Arena(everyone, count) as arena,
        ):
            versions |= arena.versions
            for task in tasks:
                progress.begin(f"{task}, threads: {count}")
                mine = searching if isinstance(task, SearchTask) else trained
                outcome = arena.hold(task, options.repeats, TOLERANCE, progress.advance, mine)
                rows += _rows(task, count, outcome)
                left_out += [f"{n} in {task}: {why}" for n, why in outcome.left_out.items()]
    print(table(HEADER, [_line(row) for row in rows], 3))
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if options.json is not None:
        write(options.json, "population", rows, left_out=left_out, versions=versions)
    return 0


def _peers(text: str | None) -> list[str]:
    known = ["jax", "sklearn"]
    asked = {"all": known, "none": []}.get(text or "all", (text or "").split(","))
    for name in asked:
        if name not in known:
            raise unknown_name("peer", name, ["all", "none", *known])
    return asked


def _rows(task: Any, threads: int, outcome: Outcome) -> list[dict[str, Any]]:
    spreads = outcome.spreads
    if "gpubp" not in spreads:
        return []
    return [
        {
            "row": task.name,
            "threads": threads,
            "contender": name,
            "seconds": asdict(spread),
            "rounds": outcome.rounds[name],
            "unit": "s" if isinstance(task, SearchTask) else "us a member-step",
            "times_gpubp": spread.median / spreads["gpubp"].median,
        }
        for name, spread in spreads.items()
    ]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    scale = 1.0 if row["unit"] == "s" else 1e6
    times = [digits(row["seconds"][k] * scale) for k in ("median", "least", "most")]
    name, count = row["row"], str(row["threads"])
    return (name, count, row["contender"], *times, row["unit"], digits(row["times_gpubp"]))


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
