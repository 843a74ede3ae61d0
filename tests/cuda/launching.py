"""Launching a kernel on arrays in one line, for the tests of the shim."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shim_driver import ShimDriver, ShimMemory

from gpubp.backends.cuda.drivers.base import Dim


def pack(*values: Any) -> bytes:
    """A C struct: memory as a pointer, int as int, float as float, with C's padding."""
    codes = {int: "i", float: "f", ShimMemory: "Q"}
    fields = [v.address if isinstance(v, ShimMemory) else v for v in values]
    ends = "0Q" if any(isinstance(v, ShimMemory) for v in values) else ""
    return struct.pack("@" + "".join(codes[type(v)] for v in values) + ends, *fields)


def put(driver: ShimDriver, array: NDArray[Any]) -> ShimMemory:
    """An array in memory of its very size."""
    memory = driver.allocate(array.nbytes)
    driver.upload(memory.address, array)
    return memory


def get(driver: ShimDriver, memory: ShimMemory, like: NDArray[Any]) -> NDArray[Any]:
    """An array of the shape and dtype of another, read back."""
    result = np.empty_like(like)
    driver.download(memory.address, result)
    return result


def launch(
    driver: ShimDriver,
    source: str,
    values: tuple[Any, ...],
    grid: Dim | int = 1,
    block: Dim | int = 32,
    shared: int = 0,
) -> list[NDArray[Any]]:
    """Launch the kernel `k` of a source; arrays among the values are given to it and read back."""
    memories = [put(driver, v) if isinstance(v, np.ndarray) else v for v in values]
    kernel = driver.compile(source).get("k")
    sizes = [(n, 1, 1) if isinstance(n, int) else n for n in (grid, block)]
    driver.launch(kernel, *sizes, shared, pack(*memories))
    driver.synchronize()
    arrays = zip(memories, values)
    return [get(driver, m, v) for m, v in arrays if isinstance(m, ShimMemory)]


def kernel(fields: str, body: str) -> str:
    """The source of a kernel `k` with these parameters and this body."""
    return (
        f"struct P {{ {fields} }};\n"
        f'extern "C" __global__ void k(const P p) {{\n{body}\n}}\nGP_KERNEL(k, P)\n'
    )
