"""Where values live between programs: slots (named arrays) packed into flat banks.

A `Slot` is one array that outlives any program: a weight, an optimiser moment, a learning rate, a
random-number counter. Compiling packs slots of one dtype back to back into a flat `Bank`; a slot
then is a view of its bank, and every program that names the slot reads and writes that memory.

Holds in between: a slot belongs to at most one bank, for ever; `slot.value` is always the live
array; offsets in a bank are multiples of 64 bytes, and the padding between slots is zero. A copy
or pickle of a slot is a new slot with a value of its own, in no bank yet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core.interop import host_array
from gpubp.errors import DTypeError, ShapeError

ALIGN_BYTES = 64
_first_byte: Callable[[Any], Any] = ctypes.c_char.from_buffer


class DeviceCopy(Protocol):
    """A bank's copy on a device."""

    def sync_host(self) -> None:
        """Bring the host's copy up to date; from now on the host may write into it."""
        ...

    def change(self, work: Callable[[int], None]) -> None:
        """Let `work` change the device's copy, whose address it gets; the host's is older then."""
        ...


TAIL = 16  # elements behind a bank's data
Zeros = Callable[[int, Any], NDArray[Any]]  # what makes memory: of a size and a dtype, aligned


class Bank:
    """A flat buffer of one dtype that holds many slots.

    Attributes:
        label: what the bank holds ("params", "exp_avg", "scalars", ...).
        slots: the slots packed here, in the order of their offsets.
        device_copy: the copy on a device, if a device backend has one; it may be newer.
        has_device_copies: some bank has a copy on a device.
    """

    has_device_copies: ClassVar[bool] = False

    def __init__(
        self, label: str, dtype: np.dtype[Any], size: int, zeros: Zeros | None = None
    ) -> None:
        self.label = label
        self._whole = (zeros or aligned_zeros)(size + TAIL, dtype)
        self._data = self._whole[:size]
        self.slots: list[Slot] = []
        self.device_copy: DeviceCopy | None = None

    @property
    def data(self) -> NDArray[Any]:
        """Shape (size,), C-contiguous, 64-byte aligned; up to date, and may be written into."""
        self.sync_host()
        return self._data

    @property
    def with_tail(self) -> NDArray[Any]:
        """Shape (size + TAIL,): `data`, and behind it room for a few numbers that are to travel
        with it in one message."""
        self.sync_host()
        return self._whole

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def size(self) -> int:
        return int(self._data.size)

    def sync_host(self) -> None:
        """The host is about to read or write: fetch what a device has computed."""
        if self.device_copy is not None:
            self.device_copy.sync_host()

    def attach(self, device_copy: DeviceCopy | None) -> NDArray[Any]:
        """Let `device_copy` hold the copy on a device from now on; returns the host's array."""
        if self.device_copy is not None and self.device_copy is not device_copy:
            self.device_copy.sync_host()
        self.device_copy = device_copy
        Bank.has_device_copies = Bank.has_device_copies or device_copy is not None
        return self._data

    def __repr__(self) -> str:
        return f"Bank({self.label}, {self.dtype}, size={self.size}, slots={len(self.slots)})"


