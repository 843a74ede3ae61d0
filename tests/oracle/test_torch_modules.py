"""Every module and loss against PyTorch: forward, gradients, names and shapes of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.runtime.function import compile_function
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

DTYPES = tuple(ORACLE)

Pair = tuple[Callable[[str], nn.Module], Callable[[], Any], tuple[int, ...]]


def _mlp(dtype: str) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 7, dtype=dtype),
        nn.Tanh(),
        nn.Sequential(nn.Linear(7, 6, dtype=dtype), nn.GELU()),
        nn.Linear(6, 3, bias=False, dtype=dtype),
    )


def _torch_mlp() -> Any:
    t = torch.nn
    inner = t.Sequential(t.Linear(7, 6), t.GELU())
    return t.Sequential(t.Linear(5, 7), t.Tanh(), inner, t.Linear(6, 3, bias=False))


MODULES: dict[str, Pair] = {
    "linear": (lambda d: nn.Linear(5, 3, dtype=d), lambda: torch.nn.Linear(5, 3), (4, 5)),
    "linear without bias": (
        lambda d: nn.Linear(5, 3, bias=False, dtype=d),
        lambda: torch.nn.Linear(5, 3, bias=False),
        (4, 5),
    ),
    "linear on 3 axes": (
        lambda d: nn.Linear(5, 3, dtype=d),
        lambda: torch.nn.Linear(5, 3),
        (4, 2, 5),
    ),
    "linear, one sample": (
        lambda d: nn.Linear(9, 1, dtype=d),
        lambda: torch.nn.Linear(9, 1),
        (1, 9),
    ),
    "relu": (lambda d: nn.ReLU(), lambda: torch.nn.ReLU(), (6, 17)),
    "sigmoid": (lambda d: nn.Sigmoid(), lambda: torch.nn.Sigmoid(), (6, 17)),
    "tanh": (lambda d: nn.Tanh(), lambda: torch.nn.Tanh(), (6, 17)),
    "gelu": (lambda d: nn.GELU(), lambda: torch.nn.GELU(), (6, 17)),
    "gelu tanh": (
        lambda d: nn.GELU(approximate="tanh"),
        lambda: torch.nn.GELU(approximate="tanh"),
        (6, 17),
    ),
    "dropout in eval mode": (
        lambda d: nn.Dropout(0.7).eval(),
        lambda: torch.nn.Dropout(0.7).eval(),
        (6, 17),
    ),
    "dropout of all": (lambda d: nn.Dropout(1.0), lambda: torch.nn.Dropout(1.0), (6, 17)),
    "mlp": (_mlp, _torch_mlp, (11, 5)),
}


def _assert_close(actual: Any, expected: Any, dtype: str) -> None:
    actual, expected = np.asarray(actual), expected.detach().numpy()
    assert actual.shape == expected.shape
    assert str(actual.dtype) == dtype == str(expected.dtype)
    bound = ORACLE[dtype] * np.abs(expected).max(initial=0.0)
    assert np.abs(actual - expected).max(initial=0.0) <= bound


def _pair(name: str, dtype: str) -> tuple[nn.Module, Any, tuple[int, ...]]:
    make, make_torch, shape = MODULES[name]
    model = make(dtype)
    other = make_torch().to(getattr(torch, dtype))
    other.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
    return model, other, shape


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    # Wide enough to reach the flat ends of the activations.
    return (3.0 * rng.standard_normal(shape)).astype(dtype)


def _gradients(
    loss: Callable[..., Any], params: list[nn.Parameter], batch: Any, backend: str
) -> list[Any]:
    optimizer = optim.SGD(params, lr=0.0)
    step = compile_step(loss, optimizer, backend=backend, keep_grads=True)
    step(batch)
    return step.grads


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODULES)
def test_forward_equals_torch(name: str, dtype: str, backend: str) -> None:
    model, other, shape = _pair(name, dtype)
    x = _draw(np.random.default_rng(0), shape, dtype)
    expected = other(torch.from_numpy(x))
    _assert_close(model(x), expected, dtype)
    _assert_close(compile_function(model, backend=backend)(x), expected, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODULES)
def test_gradients_equal_torch(name: str, dtype: str, backend: str) -> None:
    model, other, shape = _pair(name, dtype)
    rng = np.random.default_rng(1)
    x = _draw(rng, shape, dtype)
    tx = torch.from_numpy(x).requires_grad_()
    out = other(tx)
    cotangent = _draw(rng, tuple(out.shape), dtype)
    (out * torch.from_numpy(cotangent)).sum().backward()

    leaf = nn.Parameter(x, name="x")
    found = _gradients(
        lambda c: ops.sum(model(leaf) * c), [leaf, *model.parameters()], cotangent, backend
    )
    expected = [tx.grad, *[p.grad for p in other.parameters()]]
    for actual, reference in zip(found, expected, strict=True):
        _assert_close(actual, reference, dtype)


@pytest.mark.parametrize("name", MODULES)
def test_state_has_torch_names_and_shapes(name: str) -> None:
    make, make_torch, _ = MODULES[name]
    mine = {k: v.shape for k, v in make("float32").state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in make_torch().state_dict().items()}
    assert list(mine.items()) == list(theirs.items())


@pytest.mark.parametrize("name", MODULES)
def test_repr_equals_torch(name: str) -> None:
    make, make_torch, _ = MODULES[name]
    theirs = repr(make_torch()).replace(", inplace=False", "")
    assert repr(make("float32")) == theirs


def _loss_cases() -> dict[str, tuple[Any, Any, Any, Any]]:
    """Loss, torch's loss, input, target; float64."""
    rng = np.random.default_rng(2)
    cases = {}
    for reduction in ("mean", "sum", "none"):
        pair = nn.MSELoss(reduction), torch.nn.MSELoss(reduction=reduction)
        cases[f"mse {reduction}"] = (*pair, rng.normal(size=(9, 4)), rng.normal(size=(9, 4)))
        pair = (
            nn.CrossEntropyLoss(reduction=reduction),
            torch.nn.CrossEntropyLoss(reduction=reduction),
        )
        logits = 20.0 * rng.normal(size=(9, 5))
        cases[f"cross entropy {reduction}"] = (*pair, logits, rng.integers(0, 5, 9))
    return cases


