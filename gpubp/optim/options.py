"""An optimiser's options, declared once: its constructor's signature has names, defaults, ranges.

```python
def __init__(self, params: Params, lr: NotNegative = 1e-3, betas: Betas = (0.9, 0.999)) -> None:
    super().__init__(params, locals())
```

For type checkers `NotNegative` is a float and `Betas` two of them. The range that stands behind the
type is checked when a group is made, when an option is set, and when a state is loaded.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np

from gpubp.errors import DataError


class Range(NamedTuple):
    """What an option may be.

    Args:
        expected: in words, as they end an error message.
        holds: whether a value is in the range.
        verb: between the option's name and its value.
        words: it may be a text or None.
    """

    expected: str
    holds: Callable[[Any], bool]
    verb: str = "is"
    words: bool = False

    def check(self, owner: str, name: str, value: Any) -> None:
        """Raise DataError unless the value is in the range."""
        try:
            good = self.holds(value)
        except (TypeError, LookupError):  # a number where there should be two, or the other way
            good = False
        if not good:
            raise DataError(f"{owner}: {name} {self.verb} {value}, expected {self.expected}.")


def _are_betas(betas: Any) -> bool:
    return len(betas) == 2 and all(0.0 <= beta < 1.0 for beta in betas)


NotNegative = Annotated[float, Range("at least 0", lambda value: value >= 0.0)]
Share = Annotated[float, Range("a number in [0, 1]", lambda value: 0.0 <= value <= 1.0)]
Counted = Annotated[int, Range("an integer of at least 1", lambda n: n >= 1 and n == int(n))]
Betas = Annotated[tuple[float, float], Range("two numbers in [0, 1)", _are_betas, "are")]


def only_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options among a constructor's `locals()`."""
    return {k: v for k, v in arguments.items() if k not in ("self", "params", "__class__")}


def check_numbers(kind: type, options: Mapping[str, Any]) -> None:
    """Raise DataError unless options of this class are finite numbers, and in their ranges."""
    ranges = ranges_of(kind)
    for name, value in options.items():
        if name in ranges and ranges[name].words:
            continue
        array = hasattr(value, "ndim") and not isinstance(value, np.generic)
        if isinstance(value, (str, bytes)) or value is None or array:
            raise DataError(f"{kind.__name__}: {name} is {value!r}, expected a number.")
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{kind.__name__}: {name} is {value}, expected a finite one.")
    for name, found in ranges.items():
        if name in options:
            found.check(kind.__name__, name, options[name])


@lru_cache
def ranges_of(kind: type) -> Mapping[str, Range]:
    """The ranges that a class and its bases declare in their constructors, by option."""
    found: dict[str, Range] = {}
    for base in reversed(kind.__mro__):
        constructor: Any = inspect.unwrap(base.__dict__.get("__init__", object.__init__))
        for name, said in getattr(constructor, "__annotations__", {}).items():
            for part in getattr(_evaluated(said, constructor), "__metadata__", ()):
                if isinstance(part, Range):
                    found[name] = part
    return found


def _evaluated(annotation: Any, constructor: Any) -> Any:
    """An annotation as a type; None if its name exists for type checkers only."""
    said = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(said, constructor.__globals__, include_extras=True)["it"]
    except NameError:
        return None
