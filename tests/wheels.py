"""Compares wheels, and looks for what each must hold: python tests/wheels.py WHEEL WHEEL."""

from __future__ import annotations

import sys
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {"numpy", "llvmlite", "scipy", "tqdm", "safetensors"}


def contents(wheel: str) -> dict[str, bytes]:
    """What a wheel holds, by name, but for the list of its own files."""
    with zipfile.ZipFile(wheel) as file:
        names = [n for n in file.namelist() if not n.endswith("RECORD")]
        return {name: file.read(name) for name in names}


def require(found: dict[str, bytes]) -> None:
    """Sources of kernels, data, types, licence, the hook, and metadata that pip can use."""
    sources = {f"gpubp/kernels/{p.name}" for p in (ROOT / "kernels").glob("*.cu*")}
    others = {"gpubp/py.typed", "gpubp/data/digits.npz", "gpubp_accel.pth"}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "gpubp").rglob("*.py")}
    assert sources and sources | others | modules <= found.keys(), sources | others | modules
    assert {n for n in found if n.endswith(".py")} == modules
    (metadata,) = (text.decode() for name, text in found.items() if name.endswith("/METADATA"))
    fields = Parser().parsestr(metadata)
    needed = {n.split(">")[0] for n in fields.get_all("Requires-Dist", []) if "extra ==" not in n}
    assert needed == NEEDED, needed
    assert fields["Description-Content-Type"] == "text/markdown"
    assert any(name.endswith("licenses/LICENSE") for name in found)


if __name__ == "__main__":
    one, other = (contents(wheel) for wheel in sys.argv[1:])
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    assert one == other, [name for name in one if one[name] != other[name]]
    require(one)
