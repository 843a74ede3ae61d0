"""Loops on the CUDA backend: one kernel of all rounds, bodies launched round by round, at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import shim_build
from numpy.typing import NDArray
from shim_backend import as_cuda, shim_backend
from shim_driver import ORDERS, ShimDriver
from test_scan import LOSSES, arrays, slopes
from tolerances import ORACLE, assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import encode_rounds
from gpubp.backends.loop_places import parts_of
from gpubp.core import Kind, OpSpec, bind

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=True)


class WrittenOut(CupyBackend):
    """Runs no loops: they come written out."""

    runs_loops = False


def flat(found: Any) -> list[NDArray[Any]]:
    return [np.asarray(leaf) for leaf in gp.core.tree.flatten(found)[0]]


def agree(fn: Any, *args: Any, backend: CupyBackend | None = None) -> list[NDArray[Any]]:
    """What a function returns on the device, compared with the references."""
    backend = backend or shim_backend("random")
    found = flat(gp.compile(fn, backend=backend, options=OPTIONS)(*args))
    near(found, flat(gp.compile(fn, backend="numpy")(*args)))
    return found


def near(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Equal in shape and dtype, and in value within the tolerance of trajectories."""
    for a, b in zip(found, expected, strict=True):
        name = str(b.dtype)
        if name not in ORACLE or not b.size:
            assert_same(a, b)
            continue
        np.testing.assert_allclose(a, b, 0, ORACLE[name] * np.abs(b).max(), strict=True)


