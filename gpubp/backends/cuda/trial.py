"""A loaded program run part by part, to see what each part writes; see `backends.poison`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.cuda.loaded import Loaded
from gpubp.compiler.parts import Operand


class Trial:
    """A program whose inputs and tables are ready on the device; `status`: the run's word."""

    def __init__(self, loaded: Loaded, driver: Driver, status: int) -> None:
        self._loaded, self._driver, self._status = loaded, driver, status

    def run(self, position: int) -> bool:
        """Run a part; False if it calls the user's own function, or met a label or index out of
        range.
        """
        if self._loaded.program.parts[position].kernel == "custom":
            return False
        for work in self._loaded.parts[position]:
            work()
        word = np.zeros(1, np.int64)
        self._driver.download(self._status, word)
        if word[0] == 0:
            return True
        self._driver.upload(self._status, np.zeros(1, np.int64))
        return False

    def fetch(self, operand: Operand) -> NDArray[np.uint8]:
        """A copy of the bytes of an operand's extent."""
        first, last = operand.extent
        content = np.empty(last - first, np.uint8)
        self._driver.download(self._loaded.start(operand.buffer) + first, content)
        return content

    def put(self, operand: Operand, content: NDArray[np.uint8]) -> None:
        """Write them back."""
        self._driver.upload(self._loaded.start(operand.buffer) + operand.extent[0], content)
