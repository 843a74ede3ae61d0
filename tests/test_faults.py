"""Seeded faults: each is put in on purpose; a check that the healthy code passes must catch it.

Every check is one function, used for both cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_gradient

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.base import Feed
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numpy import NumpyBackend
from gpubp.compiler.memory_plan import Life, _Arena
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.pipeline import compile_graph
from gpubp.compiler.program import Program
from gpubp.compiler.trace import evaluate_graph, trace
from gpubp.compiler.verify import check_program
from gpubp.core import ArrayType
from gpubp.errors import VerificationError
from gpubp.ops.random import Generator
from gpubp.ops.spec import SPECS
from gpubp.optim import SGD

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 12))
Y = RNG.integers(0, 5, 24)


def _must_fail(check: Callable[[], None], kind: type[Exception] = AssertionError) -> None:
    with pytest.raises(kind):
        check()


def _classifier(make: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    gp.manual_seed(1)
    dims = [nn.Linear(12, 9, dtype="float64"), nn.ReLU(), nn.Linear(9, 5, dtype="float64")]
    model, loss_fn = nn.Sequential(*dims), nn.CrossEntropyLoss()
    optimizer = (make or optim.Adam)(model.parameters())
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend="numpy", **options)
    return model, optimizer, step


def _step_program() -> Program:
    program: Program = _classifier()[2].prepare(X, Y)
    check_program(program)
    return program


@pytest.mark.parametrize("op", ["tanh", "sin", "divide", "matmul", "sum", "softmax"])
def test_a_wrong_sign_in_a_vjp(op: str) -> None:
    def loss(x: Any) -> Any:
        hidden = ops.tanh(ops.sin(x) @ np.eye(12)[:, :4]) / (x[:, :1] * x[:, :1] + 1.0)
        columns = ops.sum(ops.sum(ops.reshape(ops.softmax(hidden), (8, 3, 4)), 0), 0)
        return ops.sum(columns * np.arange(4.0))

    def check() -> None:
        found = gp.grad(loss)(X)
        for at in [(0, 0), (5, 3), (23, 11)]:
            step = np.zeros_like(X)
            step[at] = 1e-5
            numeric = (loss(X + step) - loss(X - step)) / 2e-5
            assert_gradient(found[at], np.float64(numeric))

    check()
    right = SPECS[op].vjp
    assert right is not None

    def wrong(*args: Any, **attrs: Any) -> Any:
        return [None if part is None else -part for part in right(*args, **attrs)]

    object.__setattr__(SPECS[op], "vjp", wrong)
    try:
        _must_fail(check)
    finally:
        object.__setattr__(SPECS[op], "vjp", right)
    check()


def test_verification_finds_a_dropped_barrier() -> None:
    program = _step_program()
    with_sync = [i for i in program.instructions if i.sync]
    assert with_sync
    for instruction in with_sync:
        instruction.sync = False
        with pytest.raises(VerificationError, match=r"without a barrier|two workers write"):
            check_program(program)
        instruction.sync = True
    check_program(program)


def _check_step_program() -> None:
    _step_program()


def test_buffers_that_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_step_program()
    monkeypatch.setattr(_Arena, "place", lambda *_: 0)
    _must_fail(_check_step_program, VerificationError)


def test_memory_reused_while_it_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lives that end one instruction early."""
    place = _Arena.place

    def early(self: _Arena, life: Life) -> int:
        return place(self, replace(life, last=life.last - 1, last_phase=life.last_phase - 1))

    monkeypatch.setattr(_Arena, "place", early)
    _must_fail(_check_step_program, VerificationError)


def test_operands_out_of_bounds() -> None:
    program = _step_program()
    for part in program.parts:
        for i, operand in enumerate(part.inputs):
            for offset in (-1, program.buffers[operand.buffer].nbytes):
                part.inputs[i] = operand._replace(offset=offset)
                with pytest.raises(VerificationError, match="leaves buffer"):
                    check_program(program)
            part.inputs[i] = operand
    check_program(program)


