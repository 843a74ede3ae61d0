"""The faults that the shim must notice, and some in what it does not run: on the emulator, each is
reported.

The list and the checks are those of `test_seeded_faults.py`. The shim runs threads in three orders;
the emulator runs one, and looks for what other orders would do: within blocks, not between blocks
that meet in the middle of a kernel. Their meetings are the shim's to prove, and
`test_persistent_on_emulator.py` takes out the barriers within them.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from emulated_backend import FaultyEmulator, emulated_backend
from products import operands
from shim_build import KERNELS
from test_precision_on_shim import rounded
from test_seeded_faults import (
    CAUGHT,
    FAULTS,
    MEETINGS,
    Check,
    _staged_convolutions,
    _staged_product,
    barrier_checks,
    included,
)
from tolerances import assert_product

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import staged
from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.backends.cuda.emulator.faults import KernelError

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-"),
]


def _fails(old: str, new: str, check: Check, processors: int) -> BaseException | None:
    driver = FaultyEmulator(old, new, processors=processors)
    try:
        check(emulated_backend(driver))
    except CAUGHT as error:
        return error
    assert driver.changed
    return None


def _kind(error: BaseException | None) -> str | None:
    """Of the emulator's error, which may be the cause of one that names the part of the program."""
    while error is not None and not isinstance(error, KernelError):
        error = error.__cause__
    return None if error is None else error.kind


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in MEETINGS])
def test_a_fault_in_a_kernel_is_caught(name: str) -> None:
    old, new, check, processors = FAULTS[name]
    healthy = FaultyEmulator(old, old, processors=processors)
    check(emulated_backend(healthy))
    assert healthy.changed, "the check does not even build what is changed"
    assert _fails(old, new, check, processors) is not None


@pytest.mark.parametrize("name", [name for name in barrier_checks() if name != "persistent.cuh"])
def test_every_barrier_is_needed(name: str) -> None:
    """One barrier after another is taken out of the headers: a race, with its line, each time."""
    text = (KERNELS / name).read_text().replace("#pragma once\n", "")
    pieces = text.split("__syncthreads();")
    for i in range(1, len(pieces)):
        before, after = ("__syncthreads();".join(half) for half in (pieces[:i], pieces[i:]))
        without = f"{before};{after}"
        found = [_fails(included(text), included(without), *c) for c in barrier_checks()[name]]
        kinds = {_kind(e) for e in found}
        assert kinds & {"race", "unwritten"}, f"barrier {i} of {name}: {found}"


def _on_tensor_cores(backend: CupyBackend) -> None:
    for precision in ("bf16", "float16", "tf32"):
        backend.precision = precision
        a, b, *_ = operands(33, 65, 100)
        found = gp.compile(ops.matmul, backend=backend)(a, b)
        assert_product(found, rounded(a, precision), rounded(b, precision))


# What the shim does not run: the fragments of the `mma` instruction itself.
FRAGMENTS = {
    "rows of A for steps of k": (
        *(
            "out[1] = a[8 * SLICE_PITCH], out[2] = a[4]",
            "out[1] = a[4], out[2] = a[8 * SLICE_PITCH]",
        ),
    ),
    "steps of k exchanged in B": (
        *("out[0] = b[0], out[1] = b[4];", "out[0] = b[4], out[1] = b[0];"),
    ),
    "columns of the sums": (
        *("+ 8 * j + 2 * t + e % 2;\n        if (row", "+ 8 * j + t + e % 2 * 4;\n        if (row"),
    ),
    "rows of the sums": ("16 * i + g + e / 2 * 8;", "16 * i + 2 * g + e / 2;"),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_wrong_fragment_is_caught(name: str) -> None:
    old, new = FRAGMENTS[name]
    assert _fails(old, old, _on_tensor_cores, 1) is None
    assert _fails(old, new, _on_tensor_cores, 1) is not None


# What the shim does not run: who takes which row of 8 elements, and where its words go.
MATRICES = {
    "the second 8 by 8 of A and of B exchanged": (
        *("line = LINES_FIRST ? second : third", "line = LINES_FIRST ? third : second"),
    ),
    "rows that are not turned": ("load_matrices<!ALONG>", "load_matrices<false>"),
    "columns of B exchanged": ("right[2 * j + 1][0] = pair[2]", "right[2 * j + 1][0] = pair[3]"),
    "cells that change places as they are written, not as they are read": (
        *("? cell(of_warp + 8 * line + lane % 8, step)",),
        *("? (of_warp + 8 * line + lane % 8) * ACROSS + step",),
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_wrong_matrix_is_caught(name: str) -> None:
    old, new = MATRICES[name]
    assert _fails(old, old, _staged_product, 1) is None
    assert _fails(old, new, _staged_product, 1) is not None


def _by_words(backend: CupyBackend) -> None:
    """TF32, neighbours along the lines of both factors."""
    backend.precision = "tf32"
    a, b, *_ = operands(40, 72, 200)
    with patch.object(staged, "LEAST_SAVED", -np.inf):
        found = gp.compile(lambda a, b: a.T @ b, backend=backend)(a.T.copy(), b)
    assert_product(found, rounded(a, "tf32"), rounded(b, "tf32"))


WORDS = {
    "words of the next cell": (
        *("of_warp / IN_CELL + lane / 16) +", "of_warp / IN_CELL + (lane / 16 ^ 1)) +"),
    ),
    "lines that do not go on": ("taken ^ (16 * i + 8 * line)", "taken ^ (16 * i)"),
    "lines of A for steps of k": (
        *("line = LINES_FIRST ? e % 2 : e / 2", "line = LINES_FIRST ? e / 2 : e % 2"),
    ),
    "the second half of a slice": ("(8 * s + 4 * step)", "(4 * step)"),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_wrong_word_is_caught(name: str) -> None:
    old, new = WORDS[name]
    assert _fails(old, old, _by_words, 1) is None
    assert _fails(old, new, _by_words, 1) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("wait_for_groups<STAGES - 2>();", ""),
        ("wait_for_groups<STAGES - 2>();", "wait_for_groups<STAGES - 1>();"),
        ("copy(a, b, free);", "copy(a, b, now);"),
        ("__syncthreads();  // all threads' copies", "//"),
    ],
)
@pytest.mark.parametrize("check", [_staged_product, _staged_convolutions])
def test_copies_that_are_not_waited_for_are_races(check: Check, old: str, new: str) -> None:
    """By their own thread, or by the others of the block: a race, whatever the numbers are."""
    error = _fails(old, new, check, 1)
    assert _kind(error) == "race", error


def test_a_grid_that_is_one_block_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = FaultyEmulator.launch

    def short(self, kernel, grid, *rest):  # type: ignore[no-untyped-def]
        launch(self, kernel, (max(1, grid[0] - 1), *grid[1:]), *rest)

    monkeypatch.setattr(FaultyEmulator, "launch", short)
    x = np.random.default_rng(0).normal(size=(300, 30))
    driver = FaultyEmulator(" ", " ")
    with pytest.raises(AssertionError):
        found = gp.compile(ops.softmax, backend=emulated_backend(driver))(x)
        expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected)
