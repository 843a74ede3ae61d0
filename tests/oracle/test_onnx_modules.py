"""Every module of the oracle's database, written to ONNX and run by ONNX Runtime.

In eval mode and float32; models whose batch is free also run on a larger one. At the end a table
says how many passed, with a free batch and without.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

INSTALL = "needs PyTorch, onnx and onnxruntime: pip install 'gpubp[oracle]'"
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("onnx", reason=INSTALL)
pytest.importorskip("onnxruntime", reason=INSTALL)
database = pytest.importorskip("module_database", reason=INSTALL)
import onnx_more_modules as more  # noqa: E402 - beside this file
import onnx_runtime  # noqa: E402

import gpubp as gp  # noqa: E402
from gpubp import nn  # noqa: E402
from gpubp.errors import TraceError  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::UserWarning")]


class Counts:
    """Models that passed, by module."""

    def __init__(self) -> None:
        self.rows: dict[str, collections.Counter[str]] = {}

    def add(self, name: str, what: str) -> None:
        self.rows.setdefault(name, collections.Counter())[what] += 1

    def lines(self) -> list[str]:
        lines = [f"{'module':30s} passed: batch free, fixed; refused"]
        total = sum(self.rows.values(), collections.Counter())
        for name, row in {**self.rows, f"{len(self.rows)} modules": total}.items():
            numbers = "".join(f" {row[kind]:6d}" for kind in ("free", "fixed", "refused"))
            lines.append(f"{name:30s}{numbers}")
        return lines


@pytest.fixture(scope="module")
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Counted as they go, and shown when the last test is done."""
    found = Counts()
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *found.lines(), sep="\n")


def _check(sample: Any, counts: Counts) -> None:
    name = type(sample.mine).__name__
    sample.mine.eval()
    arrays = database.arrays_of(sample.args)

    def called(*given: Any) -> Any:
        return sample.mine(*database.with_arrays(sample.args, given))

    with np.errstate(all="ignore"):
        model = onnx_runtime.check(called, arrays, sample.label)
    counts.add(name, "free" if onnx_runtime.is_dynamic(model) else "fixed")


@pytest.mark.parametrize("info", database.supported(), ids=database.name_of)
def test_module_in_onnx_runtime(info: Any, counts: Counts) -> None:
    for sample in database.samples(info, "float32", False):
        _check(sample, counts)


@pytest.mark.parametrize("which", ["extra", "extra_images", "extra_attention"])
def test_options_in_onnx_runtime(which: str, counts: Counts) -> None:
    for sample in getattr(database, which)("float32"):
        _check(sample, counts)


def test_other_modules_in_onnx_runtime(counts: Counts) -> None:
    for module, arrays in more.cases():
        name = type(module).__name__
        module.eval()
        if any(isinstance(p, nn.parameter._Uninitialized) for p in module.parameters()):
            module(*arrays)
        if name in more.REFUSED:
            with pytest.raises(TraceError, match=more.REFUSED[name]):
                gp.onnx.export(module, *arrays)
            counts.add(name, "refused")
            continue
        model = onnx_runtime.check(module, arrays, name)
        counts.add(name, "free" if onnx_runtime.is_dynamic(model) else "fixed")


def test_every_layer_and_loss_is_among_them() -> None:
    public = [getattr(nn, name) for name in nn.__all__]
    layers = {c.__name__ for c in public if isinstance(c, type) and issubclass(c, nn.Module)}
    known = {database.name_of(info) for info in database.supported()}
    known |= {type(module).__name__ for module, _ in more.cases()} | more.HOLDERS
    known |= {type(sample.mine).__name__ for sample in database.extra("float32")}
    assert layers == known
