"""What the loop asks of a callback; `gpubp.train.Callback` is the base that users extend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class Hooks(Protocol):
    """A callback, as the loop sees it; see `gpubp.train.Callback`."""

    def on_train_begin(self, trainer: Any) -> None: ...

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None: ...

    def on_chunk_end(self, trainer: Any, losses: NDArray[Any]) -> None: ...

    def on_epoch_end(self, trainer: Any, epoch: int, record: dict[str, float]) -> None: ...

    def on_train_end(self, trainer: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
