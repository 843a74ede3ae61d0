"""Bad calls of everything public end well, or in an error of gpubp's own that says what to do.

`python tests/fuzz_calls.py --seed N --traceback` shows one call; `--count 10000` makes many.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import fuzz_calls
import numpy as np
import pytest
from fuzz_targets import TARGETS

from gpubp import nn
from gpubp.errors import DataError

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGALRM"), reason="a call that hangs is ended by an alarm, as Unix has it"
)

CALLS, CHUNK = 500, 25


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The files that calls read; the bell for long calls is put back afterwards."""
    before, here = signal.getsignal(signal.SIGALRM), Path.cwd()
    with np.errstate(all="ignore"), warnings.catch_warnings(), fuzz_calls.prepare() as made:
        yield Path(made)
        os.chdir(here)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, CALLS, CHUNK))
def test_bad_calls_end_in_our_errors(first: int, folder: Path) -> None:
    for seed in range(first, first + CHUNK):
        name, verdict = fuzz_calls.call(seed, folder)
        assert verdict.kind != "fault", f"seed {seed}, {name}: {verdict.detail}: {verdict.error}"


def test_everything_public_is_called() -> None:
    names = {name for name, _, _ in TARGETS}
    assert {"ops.add", "nn.Linear", "optim.Adam", "lr_scheduler.StepLR", "Trainer.fit"} <= names
    assert len(names) > 150


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("lr is -1, expected at least 0."), "refused"),
        (DataError("no"), "fault"),
        (KeyError("lr"), "fault"),
        (TypeError("f() missing 1 required positional argument: 'x'"), "signature"),
    ],
)
def test_how_calls_are_judged(error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(nn.ReLU, "function", staticmethod(broken))
    with pytest.raises(type(error)) as caught:
        nn.ReLU()(np.ones(3))
    assert fuzz_calls.judged(caught.value).kind == kind
