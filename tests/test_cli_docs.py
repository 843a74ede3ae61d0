"""`gpubp docs`: pages of a folder in the browser of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from gpubp.cli import docs, main


def test_pages_are_served_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>gpubp</h1>")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "index.json").write_text("[]")
    line = [sys.executable, "-m", "gpubp", "docs", str(tmp_path), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None and made.stderr is not None
        address = made.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        assert urlopen(address).read() == b"<h1>gpubp</h1>"
        assert urlopen(f"{address}search/index.json").read() == b"[]"
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}../secret")
        made.send_signal(signal.SIGINT)
        assert made.wait(20) == 0
        assert made.stderr.read() == f"{tmp_path}; Ctrl-C ends it\n"


def test_where_pages_are_is_said_if_there_is_no_site(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["docs", str(tmp_path)]) == 3
    assert f"{tmp_path} has no index.html" in capsys.readouterr().err
    package = tmp_path / "gpubp" / "__init__.py"
    monkeypatch.setattr(docs.gpubp, "__file__", str(package))
    assert main(["docs"]) == 3
    assert "the source distribution has" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").touch()
    assert main(["docs"]) == 3
    assert f"mkdocs build. Its pages as text begin at {tmp_path}" in " ".join(
        capsys.readouterr().err.split()
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").touch()
    assert docs._site(None, tmp_path) == tmp_path / "site"
