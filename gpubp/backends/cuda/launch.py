"""One kernel launch as data, and what encoders share."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from gpubp.backends.cuda.codegen.writer import Locate, Params, Writer
from gpubp.backends.cuda.copies import Copies
from gpubp.backends.cuda.drivers.base import Dim
from gpubp.backends.cuda.products import Addresses, Plan, Problem, Products
from gpubp.compiler.parts import Part
from gpubp.core import Shape
from gpubp.errors import VerificationError

THREADS = 256
MAX_BLOCKS = 1 << 16  # kernels that walk their elements in steps of the grid need no more
HEADERS = ("functors", "random")


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes:
        source: the text of the CUDA source.
        kernel: the kernel's name in it.
        grid, block: sizes.
        params: the kernel's argument.
        part: whose work it is, for errors and reports.
        shared: bytes of dynamic shared memory.
    """

    source: str
    kernel: str
    grid: Dim
    block: Dim
    params: bytes
    part: str
    shared: int = 0


@dataclass(frozen=True)
class ProductLaunch:
    """One product by the library.

    Attributes:
        problem, plan, at: see `products.py`.
        part: whose work it is, for errors and reports.
    """

    problem: Problem
    plan: Plan
    at: Addresses
    part: str


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a user's own `numba.cuda` kernel.

    Attributes:
        kernel: as Numba made it.
        places: address, shape and dtype of its arrays, the last of which is the result.
        numbers: its other arguments.
        part: whose work it is, for errors and reports.
    """

    kernel: Any
    places: tuple[tuple[int, Shape, np.dtype[Any]], ...]
    numbers: tuple[float, ...]
    part: str


AnyLaunch = Launch | ProductLaunch | KernelLaunch
Encode: TypeAlias = "Callable[[Context], Sequence[AnyLaunch]]"


class EncodePlan(Protocol):
    """The launches of the vendor's library with a plan."""

    def __call__(self, here: Context, plan: Plan) -> Sequence[AnyLaunch]: ...


class GemmChooser(Protocol):
    """What decides how a matrix product is computed; see `autotune.py`."""

    @property
    def products(self) -> Products | None: ...

    def one(self, dtype: str) -> int: ...

    def choose(
        self, part: Part, problem: Problem, context: Context, own: Encode, theirs: EncodePlan
    ) -> Plan | None: ...


@dataclass
class Context:
    """What encoders need to know of the program's memory and device.

    Attributes:
        locate: finds buffers; see `writer.Locate`.
        table: address of the program's table of moving addresses.
        status: address of the word that kernels set when they meet a bad label or index.
        resident: number of the buffer that stands for the first resident input.
        order: number of the buffer that stands for the index order at the step's position.
        processors: multiprocessors of the device.
        workspace: room for partial results; kernels that use it run in turn.
        precision: what float32 matrix products are computed in: see `CudaBackend`.
        chooser: for large matrix products; None if there is none.
        copies: what it reads instead of some operands.
        written: where launches of the part that is being encoded write: buffer, and byte in it.
        reports: a kernel may set the status word; known when all are encoded.
    """

    locate: Locate
    table: int
    status: int
    resident: int
    order: int
    processors: int
    workspace: Workspace
    precision: str = "float32"
    chooser: GemmChooser | None = None
    copies: Copies = field(default_factory=Copies)
    written: set[tuple[int, int]] = field(default_factory=set)
    reports: bool = False


@dataclass
class Workspace:
    """Memory for partial results; its address is known when all kernels are encoded.

    Attributes:
        nbytes, address: of it.
        asked: somebody has asked for room; set to False by who wants to know.
    """

    nbytes: int = 0
    address: int = 0
    asked: bool = False

    def need(self, nbytes: int) -> int:
        """Ask for room; returns the address as known now."""
        self.asked = True
        self.nbytes = max(self.nbytes, nbytes)
        return self.address


def blocks_for(threads: int, per_block: int = THREADS) -> int:
    """Blocks that give each of `threads` a thread, up to MAX_BLOCKS."""
    return max(1, min(MAX_BLOCKS, -(-threads // per_block)))


def source(
    headers: Sequence[str],
    params: Params,
    kernels: Sequence[tuple[str, int, list[str]]],
    blocks: int = 0,
) -> str:
    """A whole source: includes, the parameters, kernels of (name, threads a block, body).

    `blocks`: so many at least fit a multiprocessor; with 1, the compiler keeps in registers what it
    would else put aside for the sake of more blocks.

    Raises:
        VerificationError: a kernel declares where a result goes, and then does not write there.
    """
    lines = [f'#include "{name}.cuh"' for name in headers]
    lines += ["", params.text(), ""]
    for name, threads, body in kernels:
        bounds = f"{threads}, {blocks}" if blocks else threads
        lines.append(
            f'extern "C" __global__ void __launch_bounds__({bounds}) {name}(const Params p) {{'
        )
        require_used(body)
        lines += [f"  {line}" for line in body]
        lines += ["}", f"GP_KERNEL({name}, Params)", ""]
    return "\n".join(lines)


def require_used(body: Sequence[str]) -> None:
    """Raises VerificationError: the text declares where a result goes, and does not write there."""
    text = "\n".join(body)
    for name in re.findall(r"\* (out\d+) = ", text):
        if len(re.findall(rf"\b{name}\b", text)) < 2:
            raise VerificationError(f"a CUDA kernel declares {name} and does not write there.")


def require_written(part: Part, written: Container[tuple[int, int]]) -> None:
    """Raises VerificationError: launches of the part leave out one of its results."""
    for _, operand in part.outputs:
        if operand.place not in written:
            raise VerificationError(
                f"{part.name}: the CUDA encoder left out %{operand.value}, one of its results."
            )


def simple(writer: Writer, part: Part, header: str, body: list[str], threads: int) -> Launch:
    """One kernel over `threads` elements, whose body walks them by `thread_number()`."""
    text = source([header], writer.params, [("kernel", THREADS, [*writer.pointers, *body])])
    grid = (blocks_for(threads), 1, 1)
    return Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)


def status(writer: Writer, context: Context) -> str:
    """The word that kernels set when they meet a bad label or index."""
    context.reports = True
    return f"gp::fixed<int>({writer.params.add('status', context.status, 'gp::u64')})"
