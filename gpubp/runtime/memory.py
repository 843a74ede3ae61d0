"""What the members of a population have in the place of banks.

Comes in: the banks that programs name, as they are first needed. Goes out: for each member an array
like each bank. The programs are compiled once, for the slots; where a slot's values lie for one
member is decided by its row here.

Holds in between: rows begin on cache lines, and no two members share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from gpubp.compiler.program import Program
from gpubp.core.store import Bank, Slot, aligned_zeros


class Memory:
    """Values of slots, one for each member.

    Args:
        members: how many.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self._rows: dict[Bank, NDArray[Any]] = {}

    def rows(self, bank: Bank) -> NDArray[Any]:
        """(members, size of the bank); at first each member has what stands in the bank."""
        found = self._rows.get(bank)
        if found is None:
            found = aligned_zeros(self.members * bank.size, bank.dtype)
            found = self._rows[bank] = found.reshape(self.members, bank.size)
            found[...] = bank.data
        return found

    def stacked(self, slot: Slot) -> NDArray[Any]:
        """The live values of a slot, (members, *shape); it must have a bank."""
        assert slot.bank is not None
        part = self.rows(slot.bank)[:, slot.offset : slot.offset + slot.size]
        return part.reshape(self.members, *slot.shape)

    def banks_of(self, programs: Iterable[Program]) -> list[Bank]:
        """All banks that programs name, each once."""
        buffers = [buffer for program in programs for buffer in program.buffers]
        return list({b.payload: None for b in buffers if isinstance(b.payload, Bank)})

    def of(self, member: int, banks: Sequence[Bank]) -> Mapping[Bank, NDArray[Any]]:
        """A member's arrays in the place of these banks."""
        return {bank: self.rows(bank)[member] for bank in banks}

    def copy(self, source: int, target: int, kept: Sequence[Slot]) -> None:
        """Give one member all that another has, but these slots."""
        own = [self.stacked(slot)[target].copy() for slot in kept]
        for rows in self._rows.values():
            rows[target] = rows[source]
        for slot, value in zip(kept, own, strict=True):
            self.stacked(slot)[target] = value
