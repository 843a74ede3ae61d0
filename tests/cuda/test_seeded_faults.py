"""Seeded faults in the CUDA backend: each must make a check fail that the healthy code passes.

A fault is a change of text in the sources on their way to the compiler, or of the host's code. The
checks are small forms of those in the other files here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import shim_build
import staged_conv_calls
from attention_rows import attention_rows, attention_shapes
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from conv_rows import OPS, conv_row, geometry
from products import operands
from shim_backend import shim_backend
from shim_build import KERNELS
from shim_driver import ORDERS, ShimDriver, ShimKernels
from specs import cases
from test_conformance import compare
from test_precision_on_shim import rounded
from test_programs_on_shim import _scheduled, agree, trained
from tolerances import assert_close, assert_product

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import staged
from gpubp.backends.cuda.memory import BankCopy
from gpubp.core import bind
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

Check = Callable[[CupyBackend], None]
CAUGHT = (AssertionError, BackendError)


class FaultyDriver(ShimDriver):
    """Changes one text in every source that has it.

    Attributes:
        changed: how many sources had it.
    """

    def __init__(self, old: str, new: str, order: str = "forward", **options: Any) -> None:
        super().__init__(order, **options)
        self._old, self._new = old, new
        self.changed = 0

    def compile(self, source: str) -> ShimKernels:
        self.changed += self._old in source
        return super().compile(source.replace(self._old, self._new))


def _product(backend: CupyBackend) -> None:
    a, b, *_ = operands(33, 65, 50)
    assert_product(gp.compile(ops.matmul, backend=backend)(a, b), a, b)


def _rounded_product(backend: CupyBackend) -> None:
    backend.precision = "bf16"
    a, b, *_ = operands(33, 65, 100)
    found = gp.compile(ops.matmul, backend=backend)(a, b)
    assert_product(found, rounded(a, "bf16"), rounded(b, "bf16"))


def _staged_product(backend: CupyBackend) -> None:
    """Factors that were rounded before: several slices, in each layout; and rows that are parts of
    longer ones.
    """
    backend.precision = "bf16"
    a, b, *_ = operands(40, 72, 200)
    exact = (rounded(a, "bf16"), rounded(b, "bf16"))
    wide = np.full_like(a, np.nan)
    wide[:, 8:21] = a[:, :13]
    check = gp.Options(verify=False)
    with patch.object(staged, "LEAST_SAVED", -np.inf):
        assert_product(gp.compile(ops.matmul, backend=backend)(a, b), *exact)
        turned = gp.compile(lambda a, b: a.T @ b.T, backend=backend)
        assert_product(turned(a.T.copy(), b.T.copy()), *exact)
        part = gp.compile(lambda a, b: a[:, 8:21] @ b, backend=backend, options=check)
        found = part(wide, b[:13].copy())
        assert_product(found, exact[0][:, :13], exact[1][:13])


def _staged_convolutions(backend: CupyBackend) -> None:
    """Images and filters that were rounded before: several slices, padding, strides, groups."""
    backend.precision = "bf16"
    for op in OPS:
        for case in staged_conv_calls.calls(op, staged_conv_calls.WHOLE[2:3]):
            with patch.object(staged, "LEAST_SAVED", -np.inf):
                found = staged_conv_calls.compiled(case)(backend)
            staged_conv_calls.assert_exact(case, found, "bf16")


def _long_product(backend: CupyBackend) -> None:
    a, b, *_ = operands(5, 7, 3000)
    assert_product(gp.compile(ops.matmul, backend=backend)(a, b), a, b)


def _grouped_product(backend: CupyBackend) -> None:
    a, b, *_ = operands(33, 35, 150)
    assert_product(gp.compile(ops.matmul, backend=backend)(a, b), a, b)


def _sum(backend: CupyBackend) -> None:
    x = np.random.default_rng(0).normal(size=(3, 100))
    assert_close(gp.compile(lambda x: ops.sum(x, 1), backend=backend)(x), x.sum(1))


def _long_sum(backend: CupyBackend) -> None:
    x = np.random.default_rng(0).uniform(1, 2, size=9000)
    found = gp.compile(lambda x: ops.sum(x), backend=backend)(x)
    np.testing.assert_allclose(found, x.sum(), rtol=1e-12)


def _softmax(backend: CupyBackend) -> None:
    for columns in (30, 2100):  # rows of a few lanes, and of a block
        x = np.random.default_rng(0).normal(size=(5, columns))
        expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        assert_close(gp.compile(ops.softmax, backend=backend)(x), expected)


def _two_outputs(backend: CupyBackend) -> None:
    x = np.arange(6.0)
    found = gp.compile(lambda x: (x + 1.0, ops.sum(x), x * 2.0), backend=backend)(x)
    for actual, expected in zip(found, (x + 1, x.sum(), x * 2), strict=True):
        assert_close(actual, expected)


def _chain(backend: CupyBackend) -> None:
    for n in (255, 256, 257):
        x = np.random.default_rng(0).normal(size=n).astype(np.float32)
        assert_close(gp.compile(lambda x: x * x + 1.0, backend=backend)(x), x * x + np.float32(1))


def _biased(backend: CupyBackend) -> None:
    """A vector along the last axis, read by whole vectors and, where rows are odd, one by one."""
    for columns in (8, 7):
        x = np.random.default_rng(0).normal(size=(300, columns)).astype(np.float32)
        bias = nn.Parameter(np.arange(columns, dtype=np.float32))

        def twice(x: Any, bias: Any = bias) -> Any:
            return ops.softmax(ops.softmax(x) * 2.0 + bias)

        expected = gp.compile(twice, backend="numpy")(x)
        assert_close(gp.compile(twice, backend=backend)(x), expected)


def _training(backend: CupyBackend) -> None:
    expected = trained(OPTIMIZERS["adam"], "numpy")
    agree(trained(OPTIMIZERS["adam"], backend), expected, "float32")


def _staying(backend: CupyBackend, blocks: int) -> None:
    """By one kernel of so many blocks; the last batch of an epoch is a short one."""
    backend._executions.mode = "persistent"
    backend.driver.blocks_together = lambda *_: blocks  # type: ignore[attr-defined]
    expected, found = (
        classifier_step(
            *(OPTIMIZERS["adam"], mlp(hidden=(64, 100))),
            backend=target,
            options=gp.Options(verify=False),
        ).run(*digits(samples=90), batch_size=32, epochs=2, seed=1)
        for target in ("numpy", backend)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _staying_together(backend: CupyBackend) -> None:
    _staying(backend, 4)


def _staying_pieces(backend: CupyBackend) -> None:
    """In launches of at most two steps."""
    kernel = backend._executions.kernel

    def cut(*args: Any) -> Any:
        found = kernel(*args)
        whole = found.run

        def run(steps: int) -> None:
            for done in range(0, steps, 2):
                whole(min(2, steps - done))

        return SimpleNamespace(run=run, guess=found.guess)

    backend._executions.kernel = cut  # type: ignore[method-assign]
    _staying(backend, 4)


def _staying_alone(backend: CupyBackend) -> None:
    _staying(backend, 1)


def _convolutions(backend: CupyBackend) -> None:
    """With stride, padding that differs, an uneven last chunk; and in groups of one channel."""
    shapes = (
        geometry((3, 7, 6, 5), (6, 5, 3, 2), (2, 3), ((2, 1), (0, 1)), chunk=2),
        geometry((2, 10000, 3), (3, 1, 3), 2, ((2, 1),), groups=3),
    )
    for op in OPS:
        for case in cases(conv_row(op, shapes)):
            args = case.args()
            op_of = partial(bind, case.row.spec, **case.attrs)
            found = gp.compile(op_of, backend=backend, options=gp.Options(verify=False))(*args)
            compare(case, args, found, str(case))


def _attention(backend: CupyBackend) -> None:
    """Several tiles of queries, keys and features, heads in groups: the result and gradients."""
    shapes = attention_shapes((1, 40, 2, 35), 70, 1, 33, mask=(1, 1, 40, 70))
    for row in attention_rows():
        for case in cases(replace(row, shapes=(shapes,), dtypes=("float64",))):
            args = case.args()
            op_of = partial(bind, row.spec, **case.attrs)
            found = gp.compile(op_of, backend=backend, options=gp.Options(verify=False))(*args)
            compare(case, args, found, str(case))


# What is changed, into what, what must notice, and how many processors the device claims.
FAULTS: dict[str, tuple[str, str, Check, int]] = {
    "product without its barrier": (
        *("next_b.store(slice_b);\n    __syncthreads();", "next_b.store(slice_b);"),
        *(_product, 1),
    ),
    "product that stores one column too many": (
        *("if (row < m && column < n) store", "if (row < m && column <= n) store"),
        *(_product, 1),
    ),
    "product that stores one row too many": (
        *("if (row < m && column < n) store", "if (row <= m && column < n) store"),
        *(_product, 1),
    ),
    "product that reads one step of k too many": (
        *("least(ALONG_K ? lines : steps,", "least(ALONG_K ? lines : steps + 1,"),
        *(_long_product, 132),
    ),
    "product right for one piece of k only": (
        *("for (i64 c = 1; c < chunks; ++c) sum +=", "for (i64 c = 1; c < 1; ++c) sum +="),
        *(_long_product, 132),
    ),
    "product whose groups take the same slices": (
        *("i64 mine = k0 + group * BK;", "i64 mine = k0;"),
        *(_grouped_product, 132),
    ),
    "product that forgets a group": (
        "g < GROUPS; ++g",
        "g < GROUPS - 1; ++g",
        _grouped_product,
        132,
    ),
    "staged product that does not wait for its copies": (
        *("wait_for_groups<STAGES - 2>();", ""),
        *(_staged_product, 1),
    ),
    "staged product that waits for all but one slice too many": (
        *("wait_for_groups<STAGES - 2>();", "wait_for_groups<STAGES - 1>();"),
        *(_staged_product, 1),
    ),
    "staged product whose last groups are not closed": (
        *("    left -= DEPTH;\n    close_group();",),
        *("    if (left > 0) close_group();\n    left -= DEPTH;",),
        *(_staged_product, 1),
    ),
    "staged product that copies to the slice that is read": (
        *("copy(a, b, free);", "copy(a, b, now);"),
        *(_staged_product, 1),
    ),
    "staged product that leaves out a slice's last row": (
        *("APART < rows && near > 0", "APART + 1 < rows && near > 0"),
        *(_staged_product, 1),
    ),
    "staged product that reads whole cells where rows end within": (
        *("rows && near > 0 ? size * near : 0", "rows ? 16 : 0"),
        *(_staged_product, 1),
    ),
    "staged convolution that does not wait for its copies": (
        *("wait_for_groups<STAGES - 2>();", ""),
        *(_staged_convolutions, 1),
    ),
    "staged convolution that copies what lies beyond an image": (
        *("start_copy(to, x.data + spots[j].offset + tap.offset, met ? 16 : 0);",),
        *("start_copy(to, x.data + spots[j].offset + tap.offset, 16);",),
        *(_staged_convolutions, 1),
    ),
    "staged convolution that stays at its first tap": (
        *("k.add(x.windows.taps, Places::DEPTH);", ""),
        *(_staged_convolutions, 1),
    ),
    "staged gradient by filters that stays at its first positions": (
        *("p.add(x.windows.found, Places::APART);", ""),
        *(_staged_convolutions, 1),
    ),
    "staged gradient by images that takes one filter for the next": (
        *("k.add(x.taps, Places::APART);", "k.add(x.taps, Places::APART - 1);"),
        *(_staged_convolutions, 1),
    ),
    "filters that are copied as they lie": (
        *("in[(row / taps * channels + channel) * taps + row % taps]", "in[i]"),
        *(_staged_convolutions, 1),
    ),
    "reduction without its barrier": (
        *("    __syncthreads();\n    if (y < half) held", "    if (y < half) held"),
        *(_sum, 1),
    ),
    "reduction right for one block only": (
        *("for (i64 c = 1; c < chunks; ++c) all =", "for (i64 c = 1; c < 1; ++c) all ="),
        *(_long_sum, 132),
    ),
    "row without the barrier before it reads the result": (
        *("__syncthreads();\n    const T* of_row", "const T* of_row"),
        *(_softmax, 1),
    ),
    "row that leaves out half of its lanes": ("int half = W / 2", "int half = W / 4", _softmax, 1),
    "bias that is read in the wrong column": (
        *("gp::low(g) % gp::low(", "gp::low(g + 1) % gp::low("),
        *(_biased, 1),
    ),
    "chain with an off-by-one tail": (
        *("for (gp::i64 i = gp::thread_number(); i < p.n;",),
        *("for (gp::i64 i = gp::thread_number(); i <= p.n;", _chain, 1),
    ),
    "step number that stands still": ("run[0] = step + 1;", "run[0] = step;", _training, 1),
    "step that starts before all have read its number": (
        *("step, table);\n  __syncthreads();", "step, table);"),
        *(_two_outputs, 1),
    ),
    "bias correction of Adam left out": (
        *("(m_sqrt(c) + (p * e))", "(m_sqrt(c) + p)", _training, 1),
    ),
    "convolution that reads beyond an image": (
        *("p.at[a] + t.at[a] < size[a]", "p.at[a] + t.at[a] <= size[a]"),
        *(_convolutions, 1),
    ),
    "convolution whose padding is forgotten": (
        *("static_cast<I>(-g.before[a])", "static_cast<I>(0)"),
        *(_convolutions, 1),
    ),
    "digit that keeps what it hands on": (
        *("at[d] -= more * sizes[d];", ""),
        *(_convolutions, 1),
    ),
    "transposed convolution that takes every tap": (
        *("made.every[a] = stride / static_cast<I>(g.common[a]);", "made.every[a] = 1;"),
        *(_convolutions, 1),
    ),
    "weight gradient of a chunk that is always full": (
        *("gp::least(p.each, p.images - image)", "p.each"),
        *(_convolutions, 1),
    ),
    "weight gradient of one channel whose pieces start together": (
        *("const i64 first = blockIdx.y * piece + threadIdx.x / X;",),
        *("const i64 first = threadIdx.x / X;", _convolutions, 132),
    ),
    "attention that sees one key too many": (
        *("s.causal && j > i)", "s.causal && j > i + 1)"),
        *(_attention, 1),
    ),
    "attention whose sums begin anew at each tile": (
        *("T total = tiles.total[threadIdx.x] * factor;", "T total = T(0);"),
        *(_attention, 1),
    ),
    "attention whose result so far keeps the largest score of then": (
        *("(factor == nullptr ? T(1) : factor[at]) + sum", "T(1) + sum"),
        *(_attention, 1),
    ),
    "gradient by keys of the first of several heads": (
        *("h < (group + 1) * s.each; ++h", "h < group * s.each + 1; ++h"),
        *(_attention, 1),
    ),
    "batch that takes its rows in the order of the data": (
        *("data[order[i / width] * width", "data[i / width * width", _training, 1),
    ),
    "phase whose blocks do not meet before it": (
        *("}\n  meeting.meet();\n", "}\n", _staying_together, 132),
    ),
    "step whose blocks do not meet at its end": (
        *("    }\n    meeting.meet();\n", "    }\n", _staying_together, 132),
    ),
    "meeting that goes on when one block is missing": (
        *("arrived) < wanted)", "arrived) + 1 < wanted)", _staying_together, 132),
    ),
    "meeting that waits for one block too many": (
        *("wanted + gridDim.x;", "wanted + gridDim.x + 1;", _staying_together, 132),
    ),
    "short batch that takes the parameters of the whole one": (
        *("if (which != now)", "if (now < 0)", _staying_together, 132),
    ),
    "block whose share begins one row late": (
        *("first = gp::first_of(p.shared_rows, blockIdx.x)",),
        *("first = gp::first_of(p.shared_rows, blockIdx.x) + 1", _staying_together, 132),
    ),
    "kernel that leaves the step's number as it was": (
        *("run[0] = begin + p.steps;", "run[0] = begin;", _staying_pieces, 132),
    ),
}

# Between blocks that are alive together: who else runs them one order after another may not see it.
MEETINGS = frozenset(name for name in FAULTS if " meet" in name or name.startswith("meeting"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_kernel_is_caught(name: str) -> None:
    old, new, check, processors = FAULTS[name]
    healthy = FaultyDriver(old, old, "random", processors=processors)
    check(shim_backend(driver=healthy))
    assert healthy.changed, "the check does not even build what is changed"
    assert any(_fails(old, new, check, processors, order) for order in ORDERS)


def barrier_checks() -> dict[str, tuple[tuple[Check, int], ...]]:
    """For each header with barriers, the checks that use all of them."""
    return {
        "attention.cuh": ((_attention, 1),),
        "conv.cuh": ((_convolutions, 1),),
        "gemm.cuh": (
            *((_product, 1), (_grouped_product, 132), (_long_product, 132)),
            (_staying_alone, 132),
        ),
        "persistent.cuh": ((_staying_alone, 132), (_staying_together, 132)),
        "reduce.cuh": ((_sum, 1), (_long_sum, 132), (_staying_alone, 132)),
        "staged.cuh": ((_staged_product, 1),),
        "tensor.cuh": ((_rounded_product, 1),),
        "rowwise.cuh": ((_softmax, 1),),
    }


def test_every_barrier_is_needed() -> None:
    """One barrier after another is taken out of the headers; some order must show each."""
    checks = barrier_checks()
    found = {p.name for p in KERNELS.glob("*.cuh") if "__syncthreads();" in p.read_text()}
    assert found == checks.keys()
    for name, each in checks.items():
        text = (KERNELS / name).read_text().replace("#pragma once\n", "")
        pieces = text.split("__syncthreads();")
        for i in range(1, len(pieces)):
            without = "__syncthreads();".join(pieces[:i]) + "__syncthreads();".join(pieces[i:])
            assert any(
                _fails(included(text), included(without), *c, o) for c in each for o in ORDERS
            ), f"barrier {i} of {name} is not missed"


def _fails(old: str, new: str, check: Check, processors: int, order: str) -> bool:
    driver = FaultyDriver(old, new, order, processors=processors)
    try:
        check(shim_backend(driver=driver))
    except CAUGHT:
        return True
    assert driver.changed
    return False


def included(header: str) -> str:
    """A header's text as it stands in an expanded source: after its own includes."""
    return header[header.index("namespace gp {") :]


