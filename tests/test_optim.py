"""Optimisers: arguments, groups, state dicts. Their numbers are checked in tests/oracle."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import nn, ops, optim
from gpubp.core import ArrayType, Graph, tracing
from gpubp.errors import DataError, ShapeError, UnknownNameError
from gpubp.step import compile_step
from gpubp.store import pack


def _params(*shapes):
    return [nn.Parameter(np.ones(s, np.float32), name=f"p{i}") for i, s in enumerate(shapes)]


def _emitted(optimizer):
    """Names of the ops that one update appends, and the slots it writes."""
    params = optimizer.parameters()
    pack("params", params)
    optimizer.prepare()
    graph = Graph()
    with tracing(graph):
        grads = {id(p): ops.multiply(p, 1.5) for p in params}
        before = len(graph.nodes)
        updates = optimizer.emit(grads)
    return [n.spec.name for n in graph.nodes[before:] if not n.is_leaf], [s for s, _ in updates]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD(p, lr=-0.1), "lr is -0.1"),
        (lambda p: optim.SGD(p, lr=float("nan")), "lr is nan"),
        (lambda p: optim.SGD(p, momentum=-1.0), "momentum is -1.0"),
        (lambda p: optim.SGD(p, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda p: optim.SGD(p, nesterov=True), "nesterov needs momentum above 0"),
        (lambda p: optim.SGD(p, momentum=0.9, dampening=0.1, nesterov=True), "dampening=0.1"),
        (lambda p: optim.Adam(p, lr=-0.1), "lr is -0.1"),
        (lambda p: optim.Adam(p, eps=-1.0), "eps is -1.0"),
        (lambda p: optim.Adam(p, betas=(1.0, 0.9)), r"two numbers in \[0, 1\)"),
        (lambda p: optim.Adam(p, betas=(0.9, -0.1)), r"two numbers in \[0, 1\)"),
        (lambda p: optim.Adam(p, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda p: optim.SGD([]), "no parameters"),
        (lambda p: optim.SGD(p + p), "p0 was given twice"),
        (lambda p: optim.SGD([{"params": p}, {"params": p}]), "p0 was given twice"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(DataError, match=message):
        make(_params((2,)))


def test_wrong_types():
    (p,) = _params((2,))
    with pytest.raises(TypeError, match="got one Parameter"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="got a ndarray"):
        optim.SGD([np.ones(2)])
    with pytest.raises(UnknownNameError, match="Did you mean 'momentum'"):
        optim.SGD([{"params": [p], "momentun": 0.9}])


def test_groups_read_and_write_like_dicts():
    first, second = _params((2,), (3,))
    optimizer = optim.SGD([{"params": first, "lr": 0.5}, {"params": [second]}], lr=0.1)
    group = optimizer.param_groups[0]
    assert group["params"] == [first]
    assert dict(group) == {**group}
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]
    group["lr"] *= 0.1
    assert group["lr"] == pytest.approx(0.05)
    assert float(group.lr.value) == pytest.approx(0.05)
    with pytest.raises(DataError, match="lr is -1"):
        group["lr"] = -1.0
    with pytest.raises(UnknownNameError, match="unknown option 'betas'"):
        group["betas"] = (0.9, 0.9)
    assert group["lr"] == pytest.approx(0.05)


def test_parameters_are_the_trainable_ones_in_order():
    a, b, c = _params((1,), (2,), (3,))
    b.requires_grad = False
    optimizer = optim.SGD([{"params": [a, b]}, {"params": [c]}])
    assert optimizer.parameters() == [a, c]
    b.requires_grad = True
    assert optimizer.parameters() == [a, b, c]


def test_add_param_group():
    a, b = _params((1,), (2,))
    optimizer = optim.Adam([a])
    optimizer.add_param_group({"params": b, "lr": 0.5})
    assert optimizer.parameters() == [a, b]
    with pytest.raises(DataError, match="p1 was given twice"):
        optimizer.add_param_group({"params": b})


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: optim.SGD(p), ["cast", "sgd_update"]),
        (lambda p: optim.SGD(p, momentum=0.9), ["momentum_update", "cast", "sgd_update"]),
        (
            lambda p: optim.SGD(p, weight_decay=0.1, maximize=True),
            ["negative", "multiply", "add", "cast", "sgd_update"],
        ),
    ],
)
def test_no_useless_ops(make, expected):
    names, _ = _emitted(make(_params((2,))))
    assert names == expected


def test_scalars_are_shared_by_all_parameters():
    one, _ = _emitted(optim.Adam(_params((2,))))
    three, written = _emitted(optim.Adam(_params((2,), (3,), (4,))))
    per_parameter = ["ema", "ema_square", "adam_update"]
    assert len(three) - len(one) == 2 * len(per_parameter)
    assert [s.name for s in written[:4]] == ["t", "p0.exp_avg", "p0.exp_avg_sq", "p0"]


def test_state_stands_beside_its_parameters():
    params = _params((2, 3), (5,))
    optimizer = optim.Adam(params)
    _emitted(optimizer)
    for name in ("exp_avg", "exp_avg_sq"):
        slots = [optimizer.state_of(name, p) for p in params]
        assert [s.offset for s in slots] == [p.offset for p in params]
        assert slots[0].bank is slots[1].bank
    known = optimizer.state_of("exp_avg", params[0])
    optimizer.prepare()
    assert optimizer.state_of("exp_avg", params[0]) is known


def _step(optimizer, params):
    def loss(x):
        return ops.sum(ops.square(params[0])) + ops.sum(params[1] * ops.mean(x))

    return compile_step(loss, optimizer, backend="numpy")


BATCH = np.ones((4, 1), np.float32)


def test_the_learning_rate_is_not_frozen_into_the_program():
    params = _params((2,), (3,))
    optimizer = optim.SGD(params, lr=0.0)
    step = _step(optimizer, params)
    step(BATCH)
    program = step.program
    assert params[1].value.tolist() == [1.0, 1.0, 1.0]
    optimizer.param_groups[0]["lr"] = 0.5
    step(BATCH)
    assert params[1].value.tolist() == [0.5, 0.5, 0.5]
    assert step.program is program


def test_a_frozen_parameter_leaves_a_compiled_step():
    params = _params((2,), (3,))
    step = _step(optim.SGD(params, lr=0.5), params)
    step(BATCH)
    params[1].requires_grad = False
    step(BATCH)
    assert params[1].value.tolist() == [0.5, 0.5, 0.5]


def test_state_dict_round_trip_before_and_after_compiling():
    params = _params((2,), (3,))
    optimizer = optim.Adam(params, lr=0.1)
    step = _step(optimizer, params)
    for _ in range(3):
        step(BATCH)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["params"] == [0, 1]
    assert set(saved["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert saved["state"][0]["step"] == 3.0
    weights = [p.numpy() for p in params]
    step(BATCH)
    expected = [p.numpy() for p in params]

    fresh_params = _params((2,), (3,))
    fresh = optim.Adam(fresh_params, lr=9.0)
    fresh.load_state_dict(saved)
    assert fresh.state_dict()["state"][1]["exp_avg"].tolist() == pytest.approx(
        saved["state"][1]["exp_avg"].tolist()
    )
    for target, target_params in ((fresh, fresh_params), (optimizer, params)):
        target.load_state_dict(saved)
        for p, w in zip(target_params, weights, strict=True):
            p.value = w
        _step(target, target_params)(BATCH)
        for p, e in zip(target_params, expected, strict=True):
            np.testing.assert_array_equal(p.value, e)


def test_a_loaded_empty_state_clears_the_moments():
    params = _params((2,), (3,))
    optimizer = optim.Adam(params, lr=0.1)
    empty = optimizer.state_dict()
    _step(optimizer, params)(BATCH)
    optimizer.load_state_dict(empty)
    assert optimizer.state_dict()["state"] == {}
    assert not optimizer.state_of("exp_avg", params[0]).value.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s["param_groups"].append({"params": []}), DataError, "groups of sizes"),
        (lambda s: s["param_groups"][0].update(amsgrad=True), DataError, "amsgrad=True"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), DataError, "lr is -1.0"),
        (lambda s: s["state"][0].update(exp_avg=np.ones(7)), ShapeError, r"p0: .*\(7,\)"),
        (lambda s: s["state"][0].update(step=np.float32(9)), DataError, "numbers of steps"),
        (lambda s: s["state"][0].update(max=np.ones(2)), UnknownNameError, "'max'"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, message):
    params = _params((2,), (3,))
    optimizer = optim.Adam(params, lr=0.1)
    _step(optimizer, params)(BATCH)
    before, broken = optimizer.state_dict(), optimizer.state_dict()
    change(broken)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(broken)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, arrays in before["state"].items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(after["state"][i][name], array)


def test_state_of_torch_with_options_that_are_off_is_taken():
    params = _params((2,))
    state = optim.Adam(params).state_dict()
    state["param_groups"][0].update(amsgrad=False, foreach=None, fused=None, betas=[0.5, 0.9])
    optimizer = optim.Adam(params)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def test_types_of_updates_equal_types_of_slots():
    params = [nn.Parameter(np.ones(2, d), name=d) for d in ("float32", "float64")]
    optimizer = optim.Adam(params)
    pack("params", params)
    optimizer.prepare()
    graph = Graph()
    with tracing(graph):
        grads = {id(p): ops.multiply(p, 2.0) for p in params}
        for slot, value in optimizer.emit(grads):
            assert ArrayType(value.shape, value.dtype) == ArrayType(slot.shape, slot.dtype)
