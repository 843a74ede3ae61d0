"""The persistent step without a device: what is chosen, why, and what the host asks for."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from counting_driver import CountingDriver

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.execution import MODES, fewest_costs, steps_cost
from gpubp.backends.cuda.kept import Kept, keep, room_of
from gpubp.errors import UnknownNameError

SAMPLES, BATCH, EPOCHS = 1797, 200, 10  # scikit-learn's digits
LAUNCHED = 13  # kernels of a step of 64-100-10 with Adam, launched one by one


@pytest.fixture(autouse=True)
def _no_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that counts do not depend on how fast this machine is, and no proof runs beside."""
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    monkeypatch.setenv("GPUBP_VERIFY", "0")


def step_on(
    device: Any, *widths: int, execution: str | None = None, layer: Any = nn.ReLU, **options: Any
) -> Any:
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), layer()]
    model, loss = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss()
    backend = CupyBackend(driver=device, execution=execution, **options)
    optimizer = optim.Adam(model.parameters())
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)


def data(features: int, samples: int = SAMPLES) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, features)).astype("f"), rng.integers(0, 2, samples)


def ran(step: Any, features: int, batch: int = BATCH, **options: Any) -> str:
    """The line of the report after a run."""
    step.run(*data(features), batch_size=batch, **options)
    return next(line for line in step.report().splitlines() if line.startswith("execution"))


def test_ten_epochs_of_digits_are_one_launch() -> None:
    """Also of two programs, whose turns the kernel reads from the schedule: the last batch of an
    epoch is a short one.
    """
    device = CountingDriver()
    step = step_on(device, 64, 100, 10, execution="persistent")
    text = ran(step, 64, epochs=EPOCHS)
    found = device.counts.take()
    assert (found.together, found.kernels, found.graphs, found.recorded) == (1, 0, 0, [])
    assert "128 blocks that meet 2 times a step" in text
    assert device.grids == [(128, 1, 1)]


def test_two_meetings_and_eight_barriers_a_step_of_64_100_10() -> None:
    """As in the source: one between forward and backward pass and the update, one at the end."""
    device = CountingDriver()
    step_on(device, 64, 100, 10, execution="persistent").run(*data(64), batch_size=BATCH)
    (source,) = [text for text in device.sources if "run_steps" in text]
    (body,) = re.findall(r"void body\d+\((.*?)\n}", source, re.DOTALL)
    assert body.count("meeting.meet();") == 1, "and one more follows every step"
    assert source.count("meeting.meet();") == 2
    assert body.count("__syncthreads();") == 8
    assert len(re.findall(r"\bpart\d+\(", body)) == LAUNCHED - 1


def test_a_schedule_takes_a_third_meeting() -> None:
    """The rate is looked up in one phase, counted in the next, and used in the last."""
    device = CountingDriver()
    model, loss = nn.Linear(64, 10), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = gp.compile_step(
        lambda x, y: loss(model(x), y),
        optimizer,
        scheduler=optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        backend=CupyBackend(driver=device, execution="persistent"),
    )
    step.run(*data(64), batch_size=BATCH)
    assert device.counts.together == 1 and "meet 3 times a step" in step.report()


def test_a_body_and_functions_are_shared_by_what_differs_in_sizes_alone() -> None:
    device = CountingDriver()
    step_on(device, 64, 100, 100, 100, 10, execution="persistent").run(*data(64), batch_size=BATCH)
    (source,) = [text for text in device.sources if "run_steps" in text]
    assert source.count("case ") == 1, "of batches of 200 and of 197"
    functions = len(re.findall(r"void part\d+\(", source))
    calls = len(re.findall(r"\) part\d+\(", source))
    assert functions < calls - 4


@pytest.mark.parametrize(
    ("widths", "batch", "chosen"),
    [
        ((64, 100, 10), 200, "persistent: .* of 128 blocks that meet 2 times a step"),
        ((2, 8, 2), 4, "persistent: .* of 1 blocks that meet never"),
        ((784, 256, 128, 10), 128, "graph: 18 kernels"),
        ((1024, 1024, 1024, 2), 1024, "graph: 19 kernels"),
    ],
)
def test_the_model_chooses(widths: tuple[int, ...], batch: int, chosen: str) -> None:
    step = step_on(CountingDriver(), *widths, execution="auto")
    line = ran(step, widths[0], batch)
    assert re.search(f"execution {chosen}", line), line
    assert "cost model, not measured" in line


