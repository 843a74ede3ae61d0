"""Text tables as people have them: comments, headers behind a mark, columns separated by blanks."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest

from gpubp.cli import main
from gpubp.data import ondisk, read_csv
from gpubp.data.table import Table
from gpubp.errors import DataError

A_B = {"a": ["1", "2"], "b": ["x", "y"]}
NUMBERS = {"a": ["1", "2"], "b": ["5.5", "6"]}
READ: dict[str, tuple[str, dict[str, list[str]], int]] = {
    "comments before the header": ("# by us\n#\n\na,b\n1,x\n2,y\n", A_B, 2),
    "a comment as long as the header": ("# by us, x\na,b\n1,x\n2,y\n", A_B, 1),
    "comments between rows": ("a,b\n1,x\n# checked\n2,y\n# the end, really, it is\n", A_B, 2),
    "numpy.savetxt's header": ("# a,b\n1,5.5\n2,6\n", NUMBERS, 0),
    "numpy.savetxt's header, with blanks": ("# taken at night\n# a b\n1 5.5\n2 6\n", NUMBERS, 1),
    "a column whose name is the mark": ("#,b\n1,x\n2,y\n", {"#": ["1", "2"], "b": ["x", "y"]}, 0),
    "that, with tabs": ("#\tb\n1\tx\n2\ty\n", {"#": ["1", "2"], "b": ["x", "y"]}, 0),
    "a name that begins with the mark": (
        "##version 4\n#a\tb\n1\tx\n2\ty\n",
        {"#a": ["1", "2"], "b": ["x", "y"]},
        1,
    ),
    "values with the mark": ("a,b\n#1,x\n#2,y\n", {"a": ["#1", "#2"], "b": ["x", "y"]}, 0),
    "blanks": ("a   b\n 1   5.5\n2  6  \n\n", NUMBERS, 0),
    "blanks, and a tab before quotes": ('a  b\n1.0   5\t"x y"\n'.replace("b", "b  c"), {
        "a": ["1.0"], "b": ["5"], "c": ["x y"]}, 0),
    "blanks and decimal commas": ("a b\n1,5 x\n", {"a": ["1,5"], "b": ["x"]}, 0),
    "a comment between blanks": ("a b\n1 5.5\n# so far\n2 6\n", NUMBERS, 1),
    "R's names of rows": (
        '"a" "b"\n"Mazda RX4" 1 5.5\n"Fiat" 2 6\n',
        {"index": ["Mazda RX4", "Fiat"], **NUMBERS},
        0,
    ),
    "an empty line before other separators": ("\na;b\n1;x\n2;y\n", A_B, 0),
    "Excel's line, then a comment": ("sep=;\n# by us\na;b\n1;x\n2;y\n", A_B, 1),
    "words in one column": ("full name\nAda Lovelace\n", {"full name": ["Ada Lovelace"]}, 0),
    "a blank in a name of one column": ("my size\n1\n2\n", {"my size": ["1", "2"]}, 0),
    "returns alone": ("# by us\ra,b\r1,x\r2,y\r", A_B, 1),
}  # fmt: skip


def _both(path: Path, text: str) -> list[Table]:
    path.write_bytes(text.encode())
    found = [read_csv(path)]
    pytest.importorskip("pyarrow", reason="tables on disk are pyarrow's")
    return [*found, ondisk.read_csv(path, path.parent)]


@pytest.mark.parametrize("what", READ)
def test_what_stands_before_and_between_the_values(tmp_path: Path, what: str) -> None:
    text, columns, comments = READ[what]
    path = tmp_path / "d.csv"
    path.write_bytes(text.encode())
    table = read_csv(path)
    assert {name: list(cells) for name, cells in table.columns.items()} == columns
    assert table.comments == comments
    lines = text.replace("\r", "\n").splitlines()
    first = next(iter(columns.values()))
    for row, line in enumerate(table.lines):
        assert first[row].split()[0] in lines[line - 1]


@pytest.mark.parametrize("what", READ)
def test_tables_on_disk_are_read_alike(tmp_path: Path, what: str) -> None:
    ours, disk = _both(tmp_path / "d.csv", READ[what][0])
    assert {n: list(c) for n, c in ours.columns.items()} == {
        n: list(c) for n, c in disk.columns.items()
    }
    assert (ours.comments, ours.index, ours.delimiter) == (
        disk.comments,
        disk.index,
        disk.delimiter,
    )
    assert list(ours.lines) == list(disk.lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# by us\n", "is empty"),
        ("# by us\na,b\n", "is empty"),
        ("# by us\n1,2\n3,4,5\n", "has no header"),
        ("a,b\n1,2\n#3,4,5\n4\n", "row 4: 1 values"),
        ("# by us\na b\n1 2\n3 4 5\n6 7\n", "row 4: 3 values under a header of 2"),
        ("a,b,\n1,2,\n", "column 3 has no name in the header. Write one there"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv(path)


def test_comments_that_were_left_out_are_said(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "d.data"
    rows = "".join(f"{i % 7 + 0.5} {i % 3}  {'yes' if i % 7 > 3 else 'no'}\n" for i in range(60))
    path.write_text("# by us\nsize  kind y\n" + rows)
    line = ["train", str(path), "--target", "y", "--epochs", "1", "--backend", "numpy"]
    assert main(line) == 0
    assert "columns separated by blanks; 1 line of comment left out" in capsys.readouterr().err


def test_an_encoding_that_a_package_takes_for_its_own_is_none(tmp_path: Path) -> None:
    """See findings/future_typing_takes_every_encoding.sh."""

    def any_name(name: str) -> codecs.CodecInfo:
        known = codecs.lookup("utf-8")
        return codecs.CodecInfo(known.encode, known.decode, name="any")

    path = tmp_path / "d.csv"
    path.write_bytes("a,b\né,x\n".encode("latin-1"))
    codecs.register(any_name)
    try:
        with pytest.raises(DataError, match="'latin1000' is no encoding"):
            read_csv(path, encoding="latin1000")
        assert read_csv(path, encoding="latin-1").columns["a"] == ["é"]
    finally:
        codecs.unregister(any_name)
