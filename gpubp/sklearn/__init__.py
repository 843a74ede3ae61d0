"""scikit-learn's MLPClassifier and MLPRegressor, with the compute done by gpubp's fused step.

Same classes, arguments, random stream and results; see docs/sklearn.md. Nothing of scikit-learn is
imported before a class is asked for, so that switching the replacement on costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from gpubp.errors import missing_extra

if importlib.util.find_spec("sklearn") is None:
    raise missing_extra("scikit-learn", "sklearn", "gpubp.sklearn")

from gpubp.sklearn.log import report, reset_report
from gpubp.sklearn.patching import enabled, load_estimators, patch_sklearn, unpatch_sklearn

if TYPE_CHECKING:
    from gpubp.sklearn.estimators import MLPClassifier, MLPRegressor
    from gpubp.sklearn.searching import (
        BaggingMLPClassifier,
        BaggingMLPRegressor,
        GridSearchCV,
        cross_validate,
    )

_SEARCHING = ("BaggingMLPClassifier", "BaggingMLPRegressor", "GridSearchCV", "cross_validate")


def __getattr__(name: str) -> Any:
    """Load the estimators, and with them scikit-learn, on first use."""
    if name in ("MLPClassifier", "MLPRegressor"):
        return getattr(load_estimators(), name)
    if name in _SEARCHING:
        load_estimators()
        return getattr(importlib.import_module("gpubp.sklearn.searching"), name)
    raise AttributeError(f"module 'gpubp.sklearn' has no attribute {name!r}")


__all__ = [
    "BaggingMLPClassifier",
    "BaggingMLPRegressor",
    "GridSearchCV",
    "MLPClassifier",
    "MLPRegressor",
    "cross_validate",
    "enabled",
    "patch_sklearn",
    "report",
    "reset_report",
    "unpatch_sklearn",
]
