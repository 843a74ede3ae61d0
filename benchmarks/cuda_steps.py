"""What a step on CUDA asks for, counted without a GPU: launches, nodes of graphs, how many of them
one after the other, bytes; today, and at an earlier commit of the repository.

    python benchmarks/cuda_steps.py [--before COMMIT]

Prints the table of docs/design/cuda.md. The device is one that only counts, as of an H100 (132
multiprocessors, sm_90): nothing is computed, and nothing is said of time but that so many kernels
one after the other cost so many times 1.3 us in the cost model, and meetings of blocks 1.5. Bytes
are those of each part's operands, counted once; what a kernel reads again is not in them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NODE_US, MEETING_US = 1.3, 1.5  # as in gpubp/backends/cuda/execution.py
MODELS = (((64, 100, 10), 200), ((784, 256, 128, 10), 128))
BEFORE = "b1ca215^1"  # the last commit before epochs were recorded and data stayed on the device
STEPS = 40
WAYS = {
    "today, a chain": {"GPUBP_BRANCHES": "0"},
    "today": {},
    "today, looped": {"GPUBP_LOOP": "1"},
    "today, one kernel": {"GPUBP_EXECUTION": "persistent"},
}


class Place:
    """Memory that is none."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes

    def wait(self) -> None:
        pass


class Counter:
    """A driver that counts; it has what drivers of older commits had, too."""

    number, name, architecture, processors = 0, "counter", "sm_90", 132
    products, overlaps, loops = None, False, True

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("kernels", "together", "graphs", "nodes", "uploaded"), 0)
        self.depth, self._end = 0, 1 << 20
        self._recorded: int | None = None

    def allocate(self, nbytes: int) -> Place:
        place = Place(self._end, nbytes)
        self._end += -(-max(nbytes, 1) // 256) * 256
        return place

    def free_bytes(self) -> int:
        return 1 << 40

    def upload(self, target: int, array: Any) -> None:
        self.counts["uploaded"] += array.nbytes

    def download(self, source: int, array: Any) -> None:
        array[...] = 0

    def compile(self, source: str) -> Counter:
        return self

    def get(self, name: str) -> str:
        return name

    def launch(self, kernel: str, grid: Any, block: Any, shared: int, params: bytes) -> None:
        if self._recorded is None:
            self.counts["kernels"] += 1
        else:
            self._recorded += 1
            if kernel == "repeat_steps":
                self._times = int(np.frombuffer(params, np.int64)[1])

    def blocks_together(self, kernel: str, threads: int, shared: int) -> int:
        return self.processors

    def launch_together(self, *_: Any) -> None:
        self.counts["together"] += 1

    def allow_shared(self, kernel: str, nbytes: int) -> None:
        pass

    def record(self, work: Callable[[], None]) -> Callable[..., None]:
        return self._graph([(work, 0, ())])

    def record_branches(self, nodes: Sequence[Any]) -> Callable[..., None]:
        return self._graph([node[:3] for node in nodes])

    def record_loop(self, nodes: Sequence[Any], enter: Callable[[int], None]) -> Any:
        enter(1)
        once = self._graph([node[:3] for node in nodes])
        times = self._times
        return lambda: once(times)

    def _graph(self, nodes: Sequence[tuple[Any, int, Any]]) -> Callable[..., None]:
        ends: list[int] = []
        last: dict[int, int] = {}
        total = 0
        for i, (work, lane, after) in enumerate(nodes):
            self._recorded = 0
            work()
            behind = [*after, *([last[lane]] if lane in last else [])]
            ends.append(max((ends[j] for j in behind), default=0) + self._recorded)
            total += self._recorded
            last[lane], self._recorded = i, None
        self.depth = max(ends)

        def replay(times: int = 1) -> None:
            self.counts["graphs"] += 1
            self.counts["nodes"] += times * total

        return replay

    def current_stream(self) -> int:
        return 1

    def pinned(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def mark(self) -> Place:
        return Place(0, 0)

    def wait_for(self, stream: int) -> None:
        pass

    def make_wait(self, stream: int) -> None:
        pass

    def synchronize(self) -> None:
        pass


def counted(widths: tuple[int, ...], batch: int) -> dict[str, Any]:
    """A single step, called again and again; and a run of `STEPS`, made before."""
    import gpubp as gp
    from gpubp import nn, optim
    from gpubp.backends.cuda import CupyBackend

    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model, loss, device = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), Counter()
    made: Any = device
    step = gp.compile_step(
        lambda x, y: loss(model(x), y),
        optim.Adam(model.parameters()),
        backend=CupyBackend(driver=made),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * STEPS, widths[0])).astype(np.float32)
    y = rng.integers(0, 10, len(x))
    one = x[:batch], y[:batch]
    program = step.prepare(*one)
    for _ in range(3):
        step(*one)
    found: dict[str, Any] = {"bytes": program.bytes_moved, "syncs": program.syncs}
    found["call"] = _asked(device, step, one)
    found["depth"] = device.depth
    for _ in range(3):
        step.run(x, y, batch_size=batch)
    found["run"] = _asked(device, lambda *of: step.run(*of, batch_size=batch), (x, y))
    return found


def _asked(device: Counter, work: Any, arguments: Any) -> dict[str, int]:
    before = dict(device.counts)
    work(*arguments)
    return {name: device.counts[name] - before[name] for name in before}


def child(root: Path, **environment: str) -> list[dict[str, Any]]:
    """The counts of every model, by a process that has this checkout's gpubp."""
    paths = os.pathsep.join([str(root), str(root / "tests")])
    settings = {"PYTHONPATH": paths, "GPUBP_VERIFY": "0", "GPUBP_EXECUTION": "graph"}
    command = [sys.executable, str(Path(__file__).resolve()), "--count"]
    run = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    found: list[dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return found


def rows_before(root: Path, commit: str) -> list[dict[str, Any]]:
    """The counts at a commit, from a worktree of it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = str(Path(folder) / "tree")
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", tree, commit], check=True)
        try:
            return child(Path(tree))
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


def line(model: str, way: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    call, run = found["call"], found["run"]
    alone = call["kernels"] or call["nodes"] or call["together"]
    depth = alone if call["kernels"] else found["depth"]
    chain, floor = str(depth), NODE_US * depth
    if call["together"]:
        chain, floor = f"{found['syncs']} meetings", MEETING_US * found["syncs"]
    host = call["kernels"] + call["graphs"] + call["together"]
    launched = run["kernels"] + run["graphs"] + run["together"]
    numbers = [
        host, alone, chain, f"{floor:.1f}", f"{found['bytes']:,}", f"{call['uploaded']:,}",
        launched, f"{run['uploaded']:,}",
    ]  # fmt: skip
    return " | ".join(["", model, way, *map(str, numbers), ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", default=BEFORE, help="an earlier commit")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        from gpubp.backends.cuda import stepping

        stepping.LOOK_SECONDS = 1e9  # so that counts do not hang on this machine's speed
        print(json.dumps([counted(*model) for model in MODELS]))
        return
    root = Path(__file__).resolve().parents[1]
    ways = {"before": rows_before(root, options.before)}
    ways |= {way: child(root, **settings) for way, settings in WAYS.items()}
    print(
        "| model | | launches a call | kernels of a step | one after the other | floor, us "
        "| bytes of operands | uploaded a call | launches a run of 40 | uploaded a run |"
    )
    print("|" + "---|" * 10)
    for i, (widths, batch) in enumerate(MODELS):
        for way, found in ways.items():
            print(line(f"{'-'.join(map(str, widths))}, batch {batch}", way, found[i]))


if __name__ == "__main__":
    main()
