"""What is written down of each member beside its arrays: order streams, steps, losses of epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core.interop import host_array
from gpubp.errors import DataError, unknown_name
from gpubp.runtime.member_runs import Task
from gpubp.runtime.orders import OrderStream
from gpubp.runtime.totals import together


class Books:
    """The books of a population.

    Args:
        members: how many.

    Attributes:
        streams: what each member's orders are drawn from.
        steps: batches that each was trained on.
        histories: for each, the loss of each whole epoch.
        stopped: members that are left as they are.
    """

    def __init__(self, members: int) -> None:
        self.streams = [OrderStream() for _ in range(members)]
        self.steps = [0] * members
        self.histories: list[list[float]] = [[] for _ in range(members)]
        self.stopped: set[int] = set()

    def seed(self, seeds: Sequence[int]) -> None:
        """Let each member's orders start from a seed."""
        self.streams = [OrderStream(seed) for seed in seeds]

    def note(self, task: Task) -> None:
        """A member was trained, as far as its task came."""
        done = task.buffers.done
        self.steps[task.member] += done
        each = task.buffers.steps // task.epochs
        totals = task.buffers.totals()
        for start in range(0, done - done % each, each):
            self.histories[task.member].append(together(totals[start : start + each]))

    def go_back(self, member: int, before: Mapping[str, Any], task: Task | None) -> None:
        """A run has ended early: orders of epochs that a member has not begun are still to come.

        Args:
            member: which.
            before: where its stream stood.
            task: what it was to do, if it came so far.
        """
        stream = self.streams[member] = OrderStream.standing_at(before)
        if task is not None and task.begun and task.is_drawn:
            stream.draw(len(task.drawn.orders[0]), task.begun, True, None, None)

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rng": [dict(stream.state) for stream in self.streams],
            "steps": list(self.steps),
            "histories": [list(history) for history in self.histories],
            "stopped": sorted(self.stopped),
        }

    @classmethod
    def standing_at(cls, state: Mapping[str, Any], members: int) -> Books:
        """Books that go on from a state.

        Raises:
            DataError: of another number of members.
        """
        if len(state["rng"]) != members:
            raise DataError(f"the state is of {len(state['rng'])} members, this has {members}.")
        made = cls(members)
        made.streams = [OrderStream.standing_at(one) for one in state["rng"]]
        made.steps = [int(n) for n in state["steps"]]
        made.histories = [[float(x) for x in history] for history in state["histories"]]
        made.stopped = {int(i) for i in state["stopped"]}
        return made


def best_of(scores: ArrayLike | None, histories: Sequence[Sequence[float]], mode: str) -> int:
    """The member with the best score, else the best loss of its last epoch; `Population.best`."""
    if mode not in ("min", "max"):
        raise unknown_name("mode", mode, ("min", "max"))
    if scores is None:
        found: NDArray[Any] = np.array([h[-1] if h else np.nan for h in histories])
    else:
        found = np.asarray(host_array(scores, "scores"), np.float64)
    if found.shape != (len(histories),):
        raise DataError(
            f"scores have shape {found.shape}, expected ({len(histories)},): one a member."
        )
    usable = np.isfinite(found)
    if not usable.any():
        raise DataError("no member has a finite score: train an epoch first, or pass scores.")
    sign = 1.0 if mode == "min" else -1.0
    return int(np.argmin(np.where(usable, sign * found, np.inf)))
