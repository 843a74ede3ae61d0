"""Options from a TOML file: its keys are the long options' names; the command line overrides it."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from typing import Any

from gpubp.cli.failures import WRONG_ARGUMENTS, CommandError
from gpubp.errors import unknown_name

_NOT_IN_FILES = ("help", "config", "data")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, over the options of its `--config` file if it names one.

    Raises:
        CommandError: the file cannot be read or is no TOML, or a value is of a wrong type.
        UnknownNameError: the command has no such option.
    """
    options = parser.parse_args(arguments)
    path = getattr(options, "config", None)
    if path is None:
        return options
    command: argparse.ArgumentParser = options.parser
    known = {
        a.dest: a for a in command._actions if a.option_strings and a.dest not in _NOT_IN_FILES
    }
    found = {}
    for key, value in _read(path).items():
        name = key.replace("-", "_")
        if name not in known:
            raise unknown_name(f"option in {path}", key, known)
        found[name] = _converted(path, known[name], value)
    command.set_defaults(**found)
    return parser.parse_args(arguments)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise CommandError(WRONG_ARGUMENTS, f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(WRONG_ARGUMENTS, f"{path} is no TOML: {error}.") from error


def _converted(path: str, action: argparse.Action, value: Any) -> Any:
    """A TOML value as the option's own type makes it: lists stand for a,b,c."""
    name = action.option_strings[-1]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise CommandError(
                WRONG_ARGUMENTS, f"{path}: {name} is {value!r}, expected true or false."
            )
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise CommandError(
            WRONG_ARGUMENTS, f"{path}: {name} is {value!r}, expected text or a number."
        )
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    convert: Any = action.type or str
    try:
        converted = convert(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise CommandError(WRONG_ARGUMENTS, f"{path}: {name} is {value!r}: {error}.") from error
    if action.choices is not None and converted not in action.choices:
        raise unknown_name(f"value of {name} in {path}", converted, action.choices)
    return converted
