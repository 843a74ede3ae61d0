"""The library of products beside our own kernels: what each part takes, and its choices on disk.

Comes in: a part that both can compute. Goes out: a plan of the library's, or None for our own
kernels. A choice is measured once, outside of any recording, on memory that stands in for the
program's; then it is kept in the cache folder under the device, the library's version, the problem
and our sources. So from the first time on one machine gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpubp.atomic import replacing
from gpubp.backends.cupy.copies import Copies, reach_bytes
from gpubp.backends.cupy.driver import DeviceMemoryError, Driver, Memory
from gpubp.backends.cupy.launch import AnyLaunch, Context, Launch, ProductLaunch, Workspace
from gpubp.backends.cupy.products import ALIGNED, Plan, Problem, Products, Work
from gpubp.backends.cupy.sources import Kernels
from gpubp.cache import cache_root
from gpubp.errors import BackendError
from gpubp.program import Part

MOST_PLANS = 5
ENOUGH_SECONDS = 0.01  # of launches, for one measurement
MOST_REPEATS = 100
ROUNDS = 3
Own = Callable[[Context], Sequence[AnyLaunch]]


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Errors say which instruction they are of."""
    try:
        yield
    except BackendError as err:
        raise BackendError(f"{part}: {err}") from err


class Theirs(Protocol):
    """The library's launches with a plan."""

    def __call__(self, here: Context, plan: Plan) -> Sequence[AnyLaunch]: ...


class Library:
    """The library on one device, with its workspace and its choices.

    Args:
        driver: the device; its `products` may be None.
        kernels: for our own launches.
        waits: after each launch, so that an error says which instruction it is of.
    """

    def __init__(self, driver: Driver, kernels: Kernels, waits: bool = False) -> None:
        self._driver, self._kernels, self.waits = driver, kernels, waits
        self._room: Memory | None = None
        self._ones: Memory | None = None
        self._known: dict[str, Plan | None] = {}

    @property
    def products(self) -> Products | None:
        """The library; loaded when it is first asked for."""
        return self._driver.products

    def one(self, dtype: str) -> int:
        """The address of the number 1."""
        if self._ones is None:
            self._ones = self._driver.allocate(16)
            self._driver.upload(self._ones.address, np.ones(1, np.float64))
            self._driver.upload(self._ones.address + 8, np.ones(1, np.float32))
        return self._ones.address + (8 if dtype == "float32" else 0)

    def bind(self, launch: AnyLaunch) -> Work:
        """What runs a launch."""
        work = self._product(launch) if isinstance(launch, ProductLaunch) else self._own(launch)
        if not self.waits:
            return work

        def run() -> None:
            work()
            self._driver.synchronize()

        return run

    def _own(self, launch: Launch) -> Work:
        kernel = self._kernels.get(launch.source, launch.kernel)
        start, of = self._driver.launch, launch
        return lambda: start(kernel, of.grid, of.block, 0, of.params)

    def _product(self, launch: ProductLaunch) -> Work:
        """A product, whose errors say which instruction it is of."""
        products = self.products
        assert products is not None
        with _named(launch.part):
            work = products.bound(launch.problem, launch.plan, launch.at, self._workspace())

        def run() -> None:
            with _named(launch.part):
                work()

        return run

    def _workspace(self) -> int:
        if self._room is None:
            assert self.products is not None
            self._room = self._driver.allocate(self.products.workspace)
        return self._room.address

    def choose(
        self, part: Part, problem: Problem, context: Context, own: Own, theirs: Theirs
    ) -> Plan | None:
        """The plan for a part; None if our own kernels are to compute it.

        Args:
            part: built around a product.
            problem: the product.
            context: of the program.
            own, theirs: give the launches of both.

        Raises:
            BackendError: the library failed.
        """
        products = self.products
        assert products is not None
        key = self._key(products, problem, context, own, theirs)
        if key not in self._known:
            kept = _read(key)
            plan = products.restored(problem, kept) if kept else None
            if kept is None or (kept and plan is None):
                plan, lasting = self._measured(products, part, problem, context, own, theirs)
                if lasting:
                    _write(key, plan)
            self._known[key] = plan
        return self._known[key]

    def _key(
        self, products: Products, problem: Problem, context: Context, own: Own, theirs: Theirs
    ) -> str:
        trial = replace(context, copies=Copies(), workspace=Workspace())
        made = [*own(trial), *theirs(trial, Plan(b"", 0))]
        texts = "\n".join(launch.source for launch in made if isinstance(launch, Launch))
        return json.dumps(
            {
                "device": [self._driver.name, self._driver.architecture, self._driver.processors],
                "library": [products.version, products.workspace],
                "problem": asdict(problem),
                "sources": hashlib.sha256(texts.encode()).hexdigest(),
            }
        )

    def _measured(
        self,
        products: Products,
        part: Part,
        problem: Problem,
        context: Context,
        own: Own,
        theirs: Theirs,
    ) -> tuple[Plan | None, bool]:
        """The fastest, for good; where there is no memory to measure in the library's first, for
        now.
        """
        plans = products.plans(problem, MOST_PLANS)
        if not plans:
            return None, True
        self._workspace()  # if there is no memory for this, it is an error
        try:
            stand_in = StandIn(part, context, self._driver)
            stand_in.settle(lambda c: [*own(c), *theirs(c, plans[0])])
        except DeviceMemoryError:
            return plans[0], False
        best, least = None, self._seconds(products, stand_in.encoded(own))
        for plan in plans:
            with suppress(BackendError):  # what the library cannot run after all
                taken = self._seconds(products, stand_in.encoded(partial(theirs, plan=plan)))
                if taken < least:
                    best, least = plan, taken
        return best, True

    def _seconds(self, products: Products, launches: Sequence[AnyLaunch]) -> float:
        works = [self.bind(launch) for launch in launches]

        def run(repeats: int = 1) -> None:
            for _ in range(repeats):
                for work in works:
                    work()

        run()
        once = products.seconds(run)
        repeats = int(min(max(ENOUGH_SECONDS / max(once, 1e-9), 1), MOST_REPEATS))
        rounds = [products.seconds(lambda: run(repeats)) for _ in range(ROUNDS)]
        return min(rounds) / repeats


