"""The reference: a page for each public module, with every public name and its docstring.

Names are listed as the modules export them (`__all__`), and looked up where they are defined, so a
name that is exported under another name, or lazily, stands where a user finds it.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

# Public modules, as users import them, with the title of their page.
MODULES = {
    "gpubp": "gpubp",
    "gpubp.ops": "Ops",
    "gpubp.nn": "Modules and losses",
    "gpubp.nn.functional": "nn.functional",
    "gpubp.nn.init": "Initialisers",
    "gpubp.nn.utils.rnn": "Sequences of different lengths",
    "gpubp.optim": "Optimisers",
    "gpubp.optim.lr_scheduler": "Schedules",
    "gpubp.optim.swa_utils": "Averages of weights",
    "gpubp.train": "Training",
    "gpubp.data": "Data",
    "gpubp.distributed": "Several ranks",
    "gpubp.ray": "Ray",
    "gpubp.sklearn": "scikit-learn's estimators",
    "gpubp.testing": "Tests of CUDA code",
    "gpubp.errors": "Exceptions",
}


def reference_pages() -> dict[str, str]:
    """The text of each page, by its place on the site; "reference/index.md" lists them."""
    pages = {}
    shown: dict[str, str] = {}  # what is explained already, and on which page
    lines = ["# Reference\n", "| module | names |", "|---|---|"]
    for module, title in MODULES.items():
        found = importlib.import_module(module)
        names = public_names(found)
        pages[f"reference/{module}.md"] = _page(module, title, names, shown)
        lines.append(f"| [{title}]({module}.md) | `{module}`: {len(names)} names |")
    pages["reference/index.md"] = "\n".join(lines) + "\n"
    return pages


def public_names(module: ModuleType) -> list[str]:
    """What the module exports, without modules: those have pages of their own, or none.

    A folder that is a function as well (`gpubp.backends`) is there as that.
    """
    names = getattr(module, "__all__", None)
    if names is None:
        own = (name for name in vars(module) if not name.startswith("_"))
        names = [n for n in own if getattr(vars(module)[n], "__module__", "") == module.__name__]
    return sorted(
        (n for n in names if not inspect.ismodule(v := getattr(module, n)) or callable(v)),
        key=lambda name: (name.lower(), name),
    )


def defined_at(module: ModuleType, name: str) -> str | None:
    """The path under which a documented name is defined; None for a value without a docstring."""
    value: Any = getattr(module, name)
    value = getattr(value, name) if inspect.ismodule(value) else value
    home = getattr(value, "__module__", None)
    called = getattr(value, "__qualname__", None)
    if not home or not called or "<" in called or not home.startswith("gpubp"):
        return None
    there: Any = importlib.import_module(home)
    for step in called.split("."):
        there = getattr(there, step, None)
    return f"{home}.{called}" if there is value else None


def _page(module: str, title: str, names: list[str], shown: dict[str, str]) -> str:
    found = importlib.import_module(module)
    lines = [f"# {title}\n", f"`{module}`\n", f"{inspect.getdoc(found) or ''}\n"]
    for name in names:
        lines.append(_entry(f"{module}.{name}", name, defined_at(found, name), found, shown))
    return "\n".join(lines)


def _entry(
    full: str, name: str, path: str | None, module: ModuleType, shown: dict[str, str]
) -> str:
    if path is not None and path not in shown:
        shown[path] = full
        anchor = "" if path == full else f"[](){{ #{full} }}\n\n"
        options = {"show_root_heading": "true", "heading": name, "toc_label": name}
        text = "".join(f"      {key}: {value}\n" for key, value in options.items())
        return f"{anchor}::: {path}\n    options:\n{text}"
    head = f"## {name} {{ #{full} }}\n\n"
    if path is None:
        return f"{head}`{getattr(module, name)!r}`\n"
    page = shown[path].rsplit(".", 1)[0]
    return f"{head}The same as [`{shown[path]}`]({page}.md#{shown[path]}).\n"
