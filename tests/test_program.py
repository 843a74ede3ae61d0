"""Programs as data, their debugger, and what several programs share: slots, modes, checkpoints."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numpy import NumpyBackend
from gpubp.core.store import address_of
from gpubp.errors import NonFiniteError
from gpubp.ops.random import Generator

RNG = np.random.default_rng(8)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 40)


def _model(dropout: float = 0.0) -> Any:
    gp.manual_seed(4)
    hidden = [nn.ReLU(), nn.Dropout(dropout, Generator(1))] if dropout else [nn.ReLU()]
    return nn.Sequential(nn.Linear(6, 9), *hidden, nn.Linear(9, 3))


def _step(model: Any, optimizer: Any = None, **options: Any) -> Any:
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optimizer or optim.Adam(model.parameters(), lr=0.01)
    return gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, **options)


def test_a_program_prints() -> None:
    step = _step(_model(), backend="numpy")
    program = step.prepare(X, Y)
    text = str(program)
    assert text.splitlines()[-1] == "SYNC"
    assert text.count("SYNC") == program.syncs
    for part in program.parts:
        assert f"{part.kernel}<{part.name}>" in text
    for buffer in program.buffers:
        assert f"buffer {buffer.name}: {buffer.kind}" in text


def test_a_program_is_json() -> None:
    program = _step(_model(0.5), backend="numpy", max_grad_norm=1.0).prepare(X, Y)
    data = json.loads(json.dumps(program.to_dict()))
    assert data["batched"] == [0, 1]
    assert data["input_types"] == [[[40, 6], "float32"], [[40], "int64"]]
    assert [i["sync"] for i in data["instructions"]] == [i.sync for i in program.instructions]
    parts = [p for i in data["instructions"] for p in i["parts"]]
    assert [p["kernel"] for p in parts] == [p.kernel for p in program.parts]
    for part, given in zip(program.parts, parts, strict=True):
        assert [b["op"] for b in given["body"]] == [c.spec.name for c in part.body]
        for operand, described in zip(part.inputs, given["inputs"], strict=True):
            assert described["offset"] == operand.offset
            assert described["buffer"] < len(data["buffers"])


def test_debug_nans_names_the_op() -> None:
    f = gp.compile(lambda x: ops.sum(ops.log(x - 1.0)), backend=NumpyBackend(debug_nans=True))
    assert_close(f(np.array([2.0, 3.0])), np.log(2.0))
    with pytest.raises(NonFiniteError, match=r"log\(float64\[2\]\).*from finite inputs"):
        f(np.array([2.0, 0.5]))
    quiet = gp.compile(lambda x: ops.sum(ops.log(x - 1.0)), backend="numpy")
    assert np.isnan(quiet(np.array([2.0, 0.5])))


def test_debug_nans_blames_no_op_for_its_input() -> None:
    f = gp.compile(lambda x: ops.sin(x) * 2.0, backend=NumpyBackend(debug_nans=True))
    assert np.isnan(f(np.array([np.nan]))).all()


def test_the_hook_sees_every_part_and_its_results() -> None:
    seen: list[tuple[str, list[np.ndarray]]] = []
    backend = NumpyBackend(hook=lambda i, p, results: seen.append((p.name, results)))
    step = _step(_model(), backend=backend)
    loss = step(X, Y)
    assert [name for name, _ in seen] == [p.name for p in step.program.parts]
    assert any(np.array_equal(r, loss) for _, results in seen for r in results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_follows_the_modules_mode(backend: str) -> None:
    model = _model(dropout=0.5)
    step = _step(model, optim.SGD(model.parameters(), lr=0.0), backend=backend)
    trained = [step(X, Y) for _ in range(2)]
    assert trained[0] != trained[1]
    in_train_mode = step.program
    model.eval()
    plain = [step(X, Y) for _ in range(2)]
    assert plain[0] == plain[1]
    assert plain[0] not in trained
    assert step.program is not in_train_mode
    model.train()
    assert step(X, Y) not in (*trained, plain[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_is_kept_until_a_fact_changes(backend: str) -> None:
    traced = []
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def loss(x: Any, y: Any) -> Any:
        traced.append(x.shape)
        return nn.CrossEntropyLoss()(model(x), y)

    step = gp.compile_step(loss, optimizer, backend=backend)
    step(X, Y)
    optimizer.param_groups[0]["lr"] = 0.5
    step.run(X, Y, batch_size=40, epochs=2)
    assert traced == [(40, 6)]
    step.run(X, Y, batch_size=30)
    assert traced == [(40, 6), (30, 6), (10, 6)]
    optimizer.param_groups[0]["momentum"] = 0.9
    step(X, Y)
    assert traced[3:] == [(40, 6)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_steps_share_their_parameters(backend: str) -> None:
    """A GAN's shape: each step trains one half, and reads the other half as it is now."""
    a = nn.Parameter(np.array([1.0, -2.0]), name="a")
    b = nn.Parameter(np.array([3.0, 0.5]), name="b")

    def loss(x: Any) -> Any:
        return ops.sum(a * b) + 0.0 * ops.sum(x)

    first = gp.compile_step(loss, optim.SGD([a], lr=0.1), backend=backend)
    second = gp.compile_step(loss, optim.SGD([b], lr=0.2), backend=backend)
    product = gp.compile(lambda x: a * b * x, backend=backend)
    x, one = np.zeros((1, 1)), np.float64(1.0)
    va, vb = a.numpy(), b.numpy()
    for _ in range(4):
        assert_close(first(x), np.sum(va * vb))
        va = va - 0.1 * vb
        assert_close(second(x), np.sum(va * vb))
        vb = vb - 0.2 * va
        assert_close(product(np.full(2, one)), va * vb)
    assert_close(a.value, va)
    assert_close(b.value, vb)