LOSSES = _loss_cases()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_torch(name: str, dtype: str, backend: str) -> None:
    loss, other, given, target = LOSSES[name]
    given = given.astype(dtype)
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    tx = torch.from_numpy(given.copy()).requires_grad_()
    out = other(tx, torch.from_numpy(target))
    out.square().sum().backward()

    _assert_close(loss(given, target), out, dtype)
    _assert_close(compile_function(loss, backend=backend)(given, target), out, dtype)
    leaf = nn.Parameter(given)
    found = _gradients(lambda t: ops.sum(ops.square(loss(leaf, t))), [leaf], target, backend)
    _assert_close(found[0], tx.grad, dtype)


def test_initial_weights_have_torch_range() -> None:
    ops.manual_seed(0)
    mine, other = nn.Linear(100, 400), torch.nn.Linear(100, 400)
    for a, b in ((mine.weight.value, other.weight), (mine.bias.numpy(), other.bias)):
        reference = b.detach().numpy()
        assert np.abs(a).max() <= 0.1
        # Both are uniform in +-0.1: 400 numbers or more, so their spreads agree within 10 %.
        assert abs(a.std() / reference.std() - 1.0) < 0.1


STATISTICS: dict[str, dict[str, Any]] = {
    "not tracked": {"track_running_stats": False},
    "none": {"running_mean": None, "running_var": None},
    "no count": {"num_batches_tracked": None},
    "no count, a plain average": {"num_batches_tracked": None, "momentum": None},
}


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("what", STATISTICS)
def test_statistics_that_are_taken_from_a_batch_norm(what, training, backend):
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    mine, theirs = nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4)
    call = mine if backend is None else compile_function(mine, backend=backend)
    for _ in range(2):
        np.testing.assert_allclose(call(x + 1), theirs(torch.tensor(x + 1)).detach(), 1e-5, 1e-5)
        for module in (mine, theirs):
            module.train(training)
            for name, value in STATISTICS[what].items():
                setattr(module, name, value)
    np.testing.assert_allclose(call(x), theirs(torch.tensor(x)).detach(), 1e-5, 1e-5)
    if mine.running_mean is not None:
        np.testing.assert_allclose(mine.running_mean.value, theirs.running_mean, 1e-5, 1e-6)
        np.testing.assert_allclose(mine.running_var.value, theirs.running_var, 1e-5)


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [0.5, 1.5, -1.5, 2.0, 3.0, 0.0, -1.0])
def test_powers_of_what_has_none(exponent, dtype, backend):
    """Constant exponents, and arrays of them: a root gives NaN at -inf, where pow gives inf."""
    x = np.array([-np.inf, np.inf, -0.0, 0.0, -4.0, 4.0, np.nan, 2.0], dtype)
    many, one = np.full(8, exponent, dtype), np.array(exponent, dtype)

    def mine(fn, *args):
        with np.errstate(all="ignore"):
            return (fn if backend is None else compile_function(fn, backend=backend))(*args)

    given = torch.tensor(x)
    for found, expected in (
        (mine(lambda a: ops.power(a, exponent), x), given**exponent),
        (mine(ops.power, x, many), torch.pow(given, torch.tensor(many))),
        (mine(ops.power, x, one), torch.pow(given, torch.tensor(one))),
    ):
        np.testing.assert_allclose(found, expected, 1e-6)
        np.testing.assert_array_equal(np.signbit(found[2:4]), torch.signbit(expected[2:4]))
