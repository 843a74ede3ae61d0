"""Random programs agree with PyTorch on every backend, to 1e-9 in float64.

`python tests/oracle/random_programs.py --seed N --show` prints the program of one seed.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import shim_build

INSTALL = "needs PyTorch: pip install 'gpubp[oracle]'"
torch = pytest.importorskip("torch", reason=INSTALL)
programs = pytest.importorskip("random_programs", reason=INSTALL)

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

CASES = 150
ON_DEVICE = range(1000, 1012)
# Where rounding decides (the sign of a gradient that is 0 but for that): hardly any.
MOST_UNDETERMINED = 0.03

Counts = collections.Counter[str]


@pytest.fixture(scope="module")
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Verdicts, shown when the last test is done."""
    found: Counts = collections.Counter()
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *[f"random programs, {key}: {n}" for key, n in sorted(found.items())], sep="\n")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """torch keeps some scalar state in its default dtype."""
    before = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with np.errstate(all="ignore"):
        yield
    torch.set_default_dtype(before[0])
    torch.set_num_threads(before[1])


def _check(seed: int, counts: Counts, backends: tuple[str, ...]) -> None:
    for name, verdict in programs.check(seed, backends).items():
        counts[f"{name} {verdict.kind}"] += 1
        text = f"{verdict.detail}\n{programs.recipe(seed)}"
        assert verdict.kind in ("agrees", "undetermined"), f"{name}: {text}"


@pytest.mark.parametrize("seed", range(CASES))
def test_program_equals_torch(seed: int, counts: Counts) -> None:
    _check(seed, counts, programs.BACKENDS)


@pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
@pytest.mark.parametrize("seed", ON_DEVICE)
def test_program_equals_torch_on_the_test_device(seed: int, counts: Counts) -> None:
    _check(seed, counts, ("cuda",))


def test_few_are_undetermined(counts: Counts) -> None:
    """A comparison that rounding decides is none."""
    undetermined = sum(n for key, n in counts.items() if "undetermined" in key)
    assert undetermined <= MOST_UNDETERMINED * max(sum(counts.values()), 100)


def test_a_wrong_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: a weight that is off by 1e-7 after training."""
    real: Any = programs.Mine.run

    def slightly_off(self: Any) -> Any:
        found = real(self)
        last = list(found.state)[-1]
        found.state[last] = found.state[last] + 1e-7
        return found

    monkeypatch.setattr(programs.Mine, "run", slightly_off)
    assert programs.check(0, ("numpy",))["numpy"].kind == "disagrees"
