"""The CUDA backend on the emulator: the same programs, launches and kernels, on the CPU."""

from __future__ import annotations

import threading
from typing import Any

from gpubp.backends.base import Probe
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers.bare_nvrtc import missing, version
from gpubp.backends.cuda.emulator.driver import EmulatedDriver


class EmulatedBackend(CupyBackend):
    """What `device="cuda-emulated"` runs on.

    Args:
        driver: with other limits than the usual ones.
        precision, execution: as of `CupyBackend`.
    """

    name = "emulated"
    reads_device_arrays = False

    def __init__(
        self,
        driver: EmulatedDriver | None = None,
        precision: str | None = None,
        execution: str | None = None,
    ) -> None:
        self._device = driver or EmulatedDriver()
        super().__init__(driver=self._device, precision=precision, execution=execution)
        self._given = precision, execution

    def start_anew(self) -> None:
        """A forked child goes on with its copy of everything."""
        self._lock = threading.RLock()
        self._device.start_anew()

    def __reduce__(self) -> tuple[Any, ...]:
        return EmulatedBackend, (None, *self._given)

    @classmethod
    def on_device(cls, number: int) -> EmulatedBackend:
        return cls()

    @classmethod
    def probe(cls) -> Probe:
        reason = missing()
        if reason:
            return Probe(cls.name, False, reason)
        major, minor = version()
        return Probe(cls.name, True, "", {"nvrtc": f"{major}.{minor}"})
