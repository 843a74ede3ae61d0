"""PyTorch's side of the page for its users: it runs, and every name of torch on it exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "migration.md").read_text()


def test_the_blocks_of_torch_run() -> None:
    space: dict[str, object] = {}
    blocks = re.findall(r"```py\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, space)  # the repository's own page
    assert space["accuracy"] > 0.8


def test_names_of_torch_are_there() -> None:
    import torch.func
    import torch.utils.checkpoint

    for dotted in set(re.findall(r"`torch((?:\.[A-Za-z]\w*)+)`", TEXT)):
        found = torch
        for name in dotted.split(".")[1:]:
            found = getattr(found, name)
