"""Several populations as one: members of several architectures, trained side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, shown
from gpubp.errors import ArgumentError, CopyError, DataError
from gpubp.runtime.member_books import best_of
from gpubp.runtime.member_calls import How, stacked, train
from gpubp.runtime.members_chosen import chosen, one_member
from gpubp.runtime.population import Population

Callback = Callable[["Populations", int], Any]


class Populations:
    """Groups of members, a population each, whose members are numbered through.

    What is part of a program (widths, activations, optimisers) differs between groups, what stands
    in slots between the members of one. A run hands the members of all groups to the same threads,
    so none of them waits for a group to end; each computes what it would compute in its own.

    Args:
        groups: populations of one backend; what members have (rates, schedules, states) is set and
            read there.

    Attributes:
        n: how many members all groups have.

    Raises:
        ArgumentError: something else than populations, or one of them twice.
        DataError: none, or populations on several backends.
    """

    def __init__(self, groups: Sequence[Population]) -> None:
        self.groups = list(groups)
        if not self.groups:
            raise DataError("Populations needs at least one population.")
        odd = [group for group in self.groups if not isinstance(group, Population)]
        if odd or len({id(group) for group in self.groups}) < len(self.groups):
            raise ArgumentError(
                f"got {shown(odd[0]) if odd else 'a population twice'}; expected populations of "
                "gp.compile_population, each once."
            )
        if len({id(group.backend) for group in self.groups}) > 1:
            raise DataError(
                "the populations run on several backends: compile them for one of them "
                "(backend=..., device=...)."
            )
        if len({id(group.communicator) for group in self.groups}) > 1:
            raise DataError(
                "the populations are shared by other ranks each: give all of them one communicator."
            )
        self._firsts = np.cumsum([0, *[group.n for group in self.groups]])
        self.n = int(self._firsts[-1])

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CopyError(
            "a Populations cannot be copied or pickled: the functions of its groups refer to the "
            "models they were made with. Save each of its groups with "
            "gp.train.save_population(path, group)."
        )

    @checked
    def of(self, member: int) -> tuple[Population, int]:
        """The population that a member belongs to, and its number there."""
        number = one_member(member, self.n)
        group = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return self.groups[group], number - int(self._firsts[group])

    @property
    def active(self) -> list[int]:
        """Those that `run` trains, in order."""
        return self._numbered(lambda group: group.active)

    @property
    def histories(self) -> list[list[float]]:
        """For each member, the loss of each epoch."""
        return [history for group in self.groups for history in group.histories]

    @property
    def steps(self) -> list[int]:
        """For each member, the batches it has trained on."""
        return [steps for group in self.groups for steps in group.steps]

    @checked
    def stop(self, members: int | Sequence[int]) -> None:
        """Leave members as they are from now on; `resume` takes them up again."""
        for group, member in self._those(members):
            group.stop(member)

    @checked
    def resume(self, members: int | Sequence[int] | None = None) -> None:
        """Train members again that were stopped; default: all."""
        for group, member in self._those(members):
            group.resume(member)

    @checked
    def run(
        self,
        *data: Any,
        batch_size: int = 32,
        epochs: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        rows: Sequence[ArrayLike] | None = None,
        orders: Sequence[ArrayLike] | None = None,
        callback: Callback | None = None,
        checked: bool = False,
    ) -> Any:
        """Train the active members of all groups; see `Population.run`.

        Args:
            *data, batch_size, epochs, shuffle, drop_last, checked: as of `Population.run`.
            rows, orders: for each active member, in the order of their numbers.
            callback: called after each epoch with these populations and the epochs done.

        Returns:
            As of `Population.run`.

        Raises:
            DataError: as of `Population.run`.
        """

        def between(epoch: int) -> bool:
            return callback is not None and callback(self, epoch) is True

        how = How(batch_size, epochs, shuffle, drop_last)
        trained = [group.trained() for group in self.groups]
        between_epochs = None if callback is None else between
        with self.groups[0].telling():
            found = train(trained, data, how, rows, orders, checked, between_epochs)
        return stacked(found)

    @checked
    def best(self, scores: ArrayLike | None = None, mode: str = "min") -> int:
        """The member with the best number; see `Population.best`."""
        return best_of(scores, self.histories, mode)

    @checked
    def state_dict(self, member: int) -> dict[str, NDArray[Any]]:
        """A member's weights and buffers by name, for its group's model; copies."""
        group, number = self.of(member)
        return group.state_dict(number)

    @checked
    def load_state_dict(self, member: int, state: Mapping[str, ArrayLike]) -> None:
        """Give a member weights and buffers; on an error nothing is changed."""
        group, number = self.of(member)
        group.load_state_dict(number, state)

    @checked
    def predict(
        self, X: Any, members: int | Sequence[int] | None = None, batch_size: int = 1024
    ) -> Any:
        """The outputs of members in eval mode, (members, samples, ...); see `Population.predict`.

        A list where architectures give outputs of several shapes.
        """
        found: dict[int, Any] = {}
        asked = chosen(members, self.n)
        for k, group in enumerate(self.groups):
            first = int(self._firsts[k])
            mine = [i for i in asked if first <= i < first + group.n]
            if mine:
                outputs = group.predict(X, [i - first for i in mine], batch_size)
                found.update(zip(mine, outputs))
        rows = [found[i] for i in asked]
        alike = len({row.shape for row in rows}) == 1
        return np.stack(rows) if alike else rows

    def _those(self, members: int | Sequence[int] | None) -> list[tuple[Population, int]]:
        return [self.of(i) for i in chosen(members, self.n)]

    def _numbered(self, found: Callable[[Population], Sequence[int]]) -> list[int]:
        pairs = zip(self._firsts.tolist(), self.groups)
        return [first + i for first, group in pairs for i in found(group)]

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        sizes = " + ".join(str(group.n) for group in self.groups)
        return f"Populations({sizes} members)"
