"""Activations, shapes, containers, initialisers and the summary of a model."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import (
    DataError,
    DTypeError,
    GpubpError,
    IndexRangeError,
    ShapeError,
    TraceError,
    UnknownNameError,
)

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
FAR = np.array([-1e4, -100.0, -30.0, 30.0, 100.0, 1e4])


def test_activations_are_stable_far_out():
    small = np.exp(FAR[:3])
    assert_close(ops.logsigmoid(FAR), np.concatenate([FAR[:3], -np.exp(-FAR[3:])]))
    np.testing.assert_allclose(ops.mish(FAR), [0, *(FAR[1:3] * small[1:]), *FAR[3:]], 1e-12)
    np.testing.assert_allclose(ops.softsign(FAR), FAR / (1 + np.abs(FAR)), 1e-15)
    for fn in (ops.logsigmoid, ops.mish, ops.selu, ops.celu, ops.softsign, ops.hardswish):
        for dtype in (np.float32, np.float64):
            value, slope = gp.value_and_grad(lambda x, f=fn: ops.sum(f(x)))(FAR.astype(dtype))
            assert np.isfinite(value), fn
            assert np.isfinite(slope).all(), fn


def test_integers_become_floats():
    for module in (nn.Hardswish(), nn.Mish(), nn.LogSigmoid(), nn.Threshold(1, 0), nn.GLU()):
        assert module(np.arange(4)).dtype == np.float32


def test_flatten_and_unflatten_give_torchs_shapes():
    x = np.zeros((2, 3, 4))
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0, 1)(x).shape == (6, 4)
    assert nn.Unflatten(1, (3, -1))(np.zeros((2, 12))).shape == (2, 3, 4)
    assert nn.Unflatten(-1, (3, 4))(np.zeros((2, 12))).shape == (2, 3, 4)
    assert nn.Identity(54, unused=True)(x) is x


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_gets_no_gradient(backend):
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert table.padding_idx == 4
    assert (table.weight.value[4] == 0).all()
    before = table.weight.numpy()
    step = gp.compile_step(
        lambda i: ops.sum(table(i)), optim.SGD([table.weight], lr=1.0), backend=backend
    )
    step(np.array([0, 4, 0, 2]))
    assert_close(before - table.weight.value, np.outer([2, 0, 1, 0, 0], np.ones(3)).astype("f"))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 2)})
        self.gains = nn.ParameterList([nn.Parameter(np.ones(4, np.float32))])
        self.biases = nn.ParameterDict({"a": nn.Parameter(np.zeros(1, np.float32))})

    def forward(self, x):
        for layer in self.layers:
            x = ops.relu(layer(x))
        return self.heads["a"](x * self.gains[0]) + self.biases["a"]


def test_collections_register_what_they_hold():
    model = Blocks()
    names = [name for name, _ in model.named_parameters()]
    assert names == [
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
        "heads.a.weight", "heads.a.bias", "heads.b.weight", "heads.b.bias", "gains.0", "biases.a",
    ]  # fmt: skip
    twin = Blocks()
    twin.load_state_dict(model.state_dict())
    assert_same(twin(X), model(X))
    assert_close(gp.compile(model, backend="numpy")(X), model(X))


def test_module_list_behaves_as_a_list():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    layers = nn.ModuleList([a])
    assert layers.append(c) is layers
    layers.insert(1, b)
    assert list(layers) == [a, b, c]
    assert (len(layers), layers[-1], list(layers[1:])) == (3, c, [b, c])
    assert [name for name, _ in layers.named_children()] == ["0", "1", "2"]
    layers[0] = c
    del layers[1]
    assert list(layers) == [c, c]
    layers += [a, b]
    assert list(layers.extend([c])) == [c, c, a, b, c]
    with pytest.raises(TypeError, match="takes a Module, got int"):
        layers[1] = 3
    assert list(layers) == [c, c, a, b, c]
    with pytest.raises(IndexError):
        layers[9]


def test_module_dict_behaves_as_a_dict():
    a, b = nn.ReLU(), nn.Tanh()
    modules = nn.ModuleDict([("a", a)])
    modules.update({"b": b})
    assert (list(modules), list(modules.values()), len(modules)) == (["a", "b"], [a, b], 2)
    assert "a" in modules
    assert dict(modules.items()) == {"a": a, "b": b}
    assert modules.pop("a") is a
    assert list(modules.keys()) == ["b"]
    with pytest.raises(UnknownNameError, match="Did you mean 'b'"):
        modules["bb"]
    for name in ("", "a.b", "keys"):
        with pytest.raises(ValueError, match="name"):
            modules[name] = a
    modules.clear()
    assert len(modules) == 0


def test_sequential_takes_names():
    model = nn.Sequential({"first": nn.Linear(4, 2), "second": nn.ReLU()})
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    assert model.first is model[0]
    assert model(X).shape == (5, 2)


def test_modules_by_name_and_apply():
    model = Blocks()
    assert model.get_submodule("heads.b") is model.heads["b"]
    assert model.get_submodule("") is model
    with pytest.raises(UnknownNameError, match=r"Did you mean 'heads\.b'"):
        model.get_submodule("head.b")
    seen = []
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen.count("Linear") == 4
    assert seen[-1] == "Blocks"
    with pytest.raises(ValueError, match="without dots"):
        model.add_module("a.b", nn.ReLU())
    with pytest.raises(TypeError, match="expected a Module"):
        model.add_module("a", 3)
    with pytest.raises(TypeError, match="expected a Parameter"):
        model.register_parameter("a", np.ones(2))
    model.register_parameter("late", None)
    model.late = nn.Parameter(np.ones(2, np.float32))
    assert "late" in model.state_dict()


def _drawn(fill, shape=(400, 300), **options):
    weight = nn.Parameter(np.zeros(shape, np.float32))
    assert fill(weight, **options) is weight
    return weight.value


def test_initialisers_have_their_spread():
    """120,000 numbers: spreads agree with the formula within 2 percent."""
    uniform = 1 / math.sqrt(3)
    spreads = {
        nn.init.xavier_uniform_: math.sqrt(6 / 700) * uniform,
        nn.init.xavier_normal_: math.sqrt(2 / 700),
        nn.init.kaiming_uniform_: math.sqrt(6 / 300) * uniform,
        nn.init.kaiming_normal_: math.sqrt(2 / 300),
        nn.init.uniform_: 0.5 * uniform,
        nn.init.normal_: 1.0,
        nn.init.trunc_normal_: 0.8796,  # of a normal distribution cut at two spreads
    }
    for fill, spread in spreads.items():
        assert abs(_drawn(fill).std() / spread - 1) < 0.02, fill.__name__
    outward = _drawn(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="tanh")
    assert abs(outward.std() / (5 / 3 / math.sqrt(400)) - 1) < 0.02
    assert abs(_drawn(nn.init.uniform_, a=2.0, b=4.0).mean() - 3) < 0.01
    assert abs(_drawn(nn.init.normal_, mean=2.0, std=0.1).mean() - 2) < 0.01


@pytest.mark.parametrize(("a", "b"), [(-2.0, 2.0), (1.0, 1.5), (8.0, 9.0), (-9.0, -8.0)])
def test_truncated_normal_stays_inside(a, b):
    drawn = _drawn(nn.init.trunc_normal_, a=a, b=b)
    assert a <= drawn.min() < drawn.max() <= b
    # Normal density at the ends: more numbers where it is higher.
    middle = (a + b) / 2
    assert (np.mean(drawn < middle) > 0.51) == (a > 0)
    assert (np.mean(drawn > middle) > 0.51) == (b < 0)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns_are_orthogonal(shape):
    drawn = _drawn(nn.init.orthogonal_, shape, gain=2.0).reshape(shape[0], -1).astype(np.float64)
    small = drawn @ drawn.T if drawn.shape[0] <= drawn.shape[1] else drawn.T @ drawn
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_constant_initialisers_fill():
    assert (_drawn(nn.init.ones_) == 1).all()
    assert (_drawn(nn.init.zeros_) == 0).all()
    assert (_drawn(nn.init.constant_, val=0.5) == 0.5).all()
    assert_same(_drawn(nn.init.eye_, (2, 3)), np.eye(2, 3, dtype=np.float32))


def test_draws_follow_the_seed():
    gp.manual_seed(3)
    first = _drawn(nn.init.normal_).copy()
    gp.manual_seed(3)
    assert_same(_drawn(nn.init.normal_), first)
    assert (_drawn(nn.init.normal_) != first).any()
    generator = gp.Generator(3)
    assert_same(_drawn(nn.init.normal_, generator=generator), first)


def test_a_summary_counts_parameters_and_arithmetic():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    before = model.state_dict()
    found = nn.summary(model, (32, 4))
    assert (found.parameters, found.trained, found.buffers) == (83, 43, 17)
    linear = found.rows[1]
    assert (linear.name, linear.kind, linear.depth) == ("0", "Linear", 1)
    assert (linear.shapes, linear.parameters) == (((32, 8),), 40)
    assert linear.flops == 2 * 32 * 4 * 8 + 32 * 8
    assert found.flops == found.rows[0].flops == sum(row.flops for row in found.rows[1:])
    product, added = 32 * 4 + 4 * 8 + 32 * 8, 32 * 8 + 8 + 32 * 8
    assert linear.bytes == 4 * (product + added)
    assert found.bytes == found.rows[0].bytes == sum(row.bytes for row in found.rows[1:])
    for name, value in model.state_dict().items():
        assert_same(value, before[name], name)
    assert "forward" not in model[0].__dict__
    text = str(found)
    assert "0 (Linear)" in text
    assert "[32, 8]" in text
    assert "parameters: 83 (43 trained, 40 frozen); state: 17" in text


def test_a_summary_counts_convolutions_and_pools():
    """By hand: two operations for each weight and window, one for each place of a window."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 4, (3, 1), stride=2, groups=2, bias=False),
        nn.AvgPool2d(2),
    )
    rows = nn.summary(model, (5, 3, 12, 16)).rows[1:]
    assert [row.shapes[0] for row in rows] == [
        (5, 8, 12, 16), (5, 8, 6, 8), (5, 4, 2, 4), (5, 4, 1, 2)
    ]  # fmt: skip
    sizes = [5 * 3 * 12 * 16, 5 * 8 * 12 * 16, 5 * 8 * 6 * 8, 5 * 4 * 2 * 4, 5 * 4 * 2]
    weights = [8 * 3 * 9, 4 * 4 * 3]
    assert rows[0].flops == 2 * 5 * 12 * 16 * weights[0]
    assert rows[1].flops == sizes[2] * 4
    assert rows[2].flops == 2 * 5 * 2 * 4 * weights[1]
    assert rows[3].flops == sizes[4] * (4 + 1)  # and divides
    moved = [a + b for a, b in pairwise(sizes)]
    moved[0] += weights[0]
    moved[2] += weights[1]
    moved[3] += 2 * sizes[4] + 1
    assert [row.bytes for row in rows] == [4 * n for n in moved]
    step = gp.compile(model, backend="numpy")
    step(np.ones((5, 3, 12, 16), np.float32))
    total = sum(row.flops for row in rows) / 1e3
    assert f"arithmetic {total:.1f} kFLOP" in step.report()


