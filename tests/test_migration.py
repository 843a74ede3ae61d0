"""The page for PyTorch's users names what there is, and says of everything that is not what to do.

Its Python blocks are run by `test_docs.py`, PyTorch's by `oracle/test_torch_migration.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gpubp as gp
from gpubp import habits, nn, ops
from gpubp.ops.torch_names import ALIASES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migration.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| torch | gpubp")
]
STARTS: dict[str, Any] = {"gp": gp, "gpubp": gp, "ops": ops, "nn": nn}


def _names(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])(?:gp|gpubp|ops|nn)(?:\.[A-Za-z]\w*)+", text)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_what_there_is(row: list[str]) -> None:
    assert len(row) == 3
    for dotted in _names(row[1]):
        start, *rest = dotted.split(".")
        found = STARTS[start]
        for name in rest:
            found = getattr(found, name)


def test_the_whole_page_names_what_there_is() -> None:
    text = re.sub(r"```py\n.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    assert len(ROWS) > 30
    for dotted in {name for name in _names(text) if not name.startswith("nn.functional")}:
        start, *rest = dotted.split(".")
        if dotted in ("gpubp.torch",):
            continue
        found = STARTS[start]
        for name in rest:
            found = getattr(found, name)


def test_every_other_name_stands_on_the_page_with_what_it_is() -> None:
    shown = dict(re.findall(r"`(\w+)` \(`ops\.(\w+)`\)", " ".join(PAGE.read_text().split())))
    assert shown == dict(ALIASES)


def test_what_hints_are_of_stands_on_the_page() -> None:
    text = PAGE.read_text()
    asked = {"backward", "zero_grad", "step", "grad", "cuda", "half", "no_grad", "tensor", "randn"}
    asked |= {
        "save",
        "load",
        "DataLoader",
        "register_forward_hook",
        "std",
        "repeat",
        "sort",
        "data",
    }
    known = {**habits.ARRAY, **habits.MODULE, **habits.OPTIMIZER, **habits.PACKAGE}
    assert asked <= set(known)
    assert not [name for name in asked if not re.search(rf"\b{name}\b", text)]
