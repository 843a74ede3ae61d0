"""Fused steps and functions give the numbers of unfused ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, bank_labels, classifier_step, digits, mlp
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_is_unfused(name: str, backend: str) -> None:
    x, y = digits("float64")
    results = []
    for fuse in (True, False):
        model = mlp(dtype="float64")
        options = gp.Options(fuse=fuse)
        step = classifier_step(OPTIMIZERS[name], model, backend=backend, options=options)
        losses = [step(x, y) for _ in range(3)]
        results.append([np.array(losses), *model.state_dict().values()])
        assert losses[2] < losses[0]
    for fused, plain in zip(*results, strict=True):
        assert_close(fused, plain, name)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_clipping_keeps_gradients_and_updates_once(name: str) -> None:
    x, y = digits("float64")
    model = mlp(dtype="float64")
    step = classifier_step(OPTIMIZERS[name], model, max_grad_norm=0.01)
    step(x, y)
    program = step.program
    assert [b.name for b in program.buffers if b.name.startswith("grads")]
    flat = [p for p in program.parts if "params" in bank_labels(p, program)]
    assert len(flat) == 1
    assert flat[0].kernel == "elementwise"
    assert flat[0].rows >= sum(p.size for p in model.parameters())
    norm = np.sqrt(sum(np.sum(g**2) for g in step.grads))
    assert norm > 0.01
    if name == "sgd":
        before = mlp(dtype="float64").state_dict().values()
        for old, new, g in zip(before, model.state_dict().values(), step.grads, strict=True):
            assert_close(new, old - 0.1 * g * (0.01 / (norm + 1e-6)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_kept_gradients_are_those_of_value_and_grad(backend: str) -> None:
    x, y = digits("float64")
    model = mlp(dtype="float64")
    loss_fn = nn.CrossEntropyLoss()
    shapes = [p.shape for p in model.parameters()]
    values = [p.value.copy() for p in model.parameters()]

    def loss(params: list[Any]) -> Any:
        a, b, c, d, e, f = params
        h = ops.relu(ops.relu(x @ a.T + b) @ c.T + d)
        return loss_fn(h @ e.T + f, y)

    expected_loss, expected = gp.value_and_grad(loss)(values)
    step = classifier_step(OPTIMIZERS["adam"], model, keep_grads=True, backend=backend)
    assert_close(step(x, y), expected_loss)
    assert [g.shape for g in step.grads] == shapes
    for found, wanted in zip(step.grads, expected, strict=True):
        assert_close(found, wanted)


def test_keeping_gradients_changes_no_result() -> None:
    x, y = digits()
    models = [mlp(), mlp()]
    for model, keep in zip(models, (True, False), strict=True):
        classifier_step(OPTIMIZERS["adam"], model, keep_grads=keep).run(x, y, batch_size=16, seed=0)
    kept, plain = (m.state_dict() for m in models)
    for name in kept:
        assert_close(kept[name], plain[name], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_follow_a_parameter_that_is_frozen_later(backend: str) -> None:
    x, y = digits("float64")
    model = mlp(dtype="float64")
    step = classifier_step(OPTIMIZERS["sgd"], model, keep_grads=True, backend=backend)
    step(x, y)
    first = model[0].weight
    first.requires_grad = False
    frozen = first.value.copy()
    step(x, y)
    assert_same(first.value, frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert [g.shape for g in step.grads] == [p.shape for p in trained]


def _first_step(loss: Callable[..., Any], params: list[Any], *data: Any) -> list[np.ndarray]:
    """Each parameter after one SGD step by value_and_grad, in plain NumPy."""
    values = [p.value.copy() for p in params]
    grads = gp.grad(lambda p: loss(p, *data))(values)
    return [v - 0.1 * g for v, g in zip(values, grads, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tied", ["twice", "transposed"])
def test_shared_weights_get_the_sum_of_their_gradients(tied: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    w = nn.Parameter(rng.normal(size=(6, 6) if tied == "twice" else (6, 4)), name="w")
    b = nn.Parameter(rng.normal(size=6), name="b")
    x = rng.normal(size=(9, 6))

    def loss(params: list[Any], x: Any) -> Any:
        w, b = params
        hidden = ops.tanh(x @ w)
        out = hidden @ (w if tied == "twice" else ops.transpose(w)) + b
        return ops.mean(ops.square(out - x))

    expected = _first_step(loss, [w, b], x)
    step = gp.compile_step(lambda x: loss([w, b], x), optim.SGD([w, b], lr=0.1), backend=backend)
    step(x)
    for slot, value in zip((w, b), expected, strict=True):
        assert_close(slot.value, value, slot.name)


class Swap:
    """Writes each parameter's old value, plus its gradient, into the other one."""

    def __init__(self, a: Any, b: Any) -> None:
        self.pair = [a, b]

    def parameters(self) -> list[Any]:
        return self.pair

    def prepare(self) -> None:
        """There is no state."""

    def emit(self, grads: dict[int, Any]) -> list[tuple[Any, Any]]:
        a, b = self.pair
        return [(a, ops.add(b, grads[id(a)])), (b, ops.add(a, grads[id(b)]))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fuse", [True, False])
def test_old_values_are_read_before_they_are_overwritten(backend: str, fuse: bool) -> None:
    a = nn.Parameter(np.arange(1.0, 13.0).reshape(3, 4), name="a")
    b = nn.Parameter(-np.arange(1.0, 13.0).reshape(3, 4), name="b")
    old_a, old_b = a.numpy(), b.numpy()
    step = gp.compile_step(
        lambda x: ops.sum(a) * 2.0 + ops.sum(b) * 3.0 + 0.0 * ops.sum(x),
        Swap(a, b),
        backend=backend,
        options=gp.Options(fuse=fuse),
    )
    for _ in range(3):
        step(np.zeros((1, 1)))
        old_a, old_b = old_b + 2.0, old_a + 3.0
        assert_close(a.value, old_a)
        assert_close(b.value, old_b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_read_before_and_after_a_sum(backend: str) -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(3, 5)), rng.normal(size=(3, 1))

    def f(x: Any, z: Any) -> Any:
        r = ops.tanh(z)
        return ops.sum(x * r, 1, keepdims=True) * r

    assert_close(gp.compile(f, backend=backend)(x, z), f(x, z))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_result_that_is_also_summed(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))

    def f(x: Any) -> Any:
        y = ops.cos(x) * 0.5
        return y, ops.sum(y, 0)

    for found, wanted in zip(gp.compile(f, backend=backend)(x), f(x), strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_one_repeated_number(op: Any, backend: str) -> None:
    x = np.array([0.25])
    wanted = op(np.full((3, 4), 0.25))
    found = gp.compile(lambda x: op(ops.broadcast_to(x, (3, 4))), backend=backend)(x)
    assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_label_for_all_rows(backend: str) -> None:
    logits, label = np.random.default_rng(0).normal(size=(5, 4)), np.array(2)

    def f(logits: Any, label: Any) -> Any:
        return ops.mean(ops.softmax_cross_entropy(logits, ops.broadcast_to(label, (5,))))

    both = gp.value_and_grad(f)
    found = gp.compile(both, backend=backend)(logits, label)
    for a, b in zip(found, both(logits, label), strict=True):
        assert_close(a, b)
