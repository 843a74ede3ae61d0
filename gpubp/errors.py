"""Exceptions. Every message says what was given, what was expected, and what to do.

Each class also derives from the built-in exception that a NumPy user would try to catch.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from types import FrameType


class GpubpError(Exception):
    """Base of every error raised on purpose by gpubp."""


class ShapeError(GpubpError, ValueError):
    """Shapes do not fit together."""


class DTypeError(GpubpError, TypeError):
    """A dtype that is not supported, or two that cannot be combined."""


class DataError(GpubpError, ValueError):
    """Input data that cannot be used: empty, not finite, labels out of range."""


class ArgumentError(DataError, TypeError):
    """An argument of a kind that is not accepted: a text for a number, a list for a module."""


class CheckpointError(GpubpError, ValueError):
    """A model or checkpoint file that is corrupt, foreign, or does not fit."""


class IndexRangeError(DataError, IndexError):
    """An index outside its axis."""


class TraceError(GpubpError, TypeError):
    """Python that cannot be traced, or a traced array used outside its trace."""


class GradientError(GpubpError, ValueError):
    """A gradient that does not exist: no path to the loss, or an op without a rule."""


class NestingError(GpubpError, RuntimeError):
    """A program that was called inside of a run that it would disturb."""


class CopyError(GpubpError, TypeError):
    """Something that cannot be copied or pickled as a whole."""


class UnknownNameError(GpubpError, ValueError):
    """A name that is not in a list of known names."""


class UnknownAttributeError(GpubpError, AttributeError):
    """An attribute that an object has not: PyTorch's, say, with what to write instead."""


class BackendError(GpubpError, RuntimeError):
    """A backend that was asked for by name cannot be used here."""


class MissingExtraError(GpubpError, ImportError):
    """An optional dependency is not installed."""


class VerificationError(GpubpError, AssertionError):
    """A graph or program breaks one of its invariants: a bug in gpubp, not in your code."""


class DistributedError(GpubpError, RuntimeError):
    """Ranks that cannot work together: they differ, or cannot be connected."""


class LostPeerError(DistributedError, ConnectionError):
    """Another rank is gone, or has not come within the set time."""


class FixedSizeError(GpubpError, ValueError):
    """A program that holds for one size of the batch alone, where one for all was asked for."""


class OperatorError(GpubpError, NotImplementedError):
    """An operator of ONNX that gpubp has not, or not with these options."""


class NonFiniteError(GpubpError, FloatingPointError):
    """A NaN or infinity appeared while `debug_nans` was on."""


def unknown_name(what: str, given: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for an unknown name, with the nearest known one if there is any."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {what} {given!r}.{hint} Known: {', '.join(names)}.")


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """Build the error for a missing optional package, with the line that installs it."""
    return MissingExtraError(
        f'{purpose} needs {package}, which is not installed. Run: pip install "gpubp[{extra}]"'
    )


def warn(message: str) -> None:
    """Warn the user, at the line of theirs from which gpubp was called."""
    frame, level = sys._getframe(1), 2
    package = __name__.partition(".")[0]
    while frame.f_back is not None and _package_of(frame) == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
