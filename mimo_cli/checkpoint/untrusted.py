"""Text of a download that nobody has vouched for: JSON objects, and names fit to be shown in a message."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mimo_cli.errors import CheckpointError

_SHOWN_CHARACTERS = 120


def parse_json_object(text: bytes, where: str) -> dict[str, Any]:
    """Parse UTF-8 JSON that must be one object without repeated names; raises CheckpointError naming `where`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"{where} names `{shorten(twice)}` twice", hint="fetch that file again")
        return values

    try:
        values = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as err:
        raise CheckpointError(f"{where} is not JSON: {shorten(str(err))}", hint="fetch that file again") from err
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} must be a JSON object, found {shorten(values)}", hint="fetch that file again")
    return values


def shorten(value: object) -> str:
    """Render a value on one short line without control characters, which could steer a terminal."""
    text = str(value)
    text = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return text if text.isprintable() else repr(text)[1:-1]


def list_some(names: Iterable[str], shown: int = 3) -> str:
    """Render names for a message: the first few in back quotes, and how many more there are."""
    every = list(names)
    text = ", ".join(f"`{shorten(name)}`" for name in every[:shown])
    return f"{text} and {len(every) - shown} more" if len(every) > shown else text
