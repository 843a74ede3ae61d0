"""Draws result files of `train_step` as one chart.

    python benchmarks/chart.py RESULT.json... --out chart.png

Nothing is measured. Where files hold the same row, the last one counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common.charts import check_chart, draw
from train_step import Report

from gpubp.cli.bench import BenchmarkError


def main() -> int:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path, help=".png or .svg")
    options = parser.parse_args()
    check_chart(options.out)
    report, rows, machines = Report(), {}, {}
    for path in options.results:
        content = json.loads(path.read_text())
        if content.get("benchmark") != "train_step":
            print(f"left out: {path} is of {content.get('benchmark')}", file=sys.stderr)
            continue
        machines[f"{content['machine']['cores']} x {content['machine']['cpu']}"] = None
        for row in content["rows"]:
            rows[row["row"], row["optimizer"], row["threads"], row["contender"]] = row
    if not rows:
        raise BenchmarkError("no result of train_step among these files.")
    report.rows = list(rows.values())
    draw(options.out, f"A training step: {', '.join(machines)}", "us", report.panels())
    return 0


if __name__ == "__main__":
    sys.exit(main())
