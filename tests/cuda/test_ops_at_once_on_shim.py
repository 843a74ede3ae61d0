"""`gp.ops.*` on arrays on the device: what they give on the host, where the arguments are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shim_build
from array_calls import ARRAY_CALLS, MAKERS
from image_calls import IMAGE_CALLS, image_operands
from numpy.typing import NDArray
from place_calls import COUNT_CALLS, HOST_ONLY, PLACE_CALLS, place_operands
from shim_array import ShimArray
from shim_backend import as_cuda
from shim_driver import ShimDriver
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import DataError, DTypeError
from gpubp.runtime import eager

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

Arrays = dict[str, Any]
Call = Callable[[Arrays], Any]


def _operands() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(4, 6)).astype(np.float32),
        "y": rng.normal(size=(4, 6)).astype(np.float32),
        "p": rng.uniform(0.3, 0.9, size=(4, 6)).astype(np.float32),
        "w": rng.normal(size=(5, 6)).astype(np.float32),
        "bias": rng.normal(size=5).astype(np.float32),
        "slope": np.array([0.3], np.float32),
        "d": rng.normal(size=(4, 6)),
        "i": rng.integers(0, 4, 7),
        "labels": rng.integers(0, 6, 4).astype(np.int32),
        "m": rng.uniform(size=(4, 6)) > 0.5,
        "n": rng.uniform(size=(4, 6)) > 0.5,
        **image_operands(),
        **{f"place {k}": v for k, v in place_operands().items()},
    }


def _of_x(*names: str) -> dict[str, Call]:
    return {name: lambda a, name=name: getattr(ops, name)(a["x"]) for name in names}


def _of_xy(*names: str) -> dict[str, Call]:
    return {name: lambda a, name=name: getattr(ops, name)(a["x"], a["y"]) for name in names}


def _on_places(call: Call) -> Call:
    return lambda a: call({k[6:]: v for k, v in a.items() if k.startswith("place ")})


def _turned(x: Any, angles: Any) -> Any:
    return ops.rotary_embedding(x, ops.cos(angles), ops.sin(angles), rotary_embedding_dim=4)


CALLS: dict[str, Call] = {
    **IMAGE_CALLS,
    **{k: _on_places(c) for k, c in {**PLACE_CALLS, **COUNT_CALLS}.items()},
    **_of_x("abs", "argmax", "argmin", "celu", "copy", "cos", "elu", "erf", "exp", "expm1"),
    **_of_x("flatten", "floor", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish"),
    **_of_x("hardtanh", "isfinite", "leaky_relu", "log_softmax", "logsigmoid", "max", "mean"),
    **_of_x("min", "mish", "negative", "ravel", "relu", "relu6", "selu", "sigmoid", "sign", "silu"),
    **_of_x("sin", "softmax", "softplus", "softshrink", "softsign", "square", "stop_gradient"),
    **_of_x("sum", "tanh", "tanhshrink", "transpose", "dropout"),
    **_of_xy("add", "divide", "equal", "greater", "greater_equal", "less", "less_equal"),
    **_of_xy("maximum", "minimum", "multiply", "not_equal", "subtract"),
    **{f"{op} p": lambda a, op=op: getattr(ops, op)(a["p"]) for op in ("log", "log1p", "sqrt")},
    **ARRAY_CALLS,
    "power": lambda a: ops.power(a["p"], a["x"]),
    "power known": lambda a: ops.power(a["x"], 2),
    "power one": lambda a: ops.power(a["x"], 1.0),
    "astype": lambda a: ops.astype(a["x"], "float64"),
    "astype same": lambda a: ops.astype(a["x"], "float32"),
    "broadcast_to": lambda a: ops.broadcast_to(a["bias"], (3, 5)),
    "clip": lambda a: ops.clip(a["x"], -0.5, 0.25),
    "concat": lambda a: ops.concat([a["x"], a["d"]], axis=1),
    "cat": lambda a: ops.cat([a["x"], a["d"]], dim=1),
    "multinomial": lambda a: ops.multinomial(a["p"], 2),
    "multinomial replacement": lambda a: ops.multinomial(a["p"], 9, replacement=True),
    "stack": lambda a: ops.stack([a["x"], a["y"]], axis=1),
    "expand_dims": lambda a: ops.expand_dims(a["x"], 1),
    "squeeze": lambda a: ops.squeeze(ops.expand_dims(a["x"], 1)),
    "swapaxes": lambda a: ops.swapaxes(a["x"], 0, 1),
    "reshape": lambda a: ops.reshape(a["x"], (3, -1)),
    "gather": lambda a: ops.gather(a["x"], a["i"]),
    "getitem": lambda a: ops.getitem(a["x"], (slice(1, None), -2)),
    "getitem rows": lambda a: ops.getitem(a["x"], a["i"]),
    "getitem list": lambda a: ops.getitem(a["x"], [0, 3, 3]),
    "scatter_add": lambda a: ops.scatter_add(ops.gather(a["x"], a["i"]), a["i"], 4),
    "one_hot": lambda a: ops.one_hot(a["labels"], 6),
    "linear": lambda a: ops.linear(a["x"], a["w"], a["bias"]),
    "matmul": lambda a: ops.matmul(a["x"], ops.transpose(a["w"])),
    "matmul vector": lambda a: ops.matmul(a["w"], a["x"][0]),
    "logical_and": lambda a: ops.logical_and(a["m"], a["n"]),
    "logical_or": lambda a: ops.logical_or(a["m"], a["n"]),
    "logical_not": lambda a: ops.logical_not(a["m"]),
    "where": lambda a: ops.where(a["m"], a["x"], 0.0),
    "threshold": lambda a: ops.threshold(a["x"], 0.1, -3.0),
    "prelu": lambda a: ops.prelu(a["x"], a["slope"]),
    "softmax_cross_entropy": lambda a: ops.softmax_cross_entropy(a["x"], a["labels"]),
    "mean_over": lambda a: ops.mean_over(ops.sum(a["x"]), ops.sum(a["p"])),
    "mean_over nothing": lambda a: ops.mean_over(ops.sum(a["x"]), ops.sum(a["p"] * 0.0)),
    "mixed dtypes": lambda a: ops.add(a["x"], a["d"]) + ops.sum(a["labels"]),
    "numbers": lambda a: 2 * a["x"] + 1 - ops.maximum(a["x"], np.float32(0.25)),
    "scaled_dot_product_attention": lambda a: ops.scaled_dot_product_attention(*[a["x2"]] * 3),
    "rotary_embedding": lambda a: _turned(a["x2"], ops.transpose(a["columns"][0, :2])),
    "update": lambda a: ops.update.sgd(a["x"], a["y"], 0.1),
}
NOT_OF_ARRAYS = MAKERS | {"Generator", "assign", "custom_op", "manual_seed", "normal", "uniform"}
NOT_OF_ARRAYS |= {"gumbel_softmax", "randint", "tril_indices", "triu_indices"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    return as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))


def test_every_op_is_tried() -> None:
    assert {name.split()[0] for name in CALLS} | NOT_OF_ARRAYS | {*HOST_ONLY} >= set(ops.__all__)


def test_each_op_on_device_arrays_is_as_on_the_host(gpu: CupyBackend) -> None:
    host = _operands()
    there = {k: gpu.to_user_array(v) for k, v in host.items()}
    for name, call in CALLS.items():
        gp.manual_seed(3)
        expected = np.asarray(call(host))
        gp.manual_seed(3)
        found = call(there)
        assert isinstance(found, ShimArray), name
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        assert_close(found.get(), expected, name)
    for name, value in there.items():
        assert_same(value.get(), host[name], f"{name} was changed")


def test_a_kept_program_serves_again(gpu: CupyBackend) -> None:
    (x,) = (gpu.to_user_array(v) for v in [_operands()["x"]])
    ops.exp(x * 2.0)
    before = len(eager._kept)
    compiled: list[str] = []
    gpu.driver.compile = lambda source: compiled.append(source)  # type: ignore[assignment]
    for scale in (2.0, 3.0, 4.5):  # numbers are inputs: no program for each
        ops.exp(x * scale)
    assert len(eager._kept) == before and not compiled


def test_few_programs_are_kept(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "MAX_KEPT", 3)
    eager._kept.clear()
    x = gpu.to_user_array(np.ones((2, 3), np.float32))
    for op in (ops.exp, ops.sin, ops.cos, ops.tanh, ops.exp):
        op(x)
    assert len(eager._kept) == 3


def test_host_and_device_do_not_mix(gpu: CupyBackend) -> None:
    host = _operands()
    x = gpu.to_user_array(host["x"])
    for call in (
        lambda: ops.add(x, host["y"]),
        lambda: ops.where(gpu.to_user_array(host["m"]), host["x"], host["y"]),
        lambda: ops.concat([x, host["y"]]),
        lambda: ops.gather(host["x"], gpu.to_user_array(host["i"])),
        lambda: x[host["i"]],
    ):
        with pytest.raises(DataError, match="do not mix"):
            call()
    with pytest.raises(DTypeError, match="float16"):
        ops.exp(gpu.to_user_array(host["x"].astype(np.float16)))
    with pytest.raises(DataError, match="constant of a traced function"):
        gp.compile(lambda a: a + ops.exp(x), backend="numpy")(host["y"])
    with pytest.raises(DataError, match="constant of a traced function"):
        gp.compile(lambda a: a + x, device="cuda")(x)


def test_a_gpu_that_cannot_be_used_is_said_so() -> None:
    driver = ShimDriver(number=7)
    x = driver.to_user_array(np.ones(3, np.float32))
    with pytest.raises(gp.errors.BackendError, match=r"cuda:7|CuPy"):
        ops.exp(x)


def test_modules_and_their_state(gpu: CupyBackend) -> None:
    """Parameters are read, and running statistics written, where programs keep them."""
    host = _operands()
    x = gpu.to_user_array(host["x"])
    results = []
    for value in (host["x"], x):
        nn.init.manual_seed(1)
        gp.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 2))
        out = [model(value), model(value)]
        results.append((out, {k: v.copy() for k, v in model.state_dict().items()}))
    (expected, state), (found, device_state) = results
    for a, b in zip(found, expected, strict=True):
        assert_close(a.get(), b)
    for key, value in state.items():
        assert_close(np.asarray(device_state[key]), np.asarray(value), key)
    loss_fn = nn.CrossEntropyLoss()
    loss = loss_fn(found[0], gpu.to_user_array(host["labels"] % 2))
    assert_close(loss.get(), np.asarray(loss_fn(expected[0], host["labels"] % 2)))
    with pytest.raises(DataError, match=r"CrossEntropyLoss: .* do not mix"):
        loss_fn(found[0], host["labels"] % 2)


def test_changes_of_modules_are_seen_at_once(gpu: CupyBackend) -> None:
    host = _operands()
    x, labels = gpu.to_user_array(host["x"]), gpu.to_user_array(host["labels"])
    model = nn.Sequential(nn.LayerNorm(6), nn.LeakyReLU(), nn.Dropout(0.0))
    loss = nn.CrossEntropyLoss()
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: setattr(model[0], "eps", 1.0),
        lambda: setattr(model[1], "negative_slope", 0.7),
        lambda: model.append(nn.Tanh()),
        lambda: setattr(model[0], "weight", nn.Parameter(np.full(6, 2.0, np.float32))),
        lambda: setattr(loss, "label_smoothing", 0.3),
        lambda: setattr(loss, "reduction", "sum"),
    ]
    for change in changes:
        change()
        assert_close(model(x).get(), np.asarray(model(host["x"])))
        assert_close(loss(x, labels).get(), np.asarray(loss(host["x"], host["labels"])))


def test_attributes_that_are_equal_but_not_alike(gpu: CupyBackend) -> None:
    def forward(x: Any, *, by: Any) -> Any:
        return np.full(x.shape, float(len(repr(by))), np.float32)

    op, x = gp.custom_op("kind_on_device", forward), gpu.to_user_array(np.ones(3, np.float32))
    for by in (1, True, 1.0, (1,), (True,), 1, True):
        assert op(x, by=by).get()[0] == len(repr(by)), by


def test_parameters_as_arguments(gpu: CupyBackend) -> None:
    host = _operands()
    x = gpu.to_user_array(host["x"])
    w, slope = nn.Parameter(host["w"]), nn.Parameter(host["slope"])
    assert_close(ops.linear(x, w).get(), ops.linear(host["x"], w))
    assert_close(ops.prelu(x, slope).get(), ops.prelu(host["x"], slope))
    assert_close(ops.add(x[0], w).get(), host["x"][0] + host["w"])
    w.value = host["w"] + 1
    assert_close(ops.add(w, x[0]).get(), host["x"][0] + host["w"] + 1)
    buffer = nn.Buffer(np.zeros((4, 6), np.float32))
    ops.assign(buffer, x)
    ops.assign(buffer, ops.add(buffer, x))
    assert_same(buffer.value, 2 * host["x"])


def test_custom_ops_take_device_arrays(gpu: CupyBackend) -> None:
    twice = gp.custom_op("twice_at_once", lambda x: x * 2, vjp=lambda g, y, x: g * 2.0)
    x = _operands()["x"]
    found = twice(gpu.to_user_array(x))
    assert isinstance(found, ShimArray)
    assert_same(found.get(), 2 * x)
