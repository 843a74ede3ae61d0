"""Variables of the environment that turn something on or off."""

from __future__ import annotations

import os

from gpubp.errors import unknown_name


def switch(name: str) -> str:
    """A variable's value: "0" never, "1" always, "" where nobody said.

    Raises:
        UnknownNameError: something else.
    """
    found = os.environ.get(name, "")
    if found not in ("", "0", "1"):
        raise unknown_name(name, found, ("0", "1"))
    return found
