"""Data: the bundled digits, splits, files, standardisation, and checks of input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpubp.data.digits import load_digits, train_test_split

if TYPE_CHECKING:
    from gpubp.data.ahead import prefetch
    from gpubp.data.encoding import Encoding
    from gpubp.data.npz import read_npz
    from gpubp.data.scaling import Standardizer
    from gpubp.data.table import Table, read_csv

_LAZY = {
    "Encoding": "encoding",
    "Standardizer": "scaling",
    "Table": "table",
    "prefetch": "ahead",
    "read_csv": "table",
    "read_npz": "npz",
}


def __getattr__(name: str) -> Any:
    """Load on first use what few runs need, to keep starting quick."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"gpubp.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'gpubp.data' has no attribute {name!r}")


__all__ = [
    "Encoding",
    "Standardizer",
    "Table",
    "load_digits",
    "prefetch",
    "read_csv",
    "read_npz",
    "train_test_split",
]
