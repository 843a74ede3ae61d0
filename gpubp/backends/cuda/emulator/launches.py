"""A launch: what a GPU would refuse is refused, then the grid runs, wave by wave.

Comes in: a translated kernel and what `cuLaunchKernel` takes. Goes out: memory as the kernel leaves
it, or a `KernelError`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.backends.cuda.drivers.base import SHARED_BYTES, Dim
from gpubp.backends.cuda.emulator.executor import Run
from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.emulator.memory import DeviceSpace, Piece
from gpubp.backends.cuda.emulator.program import Kernel
from gpubp.backends.cuda.emulator.races import Numbers, Races
from gpubp.backends.cuda.emulator.wave import WARP, Launch, Wave

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
MOST_THREADS: Dim = (1024, 1024, 64)
MOST_BLOCKS: Dim = (2**31 - 1, 65535, 65535)
MOST_PARAMS = 4096
MOST_SHARED = {
    75: 64 << 10,
    80: 163 << 10,
    86: 99 << 10,
    89: 99 << 10,
    90: 227 << 10,
    100: 227 << 10,
}
WAVE_LANES = 1 << 14


@dataclass
class Device:
    """What launches run on.

    Attributes:
        memory: of the device.
        architecture: such as 90.
        clock: goes on from launch to launch, so that older accesses are told from new ones.
    """

    memory: DeviceSpace
    architecture: int = 90
    clock: int = 1
    _workspace: Piece | None = None

    def workspace(self) -> int:
        """The address of what grid barriers count in, of zeros."""
        if self._workspace is None:
            self._workspace = self.memory.allocate(256)
        self.memory.write(self._workspace.address, np.zeros(256, np.uint8))
        return self._workspace.address

    def most_shared(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        known = [a for a in MOST_SHARED if a <= self.architecture]
        return MOST_SHARED[max(known, default=75)]


@dataclass
class Sizes:
    """Of a launch: blocks, threads of each, bytes of dynamic shared memory, and how many are
    allowed.
    """

    grid: Dim
    block: Dim
    shared: int = 0
    allowed: int = SHARED_BYTES


def launch(
    device: Device,
    kernel: Kernel,
    sizes: Sizes,
    params: bytes,
    races: bool = True,
    together: bool = False,
    early_exit: bool = False,
    early: bool = False,
) -> list[str]:
    """Run a kernel.

    Args:
        device: where.
        kernel: what.
        sizes: of the launch.
        params: the parameters' bytes.
        races: look for races, too.
        together: all blocks are alive at a time, as in a cooperative launch.
        early_exit: threads that have ended need not come to a barrier.
        early: see `wave.Launch`.

    Returns:
        What threads printed.

    Raises:
        KernelError: a GPU refuses the launch, or a thread did something wrong.
    """
    check(kernel, sizes, params, device)
    x, y, z = sizes.block
    threads = -(-x * y * z // WARP) * WARP
    numbers = Numbers(threads)
    blocks = sizes.grid[0] * sizes.grid[1] * sizes.grid[2]
    watch = None
    if races and blocks * numbers.each < (1 << 31) - 1:
        watch = Races(numbers, device.clock << 31, kernel.fences, kernel.granule)
    about = Launch(
        kernel.name,
        kernel.lines,
        sizes.grid,
        sizes.block,
        params,
        device.memory,
        [*kernel.shared, (kernel.dynamic, sizes.shared)],
        -(-(kernel.dynamic + sizes.shared) // 16) * 16,
        kernel.local_bytes,
        watch,
        numbers,
        device.workspace() if together else 0,
        early_exit,
        early=early,
    )
    each = blocks if together or kernel.fences else max(1, WAVE_LANES // threads)
    with np.errstate(all="ignore"):
        for first in range(0, blocks, each):
            Run(kernel, Wave(about, first, min(each, blocks - first))).run()
    if watch is not None:
        _go_on(device, int(watch.now >> 31) + 1)
    return about.printed


def _go_on(device: Device, clock: int) -> None:
    device.clock = clock
    if clock > 1 << 30:  # before it overflows: all that was noted is forgotten
        device.clock = 1
        device.memory.shadows.clear()


def check(kernel: Kernel, sizes: Sizes, params: bytes, device: Device) -> None:
    """Raises KernelError: what a GPU refuses to launch."""

    def refuse(reason: str) -> None:
        raise KernelError("launch", kernel.name, f"cannot be launched: {reason}")

    for what, given, most in (
        ("grid", sizes.grid, MOST_BLOCKS),
        ("block", sizes.block, MOST_THREADS),
    ):
        if len(given) != 3 or not all(1 <= n <= m for n, m in zip(given, most)):
            refuse(f"the {what} is {given}, expected 1 to {most}")
    threads = sizes.block[0] * sizes.block[1] * sizes.block[2]
    if threads > MOST_THREADS[0]:
        refuse(f"{sizes.block} are more than {MOST_THREADS[0]} threads in a block")
    if kernel.bounds and threads > kernel.bounds:
        refuse(f"{threads} threads in a block, __launch_bounds__ says {kernel.bounds}")
    if not sizes.shared >= 0 or sizes.shared + kernel.static > max(sizes.allowed, SHARED_BYTES):
        total = f"{sizes.shared} bytes of dynamic and {kernel.static} of static shared memory"
        refuse(f"{total}, it was allowed {sizes.allowed}")
    if len(params) != kernel.params or len(params) > MOST_PARAMS:
        expected = f"expected {kernel.params}, at most {MOST_PARAMS}"
        refuse(f"{len(params)} bytes of parameters, {expected}")
