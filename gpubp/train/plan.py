"""The numbers of a call of `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpubp.errors import DataError

if TYPE_CHECKING:
    from gpubp.train.tensorfile import Path_
    from gpubp.train.train_state import TrainState


@dataclass(frozen=True)
class Plan:
    """The numbers of a call of `fit`; see there."""

    epochs: int
    batch_size: int
    shuffle: bool
    verbose: bool
    max_steps: int | None
    max_time: float | None
    checkpoint: Path_ | None
    save_every: int
    save_every_steps: int | None
    resume: Path_ | None
    extra: Mapping[str, Any] | None = None
    drop_last: bool = False

    def check(self) -> None:
        """Raise DataError if a number is out of range."""
        if self.epochs < 1 or self.batch_size < 1:
            raise DataError(
                f"epochs={self.epochs}, batch_size={self.batch_size}: expected at least 1."
            )
        for name in ("max_steps", "max_time", "save_every", "save_every_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"{name}={value}: expected a number above 0.")

    def is_used_up(self, state: TrainState) -> bool:
        """The steps of this fit are all that `max_steps` admits."""
        return self.max_steps is not None and state.steps - state.fit_steps >= self.max_steps
