"""The Python code of a Markdown page: run it, and keep what the page prints up to date.

Comes in: a page whose ```python blocks make up one program, top to bottom. A ```text block right
after one of them shows what that block prints. Goes out: what each block did print; or, run as a
script, the pages named as arguments with their ```text blocks and images written anew:

    python tests/pages.py docs/backpropagation.md docs/gradient_descent.md

Images are written by the page's own code, relative to the folder it runs in.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"```python\n(?P<code>.*?)```(?:\n+```text\n(?P<shown>.*?)```)?", re.DOTALL)
MARK = "-- end of block --"


def code_blocks(text: str) -> list[str]:
    """The Python blocks of a page."""
    return [match["code"] for match in CODE.finditer(text)]


def shown_outputs(text: str) -> list[str | None]:
    """What the page says that each block prints; None where it does not say."""
    return [match["shown"] for match in CODE.finditer(text)]


def run_page(text: str, folder: Path, check: str = "") -> list[str]:
    """Run a page's code in a process of its own.

    Args:
        text: the page.
        folder: the working directory.
        check: code to run after the page's, which sees its names.

    Returns:
        What each block printed.

    Raises:
        RuntimeError: the code failed; holds the end of its error output.
    """
    blocks = [f"{block}\nprint({MARK!r}, flush=True)\n" for block in code_blocks(text)]
    printed = run_python(["-c", "".join([*blocks, check])], folder)
    return printed.split(f"{MARK}\n")[: len(blocks)]


def run_python(arguments: list[str], folder: Path) -> str:
    """Run Python in `folder`, with the gpubp that is in use here; returns what it printed.

    Raises:
        RuntimeError: it failed; holds the end of its error output.
    """
    spec = importlib.util.find_spec("gpubp")
    assert spec is not None and spec.origin is not None
    here = Path(spec.origin).parents[1]
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(here)}
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-4000:])
    return run.stdout


def update(page: Path) -> None:
    """Rewrite the ```text blocks of a page; its code runs in the page's folder."""
    text = page.read_text()
    printed = iter(run_page(text, page.parent))

    def with_output(match: re.Match[str]) -> str:
        output = next(printed)
        code = f"```python\n{match['code']}```"
        return code if match["shown"] is None else f"{code}\n\n```text\n{output}```"

    page.write_text(CODE.sub(with_output, text))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the checkout, not what may be installed beside it
    for name in sys.argv[1:]:
        update(Path(name))
