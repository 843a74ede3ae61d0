"""Room for what programs return: in the host's memory, or on the device where the data are."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.base import Backend
from gpubp.backends.device_array import DeviceArray, as_device_array
from gpubp.core import Shape


class Results:
    """One output of the steps of a run.

    Args:
        backend: that will run them.
        steps: rows, one a step.
        shape, dtype: of a row.
        device: on the device, as an array of the library that the user works with there.
        single: there is one step, and its row alone is the result.

    Attributes:
        steps: so many.
    """

    def __init__(
        self,
        backend: Backend,
        steps: int,
        shape: Shape,
        dtype: np.dtype[Any],
        device: bool,
        single: bool = False,
    ) -> None:
        self.steps = steps
        self._pick_row = single and not device
        if device:
            self._array = backend.empty(shape if single else (steps, *shape), dtype)
            room = as_device_array(self._array, "the result")
            self._room: Any = room.as_shape((steps, *shape))
        else:
            self._array = self._room = np.empty((steps, *shape), dtype)

    def rows(self, start: int, stop: int) -> Any:
        """Where some of the steps put their rows, as a `Feed` takes it."""
        if isinstance(self._room, DeviceArray):
            return self._room.rows(start, stop)
        return self._room[start:stop]

    @property
    def value(self) -> Any:
        """The result; its numbers are there when the run has returned, or are on their way on the
        device, in the order of the user's stream."""
        return self._array[0] if self._pick_row else self._array
