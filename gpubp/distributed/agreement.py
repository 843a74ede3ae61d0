"""What must be alike on all ranks is compared before work begins, and what differs is named.

Comes in: facts by name, as texts. Goes out: nothing, or an error that every rank raises alike.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import Communicator
from gpubp.errors import DistributedError

SHOWN = 120  # characters of a fact in an error
LOOKED_AT = 1 << 26  # bytes of an array that its fingerprint is made of


def gather_text(communicator: Communicator, text: str) -> list[str]:
    """Every rank's text, in order of ranks."""
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = communicator.gather(np.array([len(data)], np.int64))[:, 0]
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(data)] = data
    rows = communicator.gather(padded)
    return [row[:n].tobytes().decode() for row, n in zip(rows, lengths.tolist(), strict=True)]


def broadcast_text(communicator: Communicator, text: str, root: int = 0) -> str:
    """The text of the rank `root`."""
    data = np.frombuffer(text.encode(), np.uint8).copy()
    length = np.array([len(data)], np.int64)
    communicator.broadcast(length, root)
    if communicator.rank != root:
        data = np.zeros(int(length[0]), np.uint8)
    communicator.broadcast(data, root)
    return data.tobytes().decode()


def require_alike(communicator: Communicator, facts: Mapping[str, str]) -> None:
    """Compare facts with those of the other ranks.

    Args:
        communicator: of this rank.
        facts: what must be the same everywhere, by name.

    Raises:
        DistributedError: on every rank, if they differ: says in what, and on which rank.
    """
    all_facts = [json.loads(text) for text in gather_text(communicator, json.dumps(dict(facts)))]
    found = differences(all_facts)
    if found:
        raise DistributedError(
            f"the ranks do not fit together: {'; '.join(found)}. Start all of them with the same "
            "program, options, packages and data."
        )


def differences(all_facts: Sequence[Mapping[str, str]]) -> list[str]:
    """How the facts of ranks differ from those of rank 0; one text for each fact that does.

    A fact that some rank does not have follows from another one (an option of another optimiser),
    and is told only where nothing else differs.
    """
    names = dict.fromkeys(name for facts in all_facts for name in facts)
    everywhere = [name for name in names if all(name in facts for facts in all_facts)]
    return _differing(all_facts, everywhere) or _differing(all_facts, list(names))


def _differing(all_facts: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    first, found = all_facts[0], []
    for name in names:
        others = [r for r, facts in enumerate(all_facts) if facts.get(name) != first.get(name)]
        if others:
            other = all_facts[others[0]].get(name)
            ranks = f"rank {others[0]}" if len(others) == 1 else f"ranks {_listed(others)}"
            mine, theirs = _around_difference(str(first.get(name)), str(other))
            found.append(f"{name} is {mine} on rank 0 and {theirs} on {ranks}")
    return found


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")


def _around_difference(a: str, b: str) -> tuple[str, str]:
    """Two texts, cut to where they differ if they are long."""
    if max(len(a), len(b)) <= SHOWN:
        return a, b
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    start = max(0, same - SHOWN // 3)
    cut = [("..." if start else "") + t[start : start + SHOWN] for t in (a, b)]
    return cut[0], cut[1]


def version() -> str:
    """Of gpubp. (The package's own file is asked where it is loaded: it stands above this one.)"""
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def fingerprint(array: Any) -> str:
    """Shape, dtype and a hash of an array's bytes; of one that is very large, of rows spread over
    it; of one on a device, shape and dtype alone."""
    if not isinstance(array, np.ndarray):
        return f"{tuple(array.shape)} {array.dtype}"
    part: NDArray[Any] = array
    if array.ndim and array.nbytes > LOOKED_AT:
        rows = max(1, LOOKED_AT // max(1, array[:1].nbytes))
        part = array[np.linspace(0, len(array) - 1, min(rows, len(array))).astype(np.int64)]
    data = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    return f"{array.shape} {array.dtype} {blake2b(data.data, digest_size=8).hexdigest()}"
