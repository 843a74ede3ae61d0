"""SIGKILL at random moments: what is resumed ends bit-identical to what was never stopped.

GPUBP_KILLS says how many kills (default 4); the acceptance of a release is 100.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

TESTS = Path(__file__).resolve().parent
KILLS = int(os.environ.get("GPUBP_KILLS", "4"))


def _start(checkpoint: Path, result: Path, backend: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    environment.pop("GPUBP_VERIFY", None)
    command = [sys.executable, str(TESTS / "kill_work.py"), str(checkpoint), str(result), backend]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
@pytest.mark.parametrize("backend", ["numba"])
def test_killed_runs_end_as_one_never_stopped(tmp_path: Path, backend: str) -> None:
    began = time.perf_counter()
    whole = _start(tmp_path / "whole.ckpt", tmp_path / "whole", backend)
    assert whole.stdout is not None
    assert whole.stdout.readline() == "begins\n"
    seconds = -time.perf_counter()
    assert whole.wait(120) == 0
    seconds += time.perf_counter()
    expected = json.loads((tmp_path / "whole").read_text())
    rng = random.Random(int(began * 1e6))
    killed = runs = within = 0
    while killed < KILLS:
        checkpoint, result = tmp_path / f"{runs}.ckpt", tmp_path / f"{runs}.end"
        runs += 1
        while not result.exists():
            child = _start(checkpoint, result, backend)
            assert child.stdout is not None
            assert child.stdout.readline() == "begins\n"
            time.sleep(rng.uniform(0.0, seconds))
            child.kill()
            if child.wait() == -signal.SIGKILL:
                killed += 1
                within += checkpoint.exists()
            if killed >= KILLS and not result.exists():
                assert _start(checkpoint, result, backend).wait(120) == 0
        found = json.loads(result.read_text())
        assert found.keys() == expected.keys()
        for part, value in expected.items():
            assert found[part] == value, part
    print(f"{killed} kills, {within} of them with a checkpoint; {runs} runs, all bit-identical")
    assert within > 0
    left = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert sorted(left) == sorted(
        ["whole", "whole.ckpt", *[f"{i}.{e}" for i in range(runs) for e in ("ckpt", "end")]]
    )
