"""Applications beside their twins in PyTorch: what each reaches, and how long its training takes.

Runs `docs/examples/NAME.py` and `benchmarks/torch_applications/NAME.py` in processes of their own,
in turn, and reads what both print: "training took 1.2 s", and a last line "figure 0.9, stated 0.8:
passed". Prints a table on stdout: the figures of the first run of each, and the median of its times
with the least and the most. Training includes compiling its step; libraries are imported before.

    python benchmarks/applications.py                    # all of them: let nothing else run
    python benchmarks/applications.py vae ppo --repeats 3
    python benchmarks/applications.py --short            # does it work at all?
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, TWINS = ROOT / "docs" / "examples", ROOT / "benchmarks" / "torch_applications"
COLUMNS = ("application", "gpubp reached", "PyTorch reached", "gpubp, s", "PyTorch, s")


def run(script: Path, options: list[str]) -> tuple[float, str]:
    """One run of a program: seconds of training, and its last line.

    Raises:
        RuntimeError: it failed, or did not say how long its training took.
    """
    environment = {**os.environ, "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as folder:  # pictures are left there
        done = subprocess.run(
            [sys.executable, str(script), *options],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
    took = re.search(r"^training took ([\d.]+) s", done.stdout, re.MULTILINE)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if took is None or not last.endswith(("passed", "FAILED")):
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return float(took[1]), last


def shown(seconds: list[float]) -> str:
    """Median (least-most)."""
    if not seconds:
        return ""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


def measured(name: str, repeats: int, options: list[str]) -> dict[str, Any]:
    """All runs of one application and of its twin, if it has one."""
    found: dict[str, Any] = {"application": name}
    scripts = {"gpubp": EXAMPLES / f"{name}.py", "torch": TWINS / f"{name}.py"}
    for _ in range(repeats):
        for library, script in scripts.items():
            if not script.exists():
                continue
            seconds, last = run(script, options)
            print(f"{name}, {library}: {seconds:.1f} s, {last}", file=sys.stderr)
            found.setdefault(library, {"reached": last, "seconds": []})["seconds"].append(seconds)
    return found


def main() -> None:
    """Measure what the command line names."""
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
    rows = [measured(n, options.repeats, ["--short"] * options.short) for n in options.names]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        parts = [row.get(library, {"reached": "", "seconds": []}) for library in ("gpubp", "torch")]
        cells = [row["application"], *(p["reached"] for p in parts)]
        print("| " + " | ".join([*cells, *(shown(p["seconds"]) for p in parts)]) + " |")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
