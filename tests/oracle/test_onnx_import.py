"""Files of ONNX as modules: gpubp's own round trips, PyTorch's exports, what is refused."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

INSTALL = "needs onnx and onnxruntime: pip install 'gpubp[oracle]'"
onnx = pytest.importorskip("onnx", reason=INSTALL)
pytest.importorskip("onnxruntime", reason=INSTALL)
import onnx_runtime  # noqa: E402 - beside this file
from onnx import helper  # noqa: E402

import gpubp as gp  # noqa: E402
from gpubp import nn, ops, optim  # noqa: E402
from gpubp.core import tree  # noqa: E402
from gpubp.errors import ArgumentError, CheckpointError, OperatorError, ShapeError  # noqa: E402

pytestmark = pytest.mark.oracle
FLOAT = onnx.TensorProto.FLOAT


def _x(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class _Tagger(nn.Module):
    """Tokens to labels, by an embedding and a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.rnn = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.rnn(self.embedding(tokens))[0])


def _network() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5), nn.LayerNorm(5), nn.Tanh())
    return nn.Sequential(model, nn.Linear(5, 3))


MODELS = {
    "network": (_network, [_x(6, 1, 8, 8)]),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 2)), [_x(6, 4)]),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), [_x(6, 5, 8)]),
    "lstm": (lambda: nn.LSTM(4, 5, 2, batch_first=True), [_x(6, 7, 4)]),
    "tagger": (_Tagger, [np.arange(24).reshape(6, 4) % 10]),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_has_the_same_names_numbers_and_gradients(name: str, tmp_path: Path) -> None:
    """Export, import, train: both take the same steps."""
    make, arrays = MODELS[name]
    gp.manual_seed(1)
    model = make().eval()
    gp.onnx.save(model, tmp_path / "m.onnx", *arrays)
    other = gp.onnx.load(tmp_path / "m.onnx")
    assert dict(other.named_parameters()).keys() == dict(model.named_parameters()).keys()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[key])
    losses = [_trained(m, arrays) for m in (model, other)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(other.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def _trained(model: nn.Module, arrays: Any) -> Any:
    def loss(*given: Any) -> Any:
        y = tree.flatten(model(*given))[0][0]
        return ops.mean(ops.square(ops.subtract(y, 0.5)))

    step = gp.compile_step(loss, optim.SGD(model.parameters(), lr=0.02), backend="numba")
    return [step(*arrays) for _ in range(12)]


def test_an_imported_model_is_exported_again(tmp_path: Path) -> None:
    make, arrays = MODELS["network"]
    first = gp.onnx.from_model(gp.onnx.export(make(), *arrays))
    again = onnx_runtime.check(first, arrays, "exported again")
    second = gp.onnx.from_model(again)
    assert [n for n, _ in second.named_parameters()] == [n for n, _ in first.named_parameters()]


def test_copies_and_new_parameters_are_used() -> None:
    first = gp.onnx.from_model(gp.onnx.export(nn.Sequential(nn.Linear(4, 3)), (None, 4)))
    x, before = _x(5, 4), first(_x(5, 4))
    other = copy.deepcopy(first)
    _trained(other, [x])
    np.testing.assert_array_equal(first(x), before)
    assert np.abs(other(x) - before).max() > 1e-3
    run = gp.compile(first)
    np.testing.assert_allclose(run(x), before, rtol=1e-5)
    layer = first.get_submodule("0")
    layer.weight = nn.Parameter(np.zeros((3, 4), np.float32))
    np.testing.assert_allclose(run(x), np.broadcast_to(layer.bias.value, (5, 3)))
    assert "input -> output" in repr(first)


def test_an_export_has_the_same_bytes_each_time() -> None:
    model = nn.GRU(4, 3, bidirectional=True)
    first, second = (gp.onnx.export(model, _x(5, 2, 4)).SerializeToString() for _ in range(2))
    assert first == second


def test_torch_exports_are_read_with_their_names_and_train() -> None:
    torch = pytest.importorskip("torch", reason=INSTALL)

    class Net(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
            self.dense, self.scale = torch.nn.Linear(128, 5), torch.nn.LayerNorm(5)
            self.lstm = torch.nn.LSTM(5, 6, batch_first=True)

        def forward(self, x: Any) -> Any:
            h = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1)
            h = self.scale(torch.nn.functional.gelu(self.dense(h)))
            return self.lstm(h[:, None].repeat(1, 3, 1))[0].mean(1)

    torch.manual_seed(0)
    theirs = Net().eval()
    theirs.norm.running_mean += 0.3
    theirs.norm.running_var += 0.2
    x = torch.randn(2, 3, 8, 8)
    expected = theirs(x).detach().numpy()
    for opset in (9, 12, 13, 18):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                theirs, (x,), file, opset_version=opset, dynamo=False, do_constant_folding=False
            )
        mine = gp.onnx.from_model(onnx.load_from_string(file.getvalue()))
        np.testing.assert_allclose(mine(x.numpy()), expected, atol=1e-6)
        np.testing.assert_allclose(gp.compile(mine)(x.numpy()), expected, atol=1e-6)
        names = {n for n, _ in theirs.named_parameters()}
        assert {n for n, _ in mine.named_parameters()} == names
        buffers = {n for n, _ in mine.named_buffers()}
        assert buffers == {"norm.running_mean", "norm.running_var"}
        losses = _trained(mine, [x.numpy()])
        assert losses[-1] < losses[0]


def test_a_statistic_that_was_merged_with_a_weight_does_not_train() -> None:
    """PyTorch's exporter makes one initialiser of a fresh scale and a fresh variance."""
    nodes = [helper.make_node("BatchNormalization", ["x", "ones", "b", "b", "ones"], ["y"])]
    tensors = [_tensor("ones", np.ones(3, np.float32)), _tensor("b", np.zeros(3, np.float32))]
    found = gp.onnx.from_model(_model(nodes, tensors))
    assert [n for n, _ in found.named_parameters()] == ["ones", "b"]
    assert [n for n, _ in found.named_buffers()] == ["b_statistic", "ones_statistic"]
    before = found.state_dict()
    _trained(found, [_x(6, 3)])
    after = found.state_dict()
    assert all(np.array_equal(before[n], after[n]) == ("statistic" in n) for n in before)


def _model(nodes: list[Any], initializers: Any = (), opset: int = 20, kind: int = FLOAT) -> Any:
    x = helper.make_tensor_value_info("x", kind, ["n", 3])
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _tensor(name: str, value: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def test_weights_are_known_by_their_places_or_told() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["a"]),
        helper.make_node("Add", ["a", "train"], ["b"]),
        helper.make_node("Clip", ["b", "low"], ["c"]),
        helper.make_node("Mul", ["c", "two"], ["y"]),
    ]
    weights = {"w": _x(4, 3), "train": _x(4), "low": np.float32(0), "two": np.float32(2)}
    model = _model(nodes, [_tensor(n, v) for n, v in weights.items()])
    found = gp.onnx.from_model(model)
    assert [n for n, _ in found.named_parameters()] == ["w", "train_"]  # `train` is a method
    expected = 2 * np.maximum(_x(5, 3) @ weights["w"].T + weights["train"], 0)
    np.testing.assert_allclose(found(_x(5, 3)), expected, rtol=1e-6)
    np.testing.assert_allclose(found(x=_x(5, 3)), expected, rtol=1e-6)
    for told, names in (("none", []), (["train"], ["train_"]), (["w", "two"], ["w", "two"])):
        some = gp.onnx.from_model(model, told)
        assert [n for n, _ in some.named_parameters()] == names
        np.testing.assert_allclose(some(_x(5, 3)), expected, rtol=1e-6)
    assert len(list(gp.onnx.from_model(model, "all").parameters())) == 4
    with pytest.raises(ArgumentError, match="no float initialiser 'v'"):
        gp.onnx.from_model(model, ["v"])
    with pytest.raises(ArgumentError, match='expected "weights", "all"'):
        gp.onnx.from_model(model, "some")
    with pytest.raises(ArgumentError, match="the graph takes x"):
        found(_x(5, 3), _x(5, 3))


