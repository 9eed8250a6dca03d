"""Where the bundled miniature is, and how a miniature is told from a real model. Loads nothing heavy."""

import json
import math
from pathlib import Path
from typing import Any

MARKER_FILE = "mimo_miniature.json"
"""Beside the config.json of every miniature; `notice` in it is what users are told, `temperature` how it answers."""

NOTICE = "a random-weight miniature, not MiMo-V2.5; give the release's folder with -m DIR"


def bundled_path() -> Path:
    """Return the folder of the miniature that is used when no model is named."""
    return Path(__file__).with_name("data")


def is_miniature(folder: Path) -> str | None:
    """Return the sentence that must be said when this folder's model answers, None for a model that is no miniature.

    A marker file that cannot be read still marks a miniature: it gets the general sentence.
    """
    if not (folder / MARKER_FILE).is_file():
        return None
    notice = _marker(folder).get("notice")
    return notice if isinstance(notice, str) and notice else NOTICE


def usual_temperature(folder: Path) -> float | None:
    """Return the temperature at which a miniature answers where none is given; None: as MiMo-V2.5 does.

    A small network is right in its first choice and wrong in many others.
    """
    value = _marker(folder).get("temperature")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value)


def _marker(folder: Path) -> dict[str, Any]:
    """Return what the marker file says; nothing where it is missing or cannot be read."""
    try:
        values = json.loads((folder / MARKER_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
