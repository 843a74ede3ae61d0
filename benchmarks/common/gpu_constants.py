"""Constants that were guessed where no GPU was at hand, and what a GPU says of them.

Each is set to a few values in turn; a program that hangs on it is compiled anew and its parts are
timed as recordings on the device (`Backend.profile`). `python benchmarks/common/gpu_constants.py
FILE.json` measures all of them, and says which to change, and where.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim

PACKAGE = "gpubp.backends.cuda"
ENOUGH = 1.05  # a value that is so many times as fast as the present one is worth a change
Times = Callable[[Any], float]  # of a backend: seconds


@dataclass(frozen=True)
class Constant:
    """A number in the source.

    Attributes:
        place: "module:NAME" below gpubp.backends.cuda.
        values: that are tried, the present one among them.
        what: it decides.
        seconds: of a program that hangs on it, with a backend made anew.
        own: our own kernels are meant, not cuBLASLt's.
    """

    place: str
    values: tuple[Any, ...]
    what: str
    seconds: Times
    own: bool = True


@dataclass(frozen=True)
class Finding:
    """What was measured.

    Attributes:
        place, what: of the constant.
        present: its value in the source.
        seconds: by value, as text.
        best: the value of the least seconds.
        said: one line: keep it, or change it to what.
    """

    place: str
    what: str
    present: Any
    seconds: dict[str, float]
    best: Any
    said: str


def parts(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Times:
    """Seconds of a function's parts on arrays of zeros, on the device."""

    def seconds(backend: Any) -> float:
        compiled = gp.compile(function, backend=backend, options=gp.Options(verify=False))
        compiled(*(np.zeros(shape, np.float32) for shape in shapes))
        return sum(row.timing.seconds for row in compiled.report(profile=True).rows if row.timing)

    return seconds


def _weights(x: Any, dy: Any) -> Any:
    return x.T @ dy


def _recurrent(backend: Any) -> float:
    """Forward and backward of an LSTM."""
    layer = nn.LSTM(64, 128, dtype="float32")
    return parts(gp.value_and_grad(lambda x: ops.sum(layer(x)[0])), (50, 64, 64))(backend)


def _grouped_convolution(backend: Any) -> float:
    layer = nn.Conv2d(64, 64, 3, padding=1, groups=16)
    return parts(gp.value_and_grad(lambda x: ops.sum(layer(x))), (32, 64, 28, 28))(backend)


def _step(backend: Any, samples: int = 3200) -> float:
    """A run of many short steps, by the driver's events."""
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters())
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend)
    x, y = np.zeros((samples, 64), np.float32), np.zeros(samples, np.int64)
    run = partial(step.run, x, y, batch_size=200, epochs=8, shuffle=False)
    run()
    return min(float(backend.driver.seconds(run)) for _ in range(5))


def _upload(backend: Any, megabytes: int = 1) -> float:
    """Small data that come from the host in each run."""
    driver = backend.driver
    array = np.zeros(megabytes << 20, np.uint8)
    memory = driver.allocate(array.nbytes)

    def ten() -> None:
        for _ in range(10):
            driver.upload(memory.address, array)

    ten()
    return min(float(driver.seconds(ten)) / 10 for _ in range(5))


CONSTANTS = (
    Constant(
        *("codegen.tiles:MIN_CHUNK", (64, 128, 256, 512), "how long a piece of k is at least"),
        parts(_weights, (4096, 64), (4096, 100)),
    ),
    Constant(
        *("codegen.tiles:GROUPED_FROM", (32, 64, 256, 1 << 30), "from which k threads share sums"),
        parts(_weights, (200, 64), (200, 100)),
    ),
    Constant(
        *("codegen.tiles:LEAST_BLOCKS", (0, 2), "blocks of the largest float32 tile at a time"),
        parts(lambda a, b: a @ b.T, (2048, 2048), (2048, 2048)),
    ),
    Constant(
        *("codegen.encode_reduce:SPLIT_LENGTH", (512, 2048, 8192), "rows that a block adds up"),
        parts(lambda x: ops.sum(x, 0), (1 << 18, 64)),
    ),
    Constant(
        *("codegen.conv_geometry:FEW", (1, 4, 8), "groups of how few channels go one by one"),
        _grouped_convolution,
    ),
    Constant(
        *("codegen.encode_rounds:MOST_MULTIPLICATIONS", (1 << 10, 1 << 20, 1 << 30)),
        "up to which size a loop's rounds are one kernel",
        _recurrent,
    ),
    Constant(
        *("codegen.encode_product:LEAST_FLOPS", (2.0 * 64**3, 2.0 * 256**3, 2.0 * 1024**3)),
        "from which size cuBLASLt is tried beside our kernels",
        parts(ops.matmul, (192, 192), (192, 192)),
        own=False,
    ),
    Constant(
        *("stepping:STEPS_A_GRAPH", (1, 16, 64), "steps that are recorded as one"),
        _step,
    ),
    Constant(
        *("drivers.streams:SMALL", (1 << 16, 1 << 21), "uploads below go by pinned memory"),
        _upload,
    ),
)


@contextmanager
def changed(place: str, value: Any) -> Iterator[None]:
    """While it is entered, a constant has another value."""
    module, _, name = place.partition(":")
    owner = importlib.import_module(f"{PACKAGE}.{module}")
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def measure(constant: Constant, backend: Callable[[], Any]) -> Finding:
    """Try all values; `backend` makes one anew, so that nothing is compiled already."""
    module, _, name = constant.place.partition(":")
    present = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    found: dict[Any, float] = {}
    library = {"GPUBP_CUBLASLT": "0" if constant.own else ""}
    for value in constant.values:
        with changed(constant.place, value), mock.patch.dict(os.environ, library):
            found[value] = constant.seconds(backend())
    return judged(constant, present, found)


def judged(constant: Constant, present: Any, found: dict[Any, float]) -> Finding:
    """Keep the present value, unless another one is clearly faster."""
    best = min(found, key=lambda value: found[value])
    times = found[present] / found[best] if found[best] else 1.0
    module, _, name = constant.place.partition(":")
    file = f"{PACKAGE}.{module}".replace(".", "/") + ".py"
    if times < ENOUGH:
        best, said = present, f"keep {name} = {present!r} in {file} ({constant.what})"
    else:
        said = f"set {name} to {best!r}, from {present!r}, in {file} ({constant.what}): "
        said += f"{times:.2f} times as fast"
    seconds = {repr(value): spent for value, spent in found.items()}
    return Finding(constant.place, constant.what, present, seconds, best, said)


def main(arguments: list[str]) -> int:
    """Measure all on the first GPU; one that fails does not hide the others."""
    from common.results import write
    from gpubp.backends.cuda import CupyBackend

    rows: list[dict[str, Any]] = []
    failed = 0
    for constant in CONSTANTS:
        try:
            finding = measure(constant, CupyBackend)
        except Exception as error:
            failed = 1
            said = f"{constant.place} was not measured: {type(error).__name__}: {error}"
            rows.append({"place": constant.place, "said": said})
        else:
            rows.append(asdict(finding))
        print(rows[-1]["said"], flush=True)
        write(Path(arguments[0]), "gpu_constants", rows, complete=constant is CONSTANTS[-1])
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
