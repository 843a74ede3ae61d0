"""CSV files read by pyarrow: the same tables, and the same errors, as by Python's csv module."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.data import Table, arrow, read_csv
from gpubp.data.arrow import ArrowCells
from gpubp.errors import DataError
from gpubp.train import load_model

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

# name: (text, whether pyarrow reads it)
TEXTS: dict[str, tuple[str, bool]] = {
    "plain": ("a,b\n1,x\n2.5,y\n-3e-4,x\n", True),
    "no end": ("a,b\n1,x\n2,y", True),
    "windows": ("a;b\r\n1,5;x\r\n2,25;y\r\n", True),
    "excel": ("sep=;\na;b\n1,5;x\n2,25;y\n", True),
    "mark": ("\ufeffa,b\n1,x\n", True),
    "tabs, blank lines": ("a\tb\n1\tx\n\n2\ty\n\n\n3\tz\n", True),
    "empty rows": ("a,b\n1,x\n,\n2,y\n , \n", True),
    "spaces": (" a , b\n 1 , x \n2,\ty\n", True),
    "quotes": ('a,b\n"1","x, y"\n"2","say ""hi"""\n"",""\n"3",""""\n', True),
    "quoted lines": ('a,b\n1,"x\ny"\n2,"z"\n3,"\n\n"\n4,w\n', True),
    "quoted returns": ('a,b\r\n1,"x\r\ny"\r\n2,z\r\n', True),
    "money": ('a,b\n"$3,750.00",x\n$12.50,y\n"$1,234,567.25",x\n', True),
    "percent": ("a,b\n20.1%,x\n3 %,y\n0,x\n", True),
    "missing": ("a,b,c\n1,NA,\nnan,?,n/a\n-,x,NULL\n#N/A,.,--\n4,None,1.#IND\n", True),
    "all missing": ("a,b\n,1\nNaN,2\n-,3\n", True),
    "dates": ("a,b\n2024-12-31,1\n2025-01-01,2\n", True),
    "codes": ("a,b\n007,1\n0,2\n010,3\n0.5,4\n", True),
    "long numbers": ("a,b\n12345678901234567,1\n12345678901234568,2\n0.1000000000000001,3\n", True),
    "far numbers": ("a,b\n1e400,1\n-1e-400,2\n1.7976931348623157e308,3\n4.9e-324,4\n", True),
    "odd numbers": ("a,b,c,d\n+1,1_000,inf,nan(1)\n.5,2,-Infinity,2\n1E5,3,1,3\n", True),
    "other numbers": ("a,b,c\n1.,0x1F,+nan\n2,3,4\n3,4,5\n", True),
    "yes and no": ("a,b\nTrue,yes\nFalse,no\n", True),
    "letters": ("größe,ort\n1,Łódź\n2,Århus\n3,北京\n", True),
    "wide spaces": ("a,b\n1\u00a0,x\n2,\u00a0y\n", True),
    "thin spaces": ("a,b\n1\u2009000,x\u2028\n2,y\n", False),
    "controls": ("a,b\n1,x\x1f\n2,y\n", False),
    "old Mac": ("a,b\r1,x\r2,y\r", False),
    "a return inside": ("a,b\n1,x\ry\n2,z\n", False),
    "quotes inside": ("a,b\n1,5'11\"\n2,6'\"x\"\n", False),
    "quotes after spaces": ('a,b\n1, "x"\n2,"y" \n', False),
    "one column": ("a\n1\n\n2\n", True),
    "index": (",a\n0,5\n1,6\n", True),
    "digits of others": ("a,b\n٣,1\n٤,2\n", True),
    "header of two lines": ('"a\nb",c\n1,2\n', False),
    "blank first": ("\na,b\n1,2\n", True),
    "lone quote": ('a,b\n"1,2\n3,4\n', False),
    "after a quote": ('a,b\n"1"x,2\n', False),
    "short row": ("a,b\n1,2\n3\n", False),
    "long row": ("a,b\n1,2\n3,4,5\n", False),
    "two of one name": ("a,a\n1,2\n", False),
    "header only": ("a,b\n", False),
    "blank rows only": ("a,b\n,\n\n", False),
    "nothing": ("", False),
}  # fmt: skip


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that calls another one as if pyarrow were not installed."""

    def call(function: Any, *args: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(arrow, "library", lambda: None)
            return function(*args, **options)

    return call


def _tried(function: Any, *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except DataError as error:
        return str(error)


def _same(ours: Table, theirs: Table) -> None:
    assert list(ours.columns) == list(theirs.columns)
    for name in ours.columns:
        a, b = ours.column(name), theirs.column(name)
        assert list(a) == list(b) and a == b.texts() and len(a) == len(b), name
        np.testing.assert_array_equal(a.absent, b.absent)
        assert (a.plain is None) == (b.plain is None), name
        if a.plain is not None and b.plain is not None:
            np.testing.assert_array_equal(a.plain, b.plain)
            assert a.plain.dtype == b.plain.dtype
        assert list(a.counts.items()) == list(b.counts.items())
        assert a.coded[0] == b.coded[0] and a.coded[1].tolist() == b.coded[1].tolist()
        assert a.longest == b.longest and a.given == list(b.given)
        assert list(a.containing(".")) == list(b.containing("."))
        assert list(a.leading_zeros()) == list(b.leading_zeros())
        rows = np.arange(len(a))[::-2]
        assert a.take(rows) == list(b.take(rows)) and a[-1] == b[-1] and list(a[:2]) == list(b[:2])
        assert [a.index(cell) for cell in a] == [b.index(cell) for cell in b]
        with pytest.raises(ValueError, match="not in"):
            a.index("no such cell")
    assert list(ours.lines) == list(theirs.lines)
    assert ours.written == theirs.written
    assert (ours.delimiter, ours.index, ours.path) == (theirs.delimiter, theirs.index, theirs.path)


@pytest.mark.parametrize("decimal", [None, ","])
@pytest.mark.parametrize("name", TEXTS)
def test_tables_and_errors_are_those_of_python(
    tmp_path: Path, without: Any, name: str, decimal: str | None
) -> None:
    text, by_arrow = TEXTS[name]
    path = tmp_path / "d.csv"
    path.write_bytes(text.encode())
    ours = _tried(read_csv, path, decimal=decimal)
    theirs = without(_tried, read_csv, path, decimal=decimal)
    if isinstance(theirs, str):
        assert ours == theirs
        return
    _same(ours, theirs)
    assert isinstance(ours.column(next(iter(ours.columns))), ArrowCells) == by_arrow
    assert not isinstance(theirs.column(next(iter(theirs.columns))), ArrowCells)


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_are_read_alike(tmp_path: Path, without: Any, seed: int) -> None:
    """Texts of what matters to a reader of CSV files: the same table, or the same error."""
    rng = np.random.default_rng(seed)
    pieces = [
        '"',
        '""',
        ",",
        ",",
        "\n",
        "\n",
        "\r\n",
        " ",
        "a",
        "1",
        "0",
        ".",
        "NA",
        "é",
        "\t",
        "-",
    ]
    for _ in range(25):
        body = "".join(rng.choice(pieces, rng.integers(1, 30)))
        quoted = '"' + body.replace('"', '""') + '"'
        path = tmp_path / "d.csv"
        path.write_bytes(f"x,y\n{rng.choice([body, quoted])},{rng.choice([body, '1'])}\n".encode())
        ours, theirs = _tried(read_csv, path), without(_tried, read_csv, path)
        if isinstance(theirs, str):
            assert ours == theirs
        else:
            _same(ours, theirs)


def test_encodings_gzip_and_standard_input(
    tmp_path: Path, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "ort,x\n" + "".join(f"Ålborg {i % 3},{i / 7}\n" for i in range(50))
    files = {
        "a.csv": (text.encode(), None),
        "b.csv": (text.encode("utf-16"), None),
        "c.csv": (text.encode("latin-1"), "latin-1"),
        "d.csv.gz": (gzip.compress(text.encode()), None),
    }
    for name, (data, encoding) in files.items():
        (tmp_path / name).write_bytes(data)
        ours = read_csv(tmp_path / name, encoding=encoding)
        assert isinstance(ours.column("x"), ArrowCells)
        _same(ours, without(read_csv, tmp_path / name, encoding=encoding))


def test_columns_of_several_pieces(tmp_path: Path, without: Any) -> None:
    """More than pyarrow reads at once."""
    rng = np.random.default_rng(0)
    rows = [f"{x!r},n{i % 7},{i}" for i, x in enumerate(rng.normal(size=60000).tolist())]
    path = tmp_path / "d.csv"
    path.write_text("x,name,i\n" + "\n".join(rows) + "\n")
    ours = read_csv(path)
    column: Any = ours.column("x")
    assert column._array.num_chunks > 1
    theirs = without(read_csv, path)
    for name in ours.columns:
        a, b = ours.column(name), theirs.column(name)
        assert list(a) == list(b) and a.counts == b.counts
        assert a.coded[0] == b.coded[0] and (a.coded[1] == b.coded[1]).all()
        assert a.index(b[59999]) == b.index(b[59999])
    np.testing.assert_array_equal(ours.numbers("x"), theirs.numbers("x"))
    rows_kept = rng.permutation(60000)[:100]
    assert ours.rows(rows_kept).column("x") == list(theirs.rows(rows_kept).column("x"))


def test_a_model_is_the_same_whoever_reads(tmp_path: Path, without: Any, capsys: Any) -> None:
    """Everything that the command line finds out, says and trains."""
    rng = np.random.default_rng(1)
    rows = ["id,size,price,day,kind,y"]
    for i, x in enumerate(rng.normal(50, 10, 120)):
        gap = "" if i % 11 == 0 else f"{x:.2f}"
        price = f'"${1000 + 31.7 * i:,.2f}"'
        day = f"2024-{i % 12 + 1:02d}-{i % 27 + 1:02d}"
        rows.append(f"n{i},{gap},{price},{day},{'abc'[i % 3]},{'yes' if x > 50 else 'no'}")
    path = tmp_path / "d.csv"
    path.write_text("\n".join(rows) + "\n")
    found = []
    for call in (lambda f, *a: f(*a), without):
        saved = str(tmp_path / f"{len(found)}.safetensors")
        line = ["train", str(path), "--target", "y", "--epochs", "2", "--backend", "numpy"]
        assert call(main, [*line, "--save", saved]) == 0
        out, err = capsys.readouterr()
        assert call(main, ["predict", saved, str(path), "--backend", "numpy"]) == 0
        model = load_model(saved)
        texts = (out, err.splitlines()[:6], capsys.readouterr(), str(model.extra))
        found.append((texts, {k: v.tobytes() for k, v in model.model.state_dict().items()}))
    assert found[0] == found[1]
