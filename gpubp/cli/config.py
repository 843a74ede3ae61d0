"""Options from a TOML file: its keys are the long options' names; the command line overrides it."""

from __future__ import annotations

import argparse
import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Any, NoReturn

from gpubp.cli.failures import WRONG_ARGUMENTS, CommandError
from gpubp.errors import unknown_name

_NOT_IN_FILES = ("help", "config", "data")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, over the options of its `--config` file if it names one.

    Raises:
        CommandError: the file cannot be read or is no TOML, or a value is of a wrong type.
        UnknownNameError: the command has no such option.
    """
    options = _parsed(parser, arguments)
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
        if isinstance(value, dict):
            raise CommandError(
                WRONG_ARGUMENTS,
                f"{path}: [{key}] is a table; expected options alone, such as {_example(value)}.",
            )
        if name not in known:
            raise unknown_name(f"option in {path}", key, known)
        found[name] = _converted(path, known[name], value)
    command.set_defaults(**found)
    return _parsed(parser, arguments)


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and name the nearest option beside one that does not exist."""
    options, rest = parser.parse_known_args(arguments)
    if not rest:
        return options
    command: argparse.ArgumentParser = getattr(options, "parser", parser)
    unknown = next((word for word in rest if word.startswith("-")), rest[0]).partition("=")[0]
    known = [text for action in command._actions for text in action.option_strings]
    long = [text for text in known if text.startswith("--")]
    near = difflib.get_close_matches(unknown, long, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near and unknown.startswith("--") else ""
    what = "option" if unknown.startswith("-") else "argument"
    raise CommandError(
        WRONG_ARGUMENTS,
        f"{command.prog}: unknown {what} {unknown}.{hint} See {command.prog} --help.",
    )


def _example(table: dict[str, Any]) -> str:
    key, value = next(iter(table.items()), ("epochs", 20))
    return f"{key} = {value!r} without the line in brackets above"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a line, with the nearest choice beside an unknown one."""

    def error(self, message: str) -> NoReturn:
        """End the command; where arguments are missing, with its usage."""
        if "required" in message:
            super().error(message)
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if found is not None:
            choices = re.findall(r"[\w-]+", found[2])
            near = difflib.get_close_matches(found[1], choices, n=1, cutoff=0.5)
            message += f". Did you mean {near[0]!r}?" if near else ""
        ended = message if message.endswith("?") else f"{message}."
        raise CommandError(WRONG_ARGUMENTS, f"{self.prog}: {ended} See {self.prog} --help.")


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
