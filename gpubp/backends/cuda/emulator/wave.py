"""Blocks that run together: their lanes, and the memory that is theirs.

Lane `b * threads + t` is thread t of the wave's block b, where `threads` is a block's size up to a
multiple of 32; lanes that no thread stands for have ended before they start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import Dim
from gpubp.backends.cuda.emulator.faults import Index, KernelError
from gpubp.backends.cuda.emulator.memory import ALLOCATED, NONE, WRITTEN, DeviceSpace, Space
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.races import Numbers, Races, Who
from gpubp.backends.cuda.emulator.values import Value

WARP = 32


@dataclass
class Launch:
    """One launch of a kernel.

    Attributes:
        name: of the kernel.
        lines: of the source.
        grid, block: sizes.
        params: the kernel's parameters, as bytes.
        memory: of the device.
        shared: (offset, bytes) of shared variables; the last is what the launch gives.
        shared_bytes, local_bytes: of a block's, and of a thread's memory.
        races: None: races are not looked for.
        numbers: of threads.
        workspace: address of what grid barriers count in.
        early_exit: threads that have ended need not come to a barrier.
        printed: what threads print, in the order in which they do.
        early: it began before the kernel before it has ended, so threads must wait for that
            (griddepcontrol.wait) before they touch the device's memory.
    """

    name: str
    lines: list[str]
    grid: Dim
    block: Dim
    params: bytes
    memory: DeviceSpace
    shared: list[tuple[int, int]]
    shared_bytes: int
    local_bytes: int
    races: Races | None
    numbers: Numbers
    workspace: int = 0
    early_exit: bool = False
    printed: list[str] = field(default_factory=list)
    early: bool = False

    def fault(self, kind: str, reason: str, ins: Instruction | None = None) -> KernelError:
        """An error that is no single block's doing."""
        return KernelError(kind, self.name, reason, **self.place(ins))

    def params_space(self) -> Space:
        """The parameters as memory, for kernels that index them."""
        space = Space(len(self.params), WRITTEN)
        space.data[: len(self.params)] = np.frombuffer(self.params, np.uint8)
        return space

    def place(self, ins: Instruction | None) -> dict[str, Any]:
        """Of an instruction: the source's line."""
        line = ins.line if ins is not None else 0
        known = 0 < line <= len(self.lines)
        return {"line": line, "text": self.lines[line - 1] if known else ""}

    def index(self, block: int) -> Index:
        """Of a block, from its number."""
        x, y, _ = self.grid
        return block % x, block // x % y, block // x // y

    def thread(self, number: int) -> Index:
        """Of a thread, from its number in the block."""
        x, y, _ = self.block
        return number % x, number // x % y, number // x // y


@dataclass
class InFlight:
    """A copy that goes on beside, of some lanes.

    Attributes:
        ins: what started it.
        lanes: of the wave.
        group: for each, the number of the group that it is of.
        space, at: where it goes.
        source: offsets in the device's memory.
        values: words, one array each.
        nbytes: what of them came from there.
    """

    ins: Instruction
    lanes: NDArray[np.int64]
    group: NDArray[np.int64]
    space: Space
    at: Any
    source: Any
    values: list[Value] = field(default_factory=list)
    nbytes: Any = 0

    def taken(self, some: NDArray[np.bool_]) -> InFlight:
        """That of some of its lanes."""
        return replace(
            self,
            lanes=self.lanes[some],
            group=self.group[some],
            at=self.at[some],
            source=self.source[some],
            values=[v[some] for v in self.values],
            nbytes=self.nbytes[some],
        )


class Frame:
    """Some lanes in a block of instructions.

    Attributes:
        R: the registers of these lanes.
        lanes: which lanes of the wave; None: all.
        n: how many.
        mask: the lanes of them that the instruction is for; None: all.
        wave: what they belong to.
    """

    __slots__ = ("R", "lanes", "mask", "n", "wave")

    def __init__(self, R: list[Value], lanes: NDArray[np.int64] | None, n: int, wave: Wave) -> None:
        self.R, self.lanes, self.n, self.wave = R, lanes, n, wave
        self.mask: NDArray[np.bool_] | None = None

    def spread(self, x: Value) -> NDArray[Any]:
        """One element a lane."""
        return x if x.ndim else np.full(self.n, x)

    def ids(self) -> NDArray[np.int64]:
        """The lanes' numbers in the wave."""
        return self.wave.all_lanes if self.lanes is None else self.lanes