@pytest.fixture
def launched_rounds(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and no loop is one kernel any more."""
    return lambda: monkeypatch.setattr(encode_rounds, "MOST_MULTIPLICATIONS", -1)


def recurrent(x: Any, w: Any, h: Any) -> Any:
    def body(h: Any, x: Any) -> Any:
        h = ops.tanh(h @ w + x)
        return h, h * x

    last, ys = gp.scan(body, h, x, reverse=True)
    return ops.sum(last) + ops.sum(ys * ys)


def both(*args: Any) -> Any:
    return gp.value_and_grad(recurrent, argnums=(0, 1, 2))(*args)


def of_length(length: int) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = (length, 5, 4), (4, 4), (5, 4)
    return [(rng.standard_normal(s) / 2).astype(np.float32) for s in shapes]


def test_one_kernel_makes_all_rounds(launched_rounds: Callable[[], None]) -> None:
    """And its bits are those of rounds that are launched, and of the loop written out."""
    args, device = of_length(40), shim_backend("random")
    whole = agree(both, *args, backend=device)
    assert device.driver.launched["begin_loop"] > 0
    assert device.driver.launched["begin_round"] == 0
    out = WrittenOut(driver=ShimDriver())
    for a, b in zip(whole, flat(gp.compile(both, backend=out)(*args)), strict=True):
        assert_same(a, b)
    launched_rounds()
    device = shim_backend("reverse")
    for a, b in zip(whole, agree(both, *args, backend=device), strict=True):
        assert_same(a, b)
    assert device.driver.launched["begin_round"] == 40 * device.driver.launched["begin_loop"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("processors", [1, 2, 132])
def test_blocks_share_the_rows(processors: int, order: str) -> None:
    args = of_length(3)
    expected = flat(gp.compile(both, backend=shim_backend())(*args))
    found = agree(both, *args, backend=shim_backend(order, processors=processors))
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


def test_a_program_of_512_rounds_is_as_long_as_one_of_8() -> None:
    parts = []
    for length in (8, 512):
        fn = gp.compile(both, backend=shim_backend())
        args = of_length(length)
        near(flat(fn(*args)), flat(both(*args)))
        program = fn._runner.last.program
        parts.append(len([*parts_of(program)]))
    assert parts[0] == parts[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_bodies_of_every_kind(name: str, reverse: bool, dtype: str) -> None:
    """Rows that are independent, rows that belong together, loops in loops."""
    agree(slopes(LOSSES[name](reverse=reverse)), *arrays(dtype))


def test_carries_of_every_type_and_of_no_elements() -> None:
    def fn(x: Any, flags: Any, count: Any, nothing: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            flags, count, nothing = carry
            flags = ops.not_equal(flags, x > 0)
            return (flags, count + ops.astype(flags, "int64"), nothing * 2.0), count

        return gp.scan(body, (flags, count, nothing), x)

    rng = np.random.default_rng(1)
    x, flags = rng.standard_normal((5, 7)), rng.integers(0, 2, 7).astype(bool)
    agree(fn, x, flags, np.arange(7), np.zeros((0, 2)))


@pytest.mark.parametrize("length", [0, 1])
def test_short_loops(length: int) -> None:
    agree(lambda x, w, h: gp.scan(lambda h, x: (h @ w, x + h), h, x), *of_length(length))


def test_random_numbers_in_a_loop() -> None:
    def fn(x: Any) -> Any:
        drop = nn.Dropout(0.5)
        return gp.scan(lambda c, row: (c + drop(row), drop(c)), x[0] * 0.0, x)

    gp.manual_seed(3)
    found = flat(gp.compile(fn, backend=shim_backend())(np.ones((4, 6), np.float32)))
    gp.manual_seed(3)
    wanted = flat(gp.compile(fn, backend="numpy")(np.ones((4, 6), np.float32)))
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b)
    assert 0 < np.count_nonzero(found[1]) < found[1].size


def _by_numpy(x: NDArray[Any], **_: Any) -> NDArray[Any]:
    return np.asarray(np.cbrt(x))


CBRT = OpSpec("loop_cbrt", Kind.CUSTOM, lambda x: gp.core.ArrayType(x.shape, x.dtype), _by_numpy)


def test_functions_of_the_host_in_a_loop() -> None:
    def fn(x: Any) -> Any:
        return gp.scan(lambda c, row: (bind(CBRT, c) + row, bind(CBRT, row * 2.0)), x[0], x)

    agree(fn, np.random.default_rng(2).standard_normal((3, 4)))


def test_steps_with_loops_are_recorded_and_replayed() -> None:
    def losses(target: Any) -> dict[str, Any]:
        gp.manual_seed(0)
        layer, head = nn.LSTM(3, 6, num_layers=2, batch_first=True), nn.Linear(6, 1)
        parameters = [*layer.parameters(), *head.parameters()]

        def loss(x: Any, y: Any) -> Any:
            return nn.MSELoss()(head(layer(x)[0][:, -1]), y)

        step = gp.compile_step(loss, optim.SGD(parameters, lr=0.1), backend=target)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((20 * 4, 7, 3)).astype("float32")
        y = x.sum((1, 2))[:, None]
        return {"losses": step.run(x, y, batch_size=4), **layer.state_dict()}

    device = shim_backend("random")
    found, wanted = losses(device), losses("numpy")
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, 1e-4, 1e-5, err_msg=name)
    assert device.driver.launched["begin_loop"] >= 20 * 4  # and those of one step on poison
    assert device.driver.launched["begin_round"] == 0


def test_every_part_writes_all_that_it_promises(launched_rounds: Callable[[], None]) -> None:
    args = of_length(3)
    for _ in range(2):
        device = shim_backend()
        fn = gp.compile(both, backend=device)
        fn(*args)
        device.check_writes(device.load(fn._runner.last.program))
        launched_rounds()


def test_a_loop_at_once_on_arrays_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    given = of_length(6)
    value, found = both(*[gpu.to_user_array(a) for a in given])
    wanted, expected = both(*given)
    assert_close(value.get(), wanted)
    for a, b in zip(found, expected, strict=True):
        assert_close(a.get(), b)


def choose(x: Any) -> Any:
    return gp.cond(ops.sum(x) > 0, lambda v: v * 2.0, lambda v: v - 1.0, x)


def halve(x: Any) -> Any:
    return gp.while_loop(lambda c: ops.sum(c) > 1.0, lambda c: c * 0.5, x)


def collatz(n: Any) -> Any:
    """Steps to 1: a condition in a loop whose length the program finds out."""

    def body(carry: Any) -> Any:
        n, steps = carry
        n = gp.cond(n % 2 == 0, lambda n: n // 2, lambda n: 3 * n + 1, n)
        return n, steps + 1

    return gp.while_loop(lambda carry: carry[0] > 1, body, (n, n * 0))[1]


def roots(x: Any) -> Any:
    """A loop of unknown length for each element of a scan."""

    def root(x: Any) -> Any:
        return gp.while_loop(
            lambda r: ops.max(ops.abs(r * r - x)) > 1e-9, lambda r: (r + x / r) / 2, x
        )

    return gp.scan(lambda total, x: (total + x, root(x)), x[0], x)


CALLS: Sequence[tuple[Any, Any]] = (
    (choose, np.ones(2, np.float32)),
    (choose, -np.ones(2, np.float32)),
    (halve, np.array([7.0, 3.0], np.float32)),
    (halve, np.array([0.5, 0.25], np.float32)),
    *[(collatz, np.array(n)) for n in (1, 6, 27)],
    (roots, np.array([[2.0, 9.0], [0.01, 5.0], [1.0, 1.0]])),
)


@pytest.mark.parametrize(("fn", "x"), CALLS)
def test_loops_whose_length_the_program_finds_out(fn: Any, x: Any) -> None:
    device = shim_backend("random")
    compiled = gp.compile(fn, backend=device, options=OPTIONS)
    wanted = flat(gp.compile(fn, backend="numpy")(x))
    for _ in range(2):
        for a, b in zip(flat(compiled(x)), wanted, strict=True):
            assert_close(a, b)


def test_only_one_of_two_functions_is_computed() -> None:
    def fn(x: Any) -> Any:
        def heavy(v: Any) -> Any:
            for _ in range(3):
                v = ops.softmax(v @ v, -1)
            return v

        return gp.cond(ops.sum(x) > 0, heavy, lambda v: v, x)

    device = shim_backend()
    compiled = gp.compile(fn, backend=device)
    counts = []
    for sign in (1.0, -1.0):
        before = device.driver.launched["kernel"]
        compiled(sign * np.ones((3, 3)))
        counts.append(device.driver.launched["kernel"] - before)
    assert counts[0] > counts[1]


@pytest.mark.parametrize(("fn", "x"), CALLS[1:4])
def test_they_run_at_once_on_arrays_of_the_device(
    fn: Any, x: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    assert_close(fn(gpu.to_user_array(x)).get(), fn(x))
