"""`gpubp bench gpu_hour` as far as it goes without a GPU: its steps, their limits, its page, the
kernel cache that it fills, and what each constant that it tries changes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import CollectingDriver

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers import bare_nvrtc, nvrtc
from gpubp.cli import main
from gpubp.errors import BackendError

ROOT = Path(__file__).resolve().parent.parent
needs_nvrtc = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of `benchmarks/common`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(f"common.{name}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "conformence-1"], "Did you mean 'conformance-1'"),
        (["--rows", "prepare@sm_90"], "expected such as prepare@sm_90/132"),
        (["--rows", "constants@sm_90/132"], "expected such as prepare@sm_90/132"),
        (["--peers", "torch"], "means nothing to the benchmark gpu_hour"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message, capsys, tmp_path):
    assert main(["bench", "gpu_hour", "--folder", str(tmp_path / "out"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert not (tmp_path / "out").exists()


def test_a_folder_is_for_this_one_alone(capsys, tmp_path):
    assert main(["bench", "gpu", "--folder", str(tmp_path)]) == 2
    assert "--folder means nothing to the benchmark gpu" in capsys.readouterr().err


def test_without_a_gpu_it_says_what_can_be_done(capsys):
    if any(p.name == "cupy" and p.available for p in gp.backends()):
        pytest.skip("there is a GPU here")
    assert main(["bench", "gpu_hour", "--rows", "constants"]) == 2
    assert "Without one: --rows prepare@sm_90/132" in capsys.readouterr().err


def test_steps_are_below_eight_minutes_and_run_what_is_there(common, tmp_path):
    steps = common("hour_steps")
    assert steps.SECONDS < 480
    every = steps.steps(tmp_path, "sm_90/132")
    assert [s.name for s in every.values() if not s.gpu] == ["prepare"]
    for step in every.values():
        for word in step.command:
            if word.endswith(".py") or word == "tests/gpu":
                assert (ROOT / word).exists(), word
    rows = importlib.import_module("specs").ROWS
    assert set(steps.EVERY_HEADER) <= rows.keys()
    tested = {w for s in every.values() for w in s.command if w.startswith("tests/gpu/")}
    assert tested == {f"tests/gpu/{p.name}" for p in (ROOT / "tests/gpu").glob("test_*.py")}


def test_a_step_is_stopped_with_all_that_it_started(common, tmp_path):
    steps = common("hour_steps")
    script = (
        "import subprocess, sys, time; print('begun', flush=True); "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    row = steps.run(steps.Step("slow", "never ends", (sys.executable, "-c", script)), tmp_path, 1.5)
    assert row["code"] is None and row["last"][0] == "begun"
    child = int(row["last"][1])
    for _ in range(50):  # a killed process stays until somebody has asked for its end
        if not _runs(child):
            break
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat")
        return not stat.exists() or stat.read_text().split()[2] != "Z"
    except ProcessLookupError:
        return False


def test_results_of_several_calls_are_one_page(common, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    hour, steps = importlib.import_module("gpu_hour"), common("hour_steps")

    def made(folder: Path, target: str) -> dict[str, Any]:
        say = "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[2]))"
        found = [
            steps.Step("first", target, (sys.executable, "-c", say, "fine", "0"), gpu=False),
            steps.Step("second", "fails", (sys.executable, "-c", say, "1 failed", "1"), gpu=False),
            steps.Step("third", "is not there", ("no-such-program",), gpu=False),
        ]
        return {step.name: step for step in found}

    monkeypatch.setattr(hour.hour_steps, "steps", made)
    options = hour.argparse.Namespace(folder=tmp_path / "out", rows="second,third", repeats=1)
    for name in hour.UNUSED:
        setattr(options, name, None)
    assert hour.measure(options) == 1
    options.rows = "first"
    assert hour.measure(options) == 0
    kept = json.loads((tmp_path / "out/summary.json").read_text())["steps"]
    assert {name: row["code"] for name, row in kept.items()} == {
        "first": 0,
        "second": 1,
        "third": 127,
    }
    page = (tmp_path / "out/README.md").read_text()
    assert "| second | fails | code 1 |" in page and "1 failed" in page
    assert "no-such-program cannot be started" in page
    assert (tmp_path / "out/first.log").read_text() == "fine\n"


def test_everything_that_the_page_calls_unproved_has_a_step(common, tmp_path):
    report, steps = common("hour_report"), common("hour_steps")
    rows = report.unproved((ROOT / "docs/gpu.md").read_text())
    assert len(rows) > 15
    for row in rows:
        assert [b for b in report.PROVES if row.startswith(b)], row
    for beginning, needed in report.PROVES.items():
        assert any(row.startswith(beginning) for row in rows), beginning
        assert set(needed) <= steps.steps(tmp_path, "sm_90/132").keys()
    passed = {name: {"code": 0} for name in ("benchmark-small", "benchmark-large")}
    assert report.proved("speed", passed) == "yes"
    assert report.proved("speed", {"benchmark-small": {"code": 0}}) == "not run: benchmark-large"
    assert report.proved("speed", {"benchmark-small": {"code": None}}) == "no: benchmark-small"


class _Timed(CollectingDriver):
    """Of a GPU, what constants are measured by; seconds are launches and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[Any] = []
        self.timed = 0

    def launch(self, *launch: Any) -> None:
        self.launched.append(launch)

    def seconds(self, work: Any) -> float:
        self.timed += 1
        work()
        return 1.0


