"""What runs launches on one device: kernels, compiled when they are first asked for, and the
vendor's products with their workspace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gpubp.backends.cuda.drivers.base import Driver, KernelDriver, Memory
from gpubp.backends.cuda.launch import AnyLaunch, KernelLaunch, Launch, ProductLaunch
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.sources import Kernels, overlapped
from gpubp.errors import BackendError


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Errors say which instruction they are of."""
    try:
        yield
    except BackendError as err:
        raise BackendError(f"{part}: {err}") from err


class Executor:
    """Turns launches into calls.

    Args:
        driver: the device; its `products` may be None.
        waits: after each launch, so that an error says which instruction it is of.
        early: kernels wait themselves for those before them; see `overlapped`.
    """

    def __init__(self, driver: Driver, waits: bool = False, early: bool = False) -> None:
        self.driver, self.waits, self.early = driver, waits, early
        self._kernels = Kernels(driver)
        self._room: Memory | None = None

    def compile(self, launches: Iterable[AnyLaunch]) -> None:
        """Compile what these launches need, at once; `bind` would do it one after the other."""
        sources = [of.source for of in launches if isinstance(of, Launch)]
        self._kernels.compile([self._text(source) for source in sources])

    def _text(self, source: str) -> str:
        return overlapped(source) if self.early else source

    def bind(self, launch: AnyLaunch) -> Work:
        """What runs a launch."""
        work = self._work(launch)
        if not self.waits:
            return work

        def run() -> None:
            work()
            self.driver.synchronize()

        return run

    def _work(self, launch: AnyLaunch) -> Work:
        if isinstance(launch, ProductLaunch):
            return self._product(launch)
        return self._users(launch) if isinstance(launch, KernelLaunch) else self._own(launch)

    def _users(self, launch: KernelLaunch) -> Work:
        """A user's kernel, whose errors say which instruction they are of."""
        assert isinstance(self.driver, KernelDriver)
        work = self.driver.bind_kernel(launch.kernel, launch.places, launch.numbers)

        def run() -> None:
            with _named(launch.part):
                work()

        return run

    def kernel(self, source: str, name: str) -> Any:
        """A kernel for the driver, compiled if it was not before."""
        return self._kernels.get(self._text(source), name)

    def _own(self, launch: Launch) -> Work:
        kernel = self._kernels.get(self._text(launch.source), launch.kernel)
        start, of = self.driver.launch, launch
        self.driver.allow_shared(kernel, of.shared)
        return lambda: start(kernel, of.grid, of.block, of.shared, of.params)

    def _product(self, launch: ProductLaunch) -> Work:
        """A product, whose errors say which instruction it is of."""
        products = self.driver.products
        assert products is not None
        with _named(launch.part):
            work = products.bound(launch.problem, launch.plan, launch.at, self.workspace())

        def run() -> None:
            with _named(launch.part):
                work()

        return run

    def workspace(self) -> int:
        """The address of the vendor's workspace, allocated when it is first asked for."""
        if self._room is None:
            products = self.driver.products
            assert products is not None
            self._room = self.driver.allocate(products.workspace)
        return self._room.address
