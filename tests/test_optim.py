"""Optimisers: arguments, groups, state dicts. Their numbers are checked in tests/oracle."""

from __future__ import annotations

import inspect

import numpy as np
import optimizers
import pytest
from classifier import bank_labels, classifier_step, digits, mlp
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.backends.numpy import NumpyBackend
from gpubp.core import ArrayType, Graph, tracing
from gpubp.core.store import pack
from gpubp.errors import DataError, ShapeError, UnknownNameError
from gpubp.optim.options import ranges_of
from gpubp.runtime.step import compile_step


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
        (lambda p: optim.Adam(p, betas=0.9), "betas are 0.9"),
        (lambda p: optim.Adam(p, lr="fast"), "lr is 'fast', expected a number"),
        (lambda p: optim.AdamW(p, weight_decay=-1.0), "AdamW: weight_decay is -1.0"),
        (lambda p: optim.Adagrad(p, lr_decay=-0.5), "lr_decay is -0.5"),
        (lambda p: optim.Adagrad(p, initial_accumulator_value=-1.0), "accumulator_value is -1.0"),
        (lambda p: optim.Adadelta(p, rho=1.1), r"rho is 1.1, expected a number in \[0, 1\]"),
        (lambda p: optim.Adadelta(p, eps=-1.0), "eps is -1.0"),
        (lambda p: optim.RMSprop(p, momentum=-1.0), "RMSprop: momentum is -1.0"),
        (lambda p: optim.RMSprop(p, alpha=-1.0), "alpha is -1.0"),
        (lambda p: optim.Adamax(p, betas=(0.9, 1.0)), "Adamax: betas are"),
        (lambda p: optim.NAdam(p, momentum_decay=-0.2), "momentum_decay is -0.2"),
        (lambda p: optim.RAdam(p, betas=(0.9,)), "RAdam: betas are"),
        (lambda p: optim.Lion(p, lr=-1.0), "Lion: lr is -1.0"),
        (lambda p: optim.Rprop(p, etas=(1.0, 0.5)), "etas are"),
        (lambda p: optim.Rprop(p, step_sizes=(1.0, 0.5)), "step_sizes are"),
        (lambda p: optim.ASGD(p, lambd=-1.0), "lambd is -1.0"),
        (lambda p: optim.SGD(p, dampening=float("nan")), "dampening is nan"),
        (lambda p: optim.Adam(p, lr=float("inf")), "lr is inf"),
        (lambda p: optim.SGD(p).load_state_dict({"groups": []}), "has no 'state'"),
        (lambda p: optim.SGD([]), "no parameters"),
        (lambda p: optim.SGD(p + p), "p0 was given twice"),
        (lambda p: optim.SGD([{"params": p}, {"params": p}]), "p0 was given twice"),
    ],
)
def test_wrong_options_of_optimisers_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make(_params((2,)))


@pytest.mark.parametrize("name", optimizers.ROWS)
def test_the_signature_declares_names_defaults_and_ranges_of_all_options(name):
    kind, (p,) = getattr(optim, name), _params(*optimizers.shapes(name, 2))
    said = dict(inspect.signature(kind).parameters)
    assert said.pop("params")
    made = kind([p])
    fixed = {"AdamW": {"decoupled_weight_decay": True}}.get(name, {})
    assert made.defaults == {**{key: option.default for key, option in said.items()}, **fixed}
    ranges = ranges_of(kind)
    assert "lr" in ranges and set(ranges) <= set(said)
    wrong = {"Betas": (0.9, 1.0), "Etas": (1.0, 0.5), "StepSizes": (1.0, 0.5), "Share": 1.5}
    wrong |= {"Decay": 0.5, "Three": (1.0, 2.0)}
    saved = made.state_dict()
    for option in ranges:
        value = wrong.get(said[option].annotation, -0.5)
        message = f"{name}: {option} (is|are) .*expected"
        with pytest.raises(DataError, match=message):
            kind([p], **{option: value})
        with pytest.raises(DataError, match=message):
            kind([{"params": [p], option: value}])
        with pytest.raises(DataError, match=message):
            made.param_groups[0][option] = value
        group = {**saved["param_groups"][0], option: value}
        with pytest.raises(DataError, match=message):
            made.load_state_dict({**saved, "param_groups": [group]})
        with pytest.raises(DataError, match=message):
            kind([p], **{option: (value, value, value)})
    assert dict(made.param_groups[0]) == {"params": [p], **made.defaults}


