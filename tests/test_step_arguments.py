"""Steps of several inputs, of arguments without samples, and with other outputs than the loss."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS, with_workers

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import (
    ArgumentError,
    DataError,
    GpubpError,
    GradientError,
    IndexRangeError,
    ShapeError,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 4))
T, Y = RNG.normal(size=(4, 2)), RNG.normal(size=(22, 2))
Pair = namedtuple("Pair", "a b")


def start() -> Any:
    return nn.Parameter(np.linspace(-1.0, 1.0, 6).reshape(3, 2), name="w")


def reference(orders: Any, table: Any = T) -> tuple[Any, list[float]]:
    """Weights and losses of steps of SGD on the rows of each batch."""
    w, losses = np.linspace(-1.0, 1.0, 6).reshape(3, 2), []
    for rows in orders:
        error = A[rows] @ w + B[rows] @ table - Y[rows]
        losses.append(float(np.mean(error**2)))
        w = w - 0.1 * 2 * A[rows].T @ error / error.size
    return w, losses


FORMS: dict[str, tuple[Any, Any]] = {
    "arrays": (lambda a, b, t, y: (a, b, t, y), lambda: (A, B, gp.whole(T), Y)),
    "a tuple": (lambda ab, t, y: (*ab, t, y), lambda: ((A, B), gp.whole(T), Y)),
    "a dict": (lambda x, y: (x["a"], x["b"], x["t"], y), lambda: (_dict(A, B), Y)),
    "nested": (
        lambda x, y: (x[0]["a"], x[1][0], x[1][1], y["y"]),
        lambda: (({"a": A}, (B, gp.whole(T))), {"y": Y, "none": None}),
    ),
    "a named tuple": (lambda p, t, y: (p.a, p.b, t, y), lambda: (Pair(A, B), gp.whole(T), Y)),
}


def _dict(a: Any, b: Any) -> dict[str, Any]:
    return {"b": b, "t": gp.whole(T), "a": a}


def made(form: str, backend: Any, **options: Any) -> tuple[Any, Any]:
    w, (unpack, _) = start(), FORMS[form]

    def fn(*batch: Any) -> Any:
        a, b, t, y = unpack(*batch)
        return ops.mean(ops.square(a @ w + b @ t - y))

    return w, gp.compile_step(fn, optim.SGD([w], lr=0.1), backend=backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_arguments_trains_alike(form: str, backend: str) -> None:
    w, step = made(form, backend)
    order = np.stack([RNG.permutation(22) for _ in range(2)])
    losses = step.run(*FORMS[form][1](), batch_size=5, order=order)
    rows = [epoch[i : i + 5] for epoch in order for i in range(0, 22, 5)]
    expected, expected_losses = reference(rows)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
    np.testing.assert_allclose(w.value, expected, rtol=1e-12)
    for _ in range(3):  # the second call runs a bound program
        loss = step(*FORMS[form][1]())
        rows.append(np.arange(22))
    expected, expected_losses = reference(rows)
    assert loss == pytest.approx(expected_losses[-1], rel=1e-12)
    np.testing.assert_allclose(w.value, expected, rtol=1e-12)


@pytest.mark.parametrize("backend", with_workers(1, 2, 3))
def test_a_whole_array_has_its_length_by_itself(backend: str) -> None:
    """Also where it is as long as a batch, or as the data: no row of it is picked."""
    w = start()
    step = gp.compile_step(
        lambda a, t, y: ops.mean(ops.square(a @ w + ops.sum(t, 0) - y)),
        optim.SGD([w], lr=0.1),
        backend=with_workers(1, 2, 3)[backend](),
    )
    for length in (1, 5, 22, 40):
        w.value = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
        table = RNG.normal(size=(length, 2))
        loss = step.run(A, gp.whole(table), Y, batch_size=5, shuffle=False)[0]
        error = A[:5] @ np.linspace(-1.0, 1.0, 6).reshape(3, 2) + table.sum(0) - Y[:5]
        assert loss == pytest.approx(np.mean(error**2), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_changes_from_call_to_call_without_a_new_trace(backend: str) -> None:
    w, traced = start(), []

    def fn(a: Any, y: Any, beta: Any) -> Any:
        traced.append(1)
        return ops.mean(ops.square(a @ w - y)) * beta

    step = gp.compile_step(fn, optim.SGD([w], lr=0.0), backend=backend)
    base = np.mean((A @ w.value - Y) ** 2)
    for beta in (1.0, 0.25, -3.0):
        assert step(A, Y, gp.whole(beta)) == pytest.approx(base * beta, rel=1e-12)
    assert len(traced) == 1
    with pytest.raises(DataError, match="argument 2 is nan"):
        step.run(A, Y, gp.whole(np.nan), batch_size=22)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_a_table_by_index(backend: str) -> None:
    """Indices with samples into a table without; the limit is the table's length."""
    w = start()
    step = gp.compile_step(
        lambda a, i, t, y: ops.mean(ops.square(a @ w + ops.gather(t, i, 0) - y)),
        optim.SGD([w], lr=0.1),
        backend=backend,
    )
    index = RNG.integers(0, 4, 22)
    losses = step.run(A, index, gp.whole(T), Y, batch_size=11, shuffle=False)
    w0 = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    error = A[:11] @ w0 + T[index[:11]] - Y[:11]
    assert losses[0] == pytest.approx(np.mean(error**2), rel=1e-12)
    index[7] = 4
    with pytest.raises(IndexRangeError, match=r"argument 1 holds 4 at index \(7,\)"):
        step.run(A, index, gp.whole(T), Y, batch_size=11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_indices_are_looked_at_whole(backend: str) -> None:
    w = start()
    step = gp.compile_step(
        lambda a, i, y: ops.mean(ops.square(a @ ops.gather(w, i, 0) - y)),
        optim.SGD([w], lr=0.1),
        backend=backend,
    )
    w0 = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    losses = step.run(A, gp.whole([2, 0, 1]), Y, batch_size=22, shuffle=False)
    assert losses[0] == pytest.approx(np.mean((A @ w0[[2, 0, 1]] - Y) ** 2), rel=1e-12)
    with pytest.raises(IndexRangeError, match=r"argument 1 holds 3 at index \(1,\)"):
        step.run(A, gp.whole([2, 3, 1]), Y, batch_size=22)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_outputs_come_back_a_row_a_step(backend: str, accumulate: int) -> None:
    w = start()

    def fn(a: Any, y: Any) -> Any:
        z = a @ w
        return ops.mean(ops.square(z - y)), {"mean": ops.mean(z), "pair": (z[0], w)}, ops.max(z)

    step = gp.compile_step(fn, optim.SGD([w], lr=0.1), backend=backend, accumulate=accumulate)
    before = w.value.copy()
    loss, named, largest = step.run(A, Y, batch_size=4, shuffle=False)
    np.testing.assert_array_equal(loss, step.losses)
    z = A @ before
    assert named["mean"].shape == largest.shape == loss.shape == (6,)
    assert named["pair"][0].shape == (6, 2) and named["pair"][1].shape == (6, 3, 2)
    np.testing.assert_allclose(named["mean"][0], z[:4].mean(), rtol=1e-12)
    np.testing.assert_allclose(named["pair"][0][0], z[0], rtol=1e-12)
    np.testing.assert_array_equal(named["pair"][1][0], before)  # as it was before the update
    assert largest[0] == pytest.approx(z[:4].max())
    assert step.totals.shape == (6, 1, 2)
    np.testing.assert_array_equal(step.outputs[2], largest)
    now = w.value.copy()
    for _ in range(2):
        loss, named, largest = step(A, Y)
        assert np.shape(loss) == np.shape(largest) == ()
    if accumulate > 1:
        np.testing.assert_array_equal(named["pair"][1], now)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_of_calls_are_the_callers(backend: str) -> None:
    w = start()
    step = gp.compile_step(
        lambda a, y: (ops.mean(ops.square(a @ w - y)), a @ w),
        optim.SGD([w], lr=0.1),
        backend=backend,
    )
    found = [step(A, Y)[1] for _ in range(3)]
    assert not np.array_equal(found[1], found[2])


def test_losses_with_terms_beside_other_outputs() -> None:
    """Totals are those of the loss alone."""
    model = nn.Linear(3, 2)
    loss_fn = nn.CrossEntropyLoss(ignore_index=1)
    labels = np.arange(22) % 2

    def fn(a: Any, y: Any) -> Any:
        loss = loss_fn(model(a), y)
        return loss, ops.square(loss)

    step = gp.compile_step(fn, optim.SGD(model.parameters(), lr=0.0), backend="numpy")
    losses, squares = step.run(A, labels, batch_size=11, shuffle=False)
    np.testing.assert_allclose(squares, losses**2, rtol=1e-6)
    np.testing.assert_array_equal(step.totals[:, 0, 1], [6, 5])


def test_outputs_that_differ_in_shape_are_refused_before_any_step() -> None:
    w = start()
    step = gp.compile_step(
        lambda a, y: (ops.mean(ops.square(a @ w - y)), a @ w),
        optim.SGD([w], lr=0.1),
        backend="numpy",
    )
    before = w.value.copy()
    with pytest.raises(ShapeError, match=r"\(5, 2\) for 5 samples and \(2, 2\) for 2.*drop_last"):
        step.run(A, Y, batch_size=5)
    np.testing.assert_array_equal(w.value, before)
    assert step.run(A, Y, batch_size=5, drop_last=True)[1].shape == (4, 5, 2)


def test_what_progress_ended_has_its_outputs() -> None:
    w = start()
    step = gp.compile_step(
        lambda a, y: (ops.mean(ops.square(a @ w - y)), {"z": ops.sum(a)}),
        optim.SGD([w], lr=0.1),
        backend="numpy",
    )
    assert step.outputs is None

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step.run(A, Y, batch_size=11, epochs=4, progress=stop)
    losses, named = step.outputs
    assert losses.shape == named["z"].shape == (4,)


def test_prepare_and_explain_take_the_same_forms() -> None:
    _, step = made("a dict", "numpy")
    program = step.prepare(_dict(A[:7], B[:7]), Y[:7])
    assert program.batched == (0, 2, 3)  # in the dict's order: b, t, a; then y
    assert program.batch_size == 7
    assert "load_batch" in step.explain(_dict(A[:7], B[:7]), Y[:7], after="lower")


def run(*data: Any, **options: Any) -> Any:
    return lambda step: step.run(*data, batch_size=11, **options)


WRONG: list[tuple[Any, type[GpubpError], str]] = [
    (
        run((A, B[:9]), gp.whole(T), Y),
        ShapeError,
        r"argument 0\[1\] has 9 samples, argument 0\[0\]",
    ),
    (run((A, B), T, Y), ShapeError, r"argument 1 has 4 samples.*gp\.whole\(array\)"),
    (run((A, B), 0.5, Y), DataError, r"argument 1 is empty.*gp\.whole\(array\)"),
    (run(gp.whole((A, B)), gp.whole(T), gp.whole(Y)), DataError, "no data.*gp.whole marks"),
    (run((A, "text"), gp.whole(T), Y), GpubpError, r"argument 0\[1\]"),
    (run((A, np.where(B > 2, np.nan, B)), gp.whole(T), Y), DataError, r"argument 0\[1\] holds nan"),
    (run((A, B), gp.whole(T * np.inf), Y), DataError, "argument 1 holds"),
    (lambda step: step.prepare((A, 3), T, Y), ArgumentError, r"argument 0\[1\] is 3"),
]


@pytest.mark.parametrize(("work", "kind", "message"), WRONG)
def test_arguments_that_cannot_be_used(work: Any, kind: type[GpubpError], message: str) -> None:
    w, step = made("a tuple", "numpy")
    before = w.value.copy()
    with pytest.raises(kind, match=message):
        work(step)
    np.testing.assert_array_equal(w.value, before)


def test_whole_is_for_steps() -> None:
    with pytest.raises(ArgumentError, match=r"gp\.whole.*pass the array itself"):
        gp.compile(ops.sin, backend="numpy")(gp.whole(A))


def test_a_function_must_begin_with_the_loss() -> None:
    w = start()
    for fn in (
        lambda a: {"loss": ops.mean(a @ w)},
        lambda a: ({"loss": ops.mean(a @ w)}, a),
        lambda a: (),
    ):
        step = gp.compile_step(fn, optim.SGD([w], lr=0.1), backend="numpy")
        with pytest.raises(GradientError, match="the loss, or a tuple that begins with it"):
            step(A)


def test_lists_are_arrays_as_they_were() -> None:
    w, step = made("arrays", "numpy")
    step.run(A.tolist(), B.tolist(), gp.whole(T.tolist()), Y.tolist(), batch_size=22, shuffle=False)
    np.testing.assert_allclose(w.value, reference([np.arange(22)])[0], rtol=1e-12)
    plain = gp.compile_step(
        lambda x, y: ops.mean(ops.square(ops.sum(w) * x - y)),
        optim.SGD([w], lr=0.1),
        backend="numpy",
    )
    assert plain.run((1, 2, 3), (2.0, 4.0, 6.0), batch_size=3).shape == (1,)
