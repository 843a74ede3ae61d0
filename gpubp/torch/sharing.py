"""One memory for a tensor of torch and a slot of gpubp.

Comes in: parameters and buffers of torch modules. Goes out: slots with their numbers; once a
program has given the slots their banks, the tensors' data are views of these.

Holds in between: a tensor has one slot for as long as it lives, so several steps over one model
train the same parameters. A tensor whose data were replaced (`load_state_dict(assign=True)`) is
read into its slot, and shares its memory again, before the next step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from gpubp.core.store import Bank, address_of
from gpubp.errors import DataError
from gpubp.nn.parameter import Buffer, Parameter
from gpubp.torch.dtypes import as_array, numpy_dtype

_SLOTS: Any = WeakTensorKeyDictionary()


def slot_of(tensor: Any, name: str, trained: bool) -> Buffer:
    """The slot of a tensor; made at the first time.

    Args:
        tensor: in the host's memory, of a dtype that gpubp has.
        name: for errors and reports.
        trained: it is a parameter; else a buffer.

    Raises:
        DTypeError, DataError: it cannot be shared.
    """
    known: Buffer | None = _SLOTS.get(tensor)
    if known is not None and _fits(known, tensor):
        return known
    numpy_dtype(tensor.dtype, name)
    array = as_array(tensor, name)
    if trained and tensor.dtype.is_floating_point:
        made: Buffer = Parameter(array, tensor.requires_grad, name)
    else:
        made = Buffer(array, name)
    _SLOTS[tensor] = made
    return made


def _fits(slot: Buffer, tensor: Any) -> bool:
    return slot.shape == tuple(tensor.shape) and slot.dtype == numpy_dtype(tensor.dtype)


class Link:
    """A tensor and its slot.

    Args:
        tensor, slot: of one shape and dtype.
    """

    __slots__ = ("_address", "slot", "tensor")

    def __init__(self, tensor: Any, slot: Buffer) -> None:
        self.tensor, self.slot = tensor, slot
        self._address = 0

    @property
    def holds(self) -> bool:
        """They are one memory."""
        found: int = self.tensor.data_ptr()
        return found == self._address

    def pull(self) -> None:
        """The tensor is about to be read by a step: take over what others have put there."""
        if not self.holds:
            if not _fits(self.slot, self.tensor):
                raise DataError(
                    f"{self.slot.name} is now {self.tensor.dtype}{tuple(self.tensor.shape)}; the "
                    f"step was made for {self.slot.dtype}{self.slot.shape}. Make a new one with "
                    "gpubp.torch.compile_step."
                )
            if self.tensor.data_ptr() != address_of(self.slot.value):
                self.slot.value = as_array(self.tensor, self.slot.name)
        if isinstance(self.slot, Parameter):
            needed = self.tensor.requires_grad
            if needed is not self.slot.requires_grad:
                self.slot.requires_grad_(needed)

    def push(self) -> None:
        """A step has run: let the tensor's memory be the slot's."""
        if not self.holds and self.slot.bank is not None:
            value = self.slot.value
            self.tensor.data = torch.from_numpy(value)
            self._address = address_of(value) if value.size else self.tensor.data_ptr()


class Links:
    """The tensors that a step reads and writes, each once."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}

    def slot(self, tensor: Any, name: str, trained: bool) -> Buffer:
        """The slot of a tensor, which is shared from now on."""
        link = self._links.get(id(tensor))
        if link is None:
            link = self._links[id(tensor)] = Link(tensor, slot_of(tensor, name, trained))
        return link.slot

    def pull(self) -> None:
        """Before a step."""
        for link in self._links.values():
            link.pull()

    def push(self) -> None:
        """After a step: what a device has computed is in the host's memory then."""
        for link in self._links.values():
            link.push()
        if Bank.has_device_copies:
            for link in self._links.values():
                if link.slot.bank is not None:
                    link.slot.bank.sync_host()
