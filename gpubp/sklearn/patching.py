"""Putting gpubp's estimators in the place of scikit-learn's, and taking them out again.

Only the two names in the package `sklearn.neural_network` change. If that package has not been
imported yet, it is left alone until it is: a finder at the front of `sys.meta_path` waits for it.
The module that defines scikit-learn's own classes is never touched, so their pickles stay theirs.

Importing the package never imports gpubp's classes, which import the package themselves: a process
that unpickles a model first, or two threads, would meet one of the two half made. The package is
left without the two names, and its `__getattr__` puts them in when one of them is asked for.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from gpubp.errors import missing_extra

PACKAGE = "sklearn.neural_network"
STOCK = "sklearn.neural_network._multilayer_perceptron"
NAMES = ("MLPClassifier", "MLPRegressor")


class _Loader(importlib.abc.Loader):
    """Runs the package's own loader, then takes the names away, to be put in when asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._inner.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        if enabled():
            _Names(module).take_away()

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":
            raise AttributeError(name)  # a copy that is being made has none yet
        return getattr(self._inner, name)  # get_source, is_package, ...: as if nobody was here


class _Names:
    """Answers for the names that a package was left without; the first use of one swaps both.

    It stays when they are there, for a second thread that is on its way to it.
    """

    def __init__(self, package: ModuleType) -> None:
        self._package = package
        own = vars(package).get("__getattr__")
        self._own: Any = (
            own._own if isinstance(own, _Names) else own
        )  # ours: the package was reloaded

    def take_away(self) -> None:
        """Leave the package without the names."""
        inside = vars(self._package)
        for name in NAMES:
            del inside[name]
        inside["__getattr__"] = self
        inside["__dir__"] = lambda: sorted({*inside, *NAMES})

    def __call__(self, name: str) -> Any:
        if name in NAMES:
            if not enabled():
                return getattr(importlib.import_module(STOCK), name)
            _swap(self._package)
            return getattr(load_estimators(), name)
        if self._own is not None:
            return self._own(name)
        raise AttributeError(f"module {self._package.__name__!r} has no attribute {name!r}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one package as the other finders do, and wraps its loader."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PACKAGE:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader)
                    return spec
        return None


_finder = _Finder()


def enabled() -> bool:
    """Whether `sklearn.neural_network` gives out gpubp's estimators now (or once imported)."""
    return _finder in sys.meta_path


def patch_sklearn() -> None:
    """Let `from sklearn.neural_network import MLPClassifier, MLPRegressor` give gpubp's classes.

    Names that were imported before stay what they were. Calling it twice does no harm.

    Raises:
        MissingExtraError: scikit-learn is too old.
    """
    if enabled():
        return
    if PACKAGE in sys.modules:
        _swap(importlib.import_module(PACKAGE))  # waits for a thread that is importing it
    sys.meta_path.insert(0, _finder)


def unpatch_sklearn() -> None:
    """Undo `patch_sklearn`. Estimators that exist stay what they are."""
    if not enabled():
        return
    sys.meta_path.remove(_finder)
    package = sys.modules.get(PACKAGE)
    if package is not None:
        stock = importlib.import_module(STOCK)
        for name in NAMES:
            setattr(package, name, getattr(stock, name))


def load_estimators() -> ModuleType:
    """The module with gpubp's classes.

    Raises:
        MissingExtraError: scikit-learn is older than 1.9.
    """
    version: str = importlib.import_module("sklearn").__version__
    if tuple(int(part) for part in version.split(".")[:2]) < (1, 9):
        raise missing_extra("scikit-learn>=1.9", "sklearn", "gpubp.sklearn")
    return importlib.import_module("gpubp.sklearn.estimators")


def _swap(package: ModuleType) -> None:
    ours = load_estimators()
    for name in NAMES:
        setattr(package, name, getattr(ours, name))