def test_a_frozen_learning_rate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change on the host that never reaches the device again."""
    expected = _scheduled("numpy")
    agree(_scheduled(shim_backend()), expected, "float64")

    def sync_host(self: BankCopy) -> None:
        if self.newer:
            self._driver.download(self.memory.address, self._host)
            self.newer = False

    monkeypatch.setattr(BankCopy, "sync_host", sync_host)
    with pytest.raises(AssertionError, match="losses"):
        agree(_scheduled(shim_backend()), expected, "float64")


def test_a_grid_that_is_one_block_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a softmax are shared out to blocks; the last one is forgotten."""
    launch = ShimDriver.launch

    def short(self: ShimDriver, kernel: Any, grid: Any, *rest: Any) -> None:
        launch(self, kernel, (max(1, grid[0] - 1), *grid[1:]), *rest)

    x = np.random.default_rng(0).normal(size=(300, 30))

    def check() -> None:
        expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        assert_close(gp.compile(ops.softmax, backend=shim_backend())(x), expected)

    check()
    monkeypatch.setattr(ShimDriver, "launch", short)
    with pytest.raises(AssertionError):
        check()


def test_an_input_of_the_first_run_that_stays_is_caught() -> None:
    """Addresses of inputs that are baked into a recording would show here: other data each run."""
    x, y = digits(samples=320)
    found = []
    for backend in (shim_backend(), "numpy"):
        step = classifier_step(OPTIMIZERS["sgd"], backend=backend)
        runs = [step.run(x * s, y, batch_size=32, seed=i) for i, s in enumerate((1, -1, 0.5))]
        found.append(np.concatenate(runs))
    np.testing.assert_allclose(*found, rtol=1e-4)
