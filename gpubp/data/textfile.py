"""Text from files as people have them: compressed, in other encodings, from standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gpubp.errors import DataError

STDIN = "-"
_GZIP = b"\x1f\x8b"
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
    with _explained(named(path)):
        data = _bytes(path)
        if data[:2] == _GZIP:
            data = gzip.decompress(data)
        return data.decode(_encoding(data, encoding)).removeprefix("\ufeff")


def lines_of(path: str | os.PathLike[str], encoding: str | None = None) -> Iterator[str]:
    """The lines of a file, with their ends, read as they are asked for; see `read_text`."""
    with _explained(named(path)), ExitStack() as stack:
        standard = os.fspath(path) == STDIN
        file: Any = sys.stdin.buffer if standard else stack.enter_context(open(path, "rb"))
        file = io.BufferedReader(file) if not hasattr(file, "peek") else file
        if file.peek(2)[:2] == _GZIP:
            file = io.BufferedReader(gzip.GzipFile(fileobj=file))
        found = _encoding(file.peek(4), encoding)
        text = io.TextIOWrapper(file, found, newline="")
        try:
            first = True
            for line in text:
                yield line.removeprefix("\ufeff") if first else line
                first = False
        finally:
            text.detach()  # standard input stays open


def _encoding(data: bytes, asked: str | None) -> str:
    found = asked or next((e for mark, e in _MARKS if data.startswith(mark)), "utf-8")
    if not _is_known(found):
        raise DataError(f"{found!r} is no encoding: expected utf-8, latin-1, cp1252...")
    return found


def _is_known(encoding: str) -> bool:
    """Whether there is such an encoding: a codec that answers to every name does not count."""
    try:
        found = codecs.lookup(encoding)
    except LookupError:
        return False
    try:
        return found.name != codecs.lookup("gpubp knows no such encoding").name
    except LookupError:
        return True


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What goes wrong with a file, as DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is damaged: gzip says {error}.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        advice = (
            "Name its encoding (--encoding latin-1, --encoding cp1252), or save it as UTF-8 (in"
        )
        raise DataError(
            f"{name} is not text in {error.encoding.upper()} ({error.reason} at byte "
            f"{error.start}). {advice} Excel: CSV UTF-8)."
        ) from error


def _bytes(path: str | os.PathLike[str]) -> bytes:
    if os.fspath(path) == STDIN:
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()
