"""Seeded faults around the library: each must make a check fail that the healthy code passes.

As in `test_seeded_faults.py`; the faults are in the host's code, which decides what the library is
given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from products import FORWARD, operands
from shim_products import ShimProducts, library_backend, send_everything
from test_precision_on_shim import rounded
from test_programs_on_shim import agree, trained
from tolerances import assert_close

import gpubp as gp
from gpubp import optim
from gpubp.backends.cuda import executor
from gpubp.backends.cuda.codegen import encode_copy, encode_product
from gpubp.backends.cuda.copies import Copies
from gpubp.backends.cuda.launch import AnyLaunch, ProductLaunch
from gpubp.backends.cuda.memory import BankCopy
from gpubp.backends.cuda.products import Addresses, Plan, Problem, Work
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

CAUGHT = (AssertionError, BackendError)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _everything_to_the_library(monkeypatch: Patch, tmp_path: Path) -> None:
    send_everything(monkeypatch, tmp_path)


def _in_turn(precision: str = "bf16", kind: type = ShimProducts) -> None:
    """Products in turn, whose results share memory with what is not needed any more."""
    rng = np.random.default_rng(0)
    x, *weights = (rng.normal(size=(8, 8)).astype("f") / 3 for _ in range(6))

    def chained(x: Any, *weights: Any) -> Any:
        for w in weights:
            x = x @ w
        return x

    target = library_backend(precision=precision, kind=kind)
    found = gp.compile(chained, backend=target, options=gp.Options())(x, *weights)
    for w in weights:
        x = (rounded(x, precision) @ rounded(w, precision)).astype(np.float32)
    np.testing.assert_allclose(found, x, 0, 2.0**-9 * np.abs(x).max())


def _low(kind: type = ShimProducts) -> None:
    """A loss that falls, in bf16: the weights move far from their first copy."""
    x, y = digits(samples=64)
    found = []
    for target in (library_backend(precision="bf16", kind=kind), "numpy"):
        step = classifier_step(lambda p: optim.SGD(p, lr=0.5), mlp(), backend=target)
        found.append(step.run(x, y, batch_size=32, epochs=10, shuffle=False))
    assert np.abs(found[0] - found[1]).max() < 8 * 2.0**-8
    assert found[0][-1] < 0.8 * found[0][0]


def _exact(kind: type = ShimProducts) -> None:
    make = OPTIMIZERS["sgd"]
    agree(trained(make, library_backend(kind=kind), "float64"), trained(make, "numpy", "float64"),
          "float64")  # fmt: skip


def _on_schedule(kind: type = ShimProducts) -> None:
    make = OPTIMIZERS["sgd"]

    def losses(target: Any) -> dict[str, Any]:
        made: list[Any] = []
        model = mlp(dtype="float64")
        step = classifier_step(lambda p: made.append(make(p)) or made[0], model, backend=target)
        x, y = digits("float64", 320)
        found = []
        for lr in (0.5, 0.05, 0.2):
            made[0].param_groups[0]["lr"] = lr
            found.append(step.run(x, y, batch_size=32, shuffle=False))
        return {"losses": np.concatenate(found), **model.state_dict()}

    agree(losses(library_backend(kind=kind)), losses("numpy"), "float64")


def _followed(kind: type = ShimProducts) -> None:
    args = operands(33, 65, 40, "float64")
    target = library_backend(kind=kind)
    for name in ("bias_tanh", "bias_gelu"):
        found = gp.compile(FORWARD[name], backend=target)(*args)
        expected = gp.compile(FORWARD[name], backend="numpy")(*args)
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected))):
            assert_close(a, b)


def _stale_in_a_step(patch: Patch) -> None:
    patch.setattr(Copies, "written", lambda self, part: None)


def _stale_after_an_update(patch: Patch) -> None:
    """16-bit copies of the weights that are made in the first step only."""
    weights: list[range] = []
    attach, bind = BankCopy.__init__, executor.Executor.bind

    def attached(self: BankCopy, *args: Any) -> None:
        attach(self, *args)
        weights.append(range(self.memory.address, self.memory.address + self.memory.nbytes))

    def bound(self: Any, launch: AnyLaunch) -> Work:
        work = bind(self, launch)
        if isinstance(launch, ProductLaunch) or "Bf16::round" not in launch.source:
            return work
        (read,) = struct.unpack_from("<Q", launch.params)
        if not any(read in held for held in weights):
            return work
        made: list[bool] = []
        return lambda: made.append(True) or work() if not made else None

    patch.setattr(BankCopy, "__init__", attached)
    patch.setattr(executor.Executor, "bind", bound)


def _no_copy_at_all(patch: Patch) -> None:
    patch.setattr(Copies, "begin", lambda self: None)


def _leading_dimension(patch: Patch) -> None:
    """The number of columns in place of that of rows."""
    matrix = encode_product._matrix

    def wrong(*args: Any) -> Any:
        found = matrix(*args)
        return found and (replace(found[0], leading=max(found[0].rows, found[0].columns)), found[1])

    patch.setattr(encode_product, "_matrix", wrong)


def _factors_in_the_order_of_rows(patch: Patch) -> None:
    """Neither of them turned, whatever lies in memory."""
    matrix = encode_product._matrix
    patch.setattr(encode_product, "_matrix", lambda *args: (f := matrix(*args)) and (f[0], False))


def _result_read_elsewhere(patch: Patch) -> None:
    result = encode_product._result
    patch.setattr(encode_product, "_result", lambda *args: result(*args) + 256)


def _never_negated(patch: Patch) -> None:
    patch.setitem(encode_copy._FORMS, "negative", ("", "x"))


def _always_relu(patch: Patch) -> None:
    names = {"bias": "bias_relu", "bias_relu": "bias_relu"}
    ending = encode_product._ending

    def wrong(*args: Any) -> Any:
        found = ending(*args)
        return found and replace(found, epilogue=names.get(found.epilogue, found.epilogue))

    patch.setattr(encode_product, "_ending", wrong)


def _alignment_that_is_not(patch: Patch) -> None:
    matrix = encode_product._matrix

    def wrong(*args: Any) -> Any:
        found = matrix(*args)
        return found and (replace(found[0], alignment=256), found[1])

    patch.setattr(encode_product, "_matrix", wrong)


# What is changed, and which check must notice.
FAULTS: dict[str, tuple[Callable[[Patch], None], Callable[[], None]]] = {
    "16-bit copy that is stale within a step": (_stale_in_a_step, _in_turn),
    "16-bit copy that is stale after an update": (_stale_after_an_update, _low),
    "copies that are never made": (_no_copy_at_all, _in_turn),
    "wrong leading dimension": (_leading_dimension, _exact),
    "factors never transposed": (_factors_in_the_order_of_rows, _exact),
    "result written beside where it is read": (_result_read_elsewhere, _followed),
    "learning rate with the wrong sign": (_never_negated, _exact),
    "an epilogue too many": (_always_relu, _exact),
    "alignment that the addresses have not": (_alignment_that_is_not, _exact),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_what_the_library_is_given_is_caught(name: str, monkeypatch: Patch) -> None:
    seed, check = FAULTS[name]
    check()
    seed(monkeypatch)
    with pytest.raises(CAUGHT):
        check()


class FrozenRate(ShimProducts):
    """Takes alpha when it is first launched, as if it were the host's number."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._frozen: dict[int, Any] = {}

    def _array(self, address: int, count: int, kind: str) -> Any:
        found = super()._array(address, count, kind)
        return self._frozen.setdefault(address, found.copy()) if count == 1 else found


class ForgottenBeta(ShimProducts):
    """Overwrites C in place of adding to it."""

    def _run(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> None:
        super()._run(replace(problem, update=False), plan, at, workspace)


@pytest.mark.parametrize(
    ("kind", "check"),
    [(FrozenRate, _on_schedule), (ForgottenBeta, _exact)],
)
def test_a_fault_in_the_library_itself_is_caught(kind: Any, check: Callable[[type], None]) -> None:
    check(ShimProducts)
    with pytest.raises(CAUGHT):
        check(kind)
