"""A table for training: what its columns are, which rows and columns are left out, and why."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import doubtful, summary
from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError, warn
from gpubp.cli.splitting import Dataset, split
from gpubp.data import columns, encoding, ondisk
from gpubp.data.described import of_table
from gpubp.data.encoding import Encoding
from gpubp.data.numerals import COMMA, POINT, like_numbers
from gpubp.data.parquet import ENDINGS, read_parquet
from gpubp.data.reading import read_csv
from gpubp.data.table import Table

_ROOM = 4  # times the size of a file, its texts and numbers take
DECIMALS = {"auto": None, "point": POINT, "comma": COMMA}


def of_csv(options: argparse.Namespace) -> Dataset:
    """Read, describe and split the table of the options."""
    if options.on_disk is None:
        return _of_csv(options, None)
    folder = _new_folder(options.on_disk)
    try:
        made = _of_csv(options, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


def _new_folder(inside: str) -> Path:
    """A folder of its own for a table."""
    if not Path(inside).is_dir():
        raise CommandError(BAD_DATA, f"--on-disk {inside}: the folder does not exist.")
    return Path(tempfile.mkdtemp(prefix="gpubp-", dir=inside))


@contextmanager
def kept_on_disk(inside: str | None) -> Iterator[Path | None]:
    """A folder for a table and its numbers, which is removed at the end; None: in memory."""
    if inside is None:
        yield None
        return
    folder = _new_folder(inside)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_csv(options: argparse.Namespace, folder: Path | None) -> Dataset:
    whole = read_table(options, folder)
    target = options.target
    if target is None:
        raise CommandError(
            WRONG_ARGUMENTS,
            f"--target is missing: which of {', '.join(whole.columns)} is to be predicted?",
        )
    whole.column(target)
    if target in (*options.drop, *options.id):
        given = "drop" if target in options.drop else "id"
        raise CommandError(WRONG_ARGUMENTS, f"--{given} {target}: it is the target.")
    ids, left_out = _identifiers(options, whole)
    used = [name for name in whole.columns if name not in (*options.drop, *ids)]
    table, dropped = _complete(options, whole, used)
    out = [*options.drop, *(name for name in ids if name not in options.drop)]
    fill = options.missing == "mean"
    found = of_table(table, target, options.task, out, options.categorical, fill)
    found.ids = ids
    _check_amounts(options, found, table)
    X, y = _features(found, table, folder), _targets(found, table)
    declared = [*options.categorical, *([target] if options.task == "classification" else [])]
    warnings = [
        *dropped,
        *left_out,
        *summary.doubts(table, [n for n in used if n not in declared]),
        *doubtful.of_columns(table, found, declared),
        *doubtful.of_labels(found, table, target in declared),
    ]
    made = split(options, found, X, y, "rows", table, folder)
    made.said.extend(summary.of_gaps(table, found))
    made.said.extend(summary.of_writing(table, [n for n in used if n not in declared]))
    made.warnings[:0] = warnings
    return made


def read_table(options: argparse.Namespace, folder: Path | None = None) -> Table:
    """The table of a CSV or Parquet file, in memory or in files of the folder."""
    path, decimal = options.data, DECIMALS[options.decimal]
    if folder is None and (large := _larger_than_memory(path)) and hasattr(options, "on_disk"):
        warn(large)
    if Path(path).suffix.lower() in ENDINGS:
        for name in ("encoding", "decimal"):
            if getattr(options, name) not in (None, "auto"):
                raise CommandError(WRONG_ARGUMENTS, f"--{name} is for CSV files. Leave it out.")
        return read_parquet(path) if folder is None else ondisk.read_parquet(path, folder)
    if folder is None:
        return read_csv(path, decimal=decimal, encoding=options.encoding)
    return ondisk.read_csv(path, folder, decimal, options.encoding)


def _larger_than_memory(path: str) -> str:
    """A warning if a file will hardly fit into memory beside the numbers made of it."""
    try:
        size = Path(path).stat().st_size
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # standard input; systems that do not tell
        return ""
    if size * _ROOM < memory:
        return ""
    return (
        f"{path} has {size / 1e9:.1f} GB, the machine {memory / 1e9:.1f} GB of memory. If that is "
        "too little, --on-disk FOLDER keeps the table in files there, with the same results."
    )


def _identifiers(options: argparse.Namespace, table: Table) -> tuple[list[str], list[str]]:
    """Columns that say who, not what, and what is said of them."""
    for name in (*options.id, *options.drop, *options.categorical):
        table.column(name)
    ids, said = list(options.id), []
    if table.index and table.index not in (*ids, *options.drop, options.target):
        ids.append(table.index)
        said.append(
            f"column 1 has no name: it is taken for an index ({table.index!r}), from which nothing "
            "is learned."
        )
    for name in table.columns:
        if name in (*ids, *options.drop, options.target):
            continue
        why = columns.says_who(table, name, name in options.categorical)
        if why:
            ids.append(name)
            said.append(f"column {name!r} {why}. Nothing is learned from it.")
    return ids, said


def _complete(
    options: argparse.Namespace, table: Table, used: Sequence[str]
) -> tuple[Table, list[str]]:
    """The rows that can be learned from, and what was left out for it."""
    if options.missing == "error":
        rows = "leave out those rows (--missing drop)"
        only = list(table.missing(used)) == [options.target]
        advice = f"{rows}." if only else f"{rows} or columns (--drop NAME)."
        table.check_complete(used, f"Fill them in (--missing mean), or {advice}")
        return table, []
    needed = used if options.missing == "drop" else [options.target]
    kept = table.complete_rows(needed)
    left = len(table) - len(kept)
    text = (
        f"{table.path}: {left:,} of {len(table):,} rows left out: values are missing in "
        f"{table.gaps(needed)}."
    )
    if options.missing == "drop":
        text += " --drop NAME leaves out a column instead."
    return kept, [text] if left else []


def _check_amounts(options: argparse.Namespace, found: Encoding, table: Table) -> None:
    """Raise CommandError if the classes look like numbers that could not be read."""
    target, count = found.target, len(found.classes)
    asked = options.task == "classification" or target in options.categorical
    if asked or table.is_numeric(target) or count <= encoding.MOST_CLASSES:
        return
    if like_numbers(found.classes):
        cell = table.column(target)[0]
        raise CommandError(
            BAD_DATA,
            f"{table.where(0, target)}: {cell!r} and {count - 1} other values look like numbers "
            "that cannot be read as such. Write plain numbers, or add --task classification.",
        )


def _features(found: Encoding, table: Table, folder: Path | None) -> NDArray[np.float64]:
    """X before anything is filled in: in memory, or part by part into a file of the folder."""
    if folder is None:
        return found.features(table)
    X: NDArray[np.float64] = ondisk.new_array(folder, (len(table), found.width), np.float64)
    start = 0
    for part in table.parts(ondisk.rows_at_once(len(table.columns))):
        X[start : start + len(part)] = found.features(part)
        start += len(part)
    return X


def _targets(found: Encoding, table: Table) -> NDArray[Any]:
    if found.task == "classification":
        return found.labels(table.column(found.target), table)
    return table.numbers(found.target)
