"""What the first hour told, as one page: which steps passed, which of the things that docs/gpu.md
calls unproved are proved now, and which constants to change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ALL_OPS = tuple(f"conformance-{i}" for i in range(1, 5))
# What docs/gpu.md's table of proofs says "not yet" to, by how its row begins, and the steps that
# prove it on hardware.
PROVES: dict[str, tuple[str, ...]] = {
    "every kernel's arithmetic": (*_ALL_OPS, "sanitizer-memcheck", "sanitizer-racecheck"),
    "the PTX that NVRTC makes": (*_ALL_OPS, "sanitizer-initcheck", "sanitizer-synccheck"),
    "whole training runs": ("tests-training", "tests-loops"),
    "that they compile": _ALL_OPS,
    "rounding to TF32": _ALL_OPS,
    "which element each register": _ALL_OPS,
    "the `mma` instruction itself": _ALL_OPS,
    "arrays of other libraries": ("tests-arrays",),
    "chunks: same bits": ("tests-training",),
    "products by cuBLASLt": ("tests-library",),
    "the bindings' names": ("tests-library",),
    "that cuBLASLt has plans": ("tests-library",),
    "memory, copies, launches": (*_ALL_OPS, "tests-training"),
    "the same through cuda.core": ("numba-cuda",),
    "kernels of `numba.cuda`": ("numba-cuda",),
    "launches, recordings, copies": ("tests-training",),
    "the persistent step": ("tests-persistent", "sanitizer-racecheck"),
    "products and convolutions of factors": _ALL_OPS,
    "branches of graphs": ("tests-training", "benchmark-branches"),
    "kernels that begin early": ("tests-early", "tests-looped"),
    "contraction of products": _ALL_OPS,
    "`cvt` to TF32": _ALL_OPS,
    "that a thread keeps its context": ("tests-arrays", "constants"),
    "speed": ("benchmark-small", "benchmark-large"),
}


def unproved(page: str) -> list[str]:
    """The first column of each row of docs/gpu.md's table of proofs whose last says "not yet"."""
    rows = [line.strip().strip("|").split("|") for line in page.splitlines() if line[:1] == "|"]
    return [row[0].strip() for row in rows if row[-1].strip() == "not yet"]


def proved(beginning: str, summary: Mapping[str, Mapping[str, Any]]) -> str:
    """ "yes", "no: which steps failed", or "not run: which are left"."""
    needed = PROVES[beginning]
    failed = [name for name in needed if name in summary and summary[name]["code"] != 0]
    if failed:
        return "no: " + ", ".join(failed)
    left = [name for name in needed if name not in summary]
    return "not run: " + ", ".join(left) if left else "yes"


def page(summary: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any], folder: Path) -> str:
    """The results as Markdown."""
    lines = ["# A GPU's first hour", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "| step | what | ended | seconds |", "|---|---|---|---|"]
    for name, row in summary.items():
        ended = {0: "passed", None: "stopped: out of time"}.get(row["code"], f"code {row['code']}")
        lines.append(f"| {name} | {row['title']} | {ended} | {row['seconds']} |")
    lines += [
        "",
        "## Unproved until now",
        "",
        "| what docs/gpu.md calls unproved | now |",
        "|---|---|",
    ]
    lines += [f"| {beginning} | {proved(beginning, summary)} |" for beginning in PROVES]
    lines += ["", "## Constants", ""]
    file = folder / "constants.json"
    found = json.loads(file.read_text()) if file.exists() else {"rows": []}
    lines += [f"- {row['said']}" for row in found["rows"]] or ["Not measured."]
    bad = {name: row for name, row in summary.items() if row["code"] != 0}
    for name, row in bad.items():
        lines += ["", f"## {name}", "", f"`{row['command']}`", "", "```text"]
        lines += [*row["last"], "```"]
    return "\n".join(lines) + "\n"
