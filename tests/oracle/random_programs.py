"""Random programs: gpubp and PyTorch train each alike, on every backend.

    python tests/oracle/random_programs.py --seed 0 --count 5000 --backends numba1,numba2,numba3

A program follows from its seed alone: `--seed 123 --show` prints it and runs it.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

if __name__ == "__main__":  # pytest finds these folders by itself
    root = Path(__file__).resolve().parents[1]
    sys.path += [str(root), str(root / "cuda")]

import torch
from program_mine import Mine
from program_theirs import Theirs
from programs import Data, Outcome, largest, recipe

from gpubp.backends.numba_cpu import NumbaBackend

TOLERANCE = 1e-9
# Of PyTorch against itself, with weights and gradients that differ by this share, several times.
SHAKE, TRIES = 1e-13, 8
BACKENDS = ("numba1", "numba2", "numba3")


class Verdict(NamedTuple):
    """What came of one program on one backend.

    Attributes:
        kind: "agrees", "undetermined", "disagrees" or "error".
        detail: where and by how much, or the error.
    """

    kind: str
    detail: str


@cache
def backend(name: str) -> Any:
    """ "numpy", "numba1" to "numba3", "cuda"."""
    if name.startswith("numba"):
        return NumbaBackend(workers=int(name[5:]))
    if name == "cuda":
        from shim_backend import shim_backend

        return shim_backend("random")
    return name


def check(
    seed: int, backends: tuple[str, ...] = BACKENDS, verify: bool | None = None
) -> dict[str, Verdict]:
    """Train the program of a seed everywhere; a verdict for each backend.

    `verify` False: what the passes made is verified for the first backend alone.
    """
    r = recipe(seed)
    data = Data(r)
    verdicts: dict[str, Verdict] = {}
    expected: Outcome | None = None
    first: Outcome | None = None
    start: Any = None
    for name in backends:
        try:
            mine = Mine(r, data, backend(name), None if name == backends[0] else verify)
            start = mine.start
            found = mine.run()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            text = str(error).split("\n")[0]
            verdicts[name] = Verdict("error", f"{type(error).__name__} at {where}: {text}")
            continue
        if expected is None:
            expected = Theirs(r, data, start).run()
        verdicts[name] = _judged(r, data, start, found, expected)
        if name.startswith("numba"):
            first = first or found
            if largest(found.apart(first))[0] != 0.0:
                verdicts[name] = Verdict("disagrees", "not the bits of the first number of workers")
    return verdicts


def _judged(r: Any, data: Any, start: Any, found: Outcome, expected: Outcome) -> Verdict:
    """Each number must be PyTorch's, or one that PyTorch itself leaves to rounding."""
    apart = found.apart(expected)
    most, where = largest(apart)
    if most <= TOLERANCE:
        return Verdict("agrees", f"{most:.1e}")
    shaken = [Theirs(r, data, start, SHAKE * (i + 1)).run().apart(expected) for i in range(TRIES)]
    moved = {name: np.max([s[name] for s in shaken], 0) for name in apart}
    excess = {
        name: np.where(a <= np.maximum(TOLERANCE, 10 * moved[name]), 0.0, a)
        for name, a in apart.items()
    }
    if largest(excess)[0]:
        most, where = largest(excess)
        text = f"{where} by {most:.1e}; PyTorch's own moved by {moved[where].max(initial=0.0):.1e}"
        return Verdict("disagrees", text)
    return Verdict("undetermined", f"{where} by {most:.1e}, where PyTorch's own moves, too")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--backends", default=",".join(BACKENDS), help="numpy, numba1..3, cuda")
    parser.add_argument("--show", action="store_true", help="print each program")
    given = parser.parse_args()
    os.environ.setdefault("GPUBP_VERIFY", "1")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    counts: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    for seed in range(given.seed, given.seed + given.count):
        if given.show:
            print(recipe(seed))
        for name, verdict in check(seed, tuple(given.backends.split(",")), False).items():
            counts[f"{name} {verdict.kind}"] += 1
            if verdict.kind != "agrees" or given.show:
                print(f"seed {seed} {name}: {verdict.kind}: {verdict.detail}", flush=True)
    print(f"{given.count} programs from seed {given.seed}, {time.monotonic() - began:.0f} s:")
    print("\n".join(f"  {key}: {n}" for key, n in sorted(counts.items())))
    return int(any("disagrees" in key or "error" in key for key in counts))


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