@pytest.mark.parametrize("i", range(9))
def test_each_constant_is_there_and_changes_something(i, common):
    constants = common("gpu_constants")
    assert len(constants.CONSTANTS) == 9
    constant = constants.CONSTANTS[i]
    drivers: list[_Timed] = []

    def backend() -> CupyBackend:
        drivers.append(_Timed())
        return CupyBackend(driver=drivers[-1])

    finding = constants.measure(constant, backend)
    assert len(finding.seconds) == len(constant.values) and finding.present in constant.values
    changing = {"encode_product:LEAST_FLOPS", "streams:SMALL", "stepping:STEPS_A_GRAPH"}
    if not constant.place.endswith(tuple(changing)):  # which are no matter of sources or launches
        seen = {repr((d.sources, [(w[1], w[4]) for w in d.launched])) for d in drivers}
        assert len(seen) > 1, f"{constant.place} changes nothing in this program"


def test_a_benchmark_s_steps_are_timed_by_the_driver(common, monkeypatch):
    """By events on its own stream, whichever library that stream is of."""
    driver, rows = _Timed(), common("rows")
    peers = common("peers_gpubp")
    monkeypatch.setattr(peers, "_backend", lambda row: CupyBackend(driver=driver))
    case = peers.build("gpubp", rows.Task(rows.find_row("5-7-3/11"), "sgd"))
    assert case.device_seconds() == 1.0 and driver.timed == 1


def test_what_is_said_of_a_constant(common):
    constants = common("gpu_constants")
    constant = constants.Constant("codegen.tiles:MIN_CHUNK", (128, 256), "pieces", lambda _: 0.0)
    slow = constants.judged(constant, 256, {128: 1.0, 256: 1.5})
    assert slow.best == 128
    assert slow.said == (
        "set MIN_CHUNK to 128, from 256, in gpubp/backends/cuda/codegen/tiles.py (pieces): "
        "1.50 times as fast"
    )
    kept = constants.judged(constant, 256, {128: 1.0, 256: 1.04})
    assert kept.best == 256 and kept.said.startswith("keep MIN_CHUNK = 256 in gpubp/")
    with constants.changed(constant.place, 7):
        from gpubp.backends.cuda.codegen import tiles

        assert tiles.MIN_CHUNK == 7
    assert tiles.MIN_CHUNK == 256


@needs_nvrtc
def test_a_filled_cache_needs_no_compiler(common, tmp_path, monkeypatch):
    """What a driver asks for is there, under the name that it looks under."""
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    fill = common("gpu_fill")

    def work(backend: CupyBackend) -> None:
        fn = gp.compile(lambda x: ops.tanh(x) * 2.0, backend=backend)
        fn(np.zeros(5, np.float32))

    found = list(fill.sources("sm_90", 132, iter([work])))
    assert found and len(set(found)) == len(found)
    assert fill.fill("sm_90", iter(found[:1]), 60.0, workers=1) == (1, 0)

    class Absent(bare_nvrtc.BareNvrtc):
        def compile(self, source: str, target: str) -> bytes:
            raise BackendError("nothing was to be compiled")

    assert nvrtc.compiled(Absent(), found[0], "sm_90")[:4] == b"\x7fELF"
    with pytest.raises(BackendError, match="nothing was to be compiled"):
        nvrtc.compiled(Absent(), found[0], "sm_80")
    assert fill.fill("sm_90", iter(found), -1.0, workers=1)[1] >= 1
