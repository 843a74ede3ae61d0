"""Nothing that enters loses digits, sign, mask or imaginary part: it is kept exactly, or refused.

The same arrays by every way in: ops at once, compiled functions, steps, the Trainer, parameters,
states, options. Narrow numbers are widened, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.core.interop import host_array
from gpubp.errors import DataError, DTypeError
from gpubp.train import Trainer

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.array([0, 1] * 4)
Maker = Callable[[], NDArray[Any]]


def _masked() -> NDArray[Any]:
    found: NDArray[Any] = np.ma.masked_array(X, mask=np.zeros(X.shape, bool))
    found[0] = np.ma.masked
    found[:, 0] = np.ma.masked
    return found


LOST: dict[str, tuple[Maker, type[Exception], str]] = {
    "byte order": (lambda: X.astype(">f8"), DTypeError, "byte order"),
    "byte order, exact": (lambda: X.astype(">f4"), DTypeError, "newbyteorder"),
    "byte order of integers": (lambda: np.ones(X.shape, ">i8"), DTypeError, "byte order"),
    "longdouble": (lambda: X.astype(np.longdouble), DTypeError, "more digits"),
    "complex64": (lambda: X.astype(np.complex64), DTypeError, "imaginary parts"),
    "complex128": (lambda: X.astype(np.complex128), DTypeError, "imaginary parts"),
    "masked": (_masked, DataError, "masked"),
    "uint64": (lambda: np.full(X.shape, 2**63 + 1, np.uint64), DTypeError, "int64 ends at"),
    "objects": (lambda: X.astype(object), DTypeError, "Encode text and objects"),
    "text": (lambda: X.astype(str), DTypeError, "Encode text and objects"),
    "bytes": (lambda: X.astype("S8"), DTypeError, "Encode text and objects"),
    "times": (lambda: np.zeros(X.shape, "M8[s]"), DTypeError, "expected numbers"),
    "spans of time": (lambda: np.zeros(X.shape, "m8[s]"), DTypeError, "expected numbers"),
    "records": (lambda: np.zeros(X.shape, "V4"), DTypeError, "expected numbers"),
}


def _step(model: nn.Module) -> Any:
    loss_fn = nn.CrossEntropyLoss()
    return gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optim.SGD(model.parameters(), lr=0.1), backend="numba"
    )


def _trainer(model: nn.Module) -> Trainer:
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))


def _plus_one(x: Any) -> Any:
    return x + 1


def _moments(model: nn.Linear, value: Any) -> None:
    adam = optim.Adam(model.parameters())
    state = {"step": 1, "exp_avg": value, "exp_avg_sq": np.zeros((2, 3))}
    adam.load_state_dict({"state": {0: state}, "param_groups": adam.state_dict()["param_groups"]})


# (model, array of shape (8, 3)) -> anything that would read the array.
WAYS: dict[str, Callable[[nn.Linear, Any], Any]] = {
    "op": lambda m, a: ops.exp(a),
    "second operand": lambda m, a: ops.add(X, a),
    "module": lambda m, a: m(a),
    "loss": lambda m, a: nn.MSELoss()(X, a),
    "grad": lambda m, a: gp.grad(lambda x: ops.sum(x))(a),
    "vjp": lambda m, a: gp.vjp(lambda x: x * 2, a),
    "cotangent": lambda m, a: gp.vjp(lambda x: x * 2, X)[1](a),
    "compiled": lambda m, a: gp.compile(_plus_one, backend="numba")(a),
    "compiled for numpy": lambda m, a: gp.compile(_plus_one, backend="numpy")(a),
    "nested": lambda m, a: gp.compile(lambda d: d["x"] + 1, backend="numpy")({"x": a}),
    "constant": lambda m, a: gp.compile(lambda x: x + a, backend="numpy")(X),
    "step": lambda m, a: _step(m)(a, Y),
    "run": lambda m, a: _step(m).run(a, Y, batch_size=4),
    "order": lambda m, a: _step(m).run(X, Y, batch_size=4, order=a[:, 0]),
    "fit": lambda m, a: _trainer(m).fit(a, Y, epochs=1),
    "targets": lambda m, a: _trainer(m).fit(X, a[:, 0], epochs=1),
    "stream": lambda m, a: _trainer(m).fit([(X, Y), (a, Y)], epochs=1),
    "validation": lambda m, a: _trainer(m).fit(X, Y, epochs=1, validation_data=(a, Y)),
    "sample weights": lambda m, a: _trainer(m).fit(X, Y, epochs=1, sample_weight=a[:, 0]),
    "evaluate": lambda m, a: _trainer(m).evaluate(a, Y),
    "predict": lambda m, a: _trainer(m).predict(a),
    "parameter": lambda m, a: nn.Parameter(a),
    "parameter of a dtype": lambda m, a: nn.Parameter(a, dtype="float32"),
    "buffer": lambda m, a: nn.Buffer(a),
    "buffer of integers": lambda m, a: nn.Buffer(a, dtype="int64"),
    "value": lambda m, a: setattr(m.weight, "value", a[:2]),
    "assign": lambda m, a: ops.assign(nn.Buffer(np.zeros((8, 3), np.float32)), a),
    "state": lambda m, a: m.load_state_dict({"weight": a[:2], "bias": np.zeros(2)}),
    "moments": lambda m, a: _moments(m, a[:2]),
    "averages": lambda m, a: optim.EMA(m.parameters()).load_state_dict(
        {"averages": [a[:2], np.zeros(2)], "n_averaged": 1}
    ),
    "class weights": lambda m, a: nn.CrossEntropyLoss(weight=a[0, :2]),
    "learning rate": lambda m, a: optim.SGD(m.parameters(), lr=a[:1, 0].reshape(())),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LOST)
def test_what_would_be_lost_is_refused(kind: str, way: str) -> None:
    make, error, words = LOST[kind]
    if (kind, way) == ("text", "targets"):  # labels, but more than the model has outputs
        error, words = DataError, "y has 8 different labels; the model has 2 outputs"
    array = make()
    model = nn.Linear(3, 2)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=words):
        WAYS[way](model, array)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


EXACT: dict[str, NDArray[Any]] = {
    "float16": X.astype(np.float16),
    "nothing masked": np.ma.masked_array(X),
    "uint8": np.arange(24, dtype=np.uint8).reshape(8, 3),
    "int8": np.arange(-12, 12, dtype=np.int8).reshape(8, 3),
    "int16": np.arange(-12, 12, dtype=np.int16).reshape(8, 3) * 2000,
    "uint32": np.full((8, 3), 2**32 - 1, np.uint32),
    "uint64": np.full((8, 3), 2**63 - 1, np.uint64),
    "bool": X > 0,
}


@pytest.mark.parametrize("kind", EXACT)
def test_what_is_kept_is_the_same_by_every_way(kind: str) -> None:
    array = EXACT[kind]
    native = host_array(array)
    assert native.dtype in gp.core.DTYPES
    np.testing.assert_array_equal(native, np.asarray(array))
    compiled = [gp.compile(lambda x: (x, ops.equal(x, x)), backend=b) for b in BACKENDS]
    for found in (ops.copy(array), *[fn(array)[0] for fn in compiled]):
        assert found.dtype == native.dtype
        np.testing.assert_array_equal(found, native)


def test_a_step_reads_narrow_numbers_as_wide_ones() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 3)).astype(np.uint8)
    losses = []
    for x, y in ((pixels, Y.astype(np.uint8)), (pixels.astype(np.int64), Y)):
        model = nn.Linear(3, 2)
        model.weight.value = np.ones((2, 3)) * 1e-3
        model.bias.value = np.zeros(2)
        losses.append(_step(model).run(x, y, batch_size=4, epochs=2, shuffle=False))
    np.testing.assert_array_equal(*losses)


def test_integers_of_a_slot_stay_integers() -> None:
    count = nn.Buffer(np.int64(3))
    for new in (2.5, np.nan, 1e30):
        with pytest.raises(DTypeError, match="numbers would change"):
            count.value = new  # type: ignore[assignment]
    narrow = nn.Buffer(np.zeros(2, np.int32))
    with pytest.raises(DTypeError, match="int32 and cannot hold"):
        narrow.value = np.array([1, 2**31])
    with pytest.raises(DTypeError, match="bool and cannot hold"):
        nn.Buffer([True, False]).value = np.array([0, 2])
    count.value = 4.0  # type: ignore[assignment]
    narrow.value = np.array([1, -(2**31)])
    assert int(count.value) == 4 and narrow.value.tolist() == [1, -(2**31)]


def test_a_state_is_taken_whole_or_not_at_all() -> None:
    norm = nn.BatchNorm1d(2)
    before = norm.state_dict()
    bad = {**before, "running_mean": np.ones(2), "num_batches_tracked": 1.5}
    with pytest.raises(DTypeError, match="num_batches_tracked"):
        norm.load_state_dict(bad)
    np.testing.assert_array_equal(norm.running_mean.value, [0, 0])


def test_mapped_files_of_another_byte_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((400_000, 30), ">f8"))
    mapped = np.load(path, mmap_mode="r")
    trainer = _trainer(nn.Linear(30, 2))
    with pytest.raises(DTypeError, match="X has dtype '>f8'"):
        trainer.fit(mapped, np.zeros(len(mapped), np.int64), epochs=1)
    with pytest.raises(DTypeError, match="X has dtype '>f8'"):
        trainer.predict(mapped)


class _Negated:
    """As torch's view of the imaginary part of a conjugate: DLPack tells nothing of its sign."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def is_neg(self) -> bool:
        return True

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_a_sign_that_is_not_in_memory() -> None:
    for use in (ops.exp, gp.compile(_plus_one, backend="numpy"), nn.Parameter):
        with pytest.raises(DataError, match="resolve_neg"):
            use(_Negated(X))
