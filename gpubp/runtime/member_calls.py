"""A run of populations: their members are trained side by side, as one.

Comes in: populations of one backend, data, and how to run. Goes out: for each active member, in
order, what its steps returned. `Population.run` is the case of one, `Populations.run` that of
several.

Holds in between: a call that is refused, or ends early, leaves every stream of orders behind the
epochs that its member has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core import tree
from gpubp.distributed.agreement import fingerprint
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.member_books import Books
from gpubp.runtime.member_runs import MemberRuns, Task, require_batch, run_side_by_side
from gpubp.runtime.member_state import MemberState
from gpubp.runtime.members_chosen import checked_rows, epochs_of, of_epoch
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.rank_members import RankMembers

Rows = NDArray[np.int64] | None


class How(NamedTuple):
    """Arguments of `Population.run`."""

    batch_size: int
    epochs: int
    shuffle: bool
    drop_last: bool


class Call:
    """One population's part of a run.

    Args:
        runs: of its programs, on the data.
        state, books: the population's.
        accumulate: batches to an update.

    Attributes:
        tasks: what its members are to do.
    """

    def __init__(self, runs: MemberRuns, state: MemberState, books: Books, accumulate: int) -> None:
        self.runs, self._state, self._books = runs, state, books
        self._accumulate = accumulate
        self.tasks: list[Task] = []
        self._before: dict[int, Mapping[str, Any]] = {}

    def draw(
        self,
        members: Sequence[int],
        samples: int,
        rows: Mapping[int, Rows],
        orders: Mapping[int, ArrayLike] | None,
        how: How,
    ) -> None:
        """Draw the members' orders, or take those given."""
        waits = self._accumulate > 1
        pending = self._state.pending if waits else np.zeros(len(self._books.steps), np.int64)
        self._before = {i: self._books.streams[i].state for i in members}
        for i in members:
            own = rows[i]
            size = samples if own is None else len(own)
            require_batch(how.batch_size, size, i)
            order = None if orders is None else orders[i]
            drawn = self._books.streams[i].draw(size, how.epochs, how.shuffle, None, order)
            plan = (how.batch_size, how.drop_last, self._accumulate, int(pending[i]))
            self.tasks.append(self.runs.task(i, drawn, own, *plan))
            self.tasks[-1].is_drawn = how.shuffle and order is None
        self._state.settle()

    def ended_early(self) -> None:
        """Orders of epochs that were not begun are still to come."""
        begun = {task.member: task for task in self.tasks}
        for i, state in self._before.items():
            self._books.go_back(i, state, begun.get(i))

    def ended(self) -> None:
        """Note how far the members came."""
        for task in self.tasks:
            self._books.note(task)


class Trained(NamedTuple):
    """What `train` needs of a population.

    Attributes:
        call: begins a part of a run on data.
        arguments: the data as its programs take them.
        active: its members that are trained.
        stepped: told when a member has ended an epoch; None where schedules do not move by epoch.
        ranks: that share the members, if there are several.
        facts: what these compare of the population.
    """

    call: Callable[[Arguments], Call]
    arguments: Callable[[Sequence[Any]], Arguments]
    active: Callable[[], list[int]]
    stepped: Callable[[int], None] | None
    ranks: RankMembers | None
    facts: Callable[[], Mapping[str, str]]


Member = tuple[int, int]  # of which population, and its number there
Between = Callable[[int], bool]