class StandIn:
    """Memory in place of the program's, where one part may write as it likes.

    Args:
        part: whose operands get memory.
        context: of the program; addresses are as aligned as there.
        driver: gives the memory.

    Raises:
        DeviceMemoryError: there is not enough.
    """

    def __init__(self, part: Part, context: Context, driver: Driver) -> None:
        self._driver = driver
        self._keep: list[Memory] = []
        starts: dict[int, int] = {}
        for buffer, (low, high) in _extents(part).items():
            memory = self._allocate(high - low)
            starts[buffer] = memory.address - low
        entries = {b: e for b in starts if (e := context.locate(b)[1]) is not None}
        table = np.zeros(max(entries.values(), default=0) + 1, np.int64)
        for buffer, entry in entries.items():
            table[entry] = starts[buffer]
        words = self._allocate(table.nbytes)
        driver.upload(words.address, table)

        def locate(buffer: int) -> tuple[int, int | None]:
            return (0, entries[buffer]) if buffer in entries else (starts[buffer], None)

        self.context = replace(
            context, locate=locate, table=words.address, copies=Copies(), workspace=Workspace()
        )

    def _allocate(self, nbytes: int) -> Memory:
        memory = self._driver.allocate(nbytes)
        self._keep.append(memory)
        return memory

    def settle(self, encode: Own) -> None:
        """Make room for what the launches of `encode` need beside operands."""
        self._keep += settle(lambda: encode(self.context), self.context, self._driver)

    def encoded(self, encode: Own) -> Sequence[AnyLaunch]:
        """The launches, with every copy that they need."""
        self.context.copies.begin()
        return encode(self.context)


def settle(encode: Callable[[], Any], context: Context, driver: Driver) -> list[Memory]:
    """Encode once to learn how much room copies and partial results need, and give it to them.

    Returns:
        The memory, to be kept as long as the launches.

    Raises:
        DeviceMemoryError: there is not enough.
    """
    encode()
    kept = context.copies.allocate(driver)
    if context.workspace.nbytes:
        memory = driver.allocate(context.workspace.nbytes)
        context.workspace.address = memory.address
        kept.append(memory)
    return kept


def _extents(part: Part) -> dict[int, tuple[int, int]]:
    """The bytes of each buffer that a part touches, from a multiple of ALIGNED on."""
    found: dict[int, tuple[int, int]] = {}
    for operand, _ in part.operands():
        first, last = reach_bytes(operand)
        low, high = found.get(operand.buffer, (first, last))
        found[operand.buffer] = min(low, first) // ALIGNED * ALIGNED, max(high, last)
    return found


def _path(key: str) -> Path:
    return cache_root() / "products" / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"


def _read(key: str) -> bytes | None:
    """A kept choice: an algorithm, b"" for our own kernels; None if there is none to read."""
    try:
        found = json.loads(_path(key).read_text())
        return bytes.fromhex(found["algorithm"]) if found["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(key: str, plan: Plan | None) -> None:
    """Keep a choice; where the folder cannot be written, it is measured again next time."""
    path = _path(key)
    text = json.dumps({"key": key, "algorithm": plan.algorithm.hex() if plan else ""}, indent=1)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w") as file:
            file.write(text + "\n")
