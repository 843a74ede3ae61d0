"""The data of an application, for its twin: made by the example's own lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def of_example(name: str) -> SimpleNamespace:
    """All names that `docs/examples/NAME.py` has defined where its first class begins.

    So both learn from the same numbers, with the same settings, `--short` or not.
    """
    path = EXAMPLES / f"{name}.py"
    above = path.read_text(encoding="utf-8").split("\nclass ", 1)[0]
    found: dict[str, object] = {"__name__": name}
    exec(compile(above, str(path), "exec"), found)
    return SimpleNamespace(**found)