def test_operands_shifted_by_one_element() -> None:
    """Within bounds, but not where the value is: the shadow memory sees it."""
    program = _step_program()
    matmuls = [p for p in program.parts if p.kernel == "matmul"]
    shifted = 0
    for part in matmuls:
        for i, operand in enumerate(part.inputs):
            if program.buffers[operand.buffer].kind == "arena" and operand.offset > 0:
                part.inputs[i] = operand._replace(offset=operand.offset - 1)
                _must_fail(lambda: check_program(program), VerificationError)
                part.inputs[i] = operand
                shifted += 1
    assert shifted
    check_program(program)


def _without_last_op(part: Part) -> None:
    """Drop the last op of a body; the value before it is stored instead."""
    last = len(part.inputs) + len(part.body) - 1
    part.body = part.body[:-1]
    outputs: list[tuple[int, Operand]] = []
    for value, operand in part.outputs:
        outputs.append((value - 1 if value == last else value, operand))
    part.outputs = outputs


@pytest.mark.parametrize("backend", [NumpyBackend(), NumbaBackend(workers=1)], ids=lambda b: b.name)
def test_an_op_dropped_from_a_fused_body(backend: Any) -> None:
    weight, bias = RNG.normal(size=(12, 7)), RNG.normal(size=7)
    graph, _ = trace(lambda x: ops.relu(x @ weight + bias), [ArrayType(X.shape, X.dtype)])

    def check(fault: Callable[[Part], None] | None = None) -> None:
        program = compile_graph(graph)
        (part,) = program.parts
        assert part.name == "matmul+add+relu"
        if fault is not None:
            fault(part)
            check_program(program)  # it is well formed, only wrong
        out = [np.empty((1, 24, 7))]
        feed = Feed([X], np.zeros(0, np.int64), [out])
        backend.run([backend.load(program)], np.zeros((1, 2), np.int64), feed)
        assert_close(out[0][0], evaluate_graph(graph, [X])[0])

    check()
    _must_fail(lambda: check(_without_last_op))


def _check_schedule() -> None:
    """A learning rate that changes between steps changes the next update by as much."""
    w = nn.Parameter(np.array([1.0, -2.0]), name="w")
    optimizer = SGD([w], lr=0.2)
    step = gp.compile_step(lambda x: ops.sum(w * w) + 0.0 * ops.sum(x), optimizer, backend="numpy")
    value = w.numpy()
    for lr in (0.2, 0.1, 0.0, 0.25):
        optimizer.param_groups[0]["lr"] = lr
        step(np.zeros((1, 1)))
        value = value - lr * 2 * value
        assert_close(w.value, value, f"lr {lr}")


def test_a_frozen_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_schedule()
    monkeypatch.setattr(
        "gpubp.optim.sgd.scalar", lambda value, like: np.asarray(float(value.value), like.dtype)
    )
    _must_fail(_check_schedule)


def _check_masks() -> None:
    """Two steps of one program draw different masks, the same ones after the same seed."""
    generator = Generator(3)
    ones = np.ones((8, 50))
    drop = gp.compile(lambda x: ops.dropout(x, 0.5, generator=generator), backend="numpy")
    first, second = drop(ones), drop(ones)
    assert not np.array_equal(first, second)
    generator.manual_seed(3)
    assert np.array_equal(drop(ones), first)


def test_a_counter_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_masks()
    monkeypatch.setattr("gpubp.ops.random.add", lambda state, _: ops.add(state, np.zeros(2, int)))
    _must_fail(_check_masks)


def _check_momentum() -> None:
    """b <- 0.9 b + g; w <- w - 0.1 b, for three steps."""
    w = nn.Parameter(np.array([1.0, -2.0]), name="w")
    step = gp.compile_step(
        lambda x: ops.sum(w * w) + 0.0 * ops.sum(x),
        SGD([w], lr=0.1, momentum=0.9),
        backend="numpy",
    )
    value, buffer = w.numpy(), np.zeros(2)
    for _ in range(3):
        step(np.zeros((1, 1)))
        buffer = 0.9 * buffer + 2 * value
        value = value - 0.1 * buffer
        assert_close(w.value, value)


def test_a_momentum_buffer_that_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_momentum()
    emit = SGD.emit_group

    def forgetful(self: SGD, *args: Any) -> Any:
        return [(s, v) for s, v in emit(self, *args) if not s.name.endswith("momentum_buffer")]

    monkeypatch.setattr(SGD, "emit_group", forgetful)
    _must_fail(_check_momentum)
