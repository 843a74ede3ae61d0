"""How gpubp's objects say that something which traces read has changed."""

from __future__ import annotations

from typing import Any


class _Clock:
    """`now` is another object after each announcement."""

    now: object = object()


clock = _Clock()


def announce() -> None:
    """Say that something which traces read has changed: call it after the change."""
    clock.now = object()


class Table(dict[str, Any]):
    """A dict that announces its changes."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        announce()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        announce()

    def __ior__(self, other: Any) -> Table:  # type: ignore[override,misc]
        self.update(other)
        return self

    def pop(self, *args: Any) -> Any:
        """As dict's."""
        found = super().pop(*args)
        announce()
        return found

    def popitem(self) -> tuple[str, Any]:
        """As dict's."""
        found = super().popitem()
        announce()
        return found

    def clear(self) -> None:
        """As dict's."""
        super().clear()
        announce()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As dict's."""
        super().update(*args, **kwargs)
        announce()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As dict's."""
        found = super().setdefault(key, default)
        announce()
        return found
