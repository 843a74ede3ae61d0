"""What the loop asks of a callback; `gpubp.train.Callback` is the base that users extend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.errors import ArgumentError


class Hooks(Protocol):
    """A callback, as the loop sees it; see `gpubp.train.Callback`."""

    def on_train_begin(self, trainer: Any) -> None: ...

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None: ...

    def on_chunk_end(self, trainer: Any, losses: NDArray[Any]) -> None: ...

    def on_epoch_end(self, trainer: Any, epoch: int, record: dict[str, float]) -> None: ...

    def on_train_end(self, trainer: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise ArgumentError unless each has the methods of a callback."""
    for callback in callbacks:
        if isinstance(callback, type) or not hasattr(callback, "on_train_begin"):
            raise ArgumentError(
                f"a callback is {shown(callback)}, expected a gpubp.train.Callback or one of its "
                "kind."
            )
