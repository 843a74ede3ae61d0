"""What is written to ONNX besides modules: names, batches, dtypes, loops, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

INSTALL = "needs onnx and onnxruntime: pip install 'gpubp[oracle]'"
onnx = pytest.importorskip("onnx", reason=INSTALL)
pytest.importorskip("onnxruntime", reason=INSTALL)
import onnx_runtime  # noqa: E402 - beside this file

import gpubp as gp  # noqa: E402
from gpubp import nn, ops  # noqa: E402
from gpubp.errors import (  # noqa: E402
    ArgumentError,
    DataError,
    FixedSizeError,
    ShapeError,
    TraceError,
)

pytestmark = pytest.mark.oracle


def _x(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _sizes(value: Any) -> list[Any]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_names_shapes_and_weights_are_the_modules() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    made = gp.onnx.export(model, (None, 4), input_names=["x"], output_names=["y"])
    graph = made.graph
    assert [(v.name, _sizes(v)) for v in graph.input] == [("x", ["batch", 4])]
    assert [(v.name, _sizes(v)) for v in graph.output] == [("y", ["batch", 2])]
    found = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert {n: v.tolist() for n, v in found.items()} == {
        n: v.tolist() for n, v in model.state_dict().items()
    }
    assert [n.op_type for n in graph.node] == ["Gemm", "Relu", "Gemm", "Identity"]
    assert made.opset_import[0].version == 20


def test_no_moves_of_axes_are_left_between_convolutions() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)]
    made = gp.onnx.export(nn.Sequential(*layers), (None, 3, 12, 12))
    kinds = [n.op_type for n in made.graph.node]
    assert kinds == ["Conv", "Relu", "MaxPool", "Conv", "Identity"]


def test_modes_are_as_they_were_after_an_export() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    before = [m.training for m in model.modules()]
    gp.onnx.export(model, (None, 2))
    assert [m.training for m in model.modules()] == before


def test_nested_arguments_and_results_have_names() -> None:
    def fn(a: Any, pair: Any) -> Any:
        return {"sum": ops.add(a, pair["b"]), "both": (a, ops.multiply(pair["c"], 2))}

    arrays = [_x(3, 2), _x(3, 2), np.arange(3)]
    made = gp.onnx.export(fn, arrays[0], {"b": arrays[1], "c": arrays[2]})
    assert [v.name for v in made.graph.output] == ["sum", "both_0", "both_1"]
    found = onnx_runtime.run(made, arrays)
    np.testing.assert_allclose(found[0], arrays[0] + arrays[1])
    np.testing.assert_array_equal(found[2], 2 * arrays[2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_that_are_written_by_formulas(dtype: str) -> None:
    x = np.clip(_x(5, 7, dtype=dtype), -0.9, 0.9)
    small = x * dtype_scale(dtype)
    for name in ("sinh", "cosh", "asinh", "atanh", "erfinv", "expm1", "log1p"):
        onnx_runtime.check(getattr(ops, name), [x], name)
        onnx_runtime.check(getattr(ops, name), [small], f"{name} near 0")
    for name in ("elu", "leaky_relu", "softplus", "silu"):
        onnx_runtime.check(getattr(ops, name), [x], name)
    onnx_runtime.check(ops.acosh, [np.abs(x) + 1], "acosh")
    if dtype == "float32":  # ONNX Runtime has no arc tangent of float64
        for name in ("asin", "acos", "atan"):
            onnx_runtime.check(getattr(ops, name), [x], name)
        onnx_runtime.check(ops.atan2, [x, x[::-1]], "atan2")
    (near,) = onnx_runtime.run(gp.onnx.export(ops.expm1, small), [small])
    np.testing.assert_allclose(near, np.expm1(small), rtol=1e-6)


def dtype_scale(dtype: str) -> Any:
    """So small that 1 + x is 1, or nearly."""
    return np.dtype(dtype).type(1e-7)


def test_whole_numbers_and_booleans() -> None:
    a, b = np.array([-7, 7, -6, 5]), np.array([3, -3, 3, 2])
    for fn in (ops.floor_divide, ops.remainder, ops.fmod, ops.maximum, ops.subtract):
        onnx_runtime.check(fn, [a, b], str(fn))
        onnx_runtime.check(fn, [a.astype(np.int32), b.astype(np.int32)], str(fn))
    onnx_runtime.check(lambda x: ops.where(x > 0, x > 1, x < -1), [a], "where of booleans")
    onnx_runtime.check(lambda x: ops.sum(x > 0), [a], "how many")
    onnx_runtime.check(lambda x: ops.argmax(x, 0), [a], "argmax of int64")


def test_loops() -> None:
    def running(x: Any) -> Any:
        return gp.scan(lambda c, e: (c + e, c * e), ops.zeros((3,)), x, reverse=True)

    onnx_runtime.check(running, [_x(5, 3)], "backwards", batch_axis=None)

    def powers(x: Any) -> Any:
        return gp.scan(lambda c, _: (c * x, c), x, length=4)

    onnx_runtime.check(powers, [_x(3)], "without elements")

    def halved(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.max(c) > 0.1, lambda c: c / 2, ops.abs(x))

    onnx_runtime.check(halved, [_x(3)], "until")

    def chosen(x: Any) -> Any:
        return gp.cond(ops.sum(x) > 0, lambda v: v * 2, lambda v: v - 1, x)

    for sign in (1, -1):
        onnx_runtime.check(chosen, [sign * np.abs(_x(3))], "cond")

    def nested(x: Any) -> Any:
        def outer(c: Any, row: Any) -> Any:
            return c, gp.scan(lambda s, e: (s + e * c, s), ops.zeros(()), row)[0]

        return gp.scan(outer, ops.sum(x), x)[1]

    onnx_runtime.check(nested, [_x(4, 3)], "a loop in a loop", batch_axis=None)


def test_a_batch_is_free_where_it_can_be() -> None:
    model = nn.Linear(4, 2)
    assert onnx_runtime.is_dynamic(gp.onnx.export(model, _x(5, 4)))
    assert not onnx_runtime.is_dynamic(gp.onnx.export(model, _x(5, 4), dynamic=False))
    by_time = gp.onnx.export(nn.LSTM(4, 3), _x(7, 5, 4), batch_axis=1)
    assert _sizes(by_time.graph.input[0]) == [7, "batch", 4]

    def tied(x: Any) -> Any:
        return ops.matmul(x, np.eye(5, dtype=np.float32))

    assert onnx_runtime.is_dynamic(gp.onnx.export(tied, _x(3, 5)))
    square = gp.onnx.export(lambda x: ops.matmul(_x(2, 5), x), _x(5, 4))
    assert not onnx_runtime.is_dynamic(square)
    with pytest.raises(FixedSizeError, match="refuses a batch of 6"):
        gp.onnx.export(lambda x: ops.matmul(_x(2, 5), x), _x(5, 4), dynamic=True)
    with pytest.raises(FixedSizeError, match="sizes"):
        gp.onnx.export(lambda x: ops.reshape(x, (-1,))[: x.shape[0] ** 2], _x(5, 40), dynamic=True)

    def means(x: Any) -> Any:
        return ops.mean(x) + ops.sum(x, 0) / x.shape[0]

    mean = onnx_runtime.check(means, [_x(5, 4)], "means")
    assert onnx_runtime.is_dynamic(mean)


def test_bad_calls_say_what_was_expected(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(ArgumentError, match="got nothing to call the model with"):
        gp.onnx.export(model)
    with pytest.raises(ArgumentError, match="expected a module or a function"):
        gp.onnx.export(3, (None, 4))
    with pytest.raises(ArgumentError, match="expected an array, or a shape"):
        gp.onnx.export(model, "x")
    with pytest.raises(ShapeError, match="batch_axis 2 is no axis"):
        gp.onnx.export(model, _x(3, 4), batch_axis=(2,))
    with pytest.raises(ArgumentError, match="batch_axis has 2 numbers"):
        gp.onnx.export(model, _x(3, 4), batch_axis=(0, 1))
    with pytest.raises(ArgumentError, match="input_names"):
        gp.onnx.export(model, _x(3, 4), input_names=["a", "b"])
    with pytest.raises(ShapeError):
        gp.onnx.export(model, (None, 5))
    with pytest.raises(DataError, match="does not exist"):
        gp.onnx.save(model, tmp_path / "none" / "m.onnx", (None, 4))
    own = gp.custom_op("own", lambda x: x + 1)
    (tmp_path / "m.onnx").write_text("before")
    with pytest.raises(TraceError, match=r"own of float32\[3, 4\] cannot be written"):
        gp.onnx.save(own, tmp_path / "m.onnx", _x(3, 4))
    assert (tmp_path / "m.onnx").read_text() == "before"
    with pytest.raises(TraceError, match="random numbers"):
        gp.onnx.export(lambda x: x + gp.ops.uniform(x.shape), _x(3, 4))
    with pytest.raises(TraceError, match="changes num_batches_tracked"):
        gp.onnx.export(lambda x: norm(x), _x(3, 4), dynamic=False)


norm = nn.BatchNorm1d(4)
