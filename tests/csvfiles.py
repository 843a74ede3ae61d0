"""Generated CSV files for the tests of the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

COLOURS = ("red", "green", "blue")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows under a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def regression(path: Path, samples: int = 300, seed: int = 0) -> Path:
    """price = 40 size + what the colour adds + noise; sizes are far from 0 and 1."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(50, 250, samples)
    colour = rng.integers(0, 3, samples)
    price = 40 * size + np.array([0.0, 2000.0, -3000.0])[colour] + rng.normal(0, 50, samples)
    rows = [
        {"id": f"n{i}", "size": round(s, 2), "colour": COLOURS[c], "price": round(p, 1)}
        for i, (s, c, p) in enumerate(zip(size, colour, price, strict=True))
    ]
    return write(path, rows)


def classification(path: Path, samples: int = 300, seed: int = 0) -> Path:
    """The kind follows from length and colour."""
    rng = np.random.default_rng(seed)
    length, width = rng.normal(1000, 300, samples), rng.normal(0, 1e-3, samples)
    colour = rng.integers(0, 3, samples)
    kind = np.where(colour == 2, "cat", np.where(length > 1000, "dog", "emu"))
    rows = [
        {"length": round(n, 1), "width": w, "colour": COLOURS[c], "kind": k}
        for n, w, c, k in zip(length, width, colour, kind, strict=True)
    ]
    return write(path, rows)
