"""What is known of a population's members, and set: who is trained, their numbers, their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.core.store import Slot
from gpubp.errors import CopyError
from gpubp.runtime.hyper import Hyper
from gpubp.runtime.member_books import Books, best_of
from gpubp.runtime.members_chosen import chosen


class Members:
    """Base of `Population`.

    Args:
        n: how many.
        hyper: the numbers in which they differ.
    """

    def __init__(self, n: int, hyper: Hyper) -> None:
        self.n = n
        self._hyper, self._books = hyper, Books(n)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CopyError(
            f"a {type(self).__name__} cannot be copied or pickled: its function refers to the "
            "model it was made with. Save it with gp.train.save_population(path, population), and "
            "read the file into another one of the same call of gp.compile_population with "
            "gp.train.load_population(path, other); or hand over full_state() to load_full_state()."
        )

    def seed(self, seeds: Sequence[int]) -> None:
        """Let each member's order of samples start from a seed."""
        self._books.seed(seeds)

    @property
    def active(self) -> list[int]:
        """Those that `run` trains, in order."""
        return [i for i in range(self.n) if i not in self._books.stopped]

    @property
    def histories(self) -> list[list[float]]:
        """For each member, the loss of each epoch."""
        return self._books.histories

    @property
    def steps(self) -> list[int]:
        """For each member, the batches it has trained on."""
        return list(self._books.steps)

    def stop(self, members: int | Sequence[int]) -> None:
        """Leave members as they are from now on; `resume` takes them up again."""
        self._books.stopped |= set(chosen(members, self.n))

    def resume(self, members: int | Sequence[int] | None = None) -> None:
        """Train members again that were stopped; default: all."""
        self._books.stopped -= set(chosen(members, self.n))

    @checked
    def best(self, scores: ArrayLike | None = None, mode: str = "min") -> int:
        """The member with the best number; those without a finite one come last.

        Args:
            scores: (n,); default: the loss of each member's last epoch.
            mode: "min" or "max".

        Raises:
            DataError: no epoch has ended, or not one score for each member.
        """
        return best_of(scores, self.histories, mode)

    @checked
    def hyper(self, name: str | Slot, members: int | Sequence[int] | None = None) -> NDArray[Any]:
        """One of the numbers in which members differ, one for each of them (a copy).

        Args:
            name: of an option of the optimiser; or a slot of `slots`.
            members: whose; default: of all.

        Raises:
            UnknownNameError, DataError: it was not given when the population was made.
        """
        return self._hyper.get(name, chosen(members, self.n))

    @checked
    def set_hyper(
        self, name: str | Slot, value: Any, members: int | Sequence[int] | None = None
    ) -> None:
        """Give members another number from the next step on; default: all of them.

        Args:
            name: of an option of the optimiser; or a slot of `slots`.
            value: one for all of them, or one for each.
            members: whose.

        Raises:
            DataError: out of the option's range.
            UnknownNameError: it was not given when the population was made.
        """
        self._hyper.set(name, value, chosen(members, self.n))
