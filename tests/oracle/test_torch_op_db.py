"""PyTorch's own inputs for each op that gpubp has, or can write: values and gradients.

All inputs run at once, with NumPy; the first few of each op and dtype run compiled on the CPU
backend as well, with gradients of all float inputs by a random cotangent (every backend is compared
with the NumPy references elsewhere). At the end a table says how many inputs passed, what was
refused, and why.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

import gpubp as gp
from gpubp import ops
from gpubp.errors import DTypeError, GpubpError

INSTALL = "needs PyTorch and expecttest: pip install 'gpubp[oracle]'"
torch = pytest.importorskip("torch", reason=INSTALL)
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason=INSTALL)
database = pytest.importorskip("op_database", reason=INSTALL)

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

COMPILED = 4  # of the inputs of one op and dtype
LARGEST = 100_000  # elements of what is compiled; larger inputs run at once
MOST = 60  # inputs of one op and dtype; two ops have more
DTYPES = ("float64", "float32", "int64", "int32", "bool")


def name_of(info: Any) -> str:
    """`max/binary`."""
    variant = info.variant_test_name
    return f"{info.name}/{variant}" if variant else str(info.name)


INFOS = {name_of(info): info for info in methods.op_db}
CASES = [
    (name, dtype)
    for name in sorted(database.TABLE)
    for dtype in DTYPES
    if getattr(torch, dtype) in INFOS[name].dtypes
]


class Counts:
    """Inputs that passed, by dtype; and why others were refused, by op and reason."""

    def __init__(self) -> None:
        self.applicable: collections.Counter[str] = collections.Counter()
        self.passed: collections.Counter[str] = collections.Counter()
        self.compiled: collections.Counter[str] = collections.Counter()
        self.refused: dict[str, set[str]] = {}
        self.refusals = 0

    def refuse(self, name: str, dtype: str, why: str) -> None:
        self.refusals += 1
        self.refused.setdefault(why, set()).add(f"{name}")

    def lines(self) -> list[str]:
        found = [f"{'dtype':9s} passed applicable of them compiled"]
        for dtype in DTYPES:
            row = [c[dtype] for c in (self.passed, self.applicable, self.compiled)]
            found.append(f"{dtype:9s} {row[0]:6d} {row[1]:10d} {row[2]:16d}")
        found.append(f"refused: {self.refusals} inputs")
        found += [f"  {why}: {', '.join(sorted(n))}" for why, n in sorted(self.refused.items())]
        others = [n for n in INFOS if n not in database.TABLE]
        found.append(f"{len(database.TABLE)} ops of {len(INFOS)}; of the other {len(others)} few")
        found.append("are ops of gp.ops, though several could be composed of them:")
        why = database.LEFT_OUT
        for reason in dict.fromkeys(why.values()):
            found.append(f"  {reason}: {', '.join(n for n, r in why.items() if r == reason)}")
        return found


@pytest.fixture(scope="module")
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Counted as they go, and shown when the last test is done."""
    found = Counts()
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *found.lines(), sep="\n")


def _mapped(value: Any, leaf: Any) -> Any:
    """`leaf` of every tensor in a nest."""
    if isinstance(value, torch.Tensor):
        return leaf(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(v, leaf) for v in value)
    if isinstance(value, dict):
        return {k: _mapped(v, leaf) for k, v in value.items()}
    return value


