"""What can be written and read, from the tables that are used."""

from __future__ import annotations

from gpubp.onnx.families import RULES
from gpubp.onnx.import_table import TABLE
from gpubp.ops.spec import SPECS


def supported() -> dict[str, list[str]]:
    """What has a counterpart.

    Returns:
        {"ops": gpubp's ops that can be written, "operators": ONNX's that can be read}.
    """
    by_formula = {name for name, spec in SPECS.items() if spec.formula is not None}
    loops = {"loop", "scan"}
    return {"ops": sorted({*RULES, *by_formula, *loops}), "operators": sorted(TABLE)}
