"""ONNX Runtime beside gpubp: a model is written, checked, run on the same arrays and on a larger
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

import gpubp as gp
from gpubp.core import tree

TOLERANCE = 1e-5  # of the largest expected number, or of 1


def session(model: Any) -> Any:
    """What runs a model, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def run(model: Any, arrays: Sequence[Any]) -> list[Any]:
    """Its outputs."""
    ready = session(model)
    given = {i.name: a for i, a in zip(ready.get_inputs(), arrays, strict=False)}
    return list(ready.run(None, given))


def assert_equal(found: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    assert len(found) == len(expected), what
    for a, b in zip(found, expected, strict=True):
        b = np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), what
        if b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=what)
            continue
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=what)
        most = np.abs(b[finite]).max(initial=1.0)
        assert np.abs(a[finite] - b[finite]).max(initial=0.0) <= TOLERANCE * most, what


def is_dynamic(model: Any) -> bool:
    """Its first input has a size that is called `batch`."""
    sizes = [d for v in model.graph.input for d in v.type.tensor_type.shape.dim]
    return any(d.dim_param == "batch" for d in sizes)


def check(fn: Callable[..., Any], arrays: Sequence[Any], what: str, **options: Any) -> Any:
    """Written and run; the model."""
    model = gp.onnx.export(fn, *arrays, **options)
    expected = tree.flatten(fn(*arrays))[0]
    used = [a for a in arrays if a is not None]
    assert_equal(run(model, used), expected, what)
    if is_dynamic(model):
        larger = [_with_more(a, v) for a, v in zip(arrays, model.graph.input, strict=True)]
        expected = tree.flatten(fn(*larger))[0]
        assert_equal(run(model, larger), expected, f"{what}: another batch")
    return model


def _with_more(array: Any, info: Any) -> Any:
    """Two rows more along the axis of the batch, if there is one."""
    names = [d.dim_param for d in info.type.tensor_type.shape.dim]
    if "batch" not in names:
        return array
    axis = names.index("batch")
    some = array if array.shape[axis] else np.ones([n or 1 for n in array.shape], array.dtype)
    return np.concatenate([array, np.take(some, [0, 0], axis)], axis)
