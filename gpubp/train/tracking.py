"""What is told to experiment trackers, and the protocol that each of them fills in.

A tracker is a callback; give it last, when the records of epochs are complete. Of several ranks
the first one tracks.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from gpubp.errors import missing_extra
from gpubp.train.callbacks import Callback

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer

FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"
Plain = bool | int | float | str


class Tracker(Callback):
    """Base: a run that is followed by some service, in three methods that each service brings.

    `open` begins a run or goes on with one, `write` gets the numbers of an epoch, `close` says how
    it ended. This class calls them, for whole epochs and on the first rank alone, remembers the
    run's identity in checkpoints, and lets copies and pickles begin without what is open.

    Attributes:
        package, extra: what must be installed, and the extra of gpubp that brings it; "" for none.
        session: what `open` has opened; None before and after a run, and in a copy.
        identity: what `open` returned: a later process goes on with the run of that name.
    """

    package: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __init__(self) -> None:
        self.session: Any = None
        self.identity: str | None = None
        self._open = False
        self._outside: BaseException | None = None
        self.check_package()

    @classmethod
    def check_package(cls) -> None:
        """Raise MissingExtraError if the service's package is not installed."""
        if cls.package and _is_missing(cls.package):
            raise missing_extra(cls.package, cls.extra, cls.__name__)

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Begin a run, and return what identifies it; or go on with one.

        Args:
            identity: of the run to go on with; None for a new one.
            epoch: whole epochs that are done. What the service has beyond them is of the run that
                was cut off, and comes again.
            parameters: what the run was made with, by name; see `parameters_of`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open(identity, epoch, parameters)")

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of an epoch, without its own."""
        raise NotImplementedError(f"{type(self).__name__} has no write(epoch, numbers)")

    def close(self, outcome: str) -> None:
        """End the run: "finished", "interrupted" (Ctrl-C), or "failed" (an error, a divergence)."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None, "_open": False, "_outside": None}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the run."""
        if not trainer.ranks.leads:
            return
        self._outside = sys.exc_info()[1]  # fit may have been called while one is handled
        known = self.identity if trainer.resuming else None
        self.identity = self.open(known, trainer.epoch, parameters_of(trainer))
        self._open = True

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Write the numbers."""
        if self._open:
            self.write(epoch, {k: float(v) for k, v in record.items() if k != "epoch"})

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the run."""
        if not self._open:
            return
        self._open = False
        error = sys.exc_info()[1]
        failed = trainer.diverged or (error is not None and error is not self._outside)
        left = trainer.stop_reason == "interrupted" or isinstance(error, KeyboardInterrupt)
        self.close(INTERRUPTED if left else FAILED if failed else FINISHED)
        self.session = self._outside = None

    def state_dict(self) -> dict[str, Any]:
        """The run's identity."""
        return {"id": self.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self.identity = state.get("id")


def parameters_of(trainer: Trainer) -> dict[str, Plain]:
    """What a run was made with: its options, its optimiser, schedule, loss, backend and size.

    Names have letters, digits, ".", "_", "-" and "/" alone, which every service takes.
    """
    options = trainer.state.made
    found: dict[str, Any] = {}
    for kind in options.values():
        found.update(kind)
    loss = trainer.loss_fn
    found |= {
        "model": type(trainer.model).__name__,
        "parameters": sum(p.size for p in trainer.model.parameters()),
        "loss_fn": getattr(loss, "__name__", type(loss).__name__),
        "backend": trainer.step.backend.name,
        "seed": trainer.seed,
    }
    given = {_plain_name(k): _plain_value(v) for k, v in found.items() if v is not None}
    return dict(sorted(given.items()))


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w./-]+", "_", name).strip("_")


def _plain_value(value: Any) -> Plain:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _is_missing(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is None
    return importlib.util.find_spec(package) is None
