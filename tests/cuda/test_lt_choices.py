"""Who computes a product: measured once, kept on disk; and what goes wrong with a library."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from shim_products import (
    Clock,
    ShimProducts,
    launches_of,
    library_backend,
    own_wins,
    send_everything,
)
from tolerances import assert_product, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import autotune, tuning_record
from gpubp.backends.cuda.codegen import encode_product
from gpubp.backends.cuda.products import Addresses, Plan, Problem, Work
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(9, 40)).astype("f"), RNG.normal(size=(40, 7)).astype("f")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where choices are kept."""
    send_everything(monkeypatch, tmp_path)
    monkeypatch.setattr(autotune, "ROUNDS", 2)
    return tmp_path / "products"


def prefers(number: int) -> Clock:
    """A clock on which one of the library's plans is the fastest."""

    def clock(launched: Counter[bytes]) -> float:
        (algorithm,) = launched or (b"\xff",)
        return 0.5 + abs(algorithm[0] - number)

    return clock


def _product(backend: Any) -> Any:
    found = gp.compile(ops.matmul, backend=backend)(A, B)
    assert_product(found, A, B)
    return found


def _plans(backend: Any) -> list[int]:
    """The plans that were launched after the measuring."""
    products = backend.driver.products
    _product(backend)
    products.launched.clear()
    _product(backend)
    return [number for _, number in products.launched]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_fastest_plan_is_taken(number: int) -> None:
    assert _plans(library_backend(clock=prefers(number), plans=4)) == [number]


def test_our_kernels_are_among_the_candidates() -> None:
    target = library_backend(clock=own_wins, plans=2)
    _product(target)
    assert _plans(target) == []
    assert target.driver.products.measured == 3 * (1 + autotune.ROUNDS)


def test_a_problem_without_plans_is_ours() -> None:
    target = library_backend(refuse=lambda problem: problem.epilogue == "none")
    _product(target)
    assert target.driver.products.measured == 0
    assert not launches_of(target)


def test_a_problem_is_measured_once() -> None:
    target = library_backend(plans=2)
    for _ in range(3):
        _product(target)
    assert target.driver.products.measured == 3 * (1 + autotune.ROUNDS)


def test_the_next_process_takes_the_same_plan_unmeasured() -> None:
    first = library_backend(clock=prefers(2), plans=3)
    expected = _product(first)
    second = library_backend(clock=own_wins, plans=3)
    assert_same(_product(second), expected)
    assert second.driver.products.measured == 0
    assert _plans(second) == [2]


def test_the_choice_of_our_kernels_is_kept_too() -> None:
    _product(library_backend(clock=own_wins))
    second = library_backend()
    _product(second)
    assert second.driver.products.measured == 0
    assert not launches_of(second)


@pytest.mark.parametrize("change", [{"version": "cuBLASLt 2"}, {"processors": 7},
                                    {"architecture": "sm_90"}, {"precision": "tf32"}])  # fmt: skip
def test_another_library_or_device_is_measured_anew(change: dict[str, Any]) -> None:
    gp.compile(ops.matmul, backend=library_backend(clock=own_wins))(A, B)
    second = library_backend(**change)
    gp.compile(ops.matmul, backend=second)(A, B)
    assert second.driver.products.measured > 0
    assert launches_of(second)


def test_a_plan_that_is_gone_is_measured_anew(folder: Path) -> None:
    _product(library_backend(clock=prefers(2), plans=3))
    second = library_backend(plans=1)
    assert _plans(second) == [0]
    assert second.driver.products.measured > 0
    (kept,) = folder.iterdir()
    assert bytes.fromhex(json.loads(kept.read_text())["algorithm"])[0] == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1, "algorithm": ""}', "{}",
                                    '{"key": null, "algorithm": 3}'])  # fmt: skip
def test_a_damaged_file_is_measured_anew(damage: str, folder: Path) -> None:
    _product(library_backend(clock=own_wins))
    (kept,) = folder.iterdir()
    whole = kept.read_text()
    kept.write_text(damage)
    second = library_backend(clock=own_wins)
    _product(second)
    assert second.driver.products.measured > 0
    assert (kept.read_text(), len(list(folder.iterdir()))) == (whole, 1)


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    target = library_backend()
    assert _plans(target) == [0]
    _product(target)
    assert target.driver.products.measured == 2 * (1 + autotune.ROUNDS)


