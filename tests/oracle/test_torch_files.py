"""Weights to and from PyTorch by the same file."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import nn
from gpubp.errors import CheckpointError
from gpubp.train import load_model, load_weights, save_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
files = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
pytestmark = pytest.mark.oracle

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


def _ours():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3, bias=False)))


def _theirs():
    layers = torch.nn.Sequential(torch.nn.Linear(8, 3, bias=False))
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), layers)


def _outputs(model):
    return model(torch.from_numpy(X)).detach().numpy()


def test_pytorch_reads_our_file(tmp_path):
    path, ours, theirs = tmp_path / "m.safetensors", _ours(), _theirs()
    save_model(path, ours, {"note": "kept"})
    theirs.load_state_dict(files.load_file(path))
    np.testing.assert_allclose(_outputs(theirs), ours(X), rtol=1e-5, atol=1e-6)


def test_we_read_the_file_of_pytorch(tmp_path):
    path, ours, theirs = tmp_path / "m.safetensors", _ours(), _theirs()
    files.save_file(theirs.state_dict(), path)
    load_weights(path, ours)
    np.testing.assert_allclose(ours(X), _outputs(theirs), rtol=1e-5, atol=1e-6)
    with pytest.raises(CheckpointError, match="was not written by gpubp"):
        load_model(path)


def test_a_file_that_goes_there_and_back(tmp_path):
    path, ours, theirs = tmp_path / "m.safetensors", _ours(), _theirs()
    save_model(path, ours)
    theirs.load_state_dict(files.load_file(path))
    files.save_file(theirs.state_dict(), path)
    again = _ours()
    load_weights(path, again)
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    files.save_file(torch.nn.Linear(4, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*missing 0\.weight"):
        load_weights(path, _ours())
    with pytest.raises(CheckpointError, match=r"weight: got \(2, 4\), expected \(3, 4\)"):
        load_weights(path, nn.Linear(4, 3))
    files.save_file({"weight": torch.zeros(2, 4, dtype=torch.bfloat16)}, path)
    with pytest.raises(CheckpointError, match="weight has dtype BF16"):
        load_weights(path, nn.Linear(4, 2))


class _Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.last.weight = self.first.weight


class _Ours(nn.Module):
    def __init__(self, tie):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        if tie:
            self.last.weight = self.first.weight


@pytest.mark.parametrize("tie", [True, False])
def test_files_of_save_model_leave_out_tied_names(tmp_path, tie):
    path, theirs, ours = tmp_path / "m.safetensors", _Theirs(), _Ours(tie)
    files.save_model(theirs, path)
    load_weights(path, ours)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value.numpy())


def test_pytorch_reads_tied_weights_of_ours(tmp_path):
    path, theirs, ours = tmp_path / "m.safetensors", _Theirs(), _Ours(True)
    save_model(path, ours)
    theirs.load_state_dict(files.load_file(path))
    np.testing.assert_array_equal(theirs.last.weight.detach().numpy(), ours.first.weight.numpy())
