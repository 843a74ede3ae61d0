"""Tests of CUDA code on machines without a GPU: see docs/cuda_without_gpu.md.

`check_cuda` compiles CUDA C++ with the real NVRTC and runs the PTX on the CPU, where each access of
each thread is looked at. It needs `pip install "gpubp[emulator]"`: no driver, no GPU, no compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.arguments import Arguments, Output, Placed, packed
from gpubp.backends.cuda.emulator.compiler import compiled
from gpubp.backends.cuda.emulator.faults import KernelError, UnknownInstructionError
from gpubp.backends.cuda.emulator.launches import Device, Sizes, launch
from gpubp.backends.cuda.emulator.memory import DeviceSpace
from gpubp.backends.cuda.emulator.program import Program, loaded
from gpubp.errors import ArgumentError

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class CudaRun:
    """What a kernel left.

    Attributes:
        arrays: copies of all arrays that were given, members of structs too, in order, as they are
            after the kernel.
        printed: what `printf` wrote.
        ptx: what was executed.
    """

    arrays: list[NDArray[Any]]
    printed: str
    ptx: str


def check_cuda(
    source: str,
    kernel: str | None = None,
    *,
    grid: Size,
    block: Size,
    args: Sequence[Any] = (),
    shared: int = 0,
    cooperative: bool = False,
    races: bool = True,
    early_exit: bool = False,
    architecture: str = "sm_90",
    options: Sequence[str] = (),
) -> CudaRun:
    """Run a CUDA kernel on the CPU and look at everything that it does.

    Args:
        source: CUDA C++.
        kernel: name of a kernel that is `extern "C"`; None: the only one.
        grid: blocks, up to three numbers.
        block: threads of a block, up to three numbers.
        args: one for each parameter: arrays (copied; the kernel gets a pointer), `Output`, numbers,
            tuples for structs by value (of arrays, `Output` and NumPy numbers), bytes.
        shared: bytes of dynamic shared memory.
        cooperative: all blocks are alive at a time, so `cooperative_groups::this_grid().sync()`
            works.
        early_exit: a barrier does not wait for threads that have ended, as on GPUs from compute
            capability 7.0 on; else that is an error.
        races: look for races, too: the most expensive check.
        architecture: what is compiled for.
        options: for NVRTC, such as "-DN=4" or "--include-path=src".

    Returns:
        The arrays after the kernel.

    Raises:
        KernelError: a race, an access out of bounds or misaligned, memory that is read before it is
            written, a barrier that not all threads reach, a failed assertion, an `Output` that is
            not filled, a launch that a GPU refuses; with kernel, block, thread and line.
        UnknownInstructionError: PTX that the emulator does not know.
        BackendError: the source does not compile, or NVRTC is missing.
        ArgumentError: arguments that do not fit the kernel.
    """
    if not architecture.startswith("sm_") or not architecture[3:].rstrip("af").isdigit():
        raise ArgumentError(f"architecture={architecture!r}: write it as 'sm_90'.")
    ptx = compiled(source, architecture, options)
    memory = DeviceSpace()
    program = loaded(ptx, source, memory)
    name = _only(program) if kernel is None else kernel
    translated = program.get(name)
    given = packed(name, program.module.functions[name].params, args, memory)
    device = Device(memory, int(architecture[3:].rstrip("af")))
    sizes = Sizes(_three(grid, "grid"), _three(block, "block"), shared, device.most_shared())
    printed = launch(device, translated, sizes, given.params, races, cooperative, early_exit)
    _require_filled(name, given, memory)
    arrays = [placed.value(memory) for placed in given.arrays]
    return CudaRun(arrays, "".join(printed), ptx)


def _only(program: Program) -> str:
    names = program.names()
    if len(names) != 1:
        raise ArgumentError(f"kernel= must be one of {names}.")
    return names[0]


def _three(size: Size, what: str) -> tuple[int, int, int]:
    given = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(given) <= 3 or not all(isinstance(n, (int, np.integer)) for n in given):
        raise ArgumentError(f"{what}={size!r}: expected one to three whole numbers.")
    x, y, z = (*(int(n) for n in given), 1, 1)[:3]
    return x, y, z


def _require_filled(kernel: str, given: Arguments, memory: DeviceSpace) -> None:
    for i, placed in enumerate(given.arrays):
        if placed.output is None or placed.output.partial:
            continue
        missing = _missing(placed, memory)
        if len(missing):
            at = tuple(int(n) for n in np.unravel_index(missing[0], placed.shape))
            count = int(np.prod(placed.shape))
            text = (
                f"left {len(missing)} of {count} elements of array {i} unwritten, the first is {at}"
            )
            raise KernelError("unwritten", kernel, text)


def _missing(placed: Placed, memory: DeviceSpace) -> NDArray[np.int64]:
    count, width = int(np.prod(placed.shape)), placed.dtype.itemsize
    written = memory.written(placed.piece.address, count * width)
    return np.flatnonzero(~written.reshape(count, width).all(1))


__all__ = ["CudaRun", "KernelError", "Output", "UnknownInstructionError", "check_cuda"]