def test_costs_of_the_model_are_those_of_the_docs() -> None:
    """The figures that docs/design/cuda.md has, so that these are right."""
    step = step_on(CountingDriver(), 64, 100, 10)
    program = step.prepare(*data(64, BATCH))
    room = room_of("sm_90")
    blocks, cost = fewest_costs(program, 132, room)
    assert cost == steps_cost(program, blocks, keep(program, blocks, room, copies=False))
    assert cost < steps_cost(program, blocks, Kept()) < steps_cost(program, 1, Kept())


def test_one_step_alone_is_a_graph_unless_it_is_asked_for() -> None:
    x, y = data(64, BATCH)
    for execution, together in (("auto", 0), ("persistent", 3)):
        device = CountingDriver()
        step = step_on(device, 64, 100, 10, execution=execution)
        for _ in range(3):
            step(x, y)
        assert device.counts.together == together
        assert ("a run of one step" in step.report()) == (execution == "auto")


class Plain(CountingDriver):
    """Without cooperative launches."""

    blocks_together = launch_together = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name in ("blocks_together", "launch_together"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_what_cannot_stay_goes_as_graphs_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = {"execution": "persistent"}
    text = ran(step_on(CountingDriver(), 64, 100, 10, precision="tf32", **stays), 64)
    assert "graph" in text and "products in tf32 have no function of a share" in text

    device = CountingDriver()
    device.blocks_together = lambda *_: 0  # type: ignore[method-assign]
    text = ran(step_on(device, 64, 100, 10, **stays), 64)
    assert "graph" in text and "bytes of shared memory" in text and device.counts.together == 0

    convolution = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 62, 2))
    optimizer, loss = optim.SGD(convolution.parameters(), lr=0.1), nn.CrossEntropyLoss()
    backend = CupyBackend(driver=CountingDriver(), **stays)
    step = gp.compile_step(lambda x, y: loss(convolution(x), y), optimizer, backend=backend)
    x, y = data(64, 64)
    step.run(x[:, None], y, batch_size=16)
    why = r"execution graph.*conv.* has no function of a share: its tiles cross images"
    assert re.search(why, step.report())

    monkeypatch.setenv("GPUBP_CUDA_SYNC", "1")
    assert "GPUBP_CUDA_SYNC" in ran(step_on(CountingDriver(), 64, 10, **stays), 64)


def test_a_program_goes_as_the_one_does_that_it_takes_turns_with() -> None:
    """In the model, a large batch goes as a graph, and its short last one would not."""
    device = CountingDriver()
    step = step_on(device, 64, 100, 100, 2, execution="auto")
    step.run(*data(64, 2 * 9000 + 8), batch_size=9000)
    assert device.counts.together == 0
    first, last = (step._runner.backend.remarks(r.loaded)[0] for r in step._runner.readies())
    assert "cost model" in first and "takes turns with goes as graphs: cost model" in last


def test_a_driver_without_cooperative_launches_goes_as_graphs() -> None:
    device = Plain()
    text = ran(step_on(device, 64, 100, 10, execution="persistent"), 64)
    assert "graph" in text and "no launches whose blocks may meet" in text
    assert device.counts.graphs > 0


def test_fewer_blocks_where_the_device_has_room_for_no_more() -> None:
    device = CountingDriver()
    device.blocks_together = lambda *_: 7  # type: ignore[method-assign]
    text = ran(step_on(device, 64, 100, 10, execution="persistent"), 64)
    assert "of 7 blocks" in text and device.grids == [(7, 1, 1)]


def test_the_option_its_variable_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def mode(**options: Any) -> str:
        return CupyBackend(driver=CountingDriver(), **options)._executions.mode

    monkeypatch.setenv("GPUBP_EXECUTION", "persistent")
    assert mode() == "persistent" and mode(execution="graph") == "graph"
    monkeypatch.delenv("GPUBP_EXECUTION")
    assert mode() == "auto"
    with pytest.raises(UnknownNameError, match="graphs"):
        mode(execution="graphs")
    assert MODES == ("auto", "graph", "persistent")
