"""The persistent step as NVRTC compiles it, on the emulator: blocks that are alive together, spin
and meet, with bounds, alignment and memory that nobody wrote looked at in every access, and races
within blocks.

Between blocks races are not looked for, as the kernel uses fences; that a meeting is needed shows
in the results (`test_seeded_faults.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classifier import classifier_step, digits, mlp
from emulated_backend import FaultyEmulator, emulated_backend
from test_persistent_on_shim import MAKES
from test_programs_on_shim import agree

import gpubp as gp
from gpubp import nn
from gpubp.backends.cuda import execution
from gpubp.backends.cuda.emulator import compiler
from gpubp.backends.cuda.emulator.driver import EmulatedKernels
from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.kept import Kept, Place, keep
from gpubp.compiler.program import Program

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(compiler.missing()), reason=compiler.missing() or "-"),
]


def trained(target: Any, make: Any, dropout: bool = False) -> dict[str, Any]:
    """Two epochs, whose last batch is a short one."""
    gp.manual_seed(5)
    nn.init.manual_seed(3)
    model = mlp(hidden=(16, 36))
    if dropout:
        model = nn.Sequential(nn.Linear(16, 36), nn.Dropout(0.4), nn.ReLU(), nn.Linear(36, 10))
    options = gp.Options(verify=False)
    step = classifier_step(make, model, backend=target, seed=9, options=options)
    losses = step.run(*digits(samples=50, features=16), batch_size=20, epochs=2, seed=4)
    return {"losses": losses, **model.state_dict()}


@pytest.mark.parametrize(
    ("name", "blocks", "copies"),
    [*((name, blocks, False) for name in MAKES for blocks in (1, 3)), ("sgd", 3, True)],
)
def test_a_training_is_the_reference_s(
    name: str, blocks: int, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`copies`: blocks keep what others read, too."""
    monkeypatch.setattr(execution, "MEETING_US", 0.0)  # so that there are as many blocks as can be
    if copies:
        monkeypatch.setattr(execution, "keep", lambda *a: keep(*a[:3], copies=True))
    target = emulated_backend(execution="persistent", processors=blocks)
    dropout = name == "sgd"
    found = trained(target, MAKES[name], dropout)
    agree(found, trained("numpy", MAKES[name], dropout), "float32")
    assert target.driver.together == 1


def _body(source: str) -> str:
    """What a step does, in order."""
    return source[source.index("void body0(") : source.index("struct Params")]


class Collecting(FaultyEmulator):
    """Keeps the sources of whole steps."""

    def __init__(self, old: str = "", new: str = "") -> None:
        super().__init__(old, new, processors=1)
        self.sources: list[str] = []

    def compile(self, source: str) -> EmulatedKernels:
        self.sources += [source] * ("run_steps" in source)
        return super().compile(source)


def _as_one_of_several(program: Program, blocks: int, room: int, copies: bool) -> Kept:
    """What a block that is not alone would keep; it has all rows."""
    found = keep(program, 2, room, True)
    places, at = {}, 0
    for place in dict.fromkeys(found.places.values()):
        places[place] = Place(at, place.row)
        at += 40 * place.row
    kept = {key: places[place] for key, place in found.places.items()}
    published = {
        phase: [one._replace(place=places[one.place]) for one in copied]
        for phase, copied in found.published.items()
    }
    return Kept(kept, published, at)


def _one_step(driver: FaultyEmulator) -> None:
    step = classifier_step(
        *(MAKES["adam"], mlp(hidden=(16, 36))),
        backend=emulated_backend(driver, "persistent"),
        options=gp.Options(verify=False),
    )
    step.run(*digits(samples=40, features=16), batch_size=40)


@pytest.mark.parametrize("room", ["all", "copies", "none"])
def test_every_barrier_of_a_step_is_needed(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a block has between parts, taken out one by one: a race each time. With all
    temporaries in shared memory, with those of its rows and copies for others, or with none.
    """
    plans = {"all": keep, "copies": _as_one_of_several, "none": lambda *_: Kept()}
    monkeypatch.setattr(execution, "keep", plans[room])
    whole = Collecting("run_steps", "run_steps")
    _one_step(whole)
    (source,) = whole.sources
    body = _body(source)
    pieces = body.split("__syncthreads();")
    assert len(pieces) == 9
    assert ("gp::publish<" in source) == (room == "copies")
    assert ("gp::kept<" in source) == (room != "none")
    for i in range(1, len(pieces)):
        without = "__syncthreads();".join(pieces[:i]) + "__syncthreads();".join(pieces[i:])
        with pytest.raises(KernelError) as caught:
            _one_step(Collecting(body, without))
        assert caught.value.kind == "race", f"barrier {i}: {caught.value}"


def test_64_100_10(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of k in groups of threads, and several tiles a block."""
    found = []
    for target in (emulated_backend(execution="persistent", processors=3), "numpy"):
        model = mlp(hidden=(64, 100))
        step = classifier_step(
            MAKES["adam"], model, backend=target, options=gp.Options(verify=False)
        )
        losses = step.run(*digits(samples=90), batch_size=32, seed=4)
        found.append({"losses": losses, **model.state_dict()})
    agree(*found, "float32")
    assert np.isfinite(found[0]["losses"]).all()
