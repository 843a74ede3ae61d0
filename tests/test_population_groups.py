"""Members of several architectures side by side: each computes what it would in its own group."""

from __future__ import annotations

from typing import Any

import numpy as np
import populations as pop
import pytest
from registered import with_workers

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.base import Backend
from gpubp.errors import ArgumentError, DataError
from gpubp.optim import lr_scheduler

MAKERS = with_workers(1, 3)
X, Y = pop.data()


@pytest.fixture(params=MAKERS)
def backend(request: Any) -> Backend:
    return MAKERS[request.param]()


def _wide(backend: Backend, **options: Any) -> gp.Population:
    """Another architecture, with another optimiser."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(pop.FEATURES, 24), nn.Tanh(), nn.Linear(24, pop.CLASSES))

    model = make()
    return gp.compile_population(
        pop.loss_of(model), optim.SGD(model.parameters()), n=2, model=model, initial=make,
        backend=backend, lr=[0.1, 0.2], **options,
    )  # fmt: skip


def _groups(backend: Backend) -> tuple[gp.Population, gp.Population]:
    narrow = pop.population(3, backend=backend, lr=[0.01, 0.02, 0.03])
    return narrow, _wide(backend, scheduler=lambda o: lr_scheduler.StepLR(o, 3, 0.5))


def test_groups_compute_what_they_compute_alone(backend: Backend) -> None:
    together = gp.Populations(_groups(backend))
    rows = [np.arange(i, 150 - i) for i in range(5)]
    found = together.run(X, Y, batch_size=40, epochs=2, rows=rows)
    narrow, wide = _groups(backend)
    expected = [
        *narrow.run(X, Y, batch_size=40, epochs=2, rows=rows[:3]),
        *wide.run(X, Y, batch_size=40, epochs=2, rows=rows[3:]),
    ]
    assert pop.as_bits(found) == pop.as_bits(expected)
    for i in range(5):
        alone = narrow.state_dict(i) if i < 3 else wide.state_dict(i - 3)
        assert pop.same(together.state_dict(i), alone)
    assert together.groups[1].hyper("lr").tolist() == wide.hyper("lr").tolist()
    assert together.histories == narrow.histories + wide.histories
    assert together.best() == int(np.argmin([h[-1] for h in together.histories]))
    outputs = together.predict(X, [4, 0])
    assert np.array_equal(outputs[0], wide.predict(X, 1)[0])
    assert np.array_equal(outputs[1], narrow.predict(X, 0)[0])


def test_a_table_that_is_too_short_for_one_group_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_scheduler.table.Table, "capacity", 4)
    found = gp.Populations(_groups(backend)).run(X, Y, batch_size=50, epochs=4)
    narrow, wide = _groups(backend)
    runs = [group.run(X, Y, batch_size=50, epochs=4) for group in (narrow, wide)]
    assert pop.as_bits(found) == pop.as_bits([*runs[0], *runs[1]])


def test_members_are_stopped_and_taken_up_by_their_number(backend: Backend) -> None:
    together = gp.Populations(_groups(backend))
    together.stop([1, 4])
    assert together.active == [0, 2, 3] and together.groups[1].active == [0]
    seen: list[list[int]] = []

    def after(populations: gp.Populations, epoch: int) -> bool:
        seen.append(populations.active)
        populations.stop([0, 2] if epoch == 1 else [])
        return epoch == 2

    found = together.run(X, Y, batch_size=50, epochs=9, callback=after)
    assert seen == [[0, 2, 3], [3]] and [len(own) for own in found] == [3, 3, 6]
    together.resume()
    assert together.active == [0, 1, 2, 3, 4] and together.steps == [3, 0, 3, 6, 0]
    assert together.of(-1) == (together.groups[1], 1) and len(together) == 5
    together.load_state_dict(1, together.state_dict(0))
    assert pop.same(together.groups[0].state_dict(1), together.state_dict(0))


def test_a_refused_run_changes_no_group(backend: Backend) -> None:
    together = gp.Populations(_groups(backend))
    with pytest.raises(DataError, match="member 1 has only 2 samples"):
        together.run(X, Y, batch_size=40, rows=[*[np.arange(50)] * 4, [0, 1]])
    with pytest.raises(DataError, match="holds 7"):
        together.run(X, np.where(Y == 1, 7, Y), batch_size=50)
    with pytest.raises(DataError, match="rows has 2 entries for 5"):
        together.run(X, Y, rows=[[0], [1]])
    assert together.steps == [0] * 5
    found = together.run(X, Y, batch_size=50)
    narrow, wide = _groups(backend)
    runs = [group.run(X, Y, batch_size=50) for group in (narrow, wide)]
    assert pop.as_bits(found) == pop.as_bits([*runs[0], *runs[1]])
    together.stop(list(range(5)))
    with pytest.raises(DataError, match="all members were stopped"):
        together.run(X, Y)


def test_what_is_no_group_is_refused() -> None:
    one = pop.population(2)
    with pytest.raises(DataError, match="at least one"):
        gp.Populations([])
    with pytest.raises(ArgumentError, match="a population twice"):
        gp.Populations([one, one])
    with pytest.raises(ArgumentError, match="expected populations"):
        gp.Populations([one, 3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="there is no member 2"):
        gp.Populations([one]).of(2)
    with pytest.raises(DataError, match="several backends"):
        gp.Populations([one, pop.population(2, backend="numpy")])
