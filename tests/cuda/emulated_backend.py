"""The CUDA backend on the emulator, with every array in memory of its own, and faults seeded in
sources.
"""

from __future__ import annotations

from typing import Any

from shim_backend import apart

from gpubp.backends.cuda.emulator.backend import EmulatedBackend
from gpubp.backends.cuda.emulator.driver import EmulatedDriver, EmulatedKernels


class FaultyEmulator(EmulatedDriver):
    """Changes one text in every source that has it.

    Attributes:
        changed: how many sources had it.
    """

    def __init__(self, old: str, new: str, **options: Any) -> None:
        super().__init__(races="all", **options)
        self._old, self._new = old, new
        self.changed = 0

    def compile(self, source: str) -> EmulatedKernels:
        self.changed += self._old in source
        return super().compile(source.replace(self._old, self._new))


def emulated_backend(
    driver: EmulatedDriver | None = None, execution: str | None = None, **options: Any
) -> Any:
    """A backend on a new emulated device, where races are looked for in every launch."""
    device = driver or EmulatedDriver(**{"races": "all", **options})
    return apart(EmulatedBackend(device, execution=execution))