def test_summary_of_several_inputs_and_of_indices():
    assert nn.summary(nn.Bilinear(2, 3, 4), ((8, 2), (8, 3))).rows[0].shapes == ((8, 4),)
    assert nn.summary(nn.Embedding(5, 3), (8, 2), dtype="int64").rows[0].shapes == ((8, 2, 3),)
    rows = nn.summary(Blocks(), (8, 4)).rows
    assert [row.name for row in rows if not row.shapes] == [
        "layers", "heads", "heads.b", "gains", "biases",
    ]  # fmt: skip
    assert "not called" in str(nn.summary(Blocks(), (8, 4)))


def test_summary_leaves_the_model_whole_when_it_fails():
    model = nn.Linear(4, 2)
    with pytest.raises(ShapeError, match="expected"):
        nn.summary(model, (8, 5))
    assert "forward" not in model.__dict__
    with pytest.raises(ShapeError, match="whole numbers"):
        nn.summary(model, (8, 4.0))
    with pytest.raises(TraceError, match="outside of traced"):
        gp.compile(lambda x: nn.summary(model, (8, 4)), backend="numpy")(X)


WRONG = {
    "elu": (lambda: nn.ELU(-1.0), DataError, "alpha"),
    "celu": (lambda: nn.CELU(0.0), DataError, "alpha must be positive"),
    "leaky": (lambda: nn.LeakyReLU(math.inf), DataError, "finite"),
    "softplus": (lambda: nn.Softplus(beta=0.0), DataError, "beta"),
    "hardtanh": (lambda: nn.Hardtanh(1.0, -1.0), DataError, "low must be below high"),
    "hardshrink": (lambda: nn.Hardshrink(-0.5), DataError, "lambd"),
    "softshrink": (lambda: nn.Softshrink(-0.5), DataError, "lambd"),
    "threshold": (lambda: nn.Threshold(math.nan, 0.0), DataError, "finite"),
    "prelu": (lambda: nn.PReLU(3)(X), ShapeError, r"\(1,\) or \(4,\)"),
    "prelu size": (lambda: nn.PReLU(0), ShapeError, "num_parameters"),
    "glu": (lambda: nn.GLU()(X[:, :3]), ShapeError, "halved"),
    "softmax": (lambda: nn.Softmax(), DataError, "pass dim=-1"),
    "softmax axis": (lambda: nn.LogSoftmax(2)(X), ShapeError, "no axis dim=2"),
    "unflatten": (lambda: nn.Unflatten(1, (3, 2))(X), ShapeError, "cannot be split"),
    "unflatten -1": (lambda: nn.Unflatten(1, (3, -1))(X), ShapeError, "cannot be split"),
    "unflatten axis": (lambda: nn.Unflatten(2, (2, 2))(X), ShapeError, "no axis dim=2"),
    "batch norm": (lambda: nn.BatchNorm1d(3)(X), ShapeError, r"expected \(N, 3\)"),
    "batch norm axes": (lambda: nn.BatchNorm1d(4)(X[0]), ShapeError, r"\(N, 4, L\)"),
    "batch norm size": (lambda: nn.BatchNorm1d(0), ShapeError, "at least 1"),
    "momentum": (lambda: nn.BatchNorm1d(4, momentum=1.5), DataError, "momentum"),
    "eps": (lambda: nn.LayerNorm(4, eps=-1.0), DataError, "eps"),
    "layer norm": (lambda: nn.LayerNorm((4, 5))(X), ShapeError, r"last axes to be \(4, 5\)"),
    "layer norm size": (lambda: nn.LayerNorm(()), ShapeError, "at least 1"),
    "rms norm": (lambda: nn.RMSNorm(3)(X), ShapeError, r"last axes to be \(3,\)"),
    "bilinear": (lambda: nn.Bilinear(4, 3, 2)(X, X), ShapeError, "expected"),
    "bilinear size": (lambda: nn.Bilinear(4, 0, 2), ShapeError, "at least 1"),
    "embedding": (lambda: nn.Embedding(3, 2)(np.array([3])), IndexRangeError, "3"),
    "embedding floats": (lambda: nn.Embedding(3, 2)(X), DTypeError, "int32 or int64"),
    "padding": (lambda: nn.Embedding(3, 2, padding_idx=3), IndexRangeError, "padding_idx"),
    "embedding size": (lambda: nn.Embedding(-1, 2), ShapeError, "at least 1"),
    "gain": (lambda: nn.init.calculate_gain("rely"), UnknownNameError, "Did you mean 'relu'"),
    "mode": (lambda: _drawn(nn.init.kaiming_normal_, mode="fan"), UnknownNameError, "mode"),
    "fan": (lambda: _drawn(nn.init.xavier_normal_, (3,)), ShapeError, "two axes"),
    "std": (lambda: _drawn(nn.init.normal_, std=-1.0), DataError, "std"),
    "bounds": (lambda: _drawn(nn.init.uniform_, a=1.0, b=0.0), DataError, "a <= b"),
    "cut": (lambda: _drawn(nn.init.trunc_normal_, a=1.0, b=0.0), DataError, "a < b"),
    "eye": (lambda: _drawn(nn.init.eye_, (3,)), ShapeError, "two axes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(what):
    make, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        make()


def test_sequences_are_changed_as_torchs():
    parts = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    model = nn.Sequential(*parts)
    other, more = nn.ReLU(), nn.Linear(2, 2)
    f = gp.compile(model)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)

    def holds(*expected):
        assert [a is b for a, b in zip(model, expected, strict=True)] == [True] * len(expected)
        assert [name for name, _ in model.named_children()] == [str(i) for i in range(len(model))]
        y = x
        for part in expected:
            y = part(y)
        np.testing.assert_allclose(f(x), y, 1e-5, 1e-6)

    holds(*parts)
    model[1] = other
    holds(parts[0], other, parts[2])
    assert model.insert(1, parts[1]).extend([more]) is model
    holds(parts[0], parts[1], other, parts[2], more)
    assert model.pop() is more and model.pop(1) is parts[1]
    holds(parts[0], other, parts[2])
    del model[1:]
    holds(parts[0])
    named = nn.Sequential({"first": nn.Linear(4, 4), "second": nn.ReLU()})
    named[-1] = parts[1]
    assert named.second is parts[1] and list(dict(named.named_children())) == ["first", "second"]
    layers = nn.ModuleList(parts)
    assert layers.pop(0) is parts[0] and list(layers) == parts[1:]


@pytest.mark.parametrize(
    "bad",
    [
        lambda m: m.__setitem__(5, nn.ReLU()),
        lambda m: m.__setitem__(0, np.tanh),
        lambda m: m.__setitem__(slice(0, 1), nn.ReLU()),
        lambda m: m.insert(0, "relu"),
        lambda m: m.insert(9, nn.ReLU()),
        lambda m: m.extend([nn.ReLU(), None]),
        lambda m: m.extend(3),
        lambda m: m.pop(7),
        lambda m: m.__delitem__(7),
    ],
)
def test_sequences_refuse_what_is_no_module(bad):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    before = list(model)
    with pytest.raises(GpubpError):
        bad(model)
    assert list(model) == before
