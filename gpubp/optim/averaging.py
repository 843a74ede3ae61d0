"""An exponential moving average of weights, kept by the step's program beside the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, reading
from gpubp.core import Array
from gpubp.core.interop import host_array
from gpubp.core.noted import Noted
from gpubp.core.store import Slot
from gpubp.errors import DataError, ShapeError
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.group import checked_params


def _checked_decay(_: Any, decay: Any) -> float:
    if not 0.0 <= decay <= 1.0:
        raise DataError(f"EMA: decay is {decay}, expected a number in [0, 1].")
    return float(decay)


class EMA:
    """a <- decay a + (1 - decay) w after each update; the first update sets a = w.

    As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(decay): the averaging of Polyak
    & Juditsky (1992) in exponential form. Buffers (running statistics) are not averaged. Give it to
    the step: `gp.compile_step(fn, optimizer, ema=ema)`; then evaluate inside `with ema.apply():`.

    Args:
        params: parameters, as model.parameters().
        decay: in [0, 1].

    Attributes:
        decay: the weight of the past; may be set, for the steps from then on.

    Raises:
        DataError: no parameters, or decay out of its range.
        TypeError: something that is not a Parameter.
    """

    decay = Noted(_checked_decay)

    @checked
    def __init__(self, params: Iterable[Parameter], decay: float = 0.999) -> None:
        self.decay = decay
        self._params = checked_params(params)
        if not self._params:
            raise DataError("EMA got no parameters. Pass model.parameters().")
        self._averages = [Slot(f"{p.name}.average", p.value) for p in self._params]
        self._count = Slot("averaged", 0, np.int64)
        self._applied = False

    @property
    def n_averaged(self) -> int:
        """Updates averaged so far."""
        return int(self._count.value)

    @property
    def averages(self) -> list[np.ndarray[Any, Any]]:
        """The averaged weights (copies), one array a parameter; the weights before any update."""
        slots = self._params if self._applied else self._averages
        return [slot.value.copy() for slot in slots]

    @property
    def applied(self) -> bool:
        """The averages stand in the parameters just now."""
        return self._applied

    def emit(self, new: Mapping[int, Array]) -> list[tuple[Slot, Array]]:
        """Append the averages' update to a trace.

        Args:
            new: the traced new value for each id(parameter) that the step updates.

        Returns:
            (slot, new value) pairs.
        """
        first = ops.equal(self._count, 0)
        updates: list[tuple[Slot, Array]] = [(self._count, ops.add(self._count, 1))]
        for param, average in zip(self._params, self._averages, strict=True):
            value = new.get(id(param), param)
            moved = update.ema(average, value, self.decay)
            updates.append((average, ops.where(first, value, moved)))
        return updates

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Put the averages into the parameters for the time of a `with` block.

        Raises:
            DataError: they are there already.
        """
        if self._applied:
            raise DataError("the averages are applied already; leave the outer `with` block first.")
        self._swap()
        self._applied = True
        try:
            yield
        finally:
            self._swap()
            self._applied = False

    @contextmanager
    def own_weights(self) -> Iterator[None]:
        """Put the parameters' own weights back for the time of a `with` block inside `apply`."""
        if not self._applied:
            yield
            return
        self._swap()
        self._applied = False
        try:
            yield
        finally:
            self._swap()
            self._applied = True

    def copy_to_params(self) -> None:
        """Overwrite the parameters by their averages, for good."""
        for param, average in zip(self._params, self._averages, strict=True):
            if self._applied:
                average.value = param.value  # the end of `apply` puts it back
            else:
                param.value = average.value

    def __getstate__(self) -> dict[str, Any]:
        if self._applied:
            raise DataError(
                "the averages are applied; leave the `with` block before copying or pickling them."
            )
        return self.__dict__

    def _swap(self) -> None:
        for param, average in zip(self._params, self._averages, strict=True):
            kept = param.value.copy()
            param.value = average.value
            average.value = kept

    def state_dict(self) -> dict[str, Any]:
        """{"decay", "n_averaged", "averages": [array, ...]}, with copies."""
        return {"decay": self.decay, "n_averaged": self.n_averaged, "averages": self.averages}

    @reading("the state of an EMA")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the averages; if it raises, nothing has changed.

        Raises:
            DataError: averages of another number of parameters, another decay, or while applied.
            ShapeError: an average has not its parameter's shape.
        """
        if self._applied:
            raise DataError("the averages are applied; leave the `with` block before loading.")
        given = [host_array(a, "an average") for a in state_dict["averages"]]
        if len(given) != len(self._params):
            raise DataError(f"got {len(given)} averages, expected {len(self._params)}.")
        if state_dict.get("decay", self.decay) != self.decay:
            raise DataError(f"the state's decay is {state_dict['decay']}, mine is {self.decay}.")
        for param, array in zip(self._params, given, strict=True):
            if array.shape != param.shape:
                raise ShapeError(
                    f"{param.name}: its average has shape {array.shape}, expected {param.shape}."
                )
        for slot, array in zip(self._averages, given, strict=True):
            slot.value = array
        self._count.value = np.int64(state_dict["n_averaged"])