def _outputs(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _numbers(tensor: Any) -> Any:
    return np.array(tensor.detach().numpy(force=True))


def _assert_close(
    actual: Any, expected: Any, what: str, scale: float = 0.0, dtype: str | None = None
) -> None:
    """Within the tolerance of `dtype` (default: its own), beside its largest number or `scale`."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
    scale = np.abs(expected[finite]).max(initial=scale)
    error = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    assert error <= ORACLE[dtype or str(expected.dtype)] * scale, f"{what}: {error} beside {scale}"


class Case:
    """One input: torch's call, gpubp's, and the tensors that are differentiated."""

    def __init__(self, name: str, sample: Any, dtype: str) -> None:
        self.name, self.dtype = name, dtype
        self.given = (sample.input, tuple(sample.args), dict(sample.kwargs))
        self.leaves: list[Any] = []

        def collect(t: Any) -> Any:
            wanted = t.requires_grad or (t is sample.input and dtype not in ORACLE)
            if wanted and not any(t is leaf for leaf in self.leaves):
                self.leaves.append(t)
            return t

        _mapped(self.given, collect)
        self.arrays = [_numbers(leaf) for leaf in self.leaves]
        self.size = sum(a.size for a in self.arrays)
        self.label = f"{name} {dtype} {sample.name or _mapped(self.given, lambda t: t.shape)}"

    def theirs(self) -> list[Any]:
        x, args, kwargs = self.given
        return _outputs(INFOS[self.name].op(x, *args, **kwargs))

    def mine(self, *arrays: Any) -> list[Any]:
        """On NumPy arrays or traced ones, in place of the leaves."""

        def leaf(t: Any) -> Any:
            found = [a for a, known in zip(arrays, self.leaves, strict=True) if known is t]
            return found[0] if found else _numbers(t)

        x, args, kwargs = _mapped(self.given, leaf)
        return _outputs(database.TABLE[self.name](x, *args, **kwargs))


def _gradients(case: Case, expected: list[Any]) -> tuple[list[Any], list[Any]]:
    """Of a sum with random weights: torch's, and from a compiled program."""
    rng = np.random.default_rng(0)
    floats = [i for i, t in enumerate(expected) if t.requires_grad]
    weights = {i: rng.standard_normal(tuple(expected[i].shape)) for i in floats}
    weights = {i: np.asarray(w, _numbers(expected[i]).dtype) for i, w in weights.items()}
    total = sum((expected[i] * torch.from_numpy(np.array(w))).sum() for i, w in weights.items())
    theirs = torch.autograd.grad(total, case.leaves, allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for x, g in zip(case.leaves, theirs)]

    def loss(*xs: Any) -> Any:
        out = case.mine(*xs)
        terms = [ops.sum(ops.multiply(out[i], w)) for i, w in weights.items()]
        found = terms[0]
        for term in terms[1:]:
            found = found + term
        return found

    positions = tuple(range(len(case.leaves)))
    grad = gp.grad(loss, argnums=positions)
    found = gp.compile(grad, backend="numba")(*case.arrays)
    return _outputs(found), [_numbers(g) for g in zeros]


def _check(case: Case, compiled: bool) -> None:
    expected = case.theirs()
    numbers = [_numbers(t) for t in expected]
    runs: dict[str, Any] = {"at once": lambda: case.mine(*case.arrays)}
    if compiled and case.leaves:
        program = gp.compile(lambda *xs: tuple(case.mine(*xs)), backend="numba")
        runs["compiled"] = lambda: program(*case.arrays)
    for how, run in runs.items():
        found = _outputs(run())
        assert len(found) == len(numbers), f"{case.label}: {how}"
        for a, b in zip(found, numbers, strict=True):
            floats = np.asarray(a).dtype == np.float32 and b.dtype.kind in "ib"
            _assert_close(a, b.astype(np.float32) if floats else b, f"{case.label}: {how}")
            if floats:
                database.refuse("whole numbers: the result is of floats (its values are right)")
    if compiled and any(t.requires_grad for t in expected):
        found, wanted = _gradients(case, expected)
        scale = max(float(np.abs(g[np.isfinite(g)]).max(initial=0.0)) for g in wanted)
        digits = "float32" if case.name in database.FEW_DIGITS else None
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            _assert_close(a, b, f"{case.label}: gradient {i}", scale, digits)


def _known(name: str, dtype: str, error: GpubpError) -> str:
    """Why gpubp refuses an input; the error itself if that is not known."""
    part, why = database.CHECKED.get(name, ("", ""))
    if part and part in str(error):
        return str(why)
    if dtype not in ORACLE and isinstance(error, DTypeError):
        return f"the dtype {dtype}"
    raise error


def test_what_is_left_out_is_known_there_and_not_compared() -> None:
    assert set(database.LEFT_OUT) <= set(INFOS) - set(database.TABLE)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_op_equals_torch(name: str, dtype: str, counts: Counts) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    wants = dtype in ORACLE and INFOS[name].supports_autograd
    samples = INFOS[name].sample_inputs("cpu", getattr(torch, dtype), requires_grad=wants)
    done = 0
    for i, sample in enumerate(samples):
        if i == MOST:
            break
        case = Case(name, sample, dtype)
        try:
            with np.errstate(all="ignore"):
                _check(case, done < COMPILED and case.size <= LARGEST)
        except database.RefusedError as why:
            counts.refuse(name, dtype, str(why))
            continue
        except GpubpError as error:
            counts.refuse(name, dtype, _known(name, dtype, error))
            continue
        counts.applicable[dtype] += 1
        counts.compiled[dtype] += done < COMPILED and case.size <= LARGEST
        counts.passed[dtype] += 1
        done += 1
