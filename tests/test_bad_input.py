"""Bad input: an error of gpubp's own that says what was given, what was expected, what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.base import Probe
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import (
    BackendError,
    DataError,
    DTypeError,
    GpubpError,
    GradientError,
    ShapeError,
    TraceError,
    UnknownNameError,
)

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.array([0, 1, 0, 1, 0, 1])
Kind = type[GpubpError]


def _step(loss: Callable[..., Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """A model and a step of it; `loss` takes the model and the batch."""
    model = nn.Linear(3, 2)
    loss_fn = nn.CrossEntropyLoss()
    options.setdefault("backend", "numpy")

    def fn(*batch: Any) -> Any:
        return loss(model, *batch) if loss else loss_fn(model(batch[0]), batch[1])

    return model, gp.compile_step(fn, optim.SGD(model.parameters(), lr=0.1), **options)


def _assert_raises(kind: Kind, parts: tuple[str, ...], work: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        work()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("fn", "parts"),
    [
        (lambda x: x if ops.sum(x) > 0 else -x, ("bool[]", "gp.ops.where")),
        (lambda x: x * float(ops.sum(x)), ("float()", "float32[]", "Keep it as an array")),
        (lambda x: x * int(ops.argmax(x)), ("int()", "int64[]", "Keep it as an array")),
        (lambda x: [1.0, 2.0][ops.argmax(x)] * x, ("indexing", "gp.ops.gather")),
        (lambda x: np.sin(x), ("np.sin", "float32[6, 3]", "gp.ops")),
        (lambda x: np.sum(x), ("np.sum", "gp.ops")),
        (lambda x: np.concatenate([x, x]), ("np.concatenate", "gp.ops")),
        (lambda x: np.asarray(x), ("NumPy", "gp.ops")),
        (lambda x: np.add(X, x, out=X), ("np.add", "traced", "a = a + b")),
        (lambda x: "loss", ("returned str", "expected arrays")),
    ],
)
def test_python_that_needs_numbers(fn: Any, parts: tuple[str, ...]) -> None:
    before = X.copy()
    _assert_raises(TraceError, parts, lambda: gp.compile(fn)(X))
    np.testing.assert_array_equal(X, before)


def test_numpy_arrays_stand_on_the_left_of_operators() -> None:
    fns: list[Callable[[Any], Any]] = [
        lambda x: X + x,
        lambda x: X - x,
        lambda x: X / (x * x + 1),
        lambda x: X.T @ x,
        lambda x: x < X * 2,
        lambda x: np.less(X, x * 2),
        lambda x: np.float32(2) * x,
        lambda x: x.reshape(np.size(x)),
    ]
    for fn in fns:
        np.testing.assert_allclose(gp.compile(fn, backend="numpy")(X), fn(X), rtol=1e-6)


def test_a_traced_array_that_leaked() -> None:
    leaked: list[Any] = []
    gp.compile(lambda x: (leaked.append(x), x)[1], backend="numpy")(X)
    words = ("float32[6, 3]", "outside the function", "Return it")
    _assert_raises(TraceError, words, lambda: ops.sin(leaked[0]))
    _assert_raises(TraceError, words, lambda: gp.compile(lambda x: x + leaked[0])(X))
    _assert_raises(TraceError, ("argument 0",), lambda: gp.compile(lambda x: x)(leaked[0]))


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        (lambda m, x: m(x), ("float scalar", "float32[6, 2]", "gp.ops.mean")),
        (lambda m, x: ops.sum(ops.argmax(m(x), 1)), ("float scalar", "int64[]")),
        (lambda m, x: {"loss": ops.sum(m(x))}, ("returned a dict of 1", "begins with it")),
        (lambda m, x: ((ops.sum(m(x)), m(x)),), ("returned a tuple of 2", "expected the loss")),
        (lambda m, x: (m(x), ops.sum(m(x))), ("float scalar", "float32[6, 2]")),
        (lambda m, x: ops.sum(x), ("weight, bias", "do not reach the loss", "leave them out")),
        (lambda m, x: ops.sum(x @ m.weight.T), ("bias", "do not reach the loss")),
    ],
)
def test_losses_that_cannot_be_trained(loss: Any, parts: tuple[str, ...]) -> None:
    _, step = _step(loss)
    _assert_raises(GradientError, parts, lambda: step(X))


def test_a_custom_optimizer_without_parameters() -> None:
    class Empty:
        def parameters(self) -> list[Any]:
            return []

    _assert_raises(
        GradientError,
        ("no parameters",),
        lambda: gp.compile_step(ops.sum, Empty()),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_norms_that_cannot_be_clipped_to_are_refused(norm: float) -> None:
    _assert_raises(DataError, (f"max_grad_norm is {norm}",), lambda: _step(max_grad_norm=norm))


def test_unknown_backends_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    near = ("'numbaa'", "Did you mean 'numba'?", "Known: cupy, emulated, numba, numba_cuda, numpy")
    _assert_raises(UnknownNameError, near, lambda: gp.compile(ops.sin, backend="numbaa"))
    device = ("device 'gpu0'", "Known: auto, cpu")
    _assert_raises(UnknownNameError, device, lambda: gp.compile(ops.sin, device="gpu0"))
    monkeypatch.setenv("GPUBP_BACKEND", "numpi")
    wrong = ("'numpi'", "Did you mean 'numpy'?")
    _assert_raises(UnknownNameError, wrong, lambda: gp.compile(ops.sin))
    monkeypatch.delenv("GPUBP_BACKEND")
    monkeypatch.setenv("GPUBP_DEVICE", "tpu")
    _assert_raises(UnknownNameError, ("device 'tpu'",), lambda: gp.compile(ops.sin))


def test_a_backend_that_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Probe("numba", False, "numba is not installed: pip install numba")
    monkeypatch.setattr(NumbaBackend, "probe", classmethod(lambda cls: missing))
    monkeypatch.setattr(sys.modules["gpubp.backends"], "_instances", {})
    words = ("'numba'", "asked for", "pip install numba")
    _assert_raises(BackendError, words, lambda: gp.compile(ops.sin, backend="numba"))
    monkeypatch.setenv("GPUBP_BACKEND", "numba")
    _assert_raises(BackendError, words, lambda: gp.compile(ops.sin))
    monkeypatch.delenv("GPUBP_BACKEND")
    assert gp.default_backend_name() == "numpy"
    np.testing.assert_allclose(gp.compile(ops.sin)(X), np.sin(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "parts"),
    [
        (lambda x: x @ x, ("matmul", "float32[6, 3] @ float32[6, 3]", "must equal")),
        (lambda x: x + np.ones((3, 6), np.float32), ("float32[6, 3]", "float32[3, 6]")),
        (lambda x: x.reshape(5, 4), ("reshape", "float32[6, 3]", "(5, 4)")),
        (lambda x: ops.concat([x, x.T]), ("concat", "float32[3, 6]")),
        (lambda x: ops.sum(x, axis=2), ("axis 2",)),
    ],
)
def test_shapes_that_do_not_fit(fn: Any, parts: tuple[str, ...]) -> None:
    _assert_raises(ShapeError, parts, lambda: gp.compile(fn)(X))


@pytest.mark.parametrize("dtype", ["U3", "O", "complex64", "M8[s]"])
def test_dtypes_that_are_no_numbers(dtype: str) -> None:
    words = ("argument 0", str(np.dtype(dtype)), "expected numbers")
    _assert_raises(DTypeError, words, lambda: gp.compile(ops.sin)(np.zeros(3, dtype)))
    _assert_raises(DTypeError, words, lambda: _step()[1](np.zeros((6, 3), dtype), Y))


def test_half_precision_is_widened_as_data_but_is_no_dtype_of_ops() -> None:
    found = gp.compile(lambda x: x * 2, backend="numpy")(X.astype(np.float16))
    assert found.dtype == np.float32
    words = ("float16", "not supported", "float32")
    _assert_raises(DTypeError, words, lambda: gp.compile(lambda x: x.astype("float16"))(X))
    _assert_raises(DTypeError, words, lambda: nn.Parameter(np.zeros(2, np.float16)))


def test_labels_of_a_wrong_dtype() -> None:
    words = ("labels float32[6]", "int32 or int64", "astype")
    _assert_raises(DTypeError, words, lambda: _step()[1](X, Y.astype(np.float32)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("label", [2, -1])
@pytest.mark.parametrize("whole_run", [True, False])
def test_labels_out_of_range_update_nothing(backend: str, label: int, whole_run: bool) -> None:
    model, step = _step(backend=backend)
    before = model.state_dict()
    labels = np.array([0, 1, 0, 1, 0, label])

    def work() -> Any:
        if whole_run:
            return step.run(X, labels, batch_size=2, shuffle=False, epochs=2)
        return step(X, labels)

    _assert_raises(DataError, (f"{label}", "index (5,)", "0 to 1"), work)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    step.run(X, Y, batch_size=2)
    assert not np.array_equal(model.state_dict()["weight"], before["weight"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_out_of_range(backend: str) -> None:
    pick = gp.compile(lambda x, i: ops.gather(x, i), backend=backend)
    for bad in (6, -1):
        _assert_raises(DataError, (f"{bad}", "0 to 5"), lambda bad=bad: pick(X, np.array([0, bad])))
    np.testing.assert_array_equal(pick(X, np.array([5])), X[5:])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    model, step = _step()
    before = model.state_dict()
    bad = X.copy()
    bad[4, 1] = value
    words = ("argument 0", str(value), "index (4, 1)")
    _assert_raises(DataError, words, lambda: step.run(bad, Y, batch_size=2))
    np.testing.assert_array_equal(model.state_dict()["weight"], before["weight"])


@pytest.mark.parametrize(
    ("kind", "parts", "data", "options"),
    [
        (DataError, ("argument 0 is empty", "float32[0, 3]"), (X[:0], Y[:0]), {}),
        (DataError, ("no data",), (), {}),
        (DataError, ("argument 1 is empty",), (X, np.array(3)), {}),
        (ShapeError, ("argument 1 has 5 samples", "argument 0 has 6"), (X, Y[:5]), {}),
        (DataError, ("batch_size is 7", "only 6 samples"), (X, Y), {"batch_size": 7}),
        (DataError, ("batch_size is 0", "at least 1"), (X, Y), {"batch_size": 0}),
        (DataError, ("epochs is 0", "at least 1"), (X, Y), {"epochs": 0}),
        (DataError, ("from 0 to 6", "0 to 5"), (X, Y), {"order": [0, 6]}),
        (DataError, ("from -1 to 0", "0 to 5"), (X, Y), {"order": [0, -1]}),
        (DataError, ("integer array",), (X, Y), {"order": [0.0, 1.0]}),
        (DataError, ("non-empty",), (X, Y), {"order": []}),
    ],
)
def test_data_that_does_not_fit_a_run(
    kind: Kind, parts: tuple[str, ...], data: Any, options: Any
) -> None:
    model, step = _step()
    before = model.state_dict()
    _assert_raises(kind, parts, lambda: step.run(*data, **{"batch_size": 2, **options}))
    np.testing.assert_array_equal(model.state_dict()["weight"], before["weight"])


def test_data_of_a_wrong_width() -> None:
    wide = np.ones((6, 5), np.float32)
    words = ("(6, 5)", "(..., 3)")
    _assert_raises(ShapeError, words, lambda: _step()[1](wide, Y))