class Slot:
    """One named array outside all programs.

    Args:
        name: shown in reports and errors.
        value: the initial value; copied.
        dtype: default is the dtype of `value`.
    """

    _announces = True  # nothing that traces read of it changes without; see gpubp.core.facts

    def __init__(self, name: str, value: ArrayLike, dtype: Any = None) -> None:
        self.name = name
        given = host_array(value, name)
        # A dtype that gpubp has not, of an array of NumPy's, is refused and not widened.
        own = value.dtype if isinstance(value, (np.ndarray, np.generic)) else given.dtype
        self._value: NDArray[Any] = np.array(_kept(given, dtype or own, name), order="C")
        self.shape: tuple[int, ...] = self._value.shape
        self.dtype: np.dtype[Any] = self._value.dtype
        self.bank: Bank | None = None
        self.offset = 0

    @property
    def size(self) -> int:
        return int(self._value.size)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def value(self) -> NDArray[Any]:
        """The live array: writing into it is seen by every program.

        Where a device backend runs, get it again after each run: an array from before is the host's
        copy as it was then.
        """
        if self.bank is not None:
            self.bank.sync_host()
        return self._value

    @value.setter
    def value(self, new: ArrayLike) -> None:
        self.value[...] = self.fitting(new)

    def fitting(self, new: ArrayLike) -> NDArray[Any]:
        """A value as this slot would take it; nothing is changed.

        Raises:
            ShapeError: of another shape.
            DTypeError, DataError: floats for integers or the like, or what
                `gpubp.core.interop.host_array` refuses.
        """
        array = host_array(new, self.name)
        if array.shape != self.shape:
            raise ShapeError(
                f"{self.name}: got a value of shape {array.shape}, expected {self.shape}."
            )
        return _kept(array, self.dtype, self.name)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is a new array: it must not keep half of a link to the bank of the original.
        return {**self.__dict__, "_value": self.value.copy(), "bank": None, "offset": 0}

    def place(self, bank: Bank, offset: int) -> None:
        """Move the value into `bank` at `offset` (elements); from now on it is a view of it."""
        view = bank.data[offset : offset + self.size].reshape(self.shape)
        view[...] = self._value
        self._value, self.bank, self.offset = view, bank, offset
        bank.slots.append(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, shape={self.shape}, dtype={self.dtype})"


def _kept(array: NDArray[Any], dtype: Any, name: str) -> NDArray[Any]:
    """The array in a slot's dtype: floats are rounded to floats, all else must stay as it is."""
    target = np.dtype(dtype)
    if target == array.dtype or target.kind == "f":
        return array.astype(target, copy=False)
    with np.errstate(invalid="ignore"):
        made = array.astype(target)
    if not np.array_equal(made, array):
        raise DTypeError(
            f"{name} is of {target} and cannot hold the value given, of {array.dtype}: numbers "
            "would change. Round or encode it first."
        )
    return made


def aligned_zeros(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros of shape (size,) whose first element is 64-byte aligned."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGN_BYTES, dtype=np.uint8)
    start = -address_of(raw) % ALIGN_BYTES
    return raw[start : start + size * dtype.itemsize].view(dtype)


def address_of(array: NDArray[Any]) -> int:
    """Where the first element is in memory. (NumPy's own answer takes five times as long.)"""
    try:
        return ctypes.addressof(_first_byte(array))
    except (BufferError, TypeError, ValueError):  # read-only, empty, or with gaps
        found: int = array.__array_interface__["data"][0]
        return found


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def pack(label: str, slots: Iterable[Slot], zeros: Zeros | None = None) -> list[Bank]:
    """Give every slot that has no bank yet a place in a new one, one new bank a dtype.

    `zeros` makes the memory; default is memory of this process.
    """
    homeless: dict[np.dtype[Any], list[Slot]] = {}
    for slot in slots:
        if slot.bank is None and slot not in homeless.get(slot.dtype, []):
            homeless.setdefault(slot.dtype, []).append(slot)
    banks = []
    for dtype, group in homeless.items():
        step = ALIGN_BYTES // dtype.itemsize
        size = sum(round_up(max(s.size, 1), step) for s in group)
        bank = Bank(label, dtype, size, zeros)
        offset = 0
        for slot in group:
            slot.place(bank, offset)
            offset += round_up(max(slot.size, 1), step)
        banks.append(bank)
    return banks


def siblings(
    label: str, slots: Sequence[Slot], fill: float = 0.0, zeros: Zeros | None = None
) -> list[Slot]:
    """New slots beside existing ones: same shape, dtype and offset, in a bank of the same size.

    Optimiser moments are made so: `state[i]` belongs to `params[i]`, element for element. `zeros`
    makes the memory; default is memory of this process.
    """
    banks: dict[Bank, Bank] = {}
    out = []
    for slot in slots:
        if slot.bank is None:
            raise ValueError(f"{slot.name} has no bank yet: call pack() first.")
        bank = banks.get(slot.bank)
        if bank is None:
            bank = banks[slot.bank] = Bank(label, slot.dtype, slot.bank.size, zeros)
        # One number seen in a shape: the slot's own copy is the only one made.
        start = np.broadcast_to(np.asarray(fill, slot.dtype), slot.shape)
        twin = Slot(f"{slot.name}.{label}", start)
        twin.place(bank, slot.offset)
        out.append(twin)
    return out
