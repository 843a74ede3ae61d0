"""Tables larger than memory: in files, with the same results as in memory, to the bit."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpubp.cli import evaluate, main, predict, tables
from gpubp.data import arrow, ondisk, read_csv, read_parquet, scaling, sources
from gpubp.data.columns import Column, fill_in, with_fills
from gpubp.errors import DataError
from gpubp.train import load_model

ROWS = 150


def _write(path: Path) -> Path:
    """What tables are made of: gaps, money, dates, names, lines in quotes, a target with gaps."""
    rng = np.random.default_rng(3)
    rows = ["who,size,price,day,kind,place,note,y"]
    for i, x in enumerate(rng.normal(50, 10, ROWS)):
        size = "NA" if i % 11 == 0 else f"{x:.2f}"
        price = f'"${1000 + 31.7 * i:,.2f}"'
        day = "" if i % 13 == 0 else f"2024-{i % 12 + 1:02d}-{i % 27 + 1:02d}"
        kind = ["a", "b", "", "long, with a comma"][i % 4]
        note = '"two\nlines"' if i % 50 == 7 else "x" if i % 3 else ""
        y = "" if i % 29 == 3 else "yes" if x > 50 else "no"
        rows.append(f'n{i},{size},{price},{day},"{kind}",{i % 5},{note},{y}')
    path.write_text("\n".join(rows) + "\n")
    return path


def _trained(capsys: Any, path: str, folder: Path, *arguments: str) -> tuple[Any, ...]:
    saved = str(folder / "model.safetensors")
    line = ["train", path, "--target", "y", "--epochs", "3", "--backend", "numpy", "--save", saved]
    assert main([*line, *arguments]) == 0
    said = [e for e in capsys.readouterr() for e in e.splitlines() if not e.startswith("epoch")]
    found = load_model(saved)
    weights = {name: value.tobytes() for name, value in found.model.state_dict().items()}
    return said, weights, str(found.extra["encoding"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows, and arrays that count as large."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.setattr(ondisk, "CELLS", 16 * 8)  # 16 rows of `_write`
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(ondisk, "MOVED", 2000)
    monkeypatch.setattr(ondisk, "_FILES", 3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_the_model_is_that_of_memory(tmp_path: Path, capsys: Any, missing: str) -> None:
    path = str(_write(tmp_path / "d.csv"))
    folder = tmp_path / "there"
    folder.mkdir()
    options = ("--missing", missing, "--class-weight", "balanced")
    there = _trained(capsys, path, tmp_path, *options, "--on-disk", str(folder))
    assert there == _trained(capsys, path, tmp_path, *options)
    assert not any(folder.iterdir())


@pytest.mark.usefixtures("small")
def test_amounts_packed_and_from_standard_input(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{x:.3f};{3 * x:.2f} kg" for x in rng.normal(size=60).tolist()]
    text = ("sep=;\nx;y\n" + "\n".join(lines)).replace(".", ",")
    plain, packed = tmp_path / "d.csv", tmp_path / "d.csv.gz"
    plain.write_bytes(text.encode("utf-16"))
    packed.write_bytes(gzip.compress(text.encode("utf-8-sig")))
    on_disk = ("--on-disk", str(tmp_path), "--metrics", "mae")
    _, weights, encoding = _trained(capsys, str(plain), tmp_path, "--metrics", "mae")
    with packed.open("rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        for name in (str(plain), str(packed), "-"):
            found = _trained(capsys, name, tmp_path, *on_disk)
            assert found[1:] == (weights, encoding)
        assert not file.closed


def _parquet(path: Path) -> Path:
    """The table of `_write`, with numbers as numbers."""
    import pyarrow
    from pyarrow import parquet

    given = read_csv(_write(path.with_suffix(".csv")))
    columns: dict[str, Any] = {name: list(cells) for name, cells in given.columns.items()}
    columns["size"] = [None if c == "NA" else float(c) for c in columns["size"]]
    columns["price"] = [float(c[1:].replace(",", "")) for c in columns["price"]]
    columns["place"] = pyarrow.array(columns["place"]).dictionary_encode()
    parquet.write_table(pyarrow.table(columns), path, row_group_size=40)
    return path


@pytest.mark.usefixtures("small")
def test_the_model_of_a_parquet_file_is_that_of_memory(tmp_path: Path, capsys: Any) -> None:
    path = str(_parquet(tmp_path / "d.parquet"))
    there = _trained(capsys, path, tmp_path, "--on-disk", str(tmp_path))
    assert there == _trained(capsys, path, tmp_path)
    assert not list(tmp_path.glob("gpubp-*"))
    table, kept = ondisk.read_parquet(path, tmp_path), read_parquet(path)
    assert dict(table.columns) == dict(kept.columns) and set(table.written) == {"size", "price"}
    assert list(table.lines) == list(kept.lines) and table.written == kept.written


def _new(path: Path) -> Path:
    """The table of `_write`, with names and labels that it does not have."""
    lines = _write(path).read_text().splitlines()
    for i in (20, 90, 95):
        lines[i] = lines[i].replace(',"b",', ',"new",').replace(',"a",', ',"new",')
    lines[60] = lines[60].rpartition(",")[0] + ",perhaps"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("target", ["y", "size"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_and_figures_are_those_of_memory(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, target: str, ending: str
) -> None:
    monkeypatch.setattr(predict, "PART_LINES", 16)
    saved, out = str(tmp_path / "m.safetensors"), tmp_path / "p.csv"
    old = _write(tmp_path / "d.csv") if ending == "csv" else _parquet(tmp_path / "d.parquet")
    train = ["train", str(old), "--target", target, "--epochs", "2", "--backend", "numpy"]
    assert main([*train, "--save", saved]) == 0
    new = str(_new(tmp_path / "new.csv") if ending == "csv" else old)
    for missing in ("mean", "empty"):
        found = []
        for parts in (64, 1 << 16):
            monkeypatch.setattr(evaluate, "_PART", parts)
            here = ["--on-disk", str(tmp_path)] if parts == 64 else []
            asked = [saved, new, "--missing", missing, "--backend", "numpy", *here]
            capsys.readouterr()
            wanted = ["-o", str(out), "--keep", "kind,note"]
            wanted += ["--probabilities"] if target == "y" else []
            assert main(["predict", *asked, *wanted]) == 0
            assert main(["evaluate", *asked, "--repeats", "2"]) == 0
            found.append((out.read_text(), capsys.readouterr()))
        assert found[0] == found[1] and not list(tmp_path.glob("gpubp-*"))
        assert len(found[0][0].splitlines()) > ROWS
        if ending == "csv":
            assert "rows have a name that the training data did not ('new', row" in found[0][1].err


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("", "utf-8"),
        ("a,b\n", "utf-8"),
        ("a,b\n1,2\n" * 20 + "3\n", "utf-8"),
        ("1,2\n3,4\n", "utf-8"),
        ("a,a\n1,2\n", "utf-8"),
        ('a,b\n"1"x,2\n', "utf-8"),
    ],
)
def test_errors_are_those_of_memory(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text, encoding=encoding)
    with pytest.raises(DataError) as ours:
        ondisk.read_csv(path, tmp_path)
    with pytest.raises(DataError) as theirs:
        read_csv(path)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.usefixtures("small")
def test_text_that_is_none_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 40 + b"\xff,1\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        ondisk.read_csv(path, tmp_path)
    path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 999)[:-12])
    with pytest.raises(DataError, match="is damaged: gzip says"):
        ondisk.read_csv(path, tmp_path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        ondisk.read_csv(tmp_path / "no.csv", tmp_path)
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(DataError, match="'latin1000' is no encoding"):
        ondisk.read_csv(path, tmp_path, encoding="latin1000")


def test_options_that_cannot_be(tmp_path: Path, capsys: Any) -> None:
    path = str(_write(tmp_path / "d.csv"))
    there = ["--on-disk", str(tmp_path / "no")]
    assert main(["train", path, "--target", "y", *there]) == 3
    assert "--on-disk" in capsys.readouterr().err
    assert main(["train", "digits", *there]) == 2
    assert "--on-disk is for tables" in capsys.readouterr().err
    saved = str(tmp_path / "m.safetensors")
    assert main(["train", "digits", "--epochs", "1", "--backend", "numpy", "--save", saved]) == 0
    for command in ("predict", "evaluate"):
        assert main([command, saved, "digits", "--on-disk", str(tmp_path)]) == 2
        assert "--on-disk is for tables: digits is none" in capsys.readouterr().err
        assert main([command, saved, path, *there]) == 3
    assert not list(tmp_path.glob("gpubp-*"))


def test_a_file_that_will_hardly_fit_is_named(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(_write(tmp_path / "d.csv"))
    line = ["train", path, "--target", "y", "--epochs", "1", "--backend", "numpy"]
    assert main(line) == 0 and "--on-disk" not in capsys.readouterr().err
    monkeypatch.setattr(tables.os, "sysconf", lambda name: 64)
    assert main(line) == 0 and "too little, --on-disk FOLDER" in capsys.readouterr().err


def test_few_rows_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's objects take a part of the size of a file of 3 MB; in memory several times that."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pyarrow.array(["a"])  # which imports pandas, where that is installed
    path, columns = tmp_path / "d.csv", 20
    rows = (",".join(f"{i}.{j}2345678" for j in range(columns)) + "\n" for i in range(12_000))
    path.write_text(",".join(f"x{j}" for j in range(columns)) + "\n" + "".join(rows))
    size = path.stat().st_size
    monkeypatch.setattr(arrow, "library", lambda: None)
    in_memory = _peak(lambda: read_csv(path))
    monkeypatch.setattr(arrow, "library", lambda: pyarrow)
    monkeypatch.setattr(ondisk, "CELLS", 64 * columns)
    held: list[int] = []

    def counted(*arguments: Any) -> Any:
        for part in columns_of(*arguments):
            held.append(len(part[0]))
            yield part

    columns_of = ondisk._columns
    monkeypatch.setattr(ondisk, "_columns", counted)
    on_disk = _peak(lambda: ondisk.read_csv(path, tmp_path))
    assert max(held) == 64 and sum(held) == 12_000
    assert on_disk < size / 5 < 2 * size < in_memory, (on_disk, size, in_memory)


def _peak(work: Any) -> int:
    """The bytes of Python's objects, at most, while work is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_statistics_of_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3)) * [1e-6, 1.0, 1e6] + [1e9, 0.0, -1.0]
    rows = rng.permutation(1000)[:700]
    whole = scaling.Standardizer.fit(X[rows])
    monkeypatch.setattr(scaling, "PART_ROWS", 64)
    parts = scaling.Standardizer.fit(X, rows=rows)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-12)
    np.testing.assert_allclose(parts.std[1:], X[rows].std(axis=0)[1:], rtol=1e-12)
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:, 2] = np.nan
    columns = [Column("a", fill=[np.nan], mark=False), Column("b", fill=[np.nan]), Column("c")]
    columns[2] = Column("c", fill=[np.nan])
    made = with_fills(columns, X, rows)
    expected = [*np.nanmean(X[rows][:, :2], axis=0).tolist(), 0.0]
    np.testing.assert_allclose([c.fill for c in made], np.array(expected)[:, None], rtol=1e-14)
    gaps = np.isnan(X)
    fill_in(made, X)
    assert (X[gaps] == np.broadcast_to([c.fill[0] for c in made if c.fill], X.shape)[gaps]).all()