@pytest.mark.parametrize("backend", BACKENDS)
def test_prediction_follows_training(backend: str) -> None:
    model = _model()
    step, predict = _step(model, backend=backend), gp.compile(model, backend=backend)
    before = predict(X)
    step.run(X, Y, batch_size=16, epochs=2, seed=0)
    after = predict(X)
    assert not np.array_equal(before, after)
    w0, b0, w1, b1 = (p.value for p in model.parameters())
    assert_close(after, np.maximum(X @ w0.T + b0, 0) @ w1.T + b1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_are_views_of_one_flat_bank(backend: str) -> None:
    model = _model()
    step = _step(model, backend=backend)
    step(X, Y)
    params = list(model.parameters())
    (bank,) = {p.bank for p in params}
    views = [p.value for p in params]
    step(X, Y)
    for param, view in zip(params, views, strict=True):
        assert param.value is view
        assert np.shares_memory(view, bank.data)
        flat = bank.data[param.offset : param.offset + param.size]
        assert_same(flat.reshape(param.shape), view)
        assert param.offset * bank.dtype.itemsize % 64 == 0
    params[0].value = np.zeros(params[0].shape)
    assert not bank.data[params[0].offset : params[0].offset + params[0].size].any()
    bias = params[1].value
    assert_close(gp.compile(model[0], backend=backend)(X), np.tile(bias, (40, 1)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["adam", "momentum"])
def test_training_goes_on_from_a_checkpoint(rule: str, backend: str) -> None:
    def make(model: Any) -> tuple[Any, Any]:
        params = model.parameters()
        made = optim.Adam(params, lr=0.01) if rule == "adam" else optim.SGD(params, 0.1, 0.9)
        return made, _step(model, made, backend=backend)

    model = _model()
    optimizer, step = make(model)
    step.run(X, Y, batch_size=16, epochs=2, seed=0)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    wanted = step.run(X, Y, batch_size=16, epochs=2, seed=1)

    other = _model()
    second_optimizer, second_step = make(other)
    other.load_state_dict(saved[0])
    second_optimizer.load_state_dict(saved[1])
    assert_same(second_step.run(X, Y, batch_size=16, epochs=2, seed=1), wanted)

    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    assert_same(step.run(X, Y, batch_size=16, epochs=2, seed=1), wanted)
    for name, value in model.state_dict().items():
        assert_same(other.state_dict()[name], value, name)


def test_addresses_are_those_that_numpy_says(tmp_path: Any) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    kept = np.memmap(tmp_path / "kept", np.float64, "w+", shape=(3, 2))
    closed = whole.copy()
    closed.setflags(write=False)
    arrays = [whole, whole[1:], whole.T, whole[::2, 1:], whole[::-1], closed, closed[2:], kept]
    arrays += [np.zeros(0, np.int64), np.zeros((3, 0)), np.zeros((), np.bool_), np.int32(3)[None]]
    for array in arrays:
        assert address_of(array) == array.ctypes.data
