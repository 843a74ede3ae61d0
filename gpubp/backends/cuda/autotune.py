"""Which of two ways computes a product: the vendor's library or our own kernels.

Comes in: a part that both can compute. Goes out: a plan of the library's, or None for our own
kernels. A choice is measured once, outside of any recording, on memory that stands in for the
program's; then it is kept in the cache folder under the device, the library's version, the problem
and our sources. So from the first time on one machine gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from gpubp.backends.cuda import tuning_record
from gpubp.backends.cuda.copies import Copies
from gpubp.backends.cuda.drivers.base import DeviceMemoryError, Memory
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.launch import (
    AnyLaunch,
    Context,
    Encode,
    EncodePlan,
    Launch,
    Workspace,
)
from gpubp.backends.cuda.products import Plan, Problem, Products, Work
from gpubp.backends.cuda.tuning_sandbox import Sandbox
from gpubp.compiler.parts import Part
from gpubp.errors import BackendError

MOST_PLANS = 5
ENOUGH_SECONDS = 0.01  # of launches, for one measurement
MOST_REPEATS = 100
ROUNDS = 3
MEASURED = "recorded"  # how; choices that were measured in other ways are not those


class Autotuner:
    """The choices of one device."""

    def __init__(self, executor: Executor) -> None:
        self.executor, self._driver = executor, executor.driver
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

    def choose(
        self, part: Part, problem: Problem, context: Context, own: Encode, theirs: EncodePlan
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
            kept = tuning_record.read(key)
            plan = products.restored(problem, kept) if kept else None
            if kept is None or (kept and plan is None):
                plan, lasting = self._measured(products, part, problem, context, own, theirs)
                if lasting:
                    tuning_record.write(key, plan)
            self._known[key] = plan
        return self._known[key]

    def _key(
        self,
        products: Products,
        problem: Problem,
        context: Context,
        own: Encode,
        theirs: EncodePlan,
    ) -> str:
        trial = replace(context, copies=Copies(), workspace=Workspace())
        made = [*own(trial), *theirs(trial, Plan(b"", 0))]
        texts = "\n".join(launch.source for launch in made if isinstance(launch, Launch))
        return json.dumps(
            {
                "measured": MEASURED,
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
        own: Encode,
        theirs: EncodePlan,
    ) -> tuple[Plan | None, bool]:
        """The fastest, for good; where there is no memory to measure in the library's first, for
        now.
        """
        plans = products.plans(problem, MOST_PLANS)
        if not plans:
            return None, True
        self.executor.workspace()  # if there is no memory for this, it is an error
        try:
            sandbox = Sandbox(part, context, self._driver)
            sandbox.make_room(lambda c: [*own(c), *theirs(c, plans[0])])
        except DeviceMemoryError:
            return plans[0], False
        best, least = None, self._seconds(products, sandbox.encoded(own))
        for plan in plans:
            with suppress(BackendError):  # what the library cannot run after all
                taken = self._seconds(products, sandbox.encoded(partial(theirs, plan=plan)))
                if taken < least:
                    best, least = plan, taken
        return best, True

    def _seconds(self, products: Products, launches: Sequence[AnyLaunch]) -> float:
        works = [self.executor.bind(launch) for launch in launches]

        def run(repeats: int = 1) -> None:
            for _ in range(repeats):
                for work in works:
                    work()

        def recorded(repeats: int) -> Work:
            """Launched one by one, small products would take as long as Python."""
            if self.executor.waits:
                return lambda: run(repeats)
            replay = self._driver.record(lambda: run(repeats))
            replay()  # the first launch of a recording brings it to the device
            return replay

        run()  # kernels are loaded outside of recordings
        once = products.seconds(recorded(1))
        repeats = int(min(max(ENOUGH_SECONDS / max(once, 1e-9), 1), MOST_REPEATS))
        work = recorded(repeats)
        return min(products.seconds(work) for _ in range(ROUNDS)) / repeats
