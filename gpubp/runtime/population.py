"""Many models of one architecture, trained side by side: what `gp.compile_population` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, reading
from gpubp.backends.base import Backend
from gpubp.distributed.communicator import Communicator
from gpubp.errors import DataError, GradientError
from gpubp.runtime.arguments import Arguments, checked_arguments
from gpubp.runtime.ensemble import as_ensemble
from gpubp.runtime.hyper import Hyper
from gpubp.runtime.member_books import Books
from gpubp.runtime.member_calls import Call, How, Trained, stacked, train
from gpubp.runtime.member_outputs import MemberOutputs
from gpubp.runtime.member_runs import MemberRuns, Task
from gpubp.runtime.member_schedules import MemberSchedules
from gpubp.runtime.member_state import MemberState
from gpubp.runtime.members import Members
from gpubp.runtime.members_chosen import chosen, one_member
from gpubp.runtime.rank_facts import settings_of
from gpubp.runtime.rank_members import RankMembers
from gpubp.runtime.step_programs import StepPrograms

Callback = Callable[["Population", int], Any]


class Population(Members):
    """Members that share programs; made by `gp.compile_population`.

    Attributes:
        n: how many members there are.
        active: those that `run` trains, in order; see `stop`.
        histories: for each member, the loss of each epoch: of its samples as of one batch.
        steps: for each member, the batches it has trained on.
    """

    def __init__(
        self,
        programs: StepPrograms,
        state: MemberState,
        hyper: Hyper,
        schedules: MemberSchedules | None,
        accumulate: int,
        model: Any,
        ranks: RankMembers | None = None,
    ) -> None:
        super().__init__(state.memory.members, hyper)
        self._programs, self._state = programs, state
        self._schedules, self._accumulate, self._model = schedules, accumulate, model
        self._outputs: MemberOutputs | None = None
        self._last: list[Task] = []
        self._ranks = ranks
        if not state.parameters:
            raise GradientError("the optimizer has no parameters to train.")

    @property
    def backend(self) -> Backend:
        return self._programs.backend

    @property
    def communicator(self) -> Communicator | None:
        """Of the ranks that share the members; None where there is one."""
        return None if self._ranks is None else self._ranks.parallel.communicator

    @property
    def programs(self) -> int:
        """How many were compiled: one for each size of batch, however many members there are."""
        return len(self._programs.updating.readies()) + len(self._programs.adding.readies())

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
        """Train the active members on resident data, each as `Step.run` would train it alone.

        Args:
            *data: as of `Step.run`, in the host's memory; read by all members.
            batch_size, epochs, shuffle, drop_last: as of `Step.run`. Each member draws orders from
                a stream of its own.
            rows: for each active member, the indices of the rows that are its data (a fold, a
                bootstrap sample); it is trained as on these rows alone.
            orders: for each active member what `order` is to `Step.run`: indices of its rows.
            callback: called after each epoch with the population and the epochs done in this call;
                it may stop, copy and change members. Returning True ends the run.
            checked: the data passed the checks of an earlier run and have not changed.

        Returns:
            The loss of every batch, (active members, steps); a list of arrays where members make
            different numbers of steps. A member that diverges has NaN there, and no other has.

        Ctrl-C ends a run as it ends `Step.run`: each member has done whole steps, not all of them
        as many; `steps` says how many, and `losses` has what was returned.

        Raises:
            DataError: as of `Step.run`; or another number of `rows` or `orders` than members.
        """
        self._last = []

        def between(epoch: int) -> bool:
            return callback is not None and callback(self, epoch) is True

        how = How(batch_size, epochs, shuffle, drop_last)
        between_epochs = None if callback is None else between
        with self.telling():
            found = train([self.trained()], data, how, rows, orders, checked, between_epochs)
        return stacked(found)

    def telling(self) -> AbstractContextManager[None]:
        """While open, an exception that leaves it is told to the ranks that share the members."""
        return nullcontext() if self._ranks is None else self._ranks.telling()

    def trained(self) -> Trained:
        """What a run needs of this population; `Populations` runs several."""
        by_epoch = self._schedules is not None and self._schedules.by_epoch
        return Trained(
            self._call,
            lambda data: checked_arguments(data, self._state.floating, self.backend),
            lambda: self.active,
            self._stepped if by_epoch else None,
            self._ranks,
            self._facts,
        )

    def _facts(self) -> dict[str, str]:
        """What ranks that share the members compare before each epoch."""
        found = {name: str(self._hyper.get(name, slice(None))) for name in self._hyper.names}
        schedules = [] if self._schedules is None else self._schedules.all
        return {
            "how many members there are": str(self.n),
            "the members' steps": str(self.steps),
            **{f"the members' {name}": text for name, text in found.items()},
            **{f"member {i}'s schedule": settings_of(s) for i, s in enumerate(schedules)},
            **self._programs.facts_of_update(),
        }

    def _call(self, arrays: Arguments) -> Call:
        inside = None if self._schedules is None or self._schedules.by_epoch else self._schedules
        runs = MemberRuns(self._programs, self._state, inside, arrays, self._ranks)
        call = Call(runs, self._state, self._books, self._accumulate)
        self._last = call.tasks
        return call

    def _stepped(self, member: int) -> None:
        if self._schedules is not None:
            self._schedules.step(member, self.histories[member][-1])

    @property
    def losses(self) -> list[Any]:
        """Of the members that the last run trained, the losses of its last call of the programs,
        as far as it came."""
        return [task.buffers.losses_so_far for task in self._last]

    @checked
    def copy(self, source: int, target: int) -> None:
        """Let a member go on from where another stands: weights, state, hyper-parameters, schedule.

        Its order of samples and its random numbers stay its own, so the two differ from then on.
        """
        source, target = one_member(source, self.n), one_member(target, self.n)
        self._state.copy(source, target)
        if self._schedules is not None:
            self._schedules.copy(source, target)

    @checked
    def state_dict(self, member: int) -> dict[str, NDArray[Any]]:
        """A member's weights and buffers by name, for `model.load_state_dict`; copies."""
        return self._state.named(one_member(member, self.n))

    @checked
    def load_state_dict(self, member: int, state: Mapping[str, ArrayLike]) -> None:
        """Give a member weights and buffers; on an error nothing is changed.

        Raises:
            UnknownNameError, ShapeError: they are not those of the model.
        """
        self._state.load_named(one_member(member, self.n), state)

    @checked
    def predict(
        self, X: Any, members: int | Sequence[int] | None = None, batch_size: int = 1024
    ) -> Any:
        """The outputs of members in eval mode, (members, samples, ...); default: of all.

        Args:
            X: samples along the first axis, or several such arrays as a tuple.
            members: whose.
            batch_size: samples at a time.

        Raises:
            DataError: the population was made without `model`.
        """
        model = self._required_model()
        given = X if isinstance(X, tuple) else (X,)
        data = checked_arguments(given, self._state.floating, self.backend)
        if self._outputs is None:
            self._outputs = MemberOutputs(model, self.backend, self._state.memory)
        return self._outputs(data, chosen(members, self.n), batch_size)

    def ensemble(self, members: int | Sequence[int] | None = None) -> Any:
        """Members as one predictor (`gp.Ensemble`), with copies of their weights; default: all."""
        states = [self.state_dict(i) for i in chosen(members, self.n)]
        return as_ensemble(self._required_model(), states, self.backend)

    def _required_model(self) -> Any:
        if self._model is None:
            raise DataError(
                "the population does not know its model: pass model=... to compile_population."
            )
        return self._model

    def full_state(self) -> dict[str, Any]:
        """Where all members stand: {"arrays": {name: (n, ...)}, "record": JSON values} (copies)."""
        record = {**self._books.state_dict(), "base": self._state.base}
        if self._schedules is not None:
            record["schedules"] = self._schedules.state_dict()
        return {"arrays": self._state.arrays(), "record": record}

    @reading("the state of a population")
    @checked
    def load_full_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where another population stood that was made alike, bit for bit.

        Raises:
            DataError, ShapeError: of other members, another model or optimiser.
        """
        record = dict(state["record"])
        books = Books.standing_at(record, self.n)
        self._state.check(state["arrays"], record["base"])
        if self._schedules is not None:
            self._schedules.load_state_dict(record["schedules"])
        self._state.load(state["arrays"])
        self._books = books
