"""A GPU's first hour: everything that could not be proved without one, a step at a time.

`gpubp bench gpu_hour` fills the kernel cache (no GPU needed: `--rows prepare@sm_90/132`, for an
H100 or H200), then runs conformance, trainings, compute-sanitizer, measurements of constants that
were guessed, and benchmarks, each in a process of its own and in less than eight minutes. `--rows`
takes some of the steps, `--folder` where results go: logs, JSON, and a page that says what passed,
what is proved now and which constants to change. Steps that are run later into the same folder are
added to its page.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import hour_report, hour_steps
from common.results import machine, versions

import gpubp as gp
from gpubp.atomic import replacing
from gpubp.backends import get_backend
from gpubp.cli.bench import BenchmarkError, check_options, main
from gpubp.errors import DataError, unknown_name

TARGET = "sm_90/132"  # an H100 or H200, where there is no GPU to ask
UNUSED = ("threads", "optimizers", "peers", "json", "chart")


def measure(options: argparse.Namespace) -> int:
    """Run the steps; the exit code is 0 if all passed.

    Raises:
        BenchmarkError: a step needs a GPU, and there is none.
    """
    check_options(options, "gpu_hour", UNUSED)
    folder = options.folder or default_folder()
    target, names = chosen(options.rows)
    every = hour_steps.steps(folder, target)
    for name in names or ():
        if name not in every:
            raise unknown_name("row", name, every)
    wanted = [every[name] for name in names or every]
    check_gpu(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    summary = read_summary(folder)
    for step in wanted:
        print(f"{step.name}: {step.title}", file=sys.stderr, flush=True)
        summary[step.name] = row = hour_steps.run(step, folder)
        publish(folder, {name: summary[name] for name in every if name in summary})
        ended = "stopped" if row["code"] is None else f"code {row['code']}"
        print(f"{step.name}: {ended}, {row['seconds']} s", flush=True)
    print(f"results: {folder / 'README.md'}")
    return int(any(summary[step.name]["code"] != 0 for step in wanted))


def chosen(rows: str | None) -> tuple[str, list[str] | None]:
    """What to prepare for, and the names of steps; None: all.

    Raises:
        DataError: `prepare@...` names no architecture and number of multiprocessors.
    """
    target = here() or TARGET
    if rows is None:
        return target, None
    names = []
    for name in rows.split(","):
        plain, _, given = name.partition("@")
        names.append(plain)
        if "@" not in name:
            continue
        architecture, _, processors = given.partition("/")
        number = architecture.removeprefix("sm_").rstrip("af")
        if plain != "prepare" or not (number.isdigit() and processors.isdigit()):
            raise DataError(f"--rows has {name!r}, expected such as prepare@sm_90/132.")
        target = given
    return target, names


def here() -> str | None:
    """ "sm_90/132" of the GPU of this machine; None without one."""
    if _reason():
        return None
    driver: Any = get_backend(device="cuda").driver
    return f"{driver.architecture}/{driver.processors}"


def check_gpu(wanted: list[hour_steps.Step]) -> None:
    """Refuse to start what cannot work.

    Raises:
        BenchmarkError: says which steps need a GPU, and why there is none to use.
    """
    needy = [step.name for step in wanted if step.gpu]
    if needy and _reason():
        raise BenchmarkError(
            f"no GPU to measure on: {_reason()} Without one: --rows prepare@{TARGET}."
        )


def _reason() -> str:
    return next((p.reason for p in gp.backends() if p.name == "cupy" and not p.available), "")


def default_folder() -> Path:
    """In the results of the checkout, by the day."""
    day = datetime.now(UTC).date().isoformat()
    return Path(__file__).resolve().parent / "results" / f"gpu-{day}"


def read_summary(folder: Path) -> dict[str, Any]:
    """Of steps that were run before."""
    file = folder / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text())["steps"] if file.exists() else {}
    return found


def publish(folder: Path, summary: dict[str, Any]) -> None:
    """Write what is known so far."""
    about = {**machine(), **versions()}
    for probe in gp.backends():
        if probe.name in ("cupy", "numba_cuda") and probe.available:
            about |= {f"{probe.name} {key}": value for key, value in probe.details.items()}
    for name, text in (
        ("summary.json", json.dumps({"about": about, "steps": summary}, indent=1) + "\n"),
        ("README.md", hour_report.page(summary, about, folder)),
    ):
        with replacing(folder / name, "w") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
