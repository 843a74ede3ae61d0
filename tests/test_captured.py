"""What a trace captures is a copy, stored once, and compared with what its owner holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.compiler.trace import trace
from gpubp.core import CONST, ArrayType
from gpubp.core.facts import WATCHED_BYTES
from gpubp.core.keys import exact, frozen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 3, 16, 17, 300])
def test_a_buffer_that_is_filled_again_while_tracing(size: int, backend: str) -> None:
    def f(x: Any) -> Any:
        buffer, out = np.zeros(size), []
        for i in range(4):
            buffer[:] = i
            out.append(ops.sum(x * buffer))
        return ops.stack(out)

    x, expected = np.ones(size), size * np.arange(4.0)
    np.testing.assert_array_equal(gp.compile(f, backend=backend)(x), expected)
    np.testing.assert_array_equal(f(x), expected)
    for i in range(4):
        np.testing.assert_array_equal(gp.grad(lambda x, i=i: f(x)[i])(x), np.full(size, i))
    value, pull = gp.vjp(f, x)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pull(np.ones(4))[0], np.full(size, 6.0))


@pytest.mark.parametrize("size", [1, 3, 17, 300])
def test_fresh_arrays_at_recycled_addresses(size: int) -> None:
    def f(x: Any) -> Any:
        return ops.stack([ops.sum(x * np.full(size, float(i % 3))) for i in range(30)])

    found = gp.compile(f)(np.ones(size))
    np.testing.assert_array_equal(found, size * (np.arange(30.0) % 3))


@pytest.mark.parametrize("kind", ["view", "transposed", "labels", "mask", "index"])
def test_captured_arrays_are_copies_whichever_way_they_enter(kind: str) -> None:
    ways: dict[str, Any] = {
        "view": lambda x, b: x * b[::2],
        "transposed": lambda x, b: x[:2] @ np.stack([b, b]).T[:2],
        "labels": lambda x, b: ops.softmax_cross_entropy(ops.stack([x, x]), b[:2]),
        "mask": lambda x, b: ops.where(b[:3] > 0, x, 0.0),
        "index": lambda x, b: x[b[:2]],
    }
    dtype = np.int64 if kind in ("labels", "index") else np.float64

    def f(x: Any) -> list[Any]:
        buffer = np.zeros(6, dtype)
        first = ways[kind](x, buffer)
        buffer[:] = 2
        return [first, ways[kind](x, buffer)]

    x = np.arange(3.0)
    for found, expected in zip(gp.compile(f)(x), f(x), strict=True):
        np.testing.assert_allclose(found, np.asarray(expected))


@pytest.mark.parametrize("uses", [1, 2, 4])
def test_constants_are_stored_once(uses: int) -> None:
    table = np.random.default_rng(0).standard_normal((64, 128))
    layers = [table, table.copy(), np.asfortranarray(table), table]

    def f(x: Any) -> Any:
        for layer in layers[:uses]:
            x = x + ops.sum(x * layer)
        return x

    step = gp.compile(f)
    step(np.ones((64, 128)))
    assert step._runner.last is not None
    constants = [b for b in step._runner.last.program.buffers if b.kind == "const"]
    assert table.nbytes <= sum(b.size * b.dtype.itemsize for b in constants) < 1.1 * table.nbytes


def test_constants_that_are_equal_but_not_alike_are_two() -> None:
    arrays = [np.zeros(3), -np.zeros(3), np.zeros(3, np.float32), np.zeros(3, np.int64)]
    arrays += [np.zeros((3, 1)), np.array([np.nan] * 3)]
    graph, _ = trace(lambda x: [x, *[a.copy() for a in arrays], *arrays], [np.ones(3)])
    assert len([n for n in graph.nodes if n.spec is CONST]) == len(arrays)


def test_captured_arrays_cannot_be_written_into() -> None:
    graph, _ = trace(lambda x: x * np.arange(3.0), [ArrayType((3,), np.dtype(np.float64))])
    (constant,) = [n for n in graph.nodes if n.spec is CONST]
    with pytest.raises(ValueError, match="read-only"):
        constant.payload[0] = 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [3, 17, 1000])
def test_an_array_that_changes_between_calls(size: int, backend: str) -> None:
    """Whoever holds it: a closure, a global, a view of it."""
    weight = np.ones(size)
    traced: list[int] = []

    def f(x: Any) -> Any:
        traced.append(1)
        return x * weight[:]

    g, x = gp.compile(f, backend=backend), np.ones(size)
    for i in (1.0, 2.0, 2.0, 3.0):
        weight[-1] = i
        assert g(x)[-1] == i
    assert len(traced) == 3


def test_large_arrays_are_copied_once() -> None:
    """They are not compared at each call: the documentation says so."""
    weight = np.ones(WATCHED_BYTES // 8 + 1)
    f, x = gp.compile(lambda x: x * weight), np.ones(len(weight))
    f(x)
    weight[:] = 2.0
    assert f(x)[0] == 1.0

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, x: Any) -> Any:
            return x * self.weight

    holder = Holder()
    g = gp.compile(holder)
    assert g(x)[0] == 2.0
    holder.weight = weight * 2.0
    assert g(x)[0] == 4.0, "another array is seen, whatever its size"


def test_class_weights_of_losses_are_live() -> None:
    loss = nn.CrossEntropyLoss([1.0, 1.0])
    x, y = np.array([[0.0, 1.0], [1.0, 3.0]], np.float32), np.array([0, 1])
    f = gp.compile(loss)
    f(x, y)
    loss.weight.value[1] = 9.0
    np.testing.assert_allclose(f(x, y), np.asarray(loss(x, y)), 1e-6)


# --- attributes of nodes ---


def _kind(x: Any, *, by: Any) -> Any:
    return np.full(x.shape, float(len(repr(by))), np.float32)


kind_of = gp.custom_op("kind_of", _kind, infer=lambda x, *, by: (x.shape, "float32"))
ALIKE = [1, True, 1.0, (1,), (True,), (1.0,), ((1, 2),), ((True, 2),), 0.0, -0.0, 0, False, 1 + 0j]
ALIKE += ["1", b"1", frozenset((1,)), frozenset((True,)), np.float64(1.0), np.int64(1)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_attributes_that_are_equal_but_not_alike(backend: str) -> None:
    x = np.ones(2, np.float32)

    def f(x: Any) -> list[Any]:
        return [kind_of(x, by=by) for by in [*ALIKE, *ALIKE]]

    found = gp.compile(f, backend=backend)(x)
    for by, value in zip([*ALIKE, *ALIKE], found, strict=True):
        np.testing.assert_array_equal(value, kind_of(x, by=by), repr(by))


def test_equal_attributes_are_one_node() -> None:
    graph, _ = trace(lambda x: [kind_of(x, by=(2, 0.5)) for _ in range(3)], [np.ones(2)])
    assert len([n for n in graph.nodes if n.spec.name == "kind_of"]) == 1


def test_keys_tell_apart_what_compares_equal() -> None:
    assert len({exact(by) for by in ALIKE}) == len(ALIKE)
    values = [*ALIKE, [1], [1.0], {"a": 1}, {"a": True}, {1, 2}, bytearray(b"1"), None]
    assert len({repr(frozen(v)) for v in values}) == len(values)
    nested: list[Any] = []
    nested.append(nested)
    assert frozen(nested) == frozen(nested)
    assert frozen([float("nan")]) == frozen([float("nan")])
    assert frozen(optim) == frozen(optim) != frozen(object())
