"""Labels and indices are checked where they are used, and only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import with_workers
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import DataError, IndexRangeError

BACKENDS = {name: make() for name, make in with_workers(1, 3).items()}
each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3))

# The part of an array of shape (4, 6) that is used, and the shape it has then.
PARTS: dict[str, Callable[[Any], Any]] = {
    "a row": lambda i: i[1],
    "rows": lambda i: i[1:3],
    "a column": lambda i: i[:, 2],
    "columns": lambda i: i[:, 1:4],
    "every other": lambda i: i[::2, ::3],
    "backwards": lambda i: i[2:0:-1, ::-2],
    "one element": lambda i: i[3, 5],
    "transposed": lambda i: ops.transpose(i)[2:4],
    "reshaped": lambda i: i.reshape(3, 8)[0],
    "reshaped and cut": lambda i: i.reshape(2, 2, 6)[:, 1, 2:5],
    "nothing": lambda i: i[2:2],
}


def _used(part: Callable[[Any], Any]) -> NDArray[np.bool_]:
    """Which elements are."""
    places = part(np.arange(24).reshape(4, 6))
    used = np.zeros(24, bool)
    used[np.asarray(places).reshape(-1)] = True
    return used.reshape(4, 6)


@each_backend
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_not_used_may_be_anything(part: str, dtype: Any, backend: Any) -> None:
    used = _used(PARTS[part])
    fn = gp.compile(lambda x, i: ops.gather(x, PARTS[part](i)), backend=backend)
    indices = RNG.integers(0, 5, (4, 6)).astype(dtype)
    for bad in (-1, 5, 99):
        indices[~used] = bad
        for _ in range(3):  # the first call, and calls that are bound
            assert_same(fn(X, indices), X[np.asarray(PARTS[part](indices))], part)


@each_backend
@pytest.mark.parametrize("part", [p for p in PARTS if p != "nothing"])
def test_what_is_used_is_checked_element_by_element(part: str, backend: Any) -> None:
    fn = gp.compile(lambda x, i: ops.gather(x, PARTS[part](i)), backend=backend)
    for at in np.argwhere(_used(PARTS[part])).tolist():
        indices = RNG.integers(0, 5, (4, 6))
        fn(X, indices)
        indices[tuple(at)] = 5
        where = rf"argument 1 holds 5 at index \({at[0]}, {at[1]}\).* must be 0 to 4"
        with pytest.raises(IndexRangeError, match=where):
            fn(X, indices)


@each_backend
def test_two_kinds_of_labels_in_one_array(backend: Any) -> None:
    few, many = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 20))
    labels = np.stack([RNG.integers(0, 3, 6), RNG.integers(3, 20, 6)])

    def loss(few: Any, many: Any, t: Any) -> Any:
        return ops.softmax_cross_entropy(few, t[0]) + ops.softmax_cross_entropy(many, t[1])

    compiled = gp.compile(loss, backend=backend)
    expected = loss(few, many, labels)
    for _ in range(2):
        np.testing.assert_allclose(compiled(few, many, labels), expected, rtol=1e-12)
    labels[0, 4] = 3
    with pytest.raises(IndexRangeError, match=r"holds 3 at index \(0, 4\).* 0 to 2"):
        compiled(few, many, labels)
    labels[0, 4], labels[1, 0] = 0, 20
    with pytest.raises(IndexRangeError, match=r"holds 20 at index \(1, 0\).* 0 to 19"):
        compiled(few, many, labels)


@each_backend
def test_the_smallest_limit_of_the_same_elements_holds(backend: Any) -> None:
    fn = gp.compile(lambda i: ops.gather(X, i) + ops.gather(X[:4], i), backend=backend)
    fn(np.array([0, 3]))
    with pytest.raises(IndexRangeError, match="0 to 3"):
        fn(np.array([0, 4]))


@each_backend
def test_large_arguments_that_move_are_checked_where_they_are(backend: Any) -> None:
    """Arguments that are not copied: bound calls look at the address of the day."""
    x = RNG.normal(size=(7, 2))
    fn = gp.compile(lambda x, i: ops.gather(x, i[1]), backend=backend)
    for _ in range(5):
        indices = RNG.integers(0, 7, (2, 5000))
        indices[0] = -1
        assert_same(fn(x, indices), x[indices[1]])
        indices[1, 4321] = 7
        with pytest.raises(IndexRangeError, match=r"\(1, 4321\)"):
            fn(x, indices)


def _two_heads(backend: Any) -> tuple[Any, nn.Module]:
    gp.manual_seed(1)
    model = nn.Linear(4, 23)

    def loss(x: Any, t: Any) -> Any:
        y = model(x)
        first = ops.mean(ops.softmax_cross_entropy(y[:, :3], t[:, 0]))
        return first + ops.mean(ops.softmax_cross_entropy(y[:, 3:], t[:, 1]))

    return gp.compile_step(loss, optim.SGD(model.parameters(), lr=0.1), backend=backend), model


@each_backend
def test_labels_of_two_heads_are_checked_before_any_step(backend: Any) -> None:
    step, model = _two_heads(backend)
    x = RNG.normal(size=(50, 4)).astype(np.float32)
    labels = np.stack([RNG.integers(0, 3, 50), RNG.integers(0, 20, 50), np.full(50, -1)], 1)
    assert np.isfinite(step.run(x, labels, batch_size=8, epochs=2)).all()
    for _ in range(2):
        step(x[:8], labels[:8])
    before = model.weight.numpy().copy()
    for bad, at in ((3, (47, 0)), (20, (7, 1)), (-1, (0, 0))):
        wrong = labels.copy()
        wrong[at] = bad
        with pytest.raises(IndexRangeError, match=rf"argument 1 holds {bad} at index \({at[0]}, "):
            step.run(x, wrong, batch_size=8)
        wrong[:8] = np.roll(wrong, -at[0], 0)[:8]
        with pytest.raises(IndexRangeError, match=r"at index \(0, "):
            step(x[:8], wrong[:8])
    assert_same(model.weight.numpy(), before)


@each_backend
def test_some_rows_of_a_batch(backend: Any) -> None:
    """Which samples they are is known step by step: the kernel looks."""
    gp.manual_seed(1)
    model = nn.Linear(4, 3)
    step = gp.compile_step(
        lambda x, t: ops.mean(ops.softmax_cross_entropy(model(x)[:2], t[:2])),
        optim.SGD(model.parameters(), lr=0.1),
        backend=backend,
    )
    x = RNG.normal(size=(8, 4)).astype(np.float32)
    labels = np.array([0, 1, 9, 9, 2, 0, -1, 9])
    assert np.isfinite(step.run(x, labels, batch_size=4, shuffle=False)).all()
    assert np.isfinite(step(x[:4], labels[:4]))
    labels[1] = 3
    with pytest.raises((DataError, IndexError)):
        step.run(x, labels, batch_size=4, shuffle=False)


ONE = np.ones((2, 1), np.int64)
AT_NOTHING: dict[str, Callable[[Any, Any], Any]] = {
    "take_along_dim": lambda x, i: ops.take_along_dim(x, i, 1),
    "take": ops.take,
    "index_select": lambda x, i: ops.index_select(x, 1, i[0]),
    "getitem": lambda x, i: ops.getitem(x, (slice(None), i)),
    "scatter": lambda x, i: ops.scatter(x, 1, i, np.ones((2, 1))),
    "scatter_add": lambda x, i: ops.scatter_add_along(x, 1, i, np.ones((2, 1))),
    "index_fill": lambda x, i: ops.index_fill(x, 1, i[0], 2.0),
    "put": lambda x, i: ops.put(x, i, np.ones((2, 1))),
}


@each_backend
@pytest.mark.parametrize("name", AT_NOTHING)
def test_no_index_is_within_an_axis_of_size_0(name: str, backend: Any) -> None:
    """Nothing is computed there, so no kernel would look at the index."""
    x, call = np.ones((2, 0)), AT_NOTHING[name]
    with pytest.raises(IndexRangeError, match="of size 0"):
        call(x, ONE)
    with pytest.raises(IndexRangeError, match="of size 0"):
        gp.compile(call, backend=backend)(x, ONE)
    if name in ("index_select", "getitem", "index_fill"):
        none = ONE[:, :0]
        assert gp.compile(call, backend=backend)(x, none).shape[0] == 2
