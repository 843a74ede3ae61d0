"""A program's state stays as it is while the program is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpubp.compiler.program import Program
from gpubp.core.store import Bank


@contextmanager
def banks_kept(program: Program) -> Iterator[None]:
    """At the end the program's banks hold what they do now."""
    banks = [b.payload for b in program.buffers if isinstance(b.payload, Bank)]
    saved = [bank.data.copy() for bank in banks]
    try:
        yield
    finally:
        for bank, before in zip(banks, saved, strict=True):
            bank.data[...] = before
