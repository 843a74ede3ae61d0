"""A command that several ranks run: rank 0 speaks and writes, and an error of one ends all."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gpubp.cli.failures import DIVERGED, INTERRUPTED, Speech

if TYPE_CHECKING:
    from gpubp.distributed import Communicator

_known: list[Communicator] = []


def communicator(options: argparse.Namespace) -> Communicator | None:
    """That of the ranks that were started together, if this is one of several.

    On all but rank 0, the options are made quiet.

    Raises:
        DistributedError, MissingExtraError: see `gpubp.distributed.init`.
    """
    from gpubp.distributed.starting import init, place_of

    if place_of(os.environ).size == 1:
        return None
    made = init()
    _known.append(made)
    if made.rank:
        options.quiet = Speech.silent = True
    return made


def leave(code: int) -> None:
    """Before the process ends: with an error of this rank, let MPI end the others too. (All ranks
    hear of a run that diverged or was interrupted, and end by themselves.)"""
    for made in _known:
        abort = getattr(made, "abort", None)
        if code not in (0, DIVERGED, INTERRUPTED) and abort is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            abort(code)
        made.close()
    _known.clear()
    Speech.silent = False
