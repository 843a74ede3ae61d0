"""What a PyTorch user types either works, or ends in an error with the lines to write instead."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import errors, habits, nn, ops, optim

X = np.arange(6, dtype=np.float32).reshape(2, 3)
TABLES = [habits.ARRAY, habits.PARAMETER, habits.MODULE, habits.OPTIMIZER, habits.PACKAGE]
TABLES += [habits.OPS, habits.DATA]


def _model() -> Any:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _adam() -> Any:
    return optim.Adam(_model().parameters(), lr=0.1)


def _traced(fn: Callable[[Any], Any]) -> Any:
    return gp.compile(fn, backend="numpy")(X)


HABITS: dict[str, tuple[Callable[[], Any], str]] = {
    "zero_grad of an optimizer": (lambda: _adam().zero_grad(), "gp.compile_step("),
    "step": (lambda: _adam().step(), "loss = step(x, y)"),
    "zero_grad of a module": (lambda: _model().zero_grad(), "gp.compile_step("),
    "backward": (lambda: _traced(lambda x: x.mean().backward()), "gp.compile_step("),
    "grad": (lambda: _model()[0].weight.grad, "step.grads"),
    "cuda": (lambda: _model().cuda(), 'device="cuda"'),
    "to a GPU": (lambda: _model().to("cuda:0"), 'device="cuda"'),
    "to a GPU by name": (lambda: _model().to(device="cuda"), 'device="cuda"'),
    "half": (lambda: _model().half(), "GPUBP_PRECISION"),
    "to half": (lambda: _model().to("float16"), "GPUBP_PRECISION"),
    "a hook": (lambda: _model().register_forward_hook(print), "def forward"),
    "in place": (lambda: _traced(lambda x: x.add_(1.0)), "x = x + 1"),
    "in place, of a parameter": (lambda: _model()[0].weight.fill_(0.0), "value[...] = 0.0"),
    "requires_grad of an array": (lambda: _traced(lambda x: x.requires_grad_()), "gp.grad(f)"),
    "item": (lambda: _traced(lambda x: x.sum().item()), "item()"),
    "numpy": (lambda: _traced(lambda x: x.numpy()), "predict = gp.compile(f)"),
    "values of max": (lambda: _traced(lambda x: x.max(1).values), "Leave .values out"),
    "max by dim": (lambda: _traced(lambda x: x.max(dim=1)), "axis=1"),
    "gather in torch's order": (lambda: ops.gather(X, 1, np.array([[0], [1]])), "gather_along"),
    "gather by dim": (lambda: ops.gather(X, dim=1, index=X), "gather_along"),
    "std": (lambda: _traced(lambda x: x.std()), "correction=0"),
    "repeat": (lambda: _traced(lambda x: x.repeat(2, 1)), "gp.ops.tile"),
    "transpose of two axes": (lambda: _traced(lambda x: x[None].transpose(1, 2)), "swapaxes"),
    "view as another dtype": (lambda: _traced(lambda x: x.view("int32")), "x.astype(dtype)"),
    "a loader": (lambda: gp.data.DataLoader, "step.run(X, y"),
    "take_along_axis": (lambda: ops.take_along_axis, "gather_along"),
    "summary of an array": (lambda: nn.summary(_model(), X), "array.shape"),
    "no_grad": (lambda: gp.no_grad(), "model.eval()"),
    "tensor": (lambda: gp.tensor([1.0]), "np.asarray"),
    "randn": (lambda: gp.randn(2), "default_rng"),
    "randn of ops": (lambda: ops.randn(2), "default_rng"),
    "load": (lambda: gp.load("m.pt"), "load_state_dict"),
    "DataLoader": (lambda: gp.utils.data.DataLoader, "trainer.fit(X, y"),
    "device": (lambda: gp.device("cuda"), 'device="cuda"'),
}


@pytest.mark.parametrize("name", HABITS)
def test_an_error_shows_the_lines_to_write(name: str) -> None:
    call, lines = HABITS[name]
    with pytest.raises(errors.GpubpError, match=re.escape(lines)):
        call()


def test_every_name_of_gpubp_that_a_hint_shows_is_there() -> None:
    for text in {text for table in TABLES for text in table.values()}:
        for dotted in re.findall(r"gp((?:\.[A-Za-z]\w*)+)", text.replace("{plain}", "exp")):
            found: Any = gp
            for name in dotted.split(".")[1:]:
                found = getattr(found, name)


def test_hints_are_of_names_that_are_not_there() -> None:
    optimizer, buffer = _adam(), nn.Buffer(X)
    for owner, table in ((_model(), habits.MODULE), (optimizer, habits.OPTIMIZER)):
        assert not [name for name in table if hasattr(owner, name)]
    assert not [name for name in habits.PACKAGE if hasattr(gp, name)]
    assert {n for n in habits.ARRAY if hasattr(buffer, n)} <= {"data", "item", "numpy", "tolist"}


def test_python_names_the_nearest_attribute_of_one_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as caught:
        ops.softmx(X)
    assert caught.value.name == "softmx" and caught.value.obj is ops
    assert {"softmax", "unsqueeze", "mean"} <= set(dir(nn.Buffer(X)))


def test_parameters_have_torchs_names() -> None:
    weight = nn.Linear(3, 2).weight
    assert (weight.numel(), weight.dim()) == (6, 2)
    assert weight.data is weight.value
    weight.data *= 0.0
    weight.data[0, 1] = 3.0
    assert weight.value.sum() == 3.0 and weight.tolist()[0] == [0.0, 3.0, 0.0]
    np.testing.assert_array_equal(weight.detach(), weight.value)
    assert nn.Buffer(np.float32(2.5)).item() == 2.5


@pytest.mark.parametrize("read", [lambda p: p.data, lambda p: p.item(), lambda p: p.tolist()])
def test_numbers_of_parameters_are_not_frozen_into_programs(read: Callable[[Any], Any]) -> None:
    weight = nn.Parameter(np.float32(2.0))
    with pytest.raises(errors.TraceError, match="frozen into the program"):
        _traced(lambda x: x * read(weight))


def test_arguments_go_by_both_names() -> None:
    np.testing.assert_array_equal(ops.softmax(X, dim=1), ops.softmax(X, axis=1))
    np.testing.assert_array_equal(ops.mean(X, dim=0, keepdim=True), ops.mean(X, 0, True))
    np.testing.assert_array_equal(ops.cumsum(X, axis=1), ops.cumsum(X, 1))
    np.testing.assert_array_equal(ops.cat([X, X], dim=1), ops.concat([X, X], 1))
    np.testing.assert_array_equal(ops.flip(X, axis=1), ops.flip(X, 1))
    np.testing.assert_array_equal(ops.flatten(X, start_dim=0), X.ravel())
    np.testing.assert_array_equal(ops.norm(X, p=1, dim=1), ops.norm(X, 1, 1))


def test_every_function_with_an_axis_takes_dim() -> None:
    names = [n for n in ops.__all__ if {"axis", "keepdims"} & set(_arguments(getattr(ops, n)))]
    assert len(names) > 25
    for name in names:
        with pytest.raises(errors.ArgumentError, match=r"give one of them|torch's"):
            getattr(ops, name)(X, dim=1, axis=1)


def _arguments(fn: Any) -> list[str]:
    import inspect

    return list(inspect.signature(fn).parameters) if inspect.isfunction(fn) else []


@pytest.mark.parametrize(
    "call", [lambda: ops.mean(X, 1, dim=1), lambda: ops.mean(X, dim=1, axis=1)]
)
def test_an_argument_under_both_names_is_an_error(call: Callable[[], Any]) -> None:
    with pytest.raises(errors.ArgumentError, match="dim is another name of axis"):
        call()


def test_functions_are_pickled_by_their_names() -> None:
    assert pickle.loads(pickle.dumps(ops.softmax)) is ops.softmax


def test_a_model_is_converted_before_its_first_step() -> None:
    model = _model()
    before = model.state_dict()
    assert model.double() is model and model.to("cpu") is model and model.cpu() is model
    kinds = {k: v.dtype.name for k, v in model.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == "int64" and set(kinds.values()) == {"float64"}
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    wide = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    assert model(wide).dtype == np.float64
    step = gp.compile_step(lambda x: ops.mean(model(x) ** 2), optim.Adam(model.parameters()))
    first = step(wide)
    assert step(wide) < first
    with pytest.raises(errors.DTypeError, match="load_state_dict"):
        model.float()
    assert copy.deepcopy(model).float()(X).dtype == np.float32
    assert nn.LazyLinear(2).double()(wide).dtype == np.float64


def test_a_model_takes_dtypes_of_floats_only() -> None:
    with pytest.raises(errors.DTypeError, match="float32 or float64"):
        _model().to("int64")


def test_the_folder_of_backends_is_the_function_too() -> None:
    import gpubp.backends.numpy as reference

    assert gp.backends.numpy is reference  # type: ignore[attr-defined]
    assert [probe.name for probe in gp.backends()][:2] == ["numba", "numpy"]
