"""Branches of recorded steps: which launches are ordered, how deep graphs are, and that no order
that they allow changes a bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from counting_driver import CountingDriver
from emulated_backend import emulated_backend
from fake_drivers import FAKES
from test_counts import data, step_on
from test_drivers_on_fakes import installed

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.branches import (
    Access,
    Task,
    branched,
    chain_cost,
    dependencies,
    planned,
    recorded,
)
from gpubp.backends.cuda.drivers.bare_nvrtc import missing
from gpubp.backends.cuda.drivers.recordings import Node
from gpubp.backends.cuda.emulator.driver import EmulatedDriver
from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.errors import UnknownNameError

emulated = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(autouse=True)
def _no_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    monkeypatch.setenv("GPUBP_VERIFY", "0")


def task(reads: str = "", writes: str = "", **options: Any) -> Task:
    """Of one launch; letters are pieces of memory, of 10 bytes each."""
    touched = [Access("memory", 10 * ord(c), 10 * ord(c) + 10, False) for c in reads]
    touched += [Access("memory", 10 * ord(c), 10 * ord(c) + 10, True) for c in writes]
    return Task(lambda: None, 1, tuple(touched), **options)


@pytest.mark.parametrize(
    ("tasks", "before"),
    [
        (("-a", "a-b", "a-c", "bc-d"), ((), (0,), (0,), (1, 2))),
        (("-a", "a-b", "-a"), ((), (0,), (1,))),  # a is used again: after who read it
        (("-ab", "a-c", "-b", "b-d"), ((), (0,), (0,), (2,))),
        (("-a", "-b", "ab-c", "b-a"), ((), (0,), (1,), (2,))),  # a graph begins with its first
        (("-a", "a-b", "ab-c"), ((), (0,), (1,))),  # what another one implies is no edge
        (("-a", "a-a", "a-a"), ((), (0,), (1,))),
        (("-a", "a-", "a-", "-a"), ((), (0,), (0,), (1, 2))),
    ],
)
def test_who_reads_what_is_written_waits(
    tasks: Sequence[str], before: tuple[tuple[int, ...], ...]
) -> None:
    assert tuple(dependencies([task(*text.split("-")) for text in tasks])) == before


def test_parts_of_a_piece_meet_where_they_overlap() -> None:
    def span(low: int, high: int, writes: bool) -> Task:
        return Task(lambda: None, 1, (Access("m", low, high, writes),))

    tasks = [span(0, 100, True), span(0, 50, True), span(50, 80, False), span(40, 60, True)]
    assert dependencies(tasks) == [(), (0,), (0,), (1, 2)]


def test_what_nothing_is_known_of_runs_alone() -> None:
    tasks = [task("", "a"), task("", "b"), task(alone=True), task("", "c"), task("a", "d")]
    assert dependencies(tasks) == [(), (0,), (1,), (2,), (2,)]


def ancestors(before: Sequence[Sequence[int]]) -> list[set[int]]:
    found: list[set[int]] = []
    for mine in before:
        found.append(set(mine).union(*(found[j] for j in mine)))
    return found


@pytest.mark.parametrize("lanes", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_lanes_keeps_every_order(lanes: int, seed: int) -> None:
    """And what a driver is told is what was planned."""
    rng = np.random.default_rng(seed)
    letters = list("abcdefgh")
    tasks = [
        task(
            "".join(rng.choice(letters, 2)),
            str(rng.choice(letters)),
            pinned=bool(rng.integers(5) == 0),
        )
        for _ in range(40)
    ]
    plan = planned(tasks, lanes)
    needed, kept = ancestors(dependencies(tasks)), ancestors(plan.before)
    assert all(a <= b for a, b in zip(needed, kept))
    assert all(lane == 0 for lane, one in zip(plan.lanes, tasks) if one.pinned)
    assert max(plan.lanes) < lanes and (lanes > 1 or plan.depth == len(tasks))
    told, last = [], {}
    for i, node in enumerate(plan.nodes(tasks)):
        told.append({*node.after} | ({last[node.lane]} if node.lane in last else set()))
        last[node.lane] = i
    assert ancestors(told) == kept  # type: ignore[arg-type]


def test_branches_are_recorded_where_the_model_says_that_they_pay() -> None:
    device = CountingDriver()
    wide = [task("", "a"), *[task("a", c) for c in "bcdefg"]]
    narrow = [task("", "a"), task("a", "b"), task("b", "c")]
    assert planned(wide).depth == 2 and planned(wide).pays
    assert not planned(narrow).pays and branched(narrow, device, "") is None
    busy = [task("", "a"), *[task("a", c, busy=(3.0, 3.0)) for c in "bcdefg"], task("bcdefg", "h")]
    plan = planned(busy)
    assert plan.cost == 18.0 < plan.chain == chain_cost(busy), "all multiprocessors are busy"
    joins = [task("", "ab"), task("a", "c"), task("b", "d"), task("cd", "e")]
    assert planned(joins).cost < planned(joins).chain
    assert branched(wide, device, "0") is None and branched(narrow, device, "1") is not None
    recorded(wide, device)
    recorded(wide, device, "0")


@pytest.mark.parametrize(
    ("widths", "batch", "nodes", "depth", "edges"),
    [((64, 100, 10), 200, 13, 7, 17), ((784, 256, 128, 10), 128, 18, 10, 24)],
)
def test_depth_of_a_step(
    widths: tuple[int, ...], batch: int, nodes: int, depth: int, edges: int
) -> None:
    """Forward pass, the gradients backwards, and one update: the others run beside. In a recording
    of several steps the next one's start does, too.
    """
    device = CountingDriver()
    step, (x, y) = step_on(device, *widths), data(batch * 18, widths[0])
    step(x[:batch], y[:batch])
    step(x[:batch], y[:batch])
    found = device.counts.take()
    assert (found.recorded, found.depths, found.edges) == ([nodes], [depth], [edges])
    step.run(x[batch:], y[batch:], batch_size=batch)
    found = device.counts.take()
    assert 16 * nodes in found.recorded
    assert found.depths[found.recorded.index(16 * nodes)] == 16 * (depth - 1) + 1
    assert f"{nodes} kernels a step, {depth} of them one after the other" in step.report()


def test_branches_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_BRANCHES", "0")
    device = CountingDriver()
    step, (x, y) = step_on(device), data(200)
    for _ in range(3):
        step(x, y)
    assert device.counts.depths == [13] and device.counts.edges == [12]
    assert "one after the other" not in step.report()
    monkeypatch.setenv("GPUBP_BRANCHES", "perhaps")
    with pytest.raises(UnknownNameError, match="GPUBP_BRANCHES"):
        CupyBackend(driver=device)


def small_step(backend: Any, optimizer: str = "Adam") -> tuple[Any, Any]:
    gp.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    loss = nn.CrossEntropyLoss()
    rule = getattr(optim, optimizer)(model.parameters(), lr=0.1)
    return gp.compile_step(lambda x, y: loss(model(x), y), rule, backend=backend), model


def small_data(samples: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, 6)).astype("f"), rng.integers(0, 3, samples)


def trained(backend: Any) -> list[Any]:
    step, model = small_step(backend)
    losses = step.run(*small_data(23), batch_size=5, epochs=4, seed=1)
    return [losses, *model.state_dict().values()]


@emulated
@pytest.mark.full
def test_no_order_of_branches_changes_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none lets launches meet in memory that no edge orders: each replay is looked at."""
    expected = trained(emulated_backend(EmulatedDriver(races="off")))
    for seed in range(3):
        device = EmulatedDriver(races="all" if seed == 0 else "off", shuffle=seed)
        for a, b in zip(trained(emulated_backend(device)), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    monkeypatch.setenv("GPUBP_BRANCHES", "0")
    for a, b in zip(trained(emulated_backend(EmulatedDriver(races="off"))), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@emulated
@pytest.mark.full
def test_launches_that_share_room_for_partial_results_are_ordered() -> None:
    """Sums over 520 rows are cut in pieces, which one piece of memory holds: of both layers' weight
    gradients in turn.
    """
    device = EmulatedDriver(races="all", shuffle=2)
    step, _ = small_step(emulated_backend(device))
    for _ in range(3):
        step(*small_data(520))
    (loaded,) = [ready.loaded for ready in step._runner.readies()]
    room = [
        i
        for i, one in enumerate(loaded.tasks)
        if any(isinstance(a.space, tuple) and a.space[0] == "workspace" for a in one.accesses)
    ]
    assert len(room) >= 2
    before = ancestors(dependencies(loaded.tasks))
    assert all(a in before[b] for a, b in itertools.pairwise(room))
    unordered = [
        replace(one, accesses=tuple(a for a in one.accesses if a.space[0] != "workspace"))
        for one in loaded.tasks
    ]
    nodes = planned(unordered).nodes(unordered)
    step.backend._transfers.block.upload(device_words(step, device), [], [])
    with pytest.raises(KernelError, match="no edge of the graph orders them"):
        device.record_branches(nodes)()


def meets(one: Task, other: Task) -> bool:
    pairs = itertools.product(one.accesses, other.accesses)
    return any(
        a.space == b.space and a.low < b.high and b.low < a.high and (a.writes or b.writes)
        for a, b in pairs
    )


@emulated
def test_each_edge_that_is_removed_is_reported() -> None:
    """All but those that only let a graph begin on one stream."""
    device = EmulatedDriver(races="first")
    step, _ = small_step(emulated_backend(device))
    step.run(*small_data(15), batch_size=5, epochs=2)
    (loaded,) = [ready.loaded for ready in step._runner.readies()]
    tasks = list(loaded.tasks)
    before = dependencies(tasks)
    edges = [(j, i) for i, mine in enumerate(before) for j in mine]
    assert len(edges) >= len(tasks)
    silent = []

    def nodes(without: tuple[int, int] | None) -> list[Node]:
        """Each on a lane of its own, so that edges alone order them."""
        return [
            Node(one.run, i, tuple(j for j in mine if (j, i) != without))
            for i, (one, mine) in enumerate(zip(tasks, before))
        ]

    def again(without: tuple[int, int] | None) -> None:
        step.backend._transfers.block.upload(first_words, [], [])
        device.record_branches(nodes(without))()

    first_words = device_words(step, device)
    again(None)
    for edge in edges:
        try:
            again(edge)
            silent.append(edge)
        except KernelError as err:
            assert err.kind == "race" and "no edge of the graph orders them" in str(err)
    assert silent == [(j, i) for j, i in edges if not meets(tasks[j], tasks[i])]
    assert len(silent) <= 2


def device_words(step: Any, device: Any) -> Any:
    """The run's words, at the start of a run."""
    words = np.zeros(4, np.int64)
    device.download(step.backend._transfers.block.address, words)
    return words - [words[0], 0, 0, 0]


@pytest.mark.parametrize("name", FAKES)
def test_streams_and_events_record_the_edges_that_were_planned(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """By CUDA's rules of captures, in each driver; kernels do nothing here."""
    fake = installed(name, monkeypatch, tmp_path)
    driver = fake.driver()
    tasks = [task("", "ab"), task("a", "c"), task("b", "d"), task("b", "e"), task("cde", "f")]
    ran: list[int] = []
    plan = planned(tasks)

    def launch(i: int) -> Any:
        streams = fake.streams
        return lambda: streams[driver._stream.handle].captured.do(lambda: ran.append(i))

    nodes = [n._replace(work=launch(i)) for i, n in enumerate(plan.nodes(tasks))]
    replay = driver.record_branches(nodes)
    (graph,) = fake.graphs
    assert [tuple(sorted(b)) for b in graph.before] == list(plan.before)
    assert (graph.depth, graph.edges) == (plan.depth, plan.edges) == (3, 6)
    for _ in range(20):
        replay()
    orders = {tuple(ran[5 * i : 5 * i + 5]) for i in range(20)}
    assert len(orders) > 3 and all(o[0] == 0 and o[-1] == 4 for o in orders)
    driver.record(launch(7))()
    assert ran[-1] == 7 and driver._stream.handle == fake.own()[0]
