"""What the last run of a step returned, as far as it came: the part of `Step` that is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError
from gpubp.runtime.outputs import OutputBuffers


class Ran:
    """Base of `Step`: the results of its last run.

    Args:
        floating: the parameters' dtype.
    """

    def __init__(self, floating: np.dtype[Any]) -> None:
        self._floating = floating
        self._ran: OutputBuffers | None = None

    @property
    def losses(self) -> Any:
        """The loss of every batch of the last `run`, as far as it came: what an exception kept it
        from returning. While it goes on, as far as is known."""
        return np.zeros(0, self._floating) if self._ran is None else self._ran.losses_so_far

    @property
    def outputs(self) -> Any:
        """What the last `run` returned, or was about to return, as far as it came; None before."""
        return None if self._ran is None else self._ran.value_so_far

    def forget_losses(self) -> None:
        """Let go of the losses of the last run, and of what else it returned."""
        self._ran = None

    @property
    def totals(self) -> NDArray[np.float64]:
        """(batches, terms, 2): the sums and counts that the losses of the last `run` are made of.

        A loss that is a mean over samples is one term, whose count is the batch's size; a sum
        counts NaN. `gpubp.runtime.totals.together` makes one loss of them.

        Raises:
            DataError: `run` has not been called.
        """
        if self._ran is None:
            raise DataError("there are no totals before the first run: call step.run(...).")
        return self._ran.totals()[: self._ran.done]
