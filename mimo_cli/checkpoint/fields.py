"""Reading one value of a JSON configuration: its type, its default, and an error that names key and file.

An explicit null counts as absent everywhere (the vendor's files use both).
"""

import sys
from collections.abc import Mapping
from typing import Any

from mimo_cli.checkpoint.untrusted import shorten
from mimo_cli.errors import CheckpointError

_LARGEST = 1 << 40
"""No count, size or id of a model comes near; whatever exceeds it is damage."""


class Fields:
    """A JSON object with typed access; `where` names it in errors (`config.json: vision_config`)."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{where} must be a JSON object, found {type(values).__name__}")
        self.values = values
        self.where = where

    def has(self, key: str) -> bool:
        """Tell whether the key is there and not null."""
        return self.values.get(key) is not None

    def _get(self, key: str, kinds: tuple[type, ...], default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is ...:
                raise CheckpointError(f"{self.where} has no `{key}`", hint="fetch config.json of the release again")
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise CheckpointError(f"{self.where}: `{key}` must be {names}, found {shorten(value)}")
        return value

    def integer(self, key: str, default: Any = ..., *, minimum: int = 0, maximum: int = _LARGEST) -> int:
        """Read a whole number within bounds; numbers in strings (the audio part has them) are accepted."""
        value = self._get(key, (int, str), default)
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise CheckpointError(f"{self.where}: `{key}` must be a whole number, found {shorten(value)}") from None
        if not minimum <= number <= maximum:
            bound = f"at least {minimum}" if number < minimum else f"at most {maximum}"
            raise CheckpointError(f"{self.where}: `{key}` must be {bound}, found {shorten(value)}")
        return number

    def optional_integer(self, key: str) -> int | None:
        """Read a whole number, or None where the key is absent."""
        return self.integer(key) if self.has(key) else None

    def number(self, key: str, default: Any = ...) -> float:
        """Read a finite number as float."""
        value = self._get(key, (int, float), default)
        if not abs(value) <= sys.float_info.max:  # NaN, infinity, or an integer with hundreds of digits
            raise CheckpointError(f"{self.where}: `{key}` must be a finite number")
        return float(value)

    def flag(self, key: str, default: Any = ...) -> bool:
        """Read true or false."""
        return self._get(key, (bool,), default)

    def text(self, key: str, default: Any = ...) -> str:
        """Read a string."""
        return self._get(key, (str,), default)

    def integers(self, key: str, default: Any = ...) -> tuple[int, ...]:
        """Read a list of whole numbers."""
        value = self._get(key, (list, tuple), default)
        if not all(type(item) is int and abs(item) <= _LARGEST for item in value):
            raise CheckpointError(f"{self.where}: `{key}` must be a list of whole numbers, found {shorten(value)}")
        return tuple(value)

    def section(self, key: str) -> "Fields":
        """Open a nested object; an absent one is empty."""
        return Fields(self._get(key, (dict,), {}), f"{self.where}: {key}")

    def require(self, key: str, implemented: tuple[Any, ...], default: Any) -> Any:
        """Read a value of which only some are implemented; refuse the others by name."""
        value = self.values.get(key)
        value = default if value is None else value
        if value not in implemented:
            known = ", ".join(repr(item) for item in implemented)
            raise CheckpointError(f"{self.where}: `{key}` = {shorten(value)} is not implemented (known: {known})")
        return value