def test_a_users_optimiser_has_the_ranges_of_its_base():
    class Mine(optim.Adam):
        def __init__(self, params, lr: OnlyForTypeCheckers = 0.5, **more):  # noqa: F821
            super().__init__(params, lr, **more)

    (p,) = _params((2,))
    assert Mine([p], eps=1e-3).defaults["eps"] == 1e-3
    with pytest.raises(DataError, match=r"Mine: eps is -1\.0, expected at least 0"):
        Mine([p], eps=-1.0)
    with pytest.raises(DataError, match=r"Mine: lr is -1\.0, expected at least 0"):
        Mine([p], lr=-1.0)


def test_parameters_of_a_wrong_type_are_refused():
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


def test_a_group_can_be_added_and_not_twice():
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
def test_each_optimiser_emits_the_ops_it_needs(make, expected):
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
        (lambda s: s["param_groups"][0].update(capturable=True), DataError, "capturable=True"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), DataError, "lr is -1.0"),
        (lambda s: s["state"][0].update(exp_avg=np.ones(7)), ShapeError, r"p0: .*\(7,\)"),
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
    state["param_groups"][0].update(foreach=None, fused=None, betas=[0.5, 0.9])
    optimizer = optim.Adam(params)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def _full(name, params, **more):
    return getattr(optim, name)(params, **{**optimizers.ROWS[name][-1], **more})


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
@pytest.mark.parametrize("name", optimizers.ROWS)
def test_types_of_updates_equal_types_of_slots(name, number):
    (shape,) = optimizers.shapes(name, 2)
    params = [nn.Parameter(np.ones(shape, d), name=d) for d in ("float32", "float64")]
    optimizer = _full(name, params, lr=number(0.5))
    for key, value in optimizer.param_groups[0].items():
        if isinstance(value, float):
            optimizer.param_groups[0][key] = number(value)
    pack("params", params)
    optimizer.prepare()
    graph = Graph()
    with tracing(graph):
        grads = {id(p): ops.multiply(p, 2.0) for p in params}
        for slot, value in optimizer.emit(grads):
            assert ArrayType(value.shape, value.dtype) == ArrayType(slot.shape, slot.dtype)


@pytest.mark.parametrize("name", optimizers.ROWS)
def test_every_state_round_trips_and_training_goes_on_exactly(name):
    shapes = optimizers.shapes(name, 2, 3)
    params = _params(*shapes)
    optimizer = _full(name, params)
    step = _step(optimizer, params)
    for _ in range(4):
        step(BATCH)
    saved, weights = optimizer.state_dict(), [p.numpy() for p in params]
    for _ in range(3):
        step(BATCH)
    expected = [p.numpy() for p in params]
    fresh_params = _params(*shapes)
    fresh = getattr(optim, name)(fresh_params)
    fresh.load_state_dict(saved)
    _assert_states_equal(fresh.state_dict(), saved)
    for target, target_params in ((fresh, fresh_params), (optimizer, params)):
        target.load_state_dict(saved)
        for p, w in zip(target_params, weights, strict=True):
            p.value = w
        again = _step(target, target_params)
        for _ in range(3):
            again(BATCH)
        for p, e in zip(target_params, expected, strict=True):
            np.testing.assert_array_equal(p.value, e)


def _assert_states_equal(found, wanted):
    assert found["param_groups"] == wanted["param_groups"]
    assert found["state"].keys() == wanted["state"].keys()
    for i, arrays in wanted["state"].items():
        assert found["state"][i].keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(found["state"][i][key], array)


