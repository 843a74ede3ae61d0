"""What is said of the part that is held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli.summary import MANY_CLASSES, SHOWN, counted
from gpubp.data.encoding import Encoding


def of_split(
    found: Encoding,
    parts: tuple[NDArray[Any], NDArray[Any]],
    unit: str,
    where: NDArray[np.int64],
) -> list[str]:
    """Warnings about the part held out: too small, or without some of the classes.

    Args:
        found: the encoding.
        parts: the targets of the training part and of the part held out.
        unit: what a sample is called.
        where: one number a sample, which finds it in the file; training part first.
    """
    held = parts[1]
    if not len(held):
        return []
    warnings = []
    if len(held) < MANY_CLASSES:
        warnings.append(
            f"only {counted(len(held), unit)} {'is' if len(held) == 1 else 'are'} held out: the "
            "score says little. Hold out more (--validation 0.5), or find more data."
        )
    if found.task == "classification":
        counts = [np.bincount(part, minlength=len(found.classes)) for part in parts]
        y = np.concatenate(parts)
        for which, what in (
            (0, "no sample in the training part: nothing is learned of that"),
            (1, "no sample in the part held out: the score does not see that"),
        ):
            absent = np.flatnonzero(counts[which] == 0)
            shown = [
                f"{found.classes[c]!r} ({n} in all; row {where[int(np.argmax(y == c))]})"
                for c in absent[:SHOWN]
                if (n := int(counts[0][c] + counts[1][c]))
            ]
            if shown:
                more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
                warnings.append(
                    f"{found.target!r} has classes with {what}: {', '.join(shown)}{more}. Merge or "
                    "leave out classes that are so rare, or try another --seed."
                )
    return warnings
