"""Memory: sharing the arena changes no bit, and makes it smaller."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registered import with_workers
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.compiler.pipeline import Options, compile_graph
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.compiler.verify import check_program
from gpubp.core import ArrayType

BACKENDS = {name: make() for name, make in with_workers(1, 3).items()}
RNG = np.random.default_rng(5)
X = RNG.normal(size=(77, 19)).astype(np.float32)
Y = RNG.integers(0, 7, 77)


def _layers(*between: Callable[[], Any]) -> list[Any]:
    sizes = (19, 53, 29, 31, 7)
    out: list[Any] = []
    for a, b in itertools.pairwise(sizes):
        out += [nn.Linear(a, b), *[make() for make in between]]
    return out[: len(out) - len(between)]


class Branches(nn.Module):
    """Two paths from one input, joined by concat, slices and a gather."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(19, 24), nn.Linear(19, 24)
        self.out = nn.Linear(48, 7)

    def forward(self, x: Any) -> Any:
        a, b = ops.relu(self.left(x)), ops.tanh(self.right(x))
        joined = ops.concat([a[:, ::2], b, a[:, 1::2]], axis=1)
        mixed = ops.gather(joined, np.arange(48)[::-1].copy(), axis=1)
        return self.out(joined * 0.5 + mixed * 0.5)


MODELS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: nn.Sequential(*_layers(nn.ReLU)),
    "gelu": lambda: nn.Sequential(*_layers(nn.GELU)),
    "dropout": lambda: nn.Sequential(*_layers(nn.ReLU, lambda: nn.Dropout(0.3))),
    "branches": Branches,
}


def _trained(name: str, backend: Any, reuse: bool, **options: Any) -> tuple[list[Any], Program]:
    """Losses and parameters after two epochs with a short last batch, and the program."""
    gp.manual_seed(11)
    model = MODELS[name]()
    loss_fn = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y),
        optim.Adam(model.parameters(), lr=0.01),
        backend=backend,
        options=Options(reuse=reuse),
        **options,
    )
    losses = step.run(X, Y, batch_size=20, epochs=2, seed=4)
    assert len(losses) == 8
    return [losses, *model.state_dict().values()], step.program


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
@pytest.mark.parametrize("name", MODELS)
def test_reuse_changes_no_bit_of_training(name: str, backend: Any) -> None:
    shared, small = _trained(name, backend, True)
    apart, large = _trained(name, backend, False)
    for a, b in zip(shared, apart, strict=True):
        assert_same(a, b, name)
    assert small.arena_bytes <= large.arena_bytes
    for program in (small, large):
        check_program(program)


def test_reuse_with_clipping() -> None:
    shared, _ = _trained("mlp", BACKENDS["numba-3"], True, max_grad_norm=0.1)
    apart, _ = _trained("mlp", BACKENDS["numba-3"], False, max_grad_norm=0.1)
    for a, b in zip(shared, apart, strict=True):
        assert_same(a, b)


def _chain(x: Any) -> Any:
    """Twelve softmaxes in a row: only two of the values are live at a time."""
    for _ in range(12):
        x = ops.softmax(x * 3.0)
    return x


def _moves(x: Any) -> Any:
    """Every kind of data movement, with sizes that fit into each other's holes."""
    a = ops.concat([x[::2], x[1::2]], axis=0)
    b = ops.gather(a, np.array([3, 1, 2, 0, 0]), axis=0)
    c = ops.concat([ops.softmax(b), b[:, ::-1]], axis=1)
    d = ops.reshape(ops.transpose(c), (-1, 5))
    e = ops.scatter_add(d, np.arange(len(d)) % 4, 4)
    return ops.sum(e @ ops.transpose(ops.softmax(e)), axis=0), c


def _wide_and_narrow(x: Any) -> Any:
    wide = ops.broadcast_to(x[:, None, :], (x.shape[0], 5, x.shape[1]))
    narrow = ops.softmax(ops.sum(ops.softmax(wide), axis=1))
    return ops.matmul(narrow, ops.swapaxes(ops.softmax(narrow), 0, 1))


GRAPHS = {"chain": _chain, "moves": _moves, "wide": _wide_and_narrow}


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
@pytest.mark.parametrize("name", GRAPHS)
def test_reuse_changes_no_bit_of_a_function(name: str, backend: Any) -> None:
    fn = GRAPHS[name]
    results = []
    for reuse in (True, False):
        compiled = gp.compile(fn, backend=backend, options=Options(reuse=reuse))
        first = compiled(X)
        again = [compiled(X) for _ in range(3)][-1]
        for a, b in zip(_tuple(first), _tuple(again), strict=True):
            assert_same(a, b, "a second run differs: memory was left dirty")
        results.append(_tuple(again))
    for a, b in zip(*results, strict=True):
        assert_same(a, b, name)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _program(fn: Callable[..., Any], reuse: bool = True) -> Program:
    graph, _ = trace(fn, [ArrayType((64, 16), np.dtype(np.float32))])
    return compile_graph(graph, options=Options(reuse=reuse))


def test_a_chain_needs_the_memory_of_few_values() -> None:
    one = 64 * 16 * 4
    apart, shared = _program(_chain, False).arena_bytes, _program(_chain).arena_bytes
    assert apart >= 20 * one
    assert shared <= 3 * one


def test_memory_of_equal_rows_is_reused_without_a_barrier() -> None:
    program = _program(_chain)
    assert program.syncs == 1
    temporaries = {
        o.offset for p in program.parts for _, o in p.outputs if _kind(program, o) == "arena"
    }
    values = {o.value for p in program.parts for _, o in p.outputs if _kind(program, o) == "arena"}
    assert len(temporaries) < len(values)


def test_other_rows_wait_for_a_barrier() -> None:
    """A transposed read takes every worker's rows: a SYNC must come before it."""
    program = _program(lambda x: ops.softmax(ops.transpose(ops.softmax(x))))
    assert program.syncs == 2
    syncs = [(i.name, i.sync) for i in program.instructions]
    assert syncs == [("softmax", False), ("copy", True), ("softmax", False)]


def _kind(program: Program, operand: Any) -> str:
    return program.buffers[operand.buffer].kind
