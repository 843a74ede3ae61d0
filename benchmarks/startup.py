"""Startup: from the start of a process to trained digits (20 epochs of Adam, batches of 32).

Every contender trains the same network on the bundled images in a new process, with its default
number of threads, until it prints the loss. Beside them: Python that does nothing, Python that
imports gpubp, and gpubp with an empty kernel cache (measured once, because it compiles for long).
Prints a table on stdout: seconds, median, least and most of the rounds.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from common.charts import Panel, check_chart, draw
from common.children import environment
from common.contest import Contender, Spread
from common.output import Progress, digits, table
from common.peers import GPUBP, INSTALL, absence, choose
from common.results import write

from gpubp.cli.bench import BenchmarkError, check_options, main

# The last epoch's mean loss of a network that has learned the digits; untrained it is 2.3.
TRAINED_LOSS = 0.2
COLD = "gpubp, empty cache"


@dataclass
class Job:
    """A process to start.

    Attributes:
        name: in the table.
        peer: for messages.
        arguments: of Python.
        trains: it prints a loss, which is checked.
        required: a failure ends the benchmark.
        seconds: of the rounds so far.
    """

    name: str
    peer: str
    arguments: list[str]
    trains: bool = True
    required: bool = False
    seconds: list[float] = field(default_factory=list)


class CannotStartError(Exception):
    """A process ended with an error; the message is its last line."""


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "startup", ("rows", "threads", "optimizers"))
    check_chart(options.chart)
    jobs = [
        Job("python", "python", ["-c", "print(0)"], trains=False, required=True),
        Job("import gpubp", "gpubp", ["-c", "import gpubp; print(0)"], False, True),
        *(_training_job(c) for c in (GPUBP, *choose(options.peers or "all"))),
    ]
    left_out: list[str] = []
    with Progress(len(jobs) * (options.repeats + 1) + 1) as progress:
        progress.begin("warming up")
        ready = [job for job in jobs if _takes_part(job, left_out, progress)]
        for round_ in range(options.repeats):
            progress.begin(f"round {round_ + 1} of {options.repeats}")
            for job in ready:
                job.seconds.append(_start(job))
                progress.advance()
        progress.begin(COLD)
        ready.append(_cold_job())
        progress.advance()
    rows = [_row(job) for job in ready]
    print(table(("process", "s", "min", "max", "rounds"), [_line(r) for r in rows], 1))
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if options.json is not None:
        packages = {INSTALL[job.peer] for job in ready if job.peer in INSTALL}
        versions = {name: metadata.version(name) for name in sorted(packages)}
        write(options.json, "startup", rows, left_out=left_out, versions=versions)
    if options.chart is not None:
        draw(options.chart, "From process start to trained digits", "s", [_panel(rows)])
    return 0


def _training_job(contender: Contender) -> Job:
    arguments = ["-m", "common.startup_job", contender.module, contender.name]
    return Job(contender.name, contender.peer, arguments, required=contender.required)


def _takes_part(job: Job, left_out: list[str], progress: Progress) -> bool:
    """Start a job once: fills the caches of files and kernels, and shows whether it works."""
    progress.advance()
    try:
        _start(job)
    except CannotStartError as error:
        if job.required:
            raise BenchmarkError(f"{job.name}: {error}") from error
        missing = "ModuleNotFoundError" in str(error)
        left_out.append(absence(job.name, job.peer, str(error)) if missing else str(error))
        return False
    return True


def _start(job: Job, **variables: str) -> float:
    """Seconds from the start of the process to its first line."""
    with tempfile.TemporaryFile("w+") as messages:
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-P", *job.arguments],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment(None) | variables,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
        if process.returncode != 0:
            messages.seek(0)
            text = messages.read().strip() or f"exit code {process.returncode}"
            raise CannotStartError(text.splitlines()[-1])
    loss = float(line)
    if job.trains and not (math.isfinite(loss) and loss < TRAINED_LOSS):
        raise BenchmarkError(
            f"{job.name} has a loss of {loss} after training, expected less than {TRAINED_LOSS}."
        )
    return seconds


def _cold_job() -> Job:
    job = _training_job(GPUBP)
    job.name = COLD
    with tempfile.TemporaryDirectory() as folder:
        job.seconds.append(_start(job, GPUBP_CACHE_DIR=folder))
    return job


def _row(job: Job) -> dict[str, Any]:
    spread = asdict(Spread.of(job.seconds))
    return {"process": job.name, "seconds": spread, "rounds": len(job.seconds)}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    seconds = row["seconds"]
    shown = [digits(seconds[key]) for key in ("median", "least", "most")]
    return (row["process"], *shown, str(row["rounds"]))


def _panel(rows: list[dict[str, Any]]) -> Panel:
    panel = Panel("default number of threads")
    for row in rows:
        panel.add(row["process"], "seconds", Spread(**row["seconds"]))
    return panel


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
