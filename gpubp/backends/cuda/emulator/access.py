"""Places that lanes read and write, and what is checked of each access.

In this order: alignment, bounds, memory that nobody wrote (of loads; not in local memory, where
compilers copy structs with their gaps), races.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.memory import (
    ALLOCATED,
    GLOBAL_BASE,
    LOCAL_BASE,
    PARAM_BASE,
    SHARED_BASE,
    SPACE_BITS,
    WRITTEN,
    Space,
)
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.races import Conflict, Who
from gpubp.backends.cuda.emulator.values import BITS, Value
from gpubp.backends.cuda.emulator.wave import Frame

BASES = {"shared": SHARED_BASE, "local": LOCAL_BASE, "param": PARAM_BASE}


@dataclass
class Places:
    """Where some lanes look.

    Attributes:
        space: the memory.
        name: "global", "shared" or "local".
        at: offsets: one a lane, or one for all.
        chosen: positions of these lanes in the frame; None: all.
        n: how many lanes.
        origin: what is taken from an offset to get one that the kernel knows.
    """

    space: Space
    name: str
    at: Any
    chosen: Any
    n: int
    origin: Any


def locate(f: Frame, name: str, address: Value, width: int, ins: Instruction) -> list[Places]:
    """Where the lanes of a frame look, one entry a space.

    Args:
        f: the lanes.
        name: a space; "" for generic addresses.
        address: in it.
        width: bytes of an access.
        ins: for errors.

    Raises:
        KernelError: an address that is not aligned, or beyond the memory of a block or thread.
    """
    chosen = None if f.mask is None else np.flatnonzero(f.mask)
    if chosen is not None and address.ndim:
        address = address[chosen]
    n = f.n if chosen is None else len(chosen)
    if name:
        return [_in_space(f, name, address, chosen, n, width, ins)]
    kinds = address >> np.uint64(SPACE_BITS)
    found = []
    for space in (*BASES, "global"):
        number = np.uint64(BASES.get(space, 0) >> SPACE_BITS)
        here = kinds == number if space in BASES else (kinds < 1) | (kinds > len(BASES))
        if not np.any(here):
            continue
        if np.all(here):
            base = np.uint64(BASES.get(space, 0))
            return [_in_space(f, space, address - base, chosen, n, width, ins)]
        some = np.flatnonzero(here)
        part = some if chosen is None else chosen[some]
        inner = address[some] - np.uint64(BASES.get(space, 0))
        found.append(_in_space(f, space, inner, part, len(some), width, ins))
    return found


def _in_space(
    f: Frame, name: str, address: Value, chosen: Any, n: int, width: int, ins: Instruction
) -> Places:
    wave = f.wave
    if (address & np.uint64(width - 1)).any():
        lane = _lane(f, chosen, np.flatnonzero(f.spread(address & np.uint64(width - 1)))[0])
        bad = int(address if not address.ndim else address[_first(address & np.uint64(width - 1))])
        text = f"{width} bytes at the {name} address {bad:#x}, which is no multiple of {width}"
        raise wave.fault("alignment", lane, text, ins)
    if name in ("global", "const"):
        at = (address - np.uint64(GLOBAL_BASE)).astype(np.int64)
        return Places(wave.memory, "global", at, chosen, n, 0)
    shared, launch = name == "shared", wave.launch
    each = {"shared": launch.shared_bytes, "local": launch.local_bytes}.get(
        name, len(launch.params)
    )
    beyond = address > np.uint64(max(each - width, 0))
    if each < width or np.any(beyond):
        i = _first(beyond) if np.any(beyond) else 0
        bad = int(address[i] if address.ndim else address)
        text = f"{width} bytes at byte {bad:#x} of {name} memory, of which there are {each}"
        raise wave.fault("bounds", _lane(f, chosen, i), text, ins)
    if name == "param":
        return Places(launch.params_space(), name, address.astype(np.int64), chosen, n, 0)
    space = wave.shared if shared else wave.local
    assert space is not None
    ids = f.ids() if chosen is None else f.ids()[chosen]
    origin = wave.origin_of_shared(ids) if shared else ids * each
    return Places(space, name, address.astype(np.int64) + origin, chosen, n, origin)


def _first(wrong: Any) -> int:
    found = np.flatnonzero(wrong)
    return int(found[0]) if len(found) else 0


def _lane(f: Frame, chosen: Any, i: int) -> int:
    """The wave's lane of the i-th of the chosen ones."""
    return int(f.ids()[i if chosen is None else chosen[i]])


