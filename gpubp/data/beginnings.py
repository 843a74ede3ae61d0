"""The beginning of a text file: lines of comment, Excel's `sep=;`, what separates the columns.

Comes in: the lines of a file. Goes out: where its header is, and what stands between two values.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from gpubp.data.numerals import as_number

BLANKS = " "  # as a delimiter: any number of blanks and tabs
COMMENT = "#"
_DELIMITERS = ",;\t|"
_LOOKED_AT = 100  # lines below the comments
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_BETWEEN_BLANKS = re.compile(r'(?:"[^"]*"|[^\s"])+')


class Beginning(NamedTuple):
    """What the first lines of a file say.

    Attributes:
        delimiter: what separates the columns; `BLANKS` for any number of them.
        skipped: the characters before the header.
        lines: how many whole lines that are.
        comments: how many of these are lines of comment.
        row_names: whether each row begins with a name for which the header has no word, as R
            writes tables.
    """

    delimiter: str
    skipped: int = 0
    lines: int = 0
    comments: int = 0
    row_names: bool = False


def lines_in(text: str) -> Iterator[str]:
    """The lines of a text, with their ends, one by one."""
    return (found[0] for found in _LINE.finditer(text))


def beginning(lines: Iterator[str], delimiter: str | None) -> tuple[Beginning, list[str]]:
    """What the first lines of a file say, and the lines that were looked at.

    Lines that begin with `#` are comments, unless the last of them is the header: it has a name for
    each value of the next line, in which there are numbers. So `numpy.savetxt` writes headers.

    Args:
        lines: of the file.
        delimiter: what separates the columns, if that is known.
    """
    seen: list[str] = []
    for line in lines:
        seen.append(line)
        if not _stands_before(line, len(seen) == 1):
            break
    else:
        return Beginning(delimiter or ",", sum(map(len, seen)), len(seen)), seen
    place = len(seen) - 1
    seen.extend(islice(lines, _LOOKED_AT))
    given = re.fullmatch(r"sep=(.)\s*", seen[0]) if place else None
    body = seen[place:]
    separator = delimiter or (given[1] if given else _separator(body))
    named = _unmarked(seen[:place], body[0], separator)
    if named is not None:
        place, mark = named
        body = [seen[place][mark:], *seen[place + 1 :]]
    found = Beginning(
        separator,
        sum(map(len, seen[:place])) + (named[1] if named else 0),
        place,
        sum(line.startswith(COMMENT) for line in seen[:place]),
        separator == BLANKS and _lengths(body)[1] == len(_values(body[0])) + 1,
    )
    return found, seen


def _stands_before(line: str, first: bool) -> bool:
    excel = first and re.fullmatch(r"sep=(.)\s*", line)
    return bool(excel) or not line.strip() or line.startswith(COMMENT)


def _separator(body: Sequence[str]) -> str:
    """The one of comma, semicolon, tab and bar that the header has most of; else blanks, if they
    part the rows; else the comma.
    """
    outside = re.sub(r'"[^"]*"', "", body[0])
    found = max(_DELIMITERS, key=outside.count)
    return found if outside.count(found) or not _by_blanks(body) else BLANKS


def _by_blanks(body: Sequence[str]) -> bool:
    """Whether blanks part most rows into as many values as the header, and some are numbers."""
    count, usual = _lengths(body)
    if count < 2 or usual not in (count, count + 1):
        return False
    rows = [cells for cells in map(_values, body[1:]) if len(cells) == usual]
    return any(map(_is_number, rows[0]))


def _lengths(body: Sequence[str]) -> tuple[int, int]:
    """How many values the first line has between blanks, and how many most of the others have; 0
    if no number is that of most.
    """
    rows = [_values(line) for line in body[1:] if _is_row(line)]
    usual, often = (Counter(map(len, rows)).most_common(1) or [(0, 0)])[0]
    return len(_values(body[0])), usual if 2 * often > len(rows) else 0


def _values(line: str) -> list[str]:
    return _BETWEEN_BLANKS.findall(line)


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(COMMENT)


def _is_number(cell: str) -> bool:
    return as_number(cell.strip('" \t').replace(",", ".")) is not None


def _unmarked(before: Sequence[str], row: str, separator: str) -> tuple[int, int] | None:
    """Which line of comment is the header, and the length of its mark; None: none is."""
    if not before or not before[-1].startswith(COMMENT):
        return None
    values = _split(row, separator)
    found = re.match(r"# +" if separator == "\t" else r"#[ \t]+", before[-1])
    marks = [len(found[0])] if found else []
    for mark in marks + ([] if marks and separator == BLANKS else [0]):
        names = _split(before[-1][mark:], separator)
        sure = names[:1] == [COMMENT] or any(map(_is_number, values))
        if sure and len(names) == len(values) > 1:
            return len(before) - 1, mark
    return None


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(separated([line], separator), delimiter=single(separator)), [])
    except csv.Error:
        return []


def single(separator: str) -> str:
    """The delimiter of lines that `separated` has given."""
    return "\t" if separator == BLANKS else separator


def separated(lines: Iterable[str], separator: str) -> Iterable[str]:
    """The lines with one tab where blanks separate values; others as they are."""
    if separator != BLANKS:
        return lines
    return ("\t".join(_values(line)) + "\n" for line in lines)
