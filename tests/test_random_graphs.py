"""Random graphs: reference, unfused, fused and native runs agree, and gradients are gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from generated import pools
from graph_pool import Pool
from hypothesis import HealthCheck, given, settings
from tolerances import assert_close, assert_gradient, assert_same

from gpubp import ops
from gpubp.backends.base import Backend, Feed
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numpy import NumpyBackend
from gpubp.compiler import row_padding as widen
from gpubp.compiler.grad import gradients
from gpubp.compiler.pipeline import Options, compile_graph
from gpubp.compiler.trace import evaluate_graph
from gpubp.core import Array, ConcreteArray, Graph, tracing
from gpubp.core.store import Slot, pack

NUMPY = NumpyBackend()
NUMBA = {workers: NumbaBackend(workers) for workers in (1, 3)}
STEPS = 2
Results = list[ConcreteArray]


def _settings(examples: int) -> Any:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=slow
    )


def _slots(pool: Pool) -> list[Slot]:
    return [*pool.slots, pool.generator.state]


def _from_start(pool: Pool, start: Results, work: Any) -> Results:
    """Outputs of each step, then the slots' values, of `work` begun with the same slots."""
    slots = _slots(pool)
    for slot, value in zip(slots, start, strict=True):
        slot.value = value
    outputs = work()
    return [*outputs, *[slot.value.copy() for slot in slots]]


def _run(pool: Pool, backend: Backend, options: Options) -> Results:
    hooks = NUMBA[1].splits_columns, NUMBA[1].wide_rows
    program = compile_graph(pool.graph, False, options, *hooks)
    loaded = backend.load(program)
    outputs = [np.empty((STEPS, *shape), dtype) for shape, dtype in program.output_types]
    schedule = np.zeros((STEPS, 2), np.int64)
    backend.run([loaded], schedule, Feed(pool.data, np.zeros(0, np.int64), [outputs]))
    return [o[i] for i in range(STEPS) for o in outputs]


def _reference(pool: Pool) -> Results:
    return [o for _ in range(STEPS) for o in evaluate_graph(pool.graph, pool.data)]


def check_agreement(pool: Pool) -> None:
    """Every way to run the graph gives the reference's numbers."""
    pack("slots", _slots(pool))
    start = [slot.value.copy() for slot in _slots(pool)]
    before = [a.copy() for a in pool.data]
    expected = _from_start(pool, start, lambda: _reference(pool))

    def ran(backend: Backend, **options: Any) -> Results:
        return _from_start(pool, start, lambda: _run(pool, backend, Options(**options)))

    fused = ran(NUMPY)
    one = ran(NUMBA[1])
    for name, found in (("unfused", ran(NUMPY, fuse=False)), ("fused", fused), ("numba", one)):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_close(a, b, f"{name}, result {i}")
    for name, same, found in (
        ("no reuse", fused, ran(NUMPY, reuse=False)),
        ("3 workers", one, ran(NUMBA[3])),
        ("numba, no reuse", one, ran(NUMBA[3], reuse=False)),
    ):
        for i, (a, b) in enumerate(zip(found, same, strict=True)):
            assert_same(a, b, f"{name}, result {i}")
    for a, b in zip(pool.data, before, strict=True):
        assert_same(a, b, "an input was written")


def _append_loss(pool: Pool) -> Any:
    """A scalar of every output, and its gradients by all float inputs."""
    graph = pool.graph
    wrt = [n for n in graph.inputs if n.dtype.kind == "f"]
    with tracing(graph):
        parts = [ops.mean(ops.sin(Array(graph, n) + 0.5)) for n in graph.outputs if n.size]
        loss = parts[0]
        for part in parts[1:]:
            loss = loss + part
    found = gradients(graph, loss.node, wrt)
    graph.writes = []
    return loss.node, [(n, g) for n, g in zip(wrt, found, strict=True) if g is not None]


def _value(graph: Graph, node: Any, data: Results) -> float:
    graph.outputs = [node]
    return float(evaluate_graph(graph, data)[0])


def _numeric(graph: Graph, loss: Any, data: Results, position: int, at: tuple[int, ...]) -> float:
    """Fourth-order central difference, so that its own error stays far below the tolerance."""
    step = 1e-4
    total = 0.0
    for shift, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
        moved = [a.copy() for a in data]
        moved[position][at] += shift * step
        total += weight * _value(graph, loss, moved)
    return total / (12 * step)


def check_gradients(pool: Pool) -> None:
    """Gradients are central differences, and the compiled gradient is the reference's."""
    if not any(n.size for n in pool.graph.outputs):
        return
    loss, found = _append_loss(pool)
    if not found:
        return
    graph = pool.graph
    graph.outputs = [g for _, g in found]
    expected = evaluate_graph(graph, pool.data)
    check_agreement(pool)
    for (node, _), gradient in zip(found, expected, strict=True):
        flat = np.random.default_rng(0).permutation(node.size)[:3]
        for at in zip(*np.unravel_index(flat, node.shape), strict=True) if node.shape else [()]:
            index = tuple(int(i) for i in at)
            numeric = _numeric(graph, loss, pool.data, node.payload, index)
            assert_gradient(gradient[index], np.float64(numeric), f"{node!r} at {index}")


@_settings(60)
@given(pools())
def test_every_way_to_run_agrees(pool: Pool) -> None:
    check_agreement(pool)


@_settings(20)
@given(pools(dtype="float32"))
def test_random_graphs_in_float32_agree_on_all_backends(pool: Pool) -> None:
    check_agreement(pool)


@_settings(40)
@given(pools(smooth=True, steps=6))
def test_gradients_of_random_graphs_agree_with_differences(pool: Pool) -> None:
    check_gradients(pool)


@pytest.fixture(scope="module", autouse=True)
def _short_rows_are_moved_apart() -> Iterator[None]:
    """As long ones are: the graphs of these tests have few of those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widen, "LEAST_BYTES", 0)
        yield


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_there() -> None:
    """Compile the native kernels before the first example is timed."""
    for dtype in ("float32", "float64"):
        graph = Graph()
        graph.outputs = [graph.input((1,), dtype)]
        NUMBA[1].load(compile_graph(graph))