def check_state(f: Frame, p: Places, width: int, wanted: int, ins: Instruction) -> None:
    """Raises KernelError: out of bounds, not written before it is read, or a copy that goes on
    beside is on its way there.
    """
    trace = f.wave.memory.trace
    if trace is not None and p.name == "global":
        trace.note(p.at, width, wanted, ins.words[0] in ("atom", "red"))
    if f.wave.waited is not None and p.name == "global":
        _check_waited(f, p, ins)
    wrong = p.space.lacking(p.at, width, wanted)
    wrong = p.space.flying(p.at, width) if wrong is None else wrong
    if wrong is None:
        return
    i = _first(wrong)
    at = int(p.at[i] if np.ndim(p.at) else p.at)
    outside = p.space.lacking(np.int64(at), width, ALLOCATED) is not None
    flying = p.space.flying(np.int64(at), width) is not None
    lane = _lane(f, p.chosen, i)
    verb = "reads" if wanted == WRITTEN else "writes"
    if p.name == "global":
        where = f.wave.memory.describe(at)
    else:
        own = at - int(p.origin[i] if np.ndim(p.origin) else p.origin)
        where = f"byte {own} of {p.name} memory"
    if outside:
        text = f"{verb} {width} bytes out of bounds: {where}"
        raise f.wave.fault("bounds", lane, text, ins)
    if flying:
        text = f"{verb} {where}, where a copy that nobody has waited for (cp.async) is on its way"
        raise f.wave.fault("race", lane, text, ins)
    raise f.wave.fault("unwritten", lane, f"reads {width} bytes that nobody wrote: {where}", ins)


def _check_waited(f: Frame, p: Places, ins: Instruction) -> None:
    """Raises KernelError: the kernel before may still run, and lanes did not wait for it."""
    waited = f.wave.waited
    assert waited is not None
    ids = f.ids() if p.chosen is None else f.ids()[p.chosen]
    lacking = np.flatnonzero(~waited[ids])
    if len(lacking):
        text = "uses device memory before griddepcontrol.wait, while the kernel before may run"
        raise f.wave.fault("race", int(ids[lacking[0]]), text, ins)


def raced(f: Frame, p: Places, conflict: Conflict | None, verb: str, ins: Instruction) -> None:
    """Raises KernelError: if there is a conflict."""
    if conflict is None:
        return
    at = conflict.place
    if p.name == "global":
        where = f.wave.memory.describe(at)
    else:
        origin = p.origin[conflict.lane] if np.ndim(p.origin) else p.origin
        where = f"byte {at - int(origin)} of shared memory"
    other = f.wave.named(conflict.other)
    did = "wrote" if conflict.wrote else "read"
    text = f"{verb} {where}, which {other} {did}, and no barrier stands between"
    raise f.wave.fault("race", _lane(f, p.chosen, conflict.lane), text, ins)


def watched(f: Frame, p: Places) -> tuple[Any, Who] | None:
    """Offsets and lanes, one each, where races are looked for; None where not."""
    if f.wave.launch.races is None or p.name in ("local", "param"):
        return None
    who = f.wave.who(f)
    at = p.at if np.ndim(p.at) else np.full(p.n, p.at)
    return at, (who if p.chosen is None else who.take(p.chosen))


@dataclass(frozen=True)
class Access:
    """What an instruction loads or stores.

    Attributes:
        ins: the instruction.
        space: "" for generic addresses.
        width: bytes of an element.
        count: elements, back to back.
        ordered: it is atomic, volatile, relaxed, acquires or releases.
    """

    ins: Instruction
    space: str
    width: int
    count: int = 1
    ordered: bool = False

    def load(self, f: Frame, address: Value) -> list[Value]:
        """The elements' bits; of lanes that the mask leaves out, anything."""
        nbytes = self.width * self.count
        found: list[Value] = []
        for p in locate(f, self.space, address, nbytes, self.ins):
            wanted = ALLOCATED if p.name == "local" else WRITTEN
            check_state(f, p, nbytes, wanted, self.ins)
            seen = watched(f, p)
            races = f.wave.launch.races
            if seen is not None and races is not None:
                shared = p.name == "shared"
                conflict = races.read(p.space, seen[0], nbytes, seen[1], shared, self.ordered)
                raced(f, p, conflict, "reads", self.ins)
            parts = [p.space.load(p.at + i * self.width, self.width) for i in range(self.count)]
            found = self._placed(f, p, parts, found)
        return found

    def _placed(self, f: Frame, p: Places, parts: list[Value], found: list[Value]) -> list[Value]:
        if p.chosen is None:
            return parts
        found = found or [np.zeros(f.n, BITS[self.width]) for _ in parts]
        for whole, part in zip(found, parts):
            whole[p.chosen] = part
        return found

    def store(self, f: Frame, address: Value, values: list[Value]) -> None:
        """Write elements' bits."""
        nbytes = self.width * self.count
        for p in locate(f, self.space, address, nbytes, self.ins):
            check_state(f, p, nbytes, ALLOCATED, self.ins)
            given = [v if p.chosen is None or not np.ndim(v) else v[p.chosen] for v in values]
            seen = watched(f, p)
            if seen is None:
                at = p.at
                if not np.ndim(at) and any(np.ndim(v) for v in given):
                    at = np.full(p.n, at)
                for i, value in enumerate(given):
                    p.space.store(at + i * self.width, value, self.width)
            else:
                self._store_watched(f, p, given, *seen)

    def _store_watched(self, f: Frame, p: Places, given: list[Value], at: Any, who: Who) -> None:
        races = f.wave.launch.races
        assert races is not None
        shared = p.name == "shared"
        for i, value in enumerate(given):
            here = at + i * self.width
            changes = p.space.load(here, self.width) != value
            found = races.write(p.space, here, self.width, who, shared, changes, self.ordered)
            raced(f, p, found, "writes", self.ins)
            p.space.store(here, value, self.width)
            if not self.ordered:
                differs = p.space.load(here, self.width) != value
                raced(f, p, races.collided(p.space, here, differs), "writes", self.ins)
