"""PyTorch's own inputs for each module that gpubp has: outputs, gradients, state.

Forward in an eager call and in a compiled program, the gradient of every float input and of every
parameter in a compiled step on the CPU backend, names and shapes of the state, and the state after
a call. At the end a table says how many inputs passed, and what was left out, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import ShapeError

INSTALL = "needs PyTorch and expecttest: pip install 'gpubp[oracle]'"
torch = pytest.importorskip("torch", reason=INSTALL)
database = pytest.importorskip("module_database", reason=INSTALL)
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

# (module, description, training): what is refused here on purpose.
REFUSED = {("BatchNorm1d", "zero_batch", True): "an empty batch has no statistics"}

Counts = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Inputs by module, counted as they go, and shown when the last test is done."""
    found: Counts = {}
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *table(found), sep="\n")


def table(counts: Counts) -> list[str]:
    """One line a module, and the sums."""
    lines = [f"{'module':28s} passed applicable skipped"]
    for name, row in counts.items():
        lines.append(f"{name:28s} {row['passed']:6d} {row['applicable']:10d} {row['skipped']:7d}")
    sums = [sum(r[k] for r in counts.values()) for k in ("passed", "applicable", "skipped")]
    lines.append(f"{'all':28s} {sums[0]:6d} {sums[1]:10d} {sums[2]:7d}")
    lines += [f"skipped {name} ({what}): {why}" for (name, what, _), why in REFUSED.items()]
    others = database.unsupported()
    for why in dict.fromkeys(others.values()):
        lines.append(f"{why}: {', '.join(n for n, reason in others.items() if reason == why)}")
    return lines


def _assert_close(actual: Any, expected: Any, dtype: str, what: str) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
    error = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    assert error <= ORACLE[dtype] * np.abs(expected[finite]).max(initial=0.0), what


def _expected(sample: Any) -> tuple[Any, list[Any], Any]:
    """Torch's output, the gradients of inputs and parameters, and the cotangent."""
    leaves = [
        a.detach().clone().requires_grad_() if _floating(a) else a.detach() for a in sample.args
    ]
    out = sample.theirs(*leaves)
    rng = np.random.default_rng(1)
    cotangent = rng.standard_normal(tuple(out.shape)).astype(sample.dtype)
    wrt = [leaf for leaf in leaves if leaf.requires_grad] + list(sample.theirs.parameters())
    found = torch.autograd.grad(out, wrt, torch.from_numpy(np.array(cotangent)), allow_unused=True)
    zeros = [torch.zeros_like(w) if g is None else g for g, w in zip(found, wrt, strict=True)]
    return database.as_array(out), [database.as_array(g) for g in zeros], cotangent


def _floating(value: Any) -> bool:
    return bool(value.dtype.is_floating_point and value.requires_grad)


def _gradients(sample: Any, cotangent: Any) -> list[Any]:
    """Of the float inputs and the parameters, from one step of a compiled program."""
    arrays = [database.as_array(a) for a in sample.args]
    inputs = [
        nn.Parameter(a, name=f"input{i}") if _floating(given) else a
        for i, (a, given) in enumerate(zip(arrays, sample.args, strict=True))
    ]
    wrt = [p for p in inputs if isinstance(p, nn.Parameter)] + list(sample.mine.parameters())

    def loss(unused: Any) -> Any:
        total = ops.sum(ops.multiply(sample.mine(*inputs), cotangent))
        return total + 0.0 * ops.sum(unused)

    step = gp.compile_step(loss, optim.SGD(wrt, lr=0.0), backend="numba", keep_grads=True)
    step(np.zeros(1, sample.dtype))
    return step.grads


def _check(sample: Any) -> None:
    mine, dtype, label = sample.mine, sample.dtype, sample.label
    assert sample.state_names[0] == sample.state_names[1], label
    assert repr(mine) == repr(sample.theirs), label
    before = mine.state_dict()
    output, gradients, cotangent = _expected(sample)
    after = database.numbers(sample.theirs)
    arrays = [database.as_array(a) for a in sample.args]
    runs = {
        "eager": lambda: mine(*arrays),
        "compiled": lambda: gp.compile(mine, backend="numba")(*arrays),
    }
    for how, run in runs.items():
        mine.load_state_dict(before)
        _assert_close(run(), output, dtype, f"{label}: {how}")
        for name, value in mine.state_dict().items():
            _assert_close(value, after[name], dtype, f"{label}: state {name} after {how}")
    mine.load_state_dict(before)
    found = _gradients(sample, cotangent)
    assert len(found) == len(gradients), label
    for i, (actual, expected) in enumerate(zip(found, gradients, strict=True)):
        _assert_close(actual, expected, dtype, f"{label}: gradient {i}")


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.parametrize("info", database.supported(), ids=database.name_of)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_module_equals_torch(info: Any, dtype: str, counts: Counts) -> None:
    name = database.name_of(info)
    row = counts.setdefault(name, {"passed": 0, "applicable": 0, "skipped": 0})
    for training in database.modes(info):
        for sample in database.samples(info, dtype, training):
            refused = [k for k in REFUSED if k[0] == name and k[1] in sample.label]
            if any(k[2] == training for k in refused):
                row["skipped"] += 1
                with pytest.raises(ShapeError):
                    sample.mine(*[database.as_array(a) for a in sample.args])
                continue
            row["applicable"] += 1
            with np.errstate(all="ignore"):  # the database takes logarithms of negative numbers
                _check(sample)
            row["passed"] += 1


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_options_that_the_database_leaves_out(dtype: str) -> None:
    for sample in database.extra(dtype):
        _check(sample)


def test_every_other_module_has_a_reason() -> None:
    assert database.unsupported()
    assert not set(database.unsupported()) & {database.name_of(i) for i in database.supported()}