@pytest.mark.parametrize("name", optimizers.ROWS)
def test_no_learning_rate_is_frozen(name):
    """A rate of 0 between runs of one program moves nothing; the same rate moves again."""
    params = _params(*optimizers.shapes(name, 2, 3))
    optimizer = getattr(optim, name)(params, lr=0.01)
    step = _step(optimizer, params)
    before = [p.numpy() for p in params]
    step.run(BATCH, batch_size=2, epochs=2)
    assert all((p.value != b).any() for p, b in zip(params, before, strict=True))
    if name == "Rprop":  # lr is its first step size only
        return
    if name == "ASGD":  # eta, made from lr at the end of a step, is the rate of the next one
        optimizer.param_groups[0]["lr"] = 0.0
        step(BATCH)
    middle = [p.numpy() for p in params]
    optimizer.param_groups[0]["lr"] = 0.0
    step.run(BATCH, batch_size=4)
    for p, m in zip(params, middle, strict=True):
        np.testing.assert_array_equal(p.value, m)
    optimizer.param_groups[0]["lr"] = 0.01
    step.run(BATCH, batch_size=2)
    assert all((p.value != m).any() for p, m in zip(params, middle, strict=True))


# Their updates need all of a gradient before the first weight moves.
OF_WHOLE_ARRAYS = {"Adafactor", "Muon"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", optimizers.ROWS)
def test_fused_updates_are_the_references(name, dtype):
    """Products large enough for many tiles, updated in their epilogues; no NaN on the way."""
    x, y = digits(dtype)
    results = []
    for backend in ("numba", NumpyBackend(debug_nans=True)):
        model = mlp(dtype=dtype)
        step = classifier_step(
            lambda p: _full(name, optimizers.taken(name, p), lr=1e-3), model, backend=backend
        )
        losses = [step(x, y) for _ in range(3)]
        updates = [p for p in step.program.parts if "params" in bank_labels(p, step.program)]
        if name not in OF_WHOLE_ARRAYS:
            assert {p.kernel for p in updates} <= {"matmul", "reduce"}
        results.append([np.array(losses), *model.state_dict().values()])
    for fused, plain in zip(*results, strict=True):
        # As whole models: a weight whose gradient is nearly 0 is moved by its rounding alone.
        assert np.abs(fused - plain).max() <= ORACLE[dtype] * np.abs(plain).max()


@pytest.mark.parametrize("name", optimizers.DEFINITIONS)
def test_optimisers_that_torch_has_not_follow_their_definitions(name):
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(50, 1)), rng.normal(size=(50, 3))
    w = nn.Parameter(rng.normal(size=(1, 3)))
    optimizer = _full(name, [w], lr=0.01)
    options, state, value = dict(optimizer.param_groups[0]), {}, w.numpy()
    step = compile_step(lambda x, y: ops.mean(ops.square(x @ w - y)), optimizer, backend="numpy")
    for i in range(50):
        batch = slice(i, i + 1)
        step(X[batch], t[batch])
        grad = X[batch].T @ (2.0 * (X[batch] @ value - t[batch]) / 3.0)
        value = optimizers.DEFINITIONS[name](value, grad, state, options)
    np.testing.assert_allclose(w.value, value, rtol=1e-12)


def test_counts_are_kept_by_parameter():
    params = _params((2,), (3,))
    optimizer = optim.Adam(params, lr=0.1)
    step = _step(optimizer, params)
    step(BATCH)
    params[1].requires_grad = False
    step(BATCH)
    step(BATCH)
    params[1].requires_grad = True
    step(BATCH)
    saved = optimizer.state_dict()
    assert [float(saved["state"][i]["step"]) for i in (0, 1)] == [4.0, 2.0]
    assert int(optimizer.step_count.value) == 4
    other = optim.Adam(_params((2,), (3,)))
    other.load_state_dict(saved)
    _assert_states_equal(other.state_dict(), saved)
    optimizer.load_state_dict(optim.Adam(_params((2,), (3,))).state_dict())
    assert optimizer.state_dict()["state"] == {}


def test_a_program_of_other_counts_is_not_used_again():
    """Freezing and thawing parts the counts: the program from before would write one for both."""
    params = _params((2,), (3,))
    optimizer = optim.Adam(params, lr=0.1)
    step = _step(optimizer, params)
    for frozen in (False, True, False, True, False):
        params[1].requires_grad = not frozen
        step(BATCH)
        step(BATCH)
    saved = optimizer.state_dict()["state"]
    assert [float(saved[i]["step"]) for i in (0, 1)] == [10.0, 6.0]
