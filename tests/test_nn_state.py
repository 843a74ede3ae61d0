"""State that modules keep: buffers written in eager calls and in programs, frozen parameters."""

from __future__ import annotations

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import GradientError, ShapeError, TraceError

each_backend = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3)).astype(np.float32)
Y = RNG.standard_normal((24, 2)).astype(np.float32)


class Counting(nn.Module):
    """x plus the sum of all that was seen, which it keeps; twice a call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", np.zeros((), np.float32))
        self.register_buffer("calls", np.zeros((), np.int64))

    def forward(self, x):
        for _ in range(2):
            ops.assign(self.total, self.total + ops.sum(x))
            ops.assign(self.calls, self.calls + 1)
        return x + self.total


def test_assign_outside_of_a_trace_writes_at_once() -> None:
    model = Counting()
    np.testing.assert_array_equal(model(np.ones(3, np.float32)), [7.0, 7.0, 7.0])
    assert (model.total.value, model.calls.value) == (6.0, 2)


@each_backend
def test_a_program_assigns_at_the_end_and_reads_what_it_assigned(backend: str) -> None:
    model = Counting()
    call = gp.compile(model, backend=backend)
    for i in range(1, 4):
        np.testing.assert_array_equal(call(np.ones(3, np.float32)), np.full(3, 1.0 + 6.0 * i))
        assert (model.total.value, model.calls.value) == (6.0 * i, 2 * i)


def test_assign_under_an_eager_gradient() -> None:
    model = Counting()
    gradient = gp.grad(lambda x: ops.sum(model(x)))(np.ones(3, np.float32))
    # Each output has its own x, and the sum of all of them twice.
    np.testing.assert_array_equal(gradient, [7.0, 7.0, 7.0])
    assert model.calls.value == 2


@each_backend
def test_two_buffers_swap_values(backend: str) -> None:
    a, b = nn.Buffer(np.arange(3.0)), nn.Buffer(np.ones(3))

    def swap(x):
        old_a, old_b = a + 0.0, b + 0.0
        ops.assign(a, old_b)
        ops.assign(b, old_a)
        return x + old_a

    call = gp.compile(swap, backend=backend)
    call(np.zeros(3))
    np.testing.assert_array_equal([a.value, b.value], [np.ones(3), np.arange(3.0)])
    np.testing.assert_array_equal(call(np.zeros(3)), np.ones(3))
    np.testing.assert_array_equal(a.value, np.arange(3.0))


def test_assign_casts_and_refuses_what_does_not_fit() -> None:
    buffer = nn.Buffer(np.zeros(2, np.float32), name="mean")
    ops.assign(buffer, np.array([1, 2]))
    assert_same(buffer.value, np.array([1.0, 2.0], np.float32))
    with pytest.raises(ShapeError, match=r"mean: got a new value float64\[3\]"):
        ops.assign(buffer, np.zeros(3))
    with pytest.raises(TraceError, match="got ndarray"):
        ops.assign(np.zeros(2), np.zeros(2))  # type: ignore[arg-type]


def test_a_trained_parameter_cannot_be_assigned_in_a_trace() -> None:
    weight = nn.Parameter(np.zeros(2, np.float32), name="weight")

    def fn(x):
        ops.assign(weight, x)
        return x

    call = gp.compile(fn, backend="numpy")
    with pytest.raises(TraceError, match="weight is trained"):
        call(np.ones(2, np.float32))
    weight.requires_grad_(False)
    call(np.ones(2, np.float32))
    assert weight.value.tolist() == [1.0, 1.0]
    weight.requires_grad_(True)
    with pytest.raises(TraceError, match="weight is trained"):
        call(np.ones(2, np.float32))


def _model(momentum: float | None = 0.1) -> nn.Sequential:
    gp.manual_seed(0)
    norm = nn.BatchNorm1d(4, momentum=momentum)
    return nn.Sequential(nn.Linear(3, 4), norm, nn.ReLU(), nn.Linear(4, 2))


@each_backend
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_of_a_run_equal_those_of_eager_calls(
    momentum: float | None, backend: str
) -> None:
    model, twin = _model(momentum), _model(momentum)
    loss = nn.MSELoss()
    # lr = 0: the weights stay, so that eager calls see the same batches.
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    step = gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)
    step.run(X, Y, batch_size=10, epochs=2, shuffle=False)
    for _ in range(2):
        for start in (0, 10, 20):
            twin(X[start : start + 10])
    assert model[1].num_batches_tracked.value == 6
    for name, value in twin.state_dict().items():
        assert_close(model.state_dict()[name], value, name)


@each_backend
def test_eval_mode_uses_and_keeps_the_running_statistics(backend: str) -> None:
    model = _model()
    call = gp.compile(model, backend=backend)
    call(X)
    before = model.state_dict()
    model.eval()
    first = call(X[:1])
    for name, value in model.state_dict().items():
        assert_same(value, before[name], name)
    hidden = X[:1] @ model[0].weight.value.T + model[0].bias.value
    root = np.sqrt(before["1.running_var"] + 1e-5)
    hidden = np.maximum((hidden - before["1.running_mean"]) / root, 0)
    np.testing.assert_allclose(
        first, hidden @ model[3].weight.value.T + model[3].bias.value, rtol=1e-5
    )
    model.train()
    call(X)
    assert model[1].num_batches_tracked.value == 2


def test_one_row_in_train_mode_is_refused() -> None:
    with pytest.raises(ShapeError, match="one value a channel"):
        nn.BatchNorm1d(3)(X[:1])
    nn.BatchNorm1d(3).eval()(X[:1])


def test_reset_running_stats() -> None:
    norm = nn.BatchNorm1d(3)
    first = norm.state_dict()
    norm(X)
    assert (norm.running_mean.value != 0).all()
    norm.reset_running_stats()
    for name, value in norm.state_dict().items():
        assert_same(value, first[name], name)


@each_backend
def test_frozen_parameters_stay_and_are_not_differentiated(backend: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    loss = nn.MSELoss()
    step = gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)
    step(X, Y)
    products = sum("matmul" in part.name for part in step.program.parts)  # type: ignore[union-attr]
    before = model.state_dict()

    assert model[0].requires_grad_(False) is model[0]
    step(X, Y)
    after = model.state_dict()
    for name in before:
        assert (before[name] == after[name]).all() == name.startswith("0."), name
    # Neither the first layer's weight gradient nor the cotangent of its output is needed.
    fewer = sum("matmul" in part.name for part in step.program.parts)  # type: ignore[union-attr]
    assert fewer == products - 2

    model.requires_grad_(True)
    step(X, Y)
    assert (model[0].weight.value != after["0.weight"]).all()


def test_a_step_with_nothing_to_train_is_an_error() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(GradientError, match="no parameters to train"):
        gp.compile_step(lambda x: ops.sum(model(x)), optimizer, backend="numpy")


@each_backend
def test_shared_weights_get_both_gradients(backend: str) -> None:
    shared = nn.Linear(3, 3, bias=False)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    weight = shared.weight.numpy()
    step = gp.compile_step(lambda x: ops.mean(model(x)), optimizer, backend=backend)
    step(X)
    gradient = gp.grad(lambda w: ops.mean(ops.tanh(X @ w.T) @ w.T))(weight)
    assert_close(shared.weight.value, weight - gradient)


@each_backend
def test_a_frozen_twin_follows_by_assignment(backend: str) -> None:
    """A target network: its weights are moved towards the trained ones inside the step."""
    online, target = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    before = target.weight.numpy()

    def loss(x):
        wanted = ops.stop_gradient(target(x))
        for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
            ops.assign(slow, slow * 0.9 + fast * 0.1)
        return ops.mean(ops.square(online(x) - wanted))

    start = online.weight.numpy()
    gp.compile_step(loss, optim.SGD(online.parameters(), lr=0.1), backend=backend)(X)
    assert_close(target.weight.value, before * np.float32(0.9) + start * np.float32(0.1))
    assert (online.weight.value != start).any()
