"""Names of a package that are imported when they are first used.

And parts that a lower folder needs of a higher one: the package, which stands above both, says
which module has one (`supply`), and the lower folder asks for it by what it does (`load`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

from gpubp import habits

_suppliers: dict[str, str] = {}


def supply(part: str, module: str) -> None:
    """Say which module fills in a part when it is imported."""
    _suppliers[part] = module


def load(part: str) -> None:
    """Import the module that fills in a part."""
    importlib.import_module(_suppliers[part])


def names(
    package: str, homes: Mapping[str, str], hints: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its name.
        homes: public name -> the submodule that has it, as `module` or `module:name there`; "" for
            a submodule itself.
        hints: other name -> what to write instead; see `gpubp.habits`.
    """

    def find(name: str) -> object:
        """Import what is behind a public name, and keep it: the next use finds it at once."""
        if name not in homes:
            module = sys.modules[package]
            raise habits.missing(module, f"module {package!r}", name, hints or {})
        home, _, other = homes[name].partition(":")
        module = importlib.import_module(f"{package}.{home or name}")
        value = getattr(module, other or name) if home else module
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, listed


def by_home(homes: Mapping[str, str]) -> dict[str, str]:
    """Submodule -> its public names, in one text; as `names` takes them: name -> submodule."""
    return {name: home for home, listed in homes.items() for name in listed.split()}
