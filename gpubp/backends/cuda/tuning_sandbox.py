"""Memory in which launches are tried without touching the program's; room for what they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpubp.backends.cuda.copies import Copies, reach_bytes
from gpubp.backends.cuda.drivers.base import Driver, Memory
from gpubp.backends.cuda.launch import AnyLaunch, Context, Encode, Workspace
from gpubp.backends.cuda.products import ALIGNED
from gpubp.compiler.parts import Part


class Sandbox:
    """Memory in place of the program's, where one part may write as it likes.

    Args:
        part: whose operands get memory.
        context: of the program; addresses are as aligned as there.
        driver: gives the memory.

    Raises:
        DeviceMemoryError: there is not enough.
    """

    def __init__(self, part: Part, context: Context, driver: Driver) -> None:
        self._driver = driver
        self._keep: list[Memory] = []
        starts: dict[int, int] = {}
        for buffer, (low, high) in _extents(part).items():
            memory = self._allocate(high - low)
            starts[buffer] = memory.address - low
        entries = {b: e for b in starts if (e := context.locate(b)[1]) is not None}
        table = np.zeros(max(entries.values(), default=0) + 1, np.int64)
        for buffer, entry in entries.items():
            table[entry] = starts[buffer]
        words = self._allocate(table.nbytes)
        driver.upload(words.address, table)

        def locate(buffer: int) -> tuple[int, int | None]:
            return (0, entries[buffer]) if buffer in entries else (starts[buffer], None)

        self.context = replace(
            context, locate=locate, table=words.address, copies=Copies(), workspace=Workspace()
        )

    def _allocate(self, nbytes: int) -> Memory:
        memory = self._driver.allocate(nbytes)
        self._keep.append(memory)
        return memory

    def make_room(self, encode: Encode) -> None:
        """Make room for what the launches of `encode` need beside operands."""
        self._keep += size_workspace(lambda: encode(self.context), self.context, self._driver)

    def encoded(self, encode: Encode) -> Sequence[AnyLaunch]:
        """The launches, with every copy that they need."""
        self.context.copies.begin()
        return encode(self.context)


def size_workspace(encode: Callable[[], Any], context: Context, driver: Driver) -> list[Memory]:
    """Encode once to learn how much room copies and partial results need, and give it to them.

    Returns:
        The memory, to be kept as long as the launches.

    Raises:
        DeviceMemoryError: there is not enough.
    """
    encode()
    kept = context.copies.allocate(driver)
    if context.workspace.nbytes:
        memory = driver.allocate(context.workspace.nbytes)
        context.workspace.address = memory.address
        kept.append(memory)
    return kept


def _extents(part: Part) -> dict[int, tuple[int, int]]:
    """The bytes of each buffer that a part touches, from a multiple of ALIGNED on."""
    found: dict[int, tuple[int, int]] = {}
    for operand, _ in part.operands():
        first, last = reach_bytes(operand)
        low, high = found.get(operand.buffer, (first, last))
        found[operand.buffer] = min(low, first) // ALIGNED * ALIGNED, max(high, last)
    return found
