"""What resembles an epilogue but is none goes to a chain, and is right all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from products import Weights, found_epilogues, operands
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import ops, optim
from gpubp.core import bind
from gpubp.ops.spec import SPECS
from gpubp.ops.update import SGD_UPDATE

M, N, K = 13, 17, 7
A, B, ROW, SAVED = operands(M, N, K)
COLUMN = SAVED[:, :1].copy()


def _total(a: Any, b: Any, row: Any) -> Any:
    return a @ b + row


def _and_total(name: str) -> Callable[..., Any]:
    def fn(a: Any, b: Any, row: Any) -> Any:
        total = _total(a, b, row)
        return getattr(ops, name)(total), total

    return fn


def _approximate(a: Any, b: Any, row: Any) -> Any:
    total = _total(a, b, row)
    return ops.gelu(total, approximate="tanh"), total


def _product_too(a: Any, b: Any, row: Any) -> Any:
    product = a @ b
    return product + row, product


def _grad(spec: Any, **attrs: Any) -> Callable[..., Any]:
    return lambda a, b, saved: bind(spec, a @ b, saved, **attrs)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "bias that is a column": (_total, COLUMN),
    "bias that is a matrix": (_total, SAVED),
    "bias that is a number": (_total, np.float32(0.5)),
    "bias that is every second number": (lambda a, b, c: a @ b + c[0, ::2], np.tile(SAVED, 2)),
    "bias and ReLU, column": (lambda a, b, c: ops.relu(a @ b + c), COLUMN),
    "bias that is subtracted": (lambda a, b, row: a @ b - row, ROW),
    "bias added to itself": (lambda a, b, row: ops.relu(a @ b * 2.0 + row), ROW),
    "total used elsewhere, ReLU": (_and_total("relu"), ROW),
    "total used elsewhere, sigmoid": (_and_total("sigmoid"), ROW),
    "total used elsewhere, tanh": (_and_total("tanh"), ROW),
    "total used nowhere, GELU": (lambda a, b, row: ops.gelu(_total(a, b, row)), ROW),
    "total summed, ReLU": (lambda a, b, row: ops.relu(_total(a, b, row)) + _total(a, b, row), ROW),
    "product used elsewhere": (_product_too, ROW),
    "other activation": (lambda a, b, row: ops.silu(_total(a, b, row)), ROW),
    "GELU by tanh": (_approximate, ROW),
    "GELU's gradient by tanh": (_grad(SPECS["gelu_grad"], approximate="tanh"), SAVED),
    "saved value that is turned": (
        lambda a, b, s: bind(SPECS["relu_grad"], a @ b, s.T),
        SAVED.T.copy(),
    ),
    "saved value that is a row": (
        lambda a, b, row: bind(SPECS["relu_grad"], a @ b, ops.broadcast_to(row, (M, N))),
        ROW,
    ),
    "product in place of the saved value": (
        lambda a, b, s: bind(SPECS["relu_grad"], s, a @ b),
        SAVED,
    ),
    "square of the product": (lambda a, b, row: ops.square(a @ b) + row, ROW),
    "doubled product": (lambda a, b, row: (lambda p: p + p)(a @ b) + 0.0 * row, ROW),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_near_misses_of_epilogues_are_not_taken_for_them(name: str) -> None:
    fn, other = FUNCTIONS[name]
    loaded = gp.compile(fn, backend="numba")
    found = loaded(A, B, other)
    assert found_epilogues(loaded._runner.last.program) == [None]
    wanted = gp.compile(fn, backend="numpy")(A, B, other)
    pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    for value, reference in pairs:
        assert_close(value, reference, name)


@pytest.mark.parametrize("kind", [bool, np.int32, np.int64])
def test_integers_are_converted_first(kind: Any) -> None:
    """The product is one of floats; what is added to it has been made so before."""
    row = (ROW > 0).astype(kind)
    loaded = gp.compile(_total, backend="numba")
    found = loaded(A, B, row)
    assert found.dtype == gp.compile(_total, backend="numpy")(A, B, row).dtype
    assert_close(found, gp.compile(_total, backend="numpy")(A, B, row))
    program = loaded._runner.last.program
    products = [p for p in program.parts if p.kernel == "matmul"]
    assert [{o.dtype.kind for o in p.inputs} for p in products] == [{"f"}]


@pytest.mark.parametrize("shape", [(2, M, K), (3, 2, M, K)])
def test_batches_of_products_with_a_bias(shape: tuple[int, ...]) -> None:
    a = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for b in (B, np.stack([B, -B])):
        for other in (ROW, SAVED, COLUMN):
            both = [gp.compile(_total, backend=x)(a, b, other) for x in BACKENDS]
            assert_close(*both)


def test_one_row_takes_any_bias_and_one_column_none() -> None:
    for shape, wanted in (((1, N), "bias"), ((M, 1), None)):
        a, b, _, saved = operands(*shape, K)
        loaded = gp.compile(_total, backend="numba")
        found = loaded(a, b, saved)
        assert found_epilogues(loaded._runner.last.program) == [wanted]
        assert_close(found, gp.compile(_total, backend="numpy")(a, b, saved))


class Crossed:
    """SGD that writes each weight's new value into the other one."""

    def __init__(self, params: Any) -> None:
        self.params = list(params)

    def parameters(self) -> Any:
        return self.params

    def prepare(self) -> None:
        """There is no state."""

    def emit(self, grads: dict[int, Any]) -> Any:
        a, b = self.params
        rate = np.array(0.1, a.dtype)
        new = bind(SGD_UPDATE, a, grads[id(a)], rate)
        return [(b, new), (a, bind(SGD_UPDATE, b, grads[id(b)], rate))]


UPDATES: dict[str, Callable[[Any], Any]] = {
    "crossed": Crossed,
    "sgd, weight decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum, weight decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam, decay, maximize": lambda p: optim.Adam(p, 0.01, weight_decay=0.01, maximize=True),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2),
    "maximize": lambda p: optim.SGD(p, lr=0.1, maximize=True),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UPDATES)
def test_near_misses_of_updates_take_no_epilogue(name: str, dtype: str) -> None:
    results = []
    for backend in BACKENDS:
        weights = Weights([(M, N), (M, N)], K, dtype)
        step, _ = weights.step(UPDATES[name], backend=backend)
        losses = [step(*weights.batch) for _ in range(3)]
        if backend == "numba":
            assert not set(found_epilogues(step.program)) - {None}
        results.append([p.value.copy() for p in weights.params])
        assert np.isfinite(losses).all()
    for value, reference in zip(*results, strict=True):
        assert_close(value, reference, name)


def test_kept_gradients_are_stored_and_not_only_used() -> None:
    weights = Weights([(M, N)], K, "float32")
    step, _ = weights.step(lambda p: optim.SGD(p, lr=0.1), backend="numba", keep_grads=True)
    before = weights.params[0].value.copy()
    step(*weights.batch)
    assert not set(found_epilogues(step.program)) - {None}
    x, t = weights.batch
    assert_close(step.grads[0], x.T @ t)
    assert_close(weights.params[0].value, before - np.float32(0.1) * step.grads[0])
