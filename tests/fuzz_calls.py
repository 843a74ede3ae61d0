"""Bad calls of everything public: each ends well, or in an error of gpubp's own.

    python tests/fuzz_calls.py --seed 0 --count 10000

A call follows from its seed alone: `--seed 123 --traceback` shows where it ended.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_targets import TARGETS, write_files
from fuzz_values import Draw

import gpubp
from gpubp.errors import BackendError, GpubpError, VerificationError

SECONDS = 20
# Python's own words for a call that fits no signature: gpubp's, or the user's function's.
SIGNATURE = re.compile(r"(positional|required|unexpected keyword) argument|multiple values for")
HOME = str(Path(gpubp.__file__).parent)


class Verdict(NamedTuple):
    """How a call ended.

    Attributes:
        kind: "returned", "refused" (a gpubp error), "signature" (Python's own error) or "fault".
        detail: of a fault: the error, and the last place in gpubp.
        error: what was raised.
    """

    kind: str
    detail: str = ""
    error: BaseException | None = None


class TooLongError(Exception):
    """A call took too many seconds."""


def _too_long(*_: Any) -> None:
    raise TooLongError


def call(seed: int, folder: Path) -> tuple[str, Verdict]:
    """The call of a seed: its target's name, and how it ended."""
    d = Draw(seed, folder)
    (chosen,) = d.choices(TARGETS, [weight for _, _, weight in TARGETS])
    name, target, _ = chosen
    np.random.seed(seed % 2**32)
    gpubp.manual_seed(seed)
    signal.alarm(SECONDS)
    try:
        target(d)
    except Exception as error:
        return name, judged(error)
    finally:
        signal.alarm(0)
    return name, Verdict("returned")


def judged(error: Exception) -> Verdict:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.filename.startswith(HOME)]
    internal = isinstance(error, (VerificationError, BackendError))
    if isinstance(error, BackendError) and inside[-1].filename.endswith("backends/__init__.py"):
        internal = False  # one that was asked for and is not here
    if isinstance(error, GpubpError) and not internal:
        if len(str(error)) > 15:
            return Verdict("refused", "", error)
        return Verdict("fault", f"an error without advice: {error!r}", error)
    if isinstance(error, TypeError) and (not inside or SIGNATURE.search(str(error))):
        return Verdict("signature", "", error)
    place = f"{inside[-1].filename[len(HOME) + 1 :]}:{inside[-1].lineno}" if inside else "the call"
    return Verdict("fault", f"{type(error).__name__} at {place}", error)


def prepare() -> tempfile.TemporaryDirectory[str]:
    """A folder with the files that calls read, and where they run; warnings off; a bell for long
    calls.
    """
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    signal.signal(signal.SIGALRM, _too_long)
    folder = tempfile.TemporaryDirectory()
    write_files(Path(folder.name))
    os.chdir(folder.name)  # some calls write to names like "x"
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first call")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--traceback", action="store_true", help="of every fault")
    given = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    faults: dict[str, list[str]] = {}
    began = time.monotonic()
    with prepare() as folder:
        for seed in range(given.seed, given.seed + given.count):
            name, verdict = call(seed, Path(folder))
            counts[verdict.kind] += 1
            if verdict.kind == "fault":
                text = str(verdict.error).split("\n")[0][:90]
                faults.setdefault(verdict.detail, []).append(f"{seed} {name}: {text}")
                if given.traceback and verdict.error:
                    traceback.print_exception(verdict.error)
            elif given.traceback:
                print(name, verdict.kind, verdict.error)
    for detail, where in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(f"{len(where):4d} {detail}\n       " + "\n       ".join(where[:3]))
    print(f"{given.count} calls from seed {given.seed}, {time.monotonic() - began:.0f} s: ", end="")
    print(", ".join(f"{kind} {n}" for kind, n in sorted(counts.items())))
    return int(counts["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
