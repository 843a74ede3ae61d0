"""Fits that share an architecture, trained as one population.

Comes in: fits that are ready to be trained (`Epochs`), each with weights, rows, order, rates and
penalty of its own. Goes out: the same fits, as if each had been trained alone: the loss and the
rule are those of `Engine`, so the programs are the same, and so are the numbers, bit for bit.

Fits are members of a `gp.Population`: a thread takes one of them through all epochs that are sure
to come, and between two such rounds Python keeps scikit-learn's books of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import Slot, pack
from gpubp.runtime.populate import compile_population
from gpubp.sklearn.engine import Pool, Trained
from gpubp.sklearn.epochs import ORDER_ELEMENTS, Epochs
from gpubp.sklearn.network import Network
from gpubp.sklearn.rules import RuleOptions


class Ran(NamedTuple):
    """How a fit was trained.

    Attributes:
        where: the backend's name, and whether it was a member of a population.
        seconds: it took; of a member, its share.
    """

    where: str
    seconds: float


class Crew(Trained):
    """Places for n fits of one kind.

    Args:
        network, rule: of `Trained`.
        backend, device: as for `gp.compile_population`.
        n: how many.
    """

    def __init__(
        self, network: Network, rule: RuleOptions, backend: str | None, device: str | None, n: int
    ) -> None:
        super().__init__(network, rule)
        self.sizes: set[int] = set()
        pack("params", self.rule.parameters())
        self.rule.prepare()
        state = [slot for slots in self.rule.state.values() for slot in slots]
        self._own: list[Slot] = [self.alpha, self.rule.lr, *self.rule.parameters(), *state]
        if network.dropout:
            self._own.append(self.generator.state)
        self._population = compile_population(
            self.loss,
            self.rule,
            n=n,
            slots={slot: slot.value for slot in self._own},
            backend=backend,
            device=device,
        )

    @property
    def backend_name(self) -> str:
        return str(self._population.backend.name)

    def train(self, fits: Sequence[Epochs], look: Callable[[], None]) -> list[Exception | None]:
        """Train fits of one batch size to their ends.

        Args:
            fits: as many as there are places.
            look: called between rounds; what it raises ends the training.

        Returns:
            For each what its training would have raised alone, or None.
        """
        population, batch_size = self._population, fits[0].batch_size
        population.resume()
        errors: list[Exception | None] = [None] * len(fits)
        data, rows = shared(fits)
        for i, fit in enumerate(fits):
            self.sizes.update((batch_size, fit.rows.size % batch_size))
            population.histories[i].clear()
            self._load(i, fit)
        checked = False
        while population.active:
            orders = self._orders(fits, errors)
            active = population.active
            if not active:
                break
            found = population.run(
                *data,
                batch_size=batch_size,
                rows=[rows[i] for i in active],
                orders=[orders[i] for i in active],
                checked=checked,
            )
            checked = True
            for i, losses in zip(active, found):
                errors[i] = self._note(i, fits[i], losses.reshape(len(orders[i]), -1))
            look()
        return errors

    def _orders(
        self, fits: Sequence[Epochs], errors: list[Exception | None]
    ) -> dict[int, NDArray[np.int64]]:
        """Of the epochs that each is sure to make; who cannot be trained further is stopped."""
        found: dict[int, NDArray[np.int64]] = {}
        for i in self._population.active:
            most = ORDER_ELEMENTS / (fits[i].rows.size * len(fits))
            try:
                found[i] = fits[i].orders(fits[i].sure(most))
            except ZeroDivisionError as error:
                errors[i] = error
                self._end(i, fits[i])
        return found

    def _note(self, i: int, fit: Epochs, losses: NDArray[Any]) -> Exception | None:
        """A member has trained some epochs; returns what its books raise (warnings may)."""
        try:
            fit.note(losses)
        except Exception as error:
            self._end(i, fit)
            return error
        if fit.goes_on:
            self._population.set_hyper(self.rule.lr, np.float64(fit.rate()), i)
        else:
            self._end(i, fit)
        return None

    def _load(self, i: int, fit: Epochs) -> None:
        """Give a member the weights, state and numbers of an estimator."""
        est = fit.estimator
        self.alpha.value = np.float64(est.alpha)
        self.generator.manual_seed(fit.seed)
        self.put(est.coefs_, est.intercepts_, est._optimizer)
        for slot in self._own:
            self._population.set_hyper(slot, slot.value, i)

    def _end(self, i: int, fit: Epochs) -> None:
        """Give them back to the estimator."""
        est = fit.estimator
        for slot in self._own:
            slot.value = self._population.hyper(slot, i)[0]
        self.save(est.coefs_, est.intercepts_)
        self.rule.save(est._optimizer)
        self._population.stop(i)


crews = Pool(Crew)


def train_together(
    fits: Sequence[Epochs], key: tuple[Any, ...], look: Callable[[], None]
) -> tuple[Ran, list[Exception | None]]:
    """Train fits of one kind and batch size; see `Crew.train`."""
    start = time.perf_counter()
    with crews.borrow((*key, len(fits))) as crew:
        errors = crew.train(fits, look)
    seconds = (time.perf_counter() - start) / len(fits)
    return Ran(f"{crew.backend_name}, in a population", seconds), errors


def shared(fits: Sequence[Epochs]) -> tuple[list[NDArray[Any]], list[NDArray[np.int64]]]:
    """Arrays that hold the samples of all fits, those of a fold once; and each fit's rows."""
    seen: list[tuple[list[NDArray[Any]], int]] = []
    rows = []
    for fit in fits:
        arrays = fit.rows.whole()
        start = next((first for known, first in seen if _equal(known, arrays)), None)
        if start is None:
            start = sum(len(known[0]) for known, _ in seen)
            seen.append((arrays, start))
        rows.append(np.arange(start, start + fit.rows.size))
    if len(seen) == 1:
        return seen[0][0], rows
    return [np.concatenate(parts) for parts in zip(*[arrays for arrays, _ in seen])], rows


def _equal(some: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> bool:
    return all(a is b or np.array_equal(a, b) for a, b in zip(some, others, strict=True))
