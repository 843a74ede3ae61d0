"""Training scripts of PyTorch as they are, under torch.compile, and trained in place by gpubp.

`torch_scripts/NAME.py` is a script as tutorials have it; `NAME_gpubp.py` is the same one with at
most three other lines. Under torch.compile runs the first one with `model = torch.compile(model)`
behind the model. Each runs in a process of its own, in turn, round after round; the time is that of
an epoch as the script prints it, the first of which includes compiling. Every epoch of every round
is kept.

    python benchmarks/torch_scripts.py --rounds 5 --json scripts.json   # let nothing else run
    python benchmarks/torch_scripts.py mlp --epochs 2 --samples 256     # does it work at all?
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "torch_scripts"
NAMES = ("mlp", "cnn", "lstm", "transformer", "autoencoder")
WAYS = ("torch", "torch.compile", "gpubp")
_EPOCH = re.compile(r"^epoch \d+: loss ([-\d.naninf]+), ([\d.]+) s$", re.MULTILINE)
_OPTIMIZER = re.compile(r"^(?=optimizer = )", re.MULTILINE)


def changed_lines(name: str) -> int:
    """How many lines of gpubp's variant are not in the script."""
    before, after = ((FOLDER / f"{n}.py").read_text() for n in (name, f"{name}_gpubp"))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return sum(1 for line in list(lines)[2:] if line.startswith("+") and line.strip("+ "))


def source(name: str, way: str) -> str:
    """The script that is run."""
    if way == "gpubp":
        return (FOLDER / f"{name}_gpubp.py").read_text()
    text = (FOLDER / f"{name}.py").read_text()
    if way == "torch.compile":
        text = _OPTIMIZER.sub("model = torch.compile(model)\n", text, count=1)
    return text


def run(name: str, way: str, environment: dict[str, str]) -> dict[str, Any]:
    """One run: the losses and seconds of its epochs.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / f"{name}.py"
        script.write_text(source(name, way))
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
    epochs = _EPOCH.findall(done.stdout)
    if done.returncode or not epochs:
        raise RuntimeError(f"{name}, {way} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {"losses": [float(e[0]) for e in epochs], "seconds": [float(e[1]) for e in epochs]}


def measured(name: str, rounds: int, environment: dict[str, str]) -> dict[str, Any]:
    """All rounds of one script, in turn."""
    found: dict[str, Any] = {"script": name, "changed_lines": changed_lines(name)}
    found["rounds"] = {way: [] for way in WAYS}
    for number in range(rounds):
        turn = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
        for way in turn:
            result = run(name, way, environment)
            found["rounds"][way].append(result)
            steady = statistics.median(result["seconds"][1:] or result["seconds"])
            print(f"{name}, {way}: {steady:.4f} s an epoch", file=sys.stderr)
    for way in WAYS:
        later = [s for r in found["rounds"][way] for s in r["seconds"][1:] or r["seconds"]]
        found[f"{way}, s an epoch"] = statistics.median(later)
        first = [r["seconds"][0] for r in found["rounds"][way]]
        found[f"{way}, s first epoch"] = statistics.median(first)
    return found


def shown(rows: list[dict[str, Any]]) -> str:
    """A table."""
    lines = ["| script | lines changed | " + " | ".join(f"{w}, s" for w in WAYS) + " | speed-up |"]
    lines.append("|---" * (len(WAYS) + 3) + "|")
    for row in rows:
        times = [row[f"{way}, s an epoch"] for way in WAYS]
        cells = " | ".join(f"{t:.4f}" for t in times)
        ratio = times[0] / times[-1]
        lines.append(f"| {row['script']} | {row['changed_lines']} | {cells} | {ratio:.1f} |")
    return "\n".join(lines)


def about(environment: dict[str, str]) -> dict[str, Any]:
    """Where this was measured."""
    import torch

    import gpubp

    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpubp": gpubp.__version__,
        "environment": environment,
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(NAMES), help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--threads", type=int, default=2, help="of each library (2)")
    parser.add_argument("--epochs", type=int, help="default is the script's")
    parser.add_argument("--samples", type=int, help="default is the script's")
    parser.add_argument("--json", type=Path, help="where all numbers go")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    environment = {"OMP_NUM_THREADS": str(args.threads), "GPUBP_NUM_THREADS": str(args.threads)}
    for key in ("epochs", "samples"):
        if getattr(args, key) is not None:
            environment[key.upper()] = str(getattr(args, key))
    rows = [measured(name, args.rounds, environment) for name in args.names]
    if args.json:
        args.json.write_text(json.dumps({"about": about(environment), "rows": rows}, indent=1))
    print(shown(rows))


if __name__ == "__main__":
    main()
