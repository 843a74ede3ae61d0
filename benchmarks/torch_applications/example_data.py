"""The data of an application, for its twin: made by the example's own lines."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def of_example(name: str, until: str = r"\w+") -> SimpleNamespace:
    """All names that `docs/examples/NAME.py` has defined where its model begins.

    So both learn from the same numbers, with the same settings, `--short` or not.

    Args:
        name: of the example.
        until: the class or function that the model begins with; by default the first class.
    """
    path = EXAMPLES / f"{name}.py"
    kind = "class" if until == r"\w+" else "class|def"
    above = re.split(rf"\n(?:{kind}) {until}\b", path.read_text(encoding="utf-8"), maxsplit=1)[0]
    found: dict[str, object] = {"__name__": name}
    exec(compile(above, str(path), "exec"), found)
    return SimpleNamespace(**found)