class Wave:
    """The lanes of some blocks.

    Args:
        launch: whose blocks.
        first: number of the first one.
        count: how many.
    """

    def __init__(self, launch: Launch, first: int, count: int) -> None:
        self.launch, self.first, self.count = launch, first, count
        self.threads = launch.numbers.threads
        self.size = launch.block[0] * launch.block[1] * launch.block[2]
        self.lanes = count * self.threads
        self.all_lanes = np.arange(self.lanes, dtype=np.int64)
        self.block_of = self.all_lanes // self.threads
        self.thread_of = self.all_lanes % self.threads
        self.exists = self.thread_of < self.size
        self.memory = launch.memory
        self.in_flight: list[InFlight] = []
        self.groups = np.zeros(self.lanes, np.int64)  # of copies, that each lane has closed
        self.shared = self._shared()
        self.local = Space(self.lanes * launch.local_bytes, WRITTEN) if launch.local_bytes else None
        self.waited = None if not launch.early else np.zeros(self.lanes, np.bool_)
        races = launch.races
        if races is not None:
            numbers = (first + self.block_of) * launch.numbers.each + self.thread_of
            times = (np.full(self.lanes, races.now, np.int64) for _ in range(2))
            self._who = Who(numbers, *times)

    def _shared(self) -> Space:
        each = self.launch.shared_bytes
        space = Space(self.count * each, NONE)
        rows = space.state[: self.count * each].reshape(self.count, each)
        for start, nbytes in self.launch.shared:
            rows[:, start : start + nbytes] = ALLOCATED
        space.data[:] = 0xFF  # NaN, and no small number
        return space

    def origin_of_shared(self, lanes: NDArray[np.int64]) -> Any:
        """Where the shared memory of their blocks begins."""
        return 0 if self.count == 1 else self.block_of[lanes] * self.launch.shared_bytes

    def who(self, f: Frame) -> Who:
        """The lanes of a frame, for races."""
        return self._who if f.lanes is None else self._who.take(f.lanes)

    def passed(self, lanes: NDArray[np.int64], warp: bool) -> None:
        """Lanes have passed a barrier of their block, or warp, together."""
        races = self.launch.races
        if races is not None:
            races.now += 1 << 31
            if not warp:
                self._who.block_since[lanes] = races.now
            self._who.warp_since[lanes] = races.now

    def special(self, name: str, f: Frame) -> Value:
        """A special register's value for the lanes of a frame."""
        launch = self.launch
        word, _, axis = name.partition(".")
        if word in ("ntid", "nctaid"):
            return np.uint32((launch.block if word == "ntid" else launch.grid)["xyz".index(axis)])
        if word in ("ctaid", "clusterid") and self.count == 1:
            return np.uint32(launch.index(self.first)["xyz".index(axis)])
        single = self._single(name)
        if single is not None:
            return single
        whole = self._arrays[name]
        return whole if f.lanes is None else whole[f.lanes]

    def _single(self, name: str) -> Value | None:
        if name.startswith(("clock64", "globaltimer")) and not name.endswith("lo"):
            return np.uint64(0)
        if name in ("envreg1", "envreg2"):
            word = self.launch.workspace >> (0 if name == "envreg2" else 32)
            return np.uint32(word & 0xFFFFFFFF)
        if name in ("dynamic_smem_size", "total_smem_size"):
            each = self.launch.shared
            found = each[-1][1] if name[0] == "d" else sum(n for _, n in each)
            return np.uint32(found)
        zeros = ("clock", "clock_hi", "globaltimer_lo", "smid", "gridid")
        if name in zeros:
            return np.uint32(0)
        if name in ("nsmid", "nwarpid"):
            return np.uint32(1 if name == "nsmid" else self.threads // WARP)
        return None

    @cached_property
    def _arrays(self) -> dict[str, NDArray[np.uint32]]:
        x, y, _ = self.launch.block
        gx, gy, _ = self.launch.grid
        t, b = self.thread_of, self.first + self.block_of
        lane = t % WARP
        found = {"tid.x": t % x, "tid.y": t // x % y, "tid.z": t // x // y}
        for word in ("ctaid", "clusterid"):
            found |= {f"{word}.x": b % gx, f"{word}.y": b // gx % gy, f"{word}.z": b // gx // gy}
        found |= {"laneid": lane, "warpid": t // WARP}
        eq = np.int64(1) << lane
        found |= {"lanemask_eq": eq, "lanemask_lt": eq - 1, "lanemask_le": 2 * eq - 1}
        full = np.int64(0xFFFFFFFF)
        found |= {"lanemask_gt": full & ~(2 * eq - 1), "lanemask_ge": full & ~(eq - 1)}
        return {name: a.astype(np.uint32) for name, a in found.items()}

    def fault(self, kind: str, lane: int, reason: str, ins: Instruction | None) -> KernelError:
        """An error of one thread.

        Args:
            kind: see `faults.KINDS`.
            lane: of the wave.
            reason: in words.
            ins: what it did.
        """
        launch = self.launch
        block = launch.index(self.first + int(self.block_of[lane]))
        thread = launch.thread(int(self.thread_of[lane]))
        return KernelError(kind, launch.name, reason, block, thread, **launch.place(ins))

    def named(self, number: int) -> str:
        """A thread by its number for races, in words."""
        if number < 0:
            return "another thread"
        numbers, launch = self.launch.numbers, self.launch
        block = launch.index(number // numbers.each)
        thread = launch.thread(number % numbers.each)
        return f"thread {thread} of block {block}"
