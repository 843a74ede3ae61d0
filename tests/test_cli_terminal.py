"""The command line on a terminal, and stopped by Ctrl-C: real processes, a pseudo-terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import csvfiles
import numpy as np
import pytest

from gpubp.train import load_model

pty = pytest.importorskip("pty", reason="this platform has no pseudo-terminals")
CODE = "import sys; from gpubp.cli import main; sys.exit(main())"
TIMEOUT = 120


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", CODE, *map(str, arguments)]


class Terminal:
    """A child whose stderr, or all of it, is a terminal of 80 columns."""

    def __init__(self, *arguments: object) -> None:
        import fcntl
        import struct
        import termios

        self.screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.child = subprocess.Popen(
            _command(*arguments),
            stdin=inner,
            stdout=subprocess.PIPE,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.text = ""

    def read(self, pattern: str | None) -> str:
        """What appears until `pattern` does, or until the end; a child that does neither in time is
        killed.
        """
        until = time.monotonic() + TIMEOUT
        while time.monotonic() < until:
            if pattern is not None and re.search(pattern, self.text):
                return self.text
            ready, _, _ = select.select([self.screen], [], [], 0.2)
            if ready:
                try:
                    data = os.read(self.screen, 4096)
                except OSError:  # Linux says so when the other end is closed
                    data = b""
                if not data:
                    break
                self.text += data.decode()
        else:
            self.child.kill()
            pytest.fail(f"the child goes on after {TIMEOUT} s: {self.text[-500:]!r}")
        assert pattern is None, f"no {pattern!r} in {self.text!r}"
        return self.text

    def end(self) -> tuple[int, str]:
        self.read(None)
        assert self.child.stdout is not None
        out = self.child.stdout.read().decode()
        code = self.child.wait(TIMEOUT)
        os.close(self.screen)
        return code, out


def test_a_bar_moves_with_loss_and_rate() -> None:
    terminal = Terminal(
        "train", "digits", "--hidden", "64", "--epochs", "3", "--batch-size", "1",
        "--backend", "numpy", "--max-steps", "1600",
    )  # fmt: skip
    code, out = terminal.end()
    assert code == 0
    assert out.startswith("held-out accuracy 0.")
    moves = re.findall(r"epoch 1/3: +(\d+)%\|.*?(loss \d\.\d+)?\]", terminal.text)
    assert len({percent for percent, _ in moves}) >= 3
    assert re.search(r"samples/s, loss \d\.\d{4}\]", terminal.text)
    # The bar is wiped away; one line an epoch stays.
    assert re.search(r"\r +\repoch 1/3  loss \d\.\d{4}  val_loss", terminal.text)
    assert "stopped: max_steps" in terminal.text
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]", terminal.text) if "%|" in line)


def test_ctrl_c_at_the_terminal_saves_and_is_code_130(tmp_path: Path) -> None:
    model, state = tmp_path / "m.safetensors", tmp_path / "run.ckpt"
    terminal = Terminal(
        "train", "digits", "--epochs", "100000", "--backend", "numpy", "--save", model,
        "--resume", state, "--save-every", "1000000",
    )  # fmt: skip
    terminal.read(r"epoch 1/100000  loss")
    os.write(terminal.screen, b"\x03")
    code, out = terminal.end()
    assert (code, out) == (130, "")
    assert re.search(r"gpubp: interrupted after \d+ steps", terminal.text)
    assert "Traceback" not in terminal.text
    steps = int(re.findall(r"interrupted after (\d+) steps", terminal.text)[0])
    assert steps >= 45
    X = np.zeros((1, 64), np.float32)
    np.testing.assert_array_equal(load_model(model).model(X), load_model(state).model(X))
    done = subprocess.run(
        _command("show", state), capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert f"{steps} steps" in done.stdout


def test_sigint_and_a_resumption_end_as_a_run_that_was_left_alone(tmp_path: Path) -> None:
    data = csvfiles.classification(tmp_path / "some.csv", 400)
    models = [tmp_path / f"{i}.safetensors" for i in range(2)]
    train = (
        "train", data, "--target", "kind", "--epochs", "40", "--dropout", "0.1",
        "--hidden", "32", "--backend", "numpy",
    )  # fmt: skip
    subprocess.run(
        _command(*train, "--save", models[0]), check=True, capture_output=True, timeout=TIMEOUT
    )
    again = _command(*train, "--save", models[1], "--resume", tmp_path / "run.ckpt")
    child = subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stderr is not None
    while not child.stderr.readline().startswith("epoch 3/40"):
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, out) == (130, ""), err
    assert "interrupted after" in err.splitlines()[-1]
    resumed = subprocess.run(again, capture_output=True, text=True, timeout=TIMEOUT)
    assert resumed.returncode == 0, resumed.stderr
    assert not resumed.stderr.startswith("epoch 1/40")
    expected = load_model(models[0]).model.state_dict()
    for name, value in load_model(models[1]).model.state_dict().items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
