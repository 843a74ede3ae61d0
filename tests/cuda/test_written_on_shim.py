"""CUDA kernels write every result of their part, and verification finds one that they do not."""

from __future__ import annotations

import numpy as np
import pytest
import shim_build
from shim_backend import shim_backend
from tolerances import assert_close
from written import join_every_gradient, pullbacks

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import launch
from gpubp.errors import VerificationError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKEND = shim_backend()


@pytest.mark.parametrize("used", [True, False])
def test_every_pullback_has_its_gradient(used: bool) -> None:
    for count, shape in ((1, (6,)), (2, (6,)), (3, (2, 5)), (2, (70,))):
        fn, args = pullbacks(count, used, *shape)
        expected = gp.compile(fn, backend="numpy")(*args)
        found = gp.compile(fn, backend=BACKEND)(*args)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, f"{count} pullbacks of {shape}")


def test_an_encoder_that_leaves_out_a_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    join_every_gradient(monkeypatch)
    fn, args = pullbacks(2, True, 6)
    with pytest.raises(VerificationError, match=r"declares out\d and does not write"):
        gp.compile(fn, backend=BACKEND, options=gp.Options(verify=False))(*args)


def test_a_result_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    join_every_gradient(monkeypatch)
    monkeypatch.setattr(launch, "require_used", lambda *_: None)
    fn, args = pullbacks(2, True, 6)
    with pytest.raises(VerificationError, match="does not write all of %"):
        gp.compile(fn, backend=BACKEND, options=gp.Options(verify=True))(*args)


def test_labels_out_of_range_are_no_fault_of_the_kernel() -> None:
    fn = gp.compile(lambda x, i: ops.gather(x, i - 1), backend=BACKEND)
    x = np.arange(12.0).reshape(4, 3)
    assert_close(fn(x, np.array([1, 4])), x[[0, 3]])
