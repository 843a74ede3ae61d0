"""Modules: registration, names, modes, state, errors. Their numbers are checked in tests/oracle."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from gpubp import nn, ops
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType
from gpubp.errors import DataError, DTypeError, ShapeError, TraceError, UnknownNameError
from gpubp.runtime.function import compile_function


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.gain = nn.Parameter(np.ones(2, np.float32))
        self.register_buffer("shift", np.array([1.0, 2.0], np.float32))
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(2, 2, bias=False))

    def forward(self, x):
        return self.layers(self.first(x) * self.gain + self.shift)


NAMES = ["gain", "shift", "first.weight", "first.bias", "layers.1.weight"]


def test_state_dict_lists_everything_by_dotted_name():
    assert list(Scaled().state_dict()) == NAMES


def test_parameters_leave_out_buffers():
    model = Scaled()
    assert [n for n, _ in model.named_parameters()] == [n for n in NAMES if n != "shift"]
    assert [n for n, _ in model.named_buffers()] == ["shift"]
    assert [p.name for p in model.parameters()] == [n for n in NAMES if n != "shift"]


def test_a_shared_parameter_is_listed_once_and_saved_twice():
    model = Scaled()
    model.tied = model.first
    assert len(list(model.parameters())) == 4
    assert {"first.weight", "tied.weight"} <= set(model.state_dict())
    assert model.first.weight.name == "first.weight"


def test_modules_and_children():
    model = Scaled()
    assert [n for n, _ in model.named_modules()] == ["", "first", "layers", "layers.0", "layers.1"]
    assert list(model.children()) == [model.first, model.layers]


def test_eager_call_equals_compiled_call():
    model = Scaled()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    eager = model(x)
    expected = np.maximum(
        (x @ model.first.weight.value.T + model.first.bias.value) * model.gain.value
        + model.shift.value,
        0,
    )
    np.testing.assert_allclose(eager, expected @ model.layers[1].weight.value.T, rtol=1e-5)
    np.testing.assert_allclose(compile_function(model, backend="numpy")(x), eager, rtol=1e-5)


def test_train_and_eval_reach_all_submodules():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    assert model.training
    assert model.eval() is model
    assert [m.training for m in model.modules()] == [False] * 4
    model.train()
    assert all(m.training for m in model.modules())


def test_dropout_masks_in_train_mode_only_and_a_compiled_one_follows_the_mode():
    model = nn.Dropout(0.25)
    x = np.ones((100, 50), np.float32)
    for call in (model, compile_function(model, backend="numpy")):
        model.train()
        out = call(x)
        np.testing.assert_allclose(np.unique(out), [0.0, 4.0 / 3.0], rtol=1e-6)
        # 5000 draws at p = 0.25 have a standard deviation of 31.
        assert abs((out == 0).sum() - 1250) < 5 * 31
        assert (call(x) != out).any()
        model.eval()
        np.testing.assert_array_equal(call(x), x)


def test_dropout_uses_its_own_generator():
    x = np.ones((8, 8), np.float32)
    runs = [nn.Dropout(0.5, generator=ops.Generator(seed))(x) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_state_dict_holds_copies_and_round_trips():
    model, other = Scaled(), Scaled()
    state = model.state_dict()
    state["gain"][:] = 7.0
    assert model.gain.value.tolist() == [1.0, 1.0]
    result = other.load_state_dict(state)
    assert result == ([], [])
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_load_state_dict_writes_into_the_live_array():
    model = nn.Linear(2, 1)
    alive = model.weight.value
    model.load_state_dict({"weight": [[3.0, 4.0]], "bias": [5.0]})
    assert alive.tolist() == [[3.0, 4.0]]


def test_load_state_dict_names_what_is_missing_and_what_is_unexpected():
    model = nn.Linear(2, 1)
    before = model.state_dict()
    with pytest.raises(UnknownNameError, match=r"missing bias; unexpected offset"):
        model.load_state_dict({"weight": np.zeros((1, 2)), "offset": 0.0})
    np.testing.assert_array_equal(model.state_dict()["weight"], before["weight"])
    result = model.load_state_dict({"weight": np.zeros((1, 2)), "offset": 0.0}, strict=False)
    assert result.missing_keys == ["bias"]
    assert result.unexpected_keys == ["offset"]
    assert model.weight.value.tolist() == [[0.0, 0.0]]


def test_load_state_dict_with_a_wrong_shape_changes_nothing():
    model = nn.Linear(2, 1)
    before = model.state_dict()
    with pytest.raises(ShapeError, match=r"bias: got \(3,\), expected \(1,\)"):
        model.load_state_dict({"weight": np.zeros((1, 2)), "bias": np.zeros(3)})
    np.testing.assert_array_equal(model.state_dict()["weight"], before["weight"])


def test_sequential_indexing_length_and_append():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert model.append(nn.Linear(3, 1)) is model
    assert len(model) == 3
    assert list(model)[-1] is model[-1] is model[2]
    part = model[1:]
    assert list(part) == [model[1], model[2]]
    assert model[2].weight.name == "2.weight"
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(TypeError, match="takes modules, got function"):
        nn.Sequential(lambda x: x)


def test_repr_shows_the_tree():
    expected = (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): GELU(approximate='tanh')\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.GELU("tanh")))) == expected


def test_initial_weights_are_reproducible_and_bounded():
    ops.manual_seed(5)
    first = nn.Linear(16, 8)
    ops.manual_seed(5)
    second, third = nn.Linear(16, 8), nn.Linear(16, 8)
    np.testing.assert_array_equal(first.weight.value, second.weight.value)
    assert (second.weight.value != third.weight.value).all()
    assert 0.2 < np.abs(first.weight.value).max() <= 0.25


def test_float32_and_float64_models_start_alike():
    ops.manual_seed(5)
    narrow = nn.Linear(4, 3).weight.value
    ops.manual_seed(5)
    wide = nn.Linear(4, 3, dtype="float64").weight.value
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_replacing_a_registered_attribute():
    model = nn.Linear(2, 2)
    model.bias = None
    assert list(model.state_dict()) == ["weight"]
    model.weight = nn.Parameter(np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(model(np.ones((1, 2), np.float32)), [[0.0, 0.0]])
    with pytest.raises(TypeError, match=r"write weight\.value"):
        model.weight = np.zeros((2, 2))
    del model.weight
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        model.weight  # noqa: B018


def test_forgetting_super_init_is_explained():
    class Broken(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\)"):
        Broken()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_of_a_model_is_whole_and_independent(duplicate, packed):
    model = Scaled()
    x = np.ones((2, 3), np.float32)
    if packed:
        compile_function(model, backend="numpy")(x)
        assert model.gain.bank is not None
    twin = duplicate(model)
    np.testing.assert_array_equal(twin(x), model(x))
    twin.gain.value[:] = 9.0
    assert model.gain.value.tolist() == [1.0, 1.0]
    # Both what is computed eagerly and what a program reads is the copy's own array.
    np.testing.assert_allclose(compile_function(twin, backend="numpy")(x), twin(x), rtol=1e-6)


def test_parameters_take_part_in_arithmetic():
    p = nn.Parameter(np.array([1.0, 2.0], np.float32))
    np.testing.assert_array_equal(p * 2.0 + 1.0, [3.0, 5.0])
    np.testing.assert_array_equal(np.array([3.0, 4.0], np.float32) - p, [2.0, 2.0])
    np.testing.assert_array_equal(np.asarray(p), [1.0, 2.0])
    assert len(p) == 2


def test_a_numpy_function_of_a_parameter_inside_a_trace_is_an_error():
    p = nn.Parameter(np.ones(2, np.float32))
    with pytest.raises(TraceError, match="would be frozen into the program"):
        trace(lambda x: x + np.asarray(p), [ArrayType((2,), np.dtype("float32"))])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), ShapeError, "in_features=0"),
        (lambda: nn.Linear(3, 3)(np.ones((2, 4), np.float32)), ShapeError, r"\(2, 4\), expected"),
        (lambda: nn.GELU("erf"), UnknownNameError, "unknown approximation 'erf'"),
        (lambda: nn.Dropout(1.5), DataError, r"in \[0, 1\], got 1.5"),
        (lambda: nn.MSELoss("meen"), UnknownNameError, "Did you mean 'mean'"),
        (lambda: nn.Parameter(np.arange(3)), DTypeError, "float dtype"),
        (lambda: nn.Module()(1), NotImplementedError, "no forward"),
    ],
)
def test_wrong_arguments_of_modules_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


LOGITS = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("loss", "given", "target", "error", "message"),
    [
        (nn.MSELoss(), LOGITS, np.zeros(4, np.float32), ShapeError, "equal shapes"),
        (nn.CrossEntropyLoss(), LOGITS, np.zeros((4, 1), np.int64), ShapeError, r"\(N, C\)"),
        (nn.CrossEntropyLoss(), LOGITS[0], np.zeros(3, np.int64), ShapeError, r"\(N, C\)"),
        (nn.CrossEntropyLoss(), LOGITS, np.zeros(4, np.float32), DTypeError, "class indices"),
        (nn.CrossEntropyLoss(), LOGITS, np.array([0, 1, 2, 3]), DataError, "3"),
        (nn.CrossEntropyLoss(), LOGITS.astype(int), np.zeros(4, int), DTypeError, "float logits"),
    ],
)
def test_losses_refuse_what_does_not_fit(loss, given, target, error, message):
    with pytest.raises(error, match=message):
        loss(given, target)


def test_cross_entropy_of_equal_logits_is_log_of_classes():
    labels = np.array([0, 1, 2, 0])
    np.testing.assert_allclose(nn.CrossEntropyLoss()(LOGITS, labels), np.log(3), rtol=1e-6)
    assert nn.CrossEntropyLoss(reduction="none")(LOGITS, labels).shape == (4,)
