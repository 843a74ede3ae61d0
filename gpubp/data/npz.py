"""NPZ files: named arrays of numbers."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError, unknown_name


@checked
def read_npz(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read some of the arrays of an NPZ file.

    Args:
        path: the file, as `np.savez` writes it.
        names: which arrays.

    Raises:
        DataError: unreadable or damaged, or an array of Python objects.
        UnknownNameError: no array of that name.
    """
    known = array_names(path)
    for name in names:
        if name not in known:
            raise unknown_name(f"array of {path}", name, known)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, or holds no arrays of numbers: {error}.") from error


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the arrays of an NPZ file. Raises DataError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no NPZ file, or it is damaged ({error}).") from error
