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
REFUSED = {
    (f"BatchNorm{n}d", "zero_batch", True): "an empty batch has no statistics" for n in (1, 2, 3)
}

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
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
    error = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    assert error <= ORACLE[dtype] * np.abs(expected[finite]).max(initial=0.0), what


def _several(out: Any) -> list[Any]:
    """All outputs, also those in tuples among them; the first one is differentiated."""
    if not isinstance(out, tuple):
        return [out]
    return [o for part in out if part is not None for o in _several(part)]


def _expected(sample: Any) -> tuple[list[Any], list[Any], Any]:
    """Torch's outputs, the gradients of inputs and parameters, and the cotangent."""
    given = database.tensors_of(sample.args)
    leaves = [a.detach().clone().requires_grad_() if _floating(a) else a for a in given]
    outputs = _several(sample.theirs(*database.with_arrays(sample.args, leaves)))
    out = outputs[0]
    rng = np.random.default_rng(1)
    cotangent = rng.standard_normal(tuple(out.shape)).astype(sample.dtype)
    wrt = [leaf for leaf in leaves if _floating(leaf)] + list(sample.theirs.parameters())
    found = torch.autograd.grad(out, wrt, torch.from_numpy(np.array(cotangent)), allow_unused=True)
    zeros = [torch.zeros_like(w) if g is None else g for g, w in zip(found, wrt, strict=True)]
    return [database.as_array(o) for o in outputs], [database.as_array(g) for g in zeros], cotangent


def _floating(value: Any) -> bool:
    tensor = isinstance(value, torch.Tensor)
    return bool(tensor and value.dtype.is_floating_point and value.requires_grad)


def _gradients(sample: Any, cotangent: Any) -> list[Any]:
    """Of the float inputs and the parameters, from one step of a compiled program."""
    arrays, given = database.arrays_of(sample.args), database.tensors_of(sample.args)
    inputs = [
        nn.Parameter(a, name=f"input{i}") if _floating(tensor) else a
        for i, (a, tensor) in enumerate(zip(arrays, given, strict=True))
    ]
    args = database.with_arrays(sample.args, inputs)
    wrt = [p for p in inputs if isinstance(p, nn.Parameter)] + list(sample.mine.parameters())

    def loss(unused: Any) -> Any:
        total = ops.sum(ops.multiply(_several(sample.mine(*args))[0], cotangent))
        return total + 0.0 * ops.sum(unused)

    step = gp.compile_step(loss, optim.SGD(wrt, lr=0.0), backend="numba", keep_grads=True)
    step(np.zeros(1, sample.dtype))
    return step.grads


def _check(sample: Any) -> None:
    mine, dtype, label = sample.mine, sample.dtype, sample.label
    assert sample.state_names[0] == sample.state_names[1], label
    assert repr(mine) == database.looks(sample.theirs), label
    before = mine.state_dict()
    outputs, gradients, cotangent = _expected(sample)
    after = database.numbers(sample.theirs)
    arrays = database.arrays_of(sample.args)

    def called(*given: Any) -> Any:
        return tuple(_several(mine(*database.with_arrays(sample.args, given))))

    runs = {
        "eager": lambda: called(*arrays),
        "compiled": lambda: gp.compile(called, backend="numba")(*arrays),
    }
    for how, run in runs.items():
        mine.load_state_dict(before)
        for actual, expected in zip(_several(run()), outputs, strict=True):
            _assert_close(actual, expected, dtype, f"{label}: {how}")
        for name, value in mine.state_dict().items():
            _assert_close(value, after[name], dtype, f"{label}: state {name} after {how}")
    mine.load_state_dict(before)
    found = _gradients(sample, cotangent)
    assert len(found) == len(gradients), label
    exact: list[Any] = []
    for i, (actual, expected) in enumerate(zip(found, gradients, strict=True)):
        try:
            _assert_close(actual, expected, dtype, f"{label}: gradient {i}")
        except AssertionError:
            if dtype == "float64":
                raise
            exact = exact or _expected(database.doubled(sample))[1]
            _assert_as_near(actual, expected, exact[i])


def _assert_as_near(actual: Any, expected: Any, exact: Any) -> None:
    """Where torch's float32 gradients are differences of larger numbers: within a few times the
    distance of its own ones from those in float64."""
    theirs = np.abs(expected - exact).max()
    assert np.abs(actual - exact).max() <= 4.0 * theirs


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
                    sample.mine(*database.arrays_of(sample.args))
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


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_options_of_images_that_the_database_leaves_out(dtype: str) -> None:
    for sample in database.extra_images(dtype):
        _check(sample)


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_options_of_attention_that_the_database_leaves_out(dtype: str) -> None:
    for sample in database.extra_attention(dtype):
        _check(sample)


def test_every_other_module_has_a_reason() -> None:
    assert database.unsupported()
    assert not set(database.unsupported()) & {database.name_of(i) for i in database.supported()}