def test_what_cannot_be_read_names_node_operator_and_opset(tmp_path: Path) -> None:
    unknown = _model([helper.make_node("NonZero", ["x"], ["y"], name="places")])
    with pytest.raises(OperatorError, match=r"NonZero 'places' \(opset 20\)"):
        gp.onnx.from_model(unknown)
    other = _model([helper.make_node("Magic", ["x"], ["y"], domain="here")])
    with pytest.raises(OperatorError, match=r"Magic 'y' \(opset 20\) of here"):
        gp.onnx.from_model(other)
    drawn = [_tensor("r", np.float32(0.5)), _tensor("t", True)]
    option = gp.onnx.from_model(
        _model([helper.make_node("Dropout", ["x", "r", "t"], ["y"])], drawn)
    )
    with pytest.raises(OperatorError, match=r"Dropout 'y' .*random numbers"):
        option(_x(2, 3))
    wrong = gp.onnx.from_model(_model([helper.make_node("MatMul", ["x", "w"], ["y"])], [
        _tensor("w", _x(4, 2))
    ]))  # fmt: skip
    with pytest.raises(ShapeError, match="MatMul 'y'"):
        wrong(_x(2, 3))
    half = _model([helper.make_node("Add", ["x", "w"], ["y"])], [
        _tensor("w", np.float16(1))
    ], kind=onnx.TensorProto.FLOAT16)  # fmt: skip
    with pytest.raises(OperatorError, match="float16"):
        gp.onnx.from_model(half)
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("text.onnx", "none.onnx"):
        with pytest.raises(CheckpointError, match=name):
            gp.onnx.load(tmp_path / name)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("out_back", [False, True])
def test_scans_in_both_directions_along_any_axis(back: bool, out_back: bool) -> None:
    """A running sum, as ONNX Runtime has it."""
    info = [helper.make_tensor_value_info(n, FLOAT, [2]) for n in ("s", "e", "s2", "o")]
    body = [
        helper.make_node("Add", ["s", "e"], ["s2"]),
        helper.make_node("Identity", ["s2"], ["o"]),
    ]
    options = {"scan_input_directions": [int(back)], "scan_output_directions": [int(out_back)]}
    options |= {"scan_input_axes": [1], "scan_output_axes": [1]}
    node = helper.make_node(
        "Scan",
        ["zero", "x"],
        ["last", "y"],
        num_scan_inputs=1,
        body=helper.make_graph(body, "body", info[:2], info[2:]),
        **options,
    )
    model = _model([node], [_tensor("zero", np.zeros(2, np.float32))])
    x = _x(2, 3)
    np.testing.assert_allclose(gp.onnx.from_model(model)(x), onnx_runtime.run(model, [x])[0])
