"""CUDA sources from the package `gpubp.kernels`, with their headers written out.

A source is compiled as one text: so a cache that is keyed by the text can never miss a change in a
header.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from gpubp.backends.cuda.codegen.formulas import header
from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.cuda.launch import THREADS, Launch, blocks_for

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


@cache
def read(name: str) -> str:
    """A file of `kernels/`: from the installed package, or beside it in a checkout.

    One is no file: "formulas.cuh" is printed from the ops' formulas.
    """
    if name == "formulas.cuh":
        return header()
    try:
        return resources.files("gpubp.kernels").joinpath(name).read_text()
    except (ModuleNotFoundError, FileNotFoundError):
        return (Path(__file__).parents[3] / "kernels" / name).read_text()


def expand(source: str) -> str:
    """The source with each header once, where it is first included."""
    seen: set[str] = set()

    def include(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return ""
        seen.add(name)
        return _INCLUDE.sub(include, read(name).replace("#pragma once\n", ""))

    return _INCLUDE.sub(include, source)


_KERNEL = re.compile(r'^extern "C" __global__ [^{;]*\{', re.MULTILINE)
_EARLY = """
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
"""


def overlapped(source: str) -> str:
    """The source with kernels that may begin before the one before them has ended: first of all
    they wait for its end, and then let the next one begin. PTX ISA, "griddepcontrol": the wait ends
    when all that it depends on has ended and can be seen, so it holds for what these waited for,
    too.
    """
    return _KERNEL.sub(lambda found: found[0] + _EARLY.rstrip("\n"), source)


def begin_step(numbers: Sequence[int]) -> Launch:
    """The launch that starts a step; see `kernels/step.cu`."""
    params = struct.pack("<5q", *numbers)
    return Launch(read("step.cu"), "begin_step", (1, 1, 1), (32, 1, 1), params, "begin_step")


class LoopNumbers(NamedTuple):
    """The parameters of `kernels/loop.cu`, in their order."""

    places: int
    table: int
    state: int
    before: int
    after: int
    many_places: int
    many_before: int
    many_after: int
    length: int
    reverse: int
    until: int


def around_loop(numbers: LoopNumbers, nbytes: int) -> list[Launch]:
    """The launches that begin a loop, a round, and end the loop.

    Args:
        numbers: of the loop.
        nbytes: of its largest carry.
    """
    params, text = struct.pack("<5Q6q", *numbers), read("loop.cu")
    grids = ("begin_loop", blocks_for(nbytes // 4)), ("begin_round", 1)
    return [
        Launch(text, name, (blocks, 1, 1), (THREADS, 1, 1), params, name)
        for name, blocks in (*grids, ("end_loop", blocks_for(nbytes // 4)))
    ]


class Kernels:
    """Compiled kernels of one device, by their source."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: dict[str, Any] = {}

    def compile(self, sources: Sequence[str]) -> None:
        """Compile those that were not before, several at a time: compilers do not hold Python's
        lock.

        Raises:
            BackendError: one does not compile.
        """
        new = [source for source in dict.fromkeys(sources) if source not in self._known]
        texts = [expand(source) for source in new]
        if len(new) > 1:
            with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as pool:
                made = list(pool.map(self._driver.compile, texts))
        else:
            made = [self._driver.compile(text) for text in texts]
        self._known.update(zip(new, made, strict=True))

    def get(self, source: str, name: str) -> Any:
        """A kernel; compiled if it was not before."""
        self.compile([source])
        return self._known[source].get(name)