def train(
    populations: Sequence[Trained],
    data: Sequence[Any],
    how: How,
    rows: Sequence[ArrayLike] | None,
    orders: Sequence[ArrayLike] | None,
    checked: bool,
    between: Between | None,
) -> list[Any]:
    """Train all active members.

    Args:
        populations: on one backend.
        data: of `Population.run`.
        how: the same.
        rows, orders: for each active member, those of the first population first.
        checked: the data passed the checks of an earlier run.
        between: called after each epoch with the epochs done; True ends the run.

    Returns:
        For each of them what its steps returned.
    """
    members = [(g, i) for g, one in enumerate(populations) for i in one.active()]
    if not members:
        raise DataError("all members were stopped: there is nothing to train.")
    arrays = [one.arguments(data) for one in populations]
    own = dict(zip(members, checked_rows("rows", rows, len(members), arrays[0].samples)))
    if orders is not None and len(orders) != len(members):
        raise DataError(f"orders has {len(orders)} entries for {len(members)} members.")
    run, ranks = _Run(populations, arrays, own), populations[0].ranks
    if ranks is not None:
        facts = {"how they are trained": str(how), "orders that are given": str(orders is not None)}
        if not checked:
            facts |= {name: fingerprint(a) for name, a in zip(arrays[0].names, arrays[0].arrays)}
        ranks.agree(facts)
        return run.by_epoch(members, orders, how, checked, between)
    if between is None and all(one.stepped is None for one in populations):
        given = None if orders is None else dict(zip(members, orders))
        return run.once(members, given, how, checked)
    return run.by_epoch(members, orders, how, checked, between)


class _Run:
    def __init__(
        self,
        populations: Sequence[Trained],
        arrays: Sequence[Arguments],
        rows: Mapping[Member, Rows],
    ) -> None:
        self._populations, self._arrays, self._rows = populations, arrays, rows

    def by_epoch(
        self,
        members: Sequence[Member],
        orders: Sequence[ArrayLike] | None,
        how: How,
        checked: bool,
        between: Between | None,
    ) -> list[Any]:
        """Epoch by epoch, with schedules and the caller between."""
        found: dict[Member, list[Any]] = {member: [] for member in members}
        ranks = self._populations[0].ranks
        epochs = how.epochs if orders is None else epochs_of(orders, how.epochs)
        for epoch in range(epochs):
            active = [(g, i) for g, i in members if i in self._populations[g].active()]
            if not active:
                break
            given = None if orders is None else of_epoch(members, orders, epoch)
            losses = self.once(active, given, how._replace(epochs=1), checked or epoch > 0)
            for (g, i), row in zip(active, losses):
                found[g, i].append(row)
                stepped = self._populations[g].stepped
                if stepped is not None:
                    stepped(i)
            ends = between is not None and between(epoch + 1)
            if ends if ranks is None else ranks.any(ends):
                break
        return [_joined(found[member]) for member in members]

    def once(
        self,
        members: Sequence[Member],
        orders: Mapping[Member, ArrayLike] | None,
        how: How,
        checked: bool,
    ) -> list[Any]:
        """All epochs of all members in one go."""
        calls: list[Call] = []
        ranks = self._populations[0].ranks
        if ranks is not None:  # what may have been set since the last epoch
            for one in self._populations:
                ranks.agree(one.facts())
        with Pauses(ranks is not None) as pauses:
            try:
                for g in dict.fromkeys(g for g, _ in members):
                    mine = [i for group, i in members if group == g]
                    given = None if orders is None else {i: orders[g, i] for i in mine}
                    calls.append(self._populations[g].call(self._arrays[g]))
                    rows = {i: self._rows[g, i] for i in mine}
                    calls[-1].draw(mine, self._arrays[g].samples, rows, given, how)
                run_side_by_side([(c.runs, c.tasks) for c in calls], checked, pauses)
            except BaseException:
                for call in calls:
                    call.ended_early()
                raise
            finally:
                for call in calls:
                    call.ended()
        return [task.buffers.value_so_far for call in calls for task in call.tasks]


def _joined(epochs: Sequence[Any]) -> Any:
    """What the steps of one member returned, epoch by epoch, as one: losses, or more."""
    taken = [tree.flatten(returned) for returned in epochs]
    leaves = zip(*[found for found, _ in taken], strict=True)
    return tree.unflatten(taken[0][1], [np.concatenate(parts) for parts in leaves])


def stacked(rows: Sequence[Any]) -> Any:
    """One array, where rows are arrays of one length."""
    alike = all(isinstance(row, np.ndarray) for row in rows) and len({len(r) for r in rows}) == 1
    return np.stack(rows) if alike else list(rows)
