"""Text from files as people have them: compressed, in other encodings, from standard input."""

from __future__ import annotations

import codecs
import gzip
import os
import sys
import zlib

from gpubp.errors import DataError

STDIN = "-"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def named(path: str | os.PathLike[str]) -> str:
    """A file for messages."""
    return "standard input" if os.fspath(path) == STDIN else os.fspath(path)


def read_text(path: str | os.PathLike[str], encoding: str | None = None) -> str:
    """The text of a file, or of standard input if it is "-"; what gzip has packed is unpacked.

    Args:
        path: the file.
        encoding: Python's name of it; default is UTF-8, or what a mark at the beginning says.

    Raises:
        DataError: unreadable, damaged, or no text of that encoding.
    """
    name = named(path)
    try:
        data = _bytes(path)
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is damaged: gzip says {error}.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    found = encoding or next((e for mark, e in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(found).removeprefix("\ufeff")
    except LookupError as error:
        raise DataError(f"{found!r} is no encoding: expected utf-8, latin-1, cp1252...") from error
    except UnicodeDecodeError as error:
        advice = (
            "Name its encoding (--encoding latin-1, --encoding cp1252), or save it as UTF-8 (in"
        )
        raise DataError(
            f"{name} is not text in {found.upper()} ({error.reason} at byte {error.start}). "
            f"{advice} Excel: CSV UTF-8)."
        ) from error


def _bytes(path: str | os.PathLike[str]) -> bytes:
    if os.fspath(path) == STDIN:
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()
