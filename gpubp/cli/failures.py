"""Exit codes, and errors as one line on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpubp.errors import (
    BackendError,
    CheckpointError,
    GpubpError,
    MissingExtraError,
    UnknownNameError,
)

DIVERGED, WRONG_ARGUMENTS, BAD_DATA, BAD_MODEL, UNAVAILABLE = 1, 2, 3, 4, 5
INTERRUPTED, CLOSED_PIPE = 130, 141

EPILOG = """
exit codes:
  0    success
  1    training diverged: the loss became NaN or infinite
  2    wrong arguments or configuration
  3    a data file that cannot be used, or an output file that cannot be written
  4    a model file or checkpoint that is damaged, foreign, or does not fit
  5    a backend or an optional package is not available
  130  interrupted (Ctrl-C); what was asked for with --save and --resume has been written
"""


class CommandError(Exception):
    """Ends a command.

    Args:
        code: the exit code.
        message: for stderr.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Speech:
    """Whether this process warns: of several ranks, the first one does."""

    silent = False


def warn(text: str) -> None:
    """Say on stderr what may be wrong although work goes on."""
    if not Speech.silent:
        print(f"warning: {' '.join(text.split())}", file=sys.stderr)


@dataclass
class Outcome:
    """What `main` returns."""

    code: int = 0


@contextmanager
def reported() -> Iterator[Outcome]:
    """Turn errors that were raised on purpose into a line on stderr and an exit code.

    Warnings are a line there too.
    """
    outcome = Outcome()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            yield outcome
    except CommandError as error:
        outcome.code = _report(error.code, error)
    except CheckpointError as error:
        outcome.code = _report(BAD_MODEL, error)
    except (BackendError, MissingExtraError) as error:
        outcome.code = _report(UNAVAILABLE, error)
    except GpubpError as error:
        outcome.code = _report(WRONG_ARGUMENTS, error)
    except BrokenPipeError:
        outcome.code = CLOSED_PIPE
    except KeyboardInterrupt:
        outcome.code = _report(INTERRUPTED, "interrupted")


def _show(message: object, *where: object, **options: object) -> None:
    warn(str(message))


def _report(code: int, message: object) -> int:
    print(f"gpubp: {' '.join(str(message).split())}", file=sys.stderr)
    return code


@contextmanager
def of_files() -> Iterator[None]:
    """Work on a data or output file: what fails here is the file's fault, not the arguments'."""
    try:
        yield
    except (UnknownNameError, CheckpointError, MissingExtraError):
        raise
    except GpubpError as error:
        raise CommandError(BAD_DATA, str(error)) from error
    except OSError as error:
        raise CommandError(BAD_DATA, f"{error.filename or 'a file'}: {error.strerror}.") from error
