"""gpubp.nn.functional against torch.nn.functional: names, arguments, values, gradients."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

import gpubp as gp
import gpubp.nn.functional as F  # noqa: N812
from gpubp import nn, ops
from gpubp.errors import ArgumentError, IndexRangeError, ShapeError

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
cases = pytest.importorskip("functional_cases")
T = torch.nn.functional
torch.set_num_threads(1)

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::UserWarning")]

# What torch has and gpubp does not.
MISSING = {
    "adaptive_max_pool1d_with_indices": "return_indices=True",
    "adaptive_max_pool2d_with_indices": "return_indices=True",
    "adaptive_max_pool3d_with_indices": "return_indices=True",
    "fractional_max_pool2d_with_indices": "return_indices=True",
    "fractional_max_pool3d_with_indices": "return_indices=True",
    "max_pool1d_with_indices": "return_indices=True",
    "max_pool2d_with_indices": "return_indices=True",
    "max_pool3d_with_indices": "return_indices=True",
    "native_channel_shuffle": "channel_shuffle",
    "conv_tbc": "conv1d of another layout",
    "grouped_mm": "of GPUs",
    "scaled_grouped_mm": "of GPUs",
    "scaled_mm": "of GPUs",
    "multi_head_attention_forward": "nn.MultiheadAttention",
}
# The gradient of torch's own has 1/6 to float32's precision only, in float64 too.
FEW_DIGITS = {"hardsigmoid"}
# Random without a number that says which: values are compared in tests of their own.
RANDOM = {"fractional_max_pool2d", "fractional_max_pool3d"}
# Torch's gradient by logarithms is not their derivative: see test_torch_ctc.py.
RANDOM |= {"ctc_loss", "gumbel_softmax"}
# Their indices come from another function: compared in tests of their own.
OF_INDICES = {"max_unpool1d", "max_unpool2d", "max_unpool3d"}


def _public() -> set[str]:
    """What torch.nn.functional defines for users, without forms that write into their input."""
    helpers = {"assert_int_or_pair", "boolean_dispatch", "handle_torch_function"}
    names = {n for n in dir(T) if n.islower() and not n.startswith(("_", "has_torch"))}
    called = {n for n in names if callable(getattr(T, n)) and not inspect.isclass(getattr(T, n))}
    return {n for n in called - helpers if not n.endswith("_")}


def test_every_function_of_torch_is_there_or_has_a_reason() -> None:
    assert _public() - set(F.__all__) == set(MISSING)
    assert set(F.__all__) <= _public()


def test_every_function_is_tried() -> None:
    assert {name for name, _, _ in cases.CASES} == set(F.__all__) - RANDOM - OF_INDICES


@pytest.mark.parametrize("name", F.__all__)
def test_arguments_have_torchs_names_and_order(name: str) -> None:
    mine = [
        p.name
        for p in inspect.signature(getattr(F, name)).parameters.values()
        if p.name != "generator"
    ]
    try:
        theirs = list(inspect.signature(getattr(T, name)).parameters)
    except ValueError:  # built in: its arguments stand in its docstring
        text = getattr(T, name).__doc__
        inside = text[text.index("(") + 1 : text.index(")")]
        theirs = [part.split("=")[0].split()[-1] for part in inside.split(",")]
        theirs = [part for part in theirs if part != "*"]
    if theirs[:1] == ["args"]:  # one of two functions, by an argument
        theirs = list(inspect.signature(getattr(T, f"{name}_with_indices")).parameters)
    assert mine == theirs


def _tensor(value: Any, grad: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(value.copy()).requires_grad_(grad and value.dtype.kind == "f")


def _close(actual: Any, expected: Any, dtype: str = "float64") -> None:
    expected = expected.detach().numpy()
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    size = np.abs(expected).max(initial=0.0)
    assert np.abs(actual - expected).max(initial=0.0) <= ORACLE[dtype] * size


@pytest.mark.parametrize("at", range(len(cases.CASES)), ids=[c[0] for c in cases.CASES])
def test_values_and_gradients_equal_torchs(at: int) -> None:
    """At once, in a compiled program, and the gradient of the first argument of floats."""
    name, args, options = cases.CASES[at]
    mine = getattr(F, name)
    first = next((i for i, a in enumerate(args) if _is_float(a)), None)
    theirs = [_tensor(a, i == first) for i, a in enumerate(args)]
    expected = getattr(T, name)(*theirs, **{k: _tensor(v) for k, v in options.items()})
    _close(mine(*args, **options), expected)
    if first is None:
        return
    rest = [*args]

    def of_first(x: Any) -> Any:
        return mine(*rest[:first], x, *rest[first + 1 :], **options)

    _close(gp.compile(of_first, backend="numba")(args[first]), expected)
    weights = np.cos(np.arange(expected.numel())).reshape(tuple(expected.shape))
    (expected * torch.from_numpy(weights)).sum().backward()
    found = gp.grad(lambda x: ops.sum(ops.multiply(of_first(x), weights)))(args[first])
    _close(found, theirs[first].grad, "float32" if name in FEW_DIGITS else "float64")


SECOND = [c for c in cases.layers() if "norm" in c[0] or "conv" in c[0]]


@pytest.mark.parametrize("at", range(len(SECOND)), ids=[c[0] for c in SECOND])
def test_second_gradients_equal_torchs(at: int) -> None:
    """Of the first argument: the gradient of (its gradient's sine, summed)."""
    name, (x, *rest), options = SECOND[at]

    tx = _tensor(x, True)
    y = getattr(T, name)(tx, *map(_tensor, rest), **{k: _tensor(v) for k, v in options.items()})
    weights = np.cos(np.arange(y.numel())).reshape(tuple(y.shape))
    (first,) = torch.autograd.grad(
        (y.sin() * torch.from_numpy(weights)).sum(), tx, None, True, True
    )
    (second,) = torch.autograd.grad(first.sin().sum(), tx)

    def loss(z: Any) -> Any:
        found = getattr(F, name)(z, *rest, **options)
        return ops.sum(ops.multiply(ops.sin(found), weights))

    slope = gp.grad(lambda z: ops.sum(ops.sin(gp.grad(loss)(z))))
    _close(gp.compile(slope, backend="numba")(x), second)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def test_running_statistics_move() -> None:
    x, mean, var = cases.IMAGES, np.zeros(4), np.ones(4)
    for name, options in (("batch_norm", {"training": True}), ("instance_norm", {})):
        buffers, tensors = (nn.Buffer(mean), nn.Buffer(var)), (_tensor(mean), _tensor(var))
        expected = getattr(T, name)(_tensor(x), *tensors, momentum=0.3, **options)
        _close(getattr(F, name)(x, *buffers, momentum=0.3, **options), expected)
        for buffer, tensor in zip(buffers, tensors, strict=True):
            _close(buffer.numpy(), tensor)
        with pytest.raises(ArgumentError, match=r"nn\.Buffer"):
            getattr(F, name)(x, mean, var, **options)


def test_weights_of_losses_may_be_computed() -> None:
    """By the program, from a buffer or an argument; torch takes tensors there."""
    weight = nn.Buffer(cases.W)
    f = gp.compile(lambda x, y, w: F.cross_entropy(x, y, w * weight), backend="numpy")
    g = gp.compile(lambda x, y: F.cross_entropy(x, y, weight), backend="numpy")
    for w in (cases.W, cases.C):
        weight.value = w
        x, y = cases.A, cases.LABELS
        twice = T.cross_entropy(_tensor(x), _tensor(y), _tensor(cases.W * w))
        _close(f(x, y, cases.W), twice)
        _close(g(x, y), T.cross_entropy(_tensor(x), _tensor(y), _tensor(w)))


def test_what_torch_would_do_in_place_is_refused() -> None:
    with pytest.raises(ArgumentError, match="inplace is True"):
        F.relu(cases.A, inplace=True)
    with pytest.raises(ArgumentError, match='pass reduction="mean"'):
        F.mse_loss(cases.A, cases.P, size_average=True)
    with pytest.raises(TypeError, match=r"relu\(\) got an unexpected"):
        F.relu(cases.A, slope=1.0)


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(IndexRangeError, match="label 3 is out of range for 3 classes"):
        F.one_hot(cases.LABELS, 3)
    with pytest.raises(ArgumentError, match="num_classes is -1"):
        gp.compile(F.one_hot, backend="numpy")(cases.LABELS)
    with pytest.raises(ArgumentError, match="with max_norm rows of the table are rewritten"):
        F.embedding(cases.LABELS, cases.A, max_norm=1.0)
    with pytest.raises(ShapeError, match="equal leading axes"):
        F.bilinear(cases.A, cases.A[:3], np.ones((2, 4, 4)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unpooling_takes_the_indices_of_pooling(axes: int) -> None:
    x = cases.BY_AXES[axes]
    y, places = getattr(F, f"max_pool{axes}d")(x, 2, return_indices=True)
    theirs = getattr(T, f"max_pool{axes}d")(_tensor(x), 2, return_indices=True)
    _close(y, theirs[0])
    size = x.shape[2:]
    expected = getattr(T, f"max_unpool{axes}d")(*theirs, 2, output_size=size)
    _close(getattr(F, f"max_unpool{axes}d")(y, places, 2, output_size=size), expected)


@pytest.mark.parametrize("axes", [2, 3])
def test_fractional_pools_follow_their_samples(axes: int) -> None:
    x = cases.BY_AXES[axes]
    samples = np.random.default_rng(0).uniform(0, 1, (2, 4, axes))
    options = {"output_size": 2}
    expected = getattr(T, f"fractional_max_pool{axes}d")(
        _tensor(x), 2, **options, _random_samples=_tensor(samples)
    )
    found = getattr(F, f"fractional_max_pool{axes}d")(x, 2, **options, _random_samples=samples)
    _close(found, expected)
