"""Fit time of gpubp.sklearn beside scikit-learn: same data, same arguments, same random state.

Both run in this process, in turn, round after round, with default arguments but for `max_iter` on
the large sets (their epochs are all alike). The first call of gpubp on a row, which traces and
loads kernels, is not among the rounds and is shown by itself. Losses at the end must agree.

    python benchmarks/sklearn_dropin.py --rows digits,iris --repeats 3 --json out.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import _multilayer_perceptron as stock
from sklearn.preprocessing import StandardScaler

import gpubp
from gpubp import sklearn as ours

# Name: (loader, classifies, max_iter).
ROWS: dict[str, tuple[Any, bool, int]] = {
    "digits": (lambda: datasets.load_digits(return_X_y=True), True, 200),
    "breast_cancer": (lambda: datasets.load_breast_cancer(return_X_y=True), True, 200),
    "diabetes": (lambda: datasets.load_diabetes(return_X_y=True), False, 200),
    "iris": (lambda: datasets.load_iris(return_X_y=True), True, 200),
    "wine": (lambda: datasets.load_wine(return_X_y=True), True, 200),
    "10000x100": (lambda: _made(10_000, 100), True, 20),
    "100000x50": (lambda: _made(100_000, 50), True, 3),
}
# OpenBLAS's threads, which scikit-learn uses, spin for 0.12 s after their work.
PAUSE_SECONDS = 0.2
SOLVERS = ("adam", "sgd", "lbfgs")
DTYPES = ("float32", "float64")
# Of the loss at the end: rounding, grown by training for as long as a fit takes.
AGREEMENT = {"float32": 1e-2, "float64": 1e-6}


def _made(samples: int, features: int) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = datasets.make_classification(
        samples, features, n_informative=features // 2, n_classes=5, random_state=0
    )
    return X, y


@dataclass
class Result:
    """Seconds of one row."""

    row: str
    solver: str
    dtype: str
    first: float
    gpubp: list[float]
    stock: list[float]
    epochs: int
    losses: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How many times faster, of the medians."""
        return statistics.median(self.stock) / statistics.median(self.gpubp)

    def line(self) -> str:
        """A row of the table."""
        times = [
            f"{statistics.median(t):.4g} ({min(t):.4g}-{max(t):.4g})"
            for t in (self.stock, self.gpubp)
        ]
        losses = "{:.8g} / {:.8g}".format(*self.losses)
        return (
            f"| {self.row} | {self.solver} | {self.dtype} | {self.epochs} | {times[0]} | "
            f"{times[1]} | {self.ratio:.2f} | {self.first:.3g} | {losses} |"
        )


HEAD = (
    "| data | solver | dtype | epochs | scikit-learn, s (min-max) | gpubp, s (min-max) | ratio | "
    "first call, s | loss: scikit-learn / gpubp |\n|---|---|---|---|---|---|---|---|---|"
)


def timed_fit(estimator: Any, X: Any, y: Any) -> float:
    """Seconds that `fit` takes, on a machine at rest."""
    time.sleep(PAUSE_SECONDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        estimator.fit(X, y)
        return time.perf_counter() - start


def measure(row: str, solver: str, dtype: str, repeats: int) -> Result:
    """Time one row."""
    load, classifies, epochs = ROWS[row]
    X, y = load()
    X = StandardScaler().fit_transform(X).astype(dtype)
    name = "MLPClassifier" if classifies else "MLPRegressor"
    arguments = {"solver": solver, "max_iter": epochs, "random_state": 0}

    def make(module: Any) -> Any:
        return getattr(module, name)(**arguments)

    first = timed_fit(make(ours), X, y)
    times: tuple[list[float], list[float]] = ([], [])
    fitted: list[Any] = [None, None]
    for _ in range(repeats):
        for i, module in enumerate((ours, stock)):
            fitted[i] = make(module)
            times[i].append(timed_fit(fitted[i], X, y))
    losses = (float(fitted[1].loss_), float(fitted[0].loss_))
    _require_agreement(row, solver, dtype, fitted)
    return Result(row, solver, dtype, first, *times, int(fitted[0].n_iter_), losses)


def _require_agreement(row: str, solver: str, dtype: str, fitted: Sequence[Any]) -> None:
    """The same training; L-BFGS is left out: its line search grows rounding without bound."""
    if solver == "lbfgs":
        return
    ours_, theirs = (np.asarray(f.loss_curve_) for f in fitted)
    close = ours_.shape == theirs.shape and np.allclose(
        ours_, theirs, rtol=AGREEMENT[dtype], atol=AGREEMENT[dtype] * theirs.max()
    )
    if not close:
        raise SystemExit(f"{row} {solver} {dtype}: the loss curves differ.")


def grid_search(repeats: int) -> dict[str, list[float]]:
    """Seconds of a grid search on digits with two processes."""
    X, y = datasets.load_digits(return_X_y=True)
    grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 3e-3]}
    times: dict[str, list[float]] = {"scikit-learn": [], "gpubp": []}
    scores = {}
    for _ in range(repeats + 1):  # the first round starts the workers
        for name, module in (("gpubp", ours), ("scikit-learn", stock)):
            model = module.MLPClassifier(max_iter=40, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                search = GridSearchCV(model, grid, cv=3, n_jobs=2)
                times[name].append(timed_fit(search, X / 16.0, y))
            scores[name] = search.cv_results_["mean_test_score"].tolist()
    if scores["gpubp"] != scores["scikit-learn"]:
        raise SystemExit(f"the scores of the grid search differ: {scores}")
    return {name: t[1:] for name, t in times.items()}


def main() -> None:
    """Run the rows that the command line names."""
    options = _options()
    print(
        f"gpubp {gpubp.__version__}, scikit-learn {sklearn.__version__}, NumPy {np.__version__}, "
    )
    print(f"Python {platform.python_version()}, {platform.platform()}\n\n{HEAD}", flush=True)
    results = []
    for row in options.rows:
        for solver in options.solvers:
            for dtype in options.dtypes:
                results.append(measure(row, solver, dtype, options.repeats))
                print(results[-1].line(), flush=True)
    searches = {} if options.no_grid else grid_search(options.repeats)
    for name, times in searches.items():
        print(f"grid search, n_jobs=2: {name} {statistics.median(times):.3g} s")
    slower = [r for r in results if r.ratio < 1.0]
    for r in slower:
        print(f"slower than scikit-learn: {r.row} {r.solver} {r.dtype}", file=sys.stderr)
    if options.json:
        record = {"rows": [vars(r) for r in results], "grid_search": searches}
        with open(options.json, "w") as file:
            json.dump(record, file, indent=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name, known in (("rows", tuple(ROWS)), ("solvers", SOLVERS), ("dtypes", DTYPES)):
        parser.add_argument(
            f"--{name}",
            default=",".join(known),
            type=lambda text, known=known: _listed(text, known),
            help=f"some of {','.join(known)} (all)",
        )
    parser.add_argument("--repeats", default=5, type=int, help="rounds (5)")
    parser.add_argument("--no-grid", action="store_true", help="leave the grid search out")
    parser.add_argument("--json", help="write all times to this file")
    return parser.parse_args()


def _listed(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