def test_measuring_leaves_the_program_alone() -> None:
    """Weights before the first step are those that a run without measuring starts from."""
    x, y = digits(samples=64)

    def trained() -> Any:
        target = library_backend(plans=2)
        model = mlp()
        step = classifier_step(OPTIMIZERS["sgd"], model, backend=target)
        losses = [step(x[:32], y[:32]), step(x[32:], y[32:])]
        return target.driver.products.measured, losses, model.state_dict()

    measured, losses, state = trained()
    assert measured > 0
    again, same_losses, same_state = trained()
    assert again == 0
    assert losses == same_losses
    for name, value in state.items():
        assert_same(same_state[name], value, name)


def test_a_plan_that_fails_when_it_is_measured_is_passed_over() -> None:
    class Half(ShimProducts):
        def bound(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> Work:
            if plan.algorithm[0] == 0:
                raise BackendError("CUBLAS_STATUS_NOT_SUPPORTED")
            return super().bound(problem, plan, at, workspace)

    assert _plans(library_backend(kind=Half, plans=2)) == [1]


def test_a_failing_product_names_instruction_and_problem() -> None:
    class Broken(ShimProducts):
        broken = False

        def _run(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> None:
            if self.broken:
                raise BackendError(f"cuBLASLt failed in {problem}: CUBLAS_STATUS_EXECUTION_FAILED")
            super()._run(problem, plan, at, workspace)

    target = library_backend(kind=Broken)
    _product(target)
    target.driver.products.broken = True
    with pytest.raises(BackendError, match=r"^matmul: .* nn of 7 x 9 x 40 .*EXECUTION_FAILED"):
        _product(target)


def test_a_library_that_refuses_a_launch_names_the_instruction() -> None:
    def twice(a: Any, b: Any) -> Any:
        return ops.tanh(a @ b)

    _product(library_backend())
    gp.compile(twice, backend=library_backend())(A, B)  # chosen, and kept
    target = library_backend()
    target.driver.products._plan = lambda _: Plan(_algorithm(target), 1 << 30)
    with pytest.raises(BackendError, match=r"^matmul\+tanh: .*INVALID_VALUE.* of workspace"):
        gp.compile(twice, backend=target)(A, B)


def _algorithm(backend: Any) -> bytes:
    algorithm: bytes = ShimProducts._plan(backend.driver.products, 0).algorithm
    return algorithm


def _used(**options: Any) -> tuple[int, int]:
    """Bytes that a step needs in the end, and those of the library's workspace."""
    target = library_backend(precision="bf16", **options)
    step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=target)
    x, y = digits(samples=512)
    step.run(x, y, batch_size=512)
    return target.driver.used, target.driver.products.workspace


def test_no_memory_for_the_workspace_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = _used()
    monkeypatch.setattr(tuning_record, "read", lambda key: None)
    monkeypatch.setattr(ShimProducts, "workspace", 1 << 20)
    with pytest.raises(BackendError, match=r"1,048,576 bytes were asked for.* for the activations"):
        _used(memory=used)


def test_no_memory_for_copies_is_explained() -> None:
    used, workspace = _used()
    with pytest.raises(BackendError, match="bytes for parameters and state") as caught:
        _used(memory=used - workspace - 200_000)
    text = str(caught.value)
    assert "for copies and partial results" in text
    assert 256 < int(text.split("a batch of about ")[1].split()[0]) < 512


def test_too_little_memory_to_measure_in_takes_the_librarys_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step that just fits: no memory is left in which its weights could be stood in for."""
    monkeypatch.setenv("GPUBP_VERIFY", "0")  # whose trial takes memory, too

    def launched(**options: Any) -> tuple[int, int, set[int]]:
        target = library_backend(plans=3, clock=prefers(2), **options)
        step = classifier_step(OPTIMIZERS["sgd"], nn.Linear(64, 10), backend=target)
        x, y = digits(samples=2)
        step.run(x, y, batch_size=2)
        products = target.driver.products
        return target.driver.used, products.measured, {n for _, n in products.launched}

    used, measured, numbers = launched()
    assert measured > 0 and 2 in numbers
    monkeypatch.setattr(tuning_record, "read", lambda key: None)
    assert launched(memory=used + 300)[1:] == (0, {0})


def test_small_products_do_not_even_load_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_product, "LEAST_FLOPS", 2.0 * 9 * 40 * 7 + 1)
    target = library_backend()
    _product(target)
    assert target.driver.products.measured == 0
    monkeypatch.setattr(encode_product, "LEAST_FLOPS", 2.0 * 9 * 40 * 7)
    assert _plans(library_backend()) == [0]
