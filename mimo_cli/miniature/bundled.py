"""Where the bundled miniature is, and how a miniature is told from a real model. Loads nothing heavy."""

import json
from pathlib import Path

MARKER_FILE = "mimo_miniature.json"
"""Stands beside the config.json of every miniature; `notice` in it is what users are told."""

NOTICE = "a random-weight miniature, not MiMo-V2.5; give the release's folder with -m DIR"


def bundled_path() -> Path:
    """Return the folder of the miniature that is used when no model is named."""
    return Path(__file__).with_name("data")


def is_miniature(folder: Path) -> str | None:
    """Return the sentence that must be said when this folder's model answers, None for a model that is no miniature.

    A marker file that cannot be read still marks a miniature: it gets the general sentence.
    """
    marker = folder / MARKER_FILE
    if not marker.is_file():
        return None
    try:
        notice = json.loads(marker.read_text("utf-8")).get("notice")
    except (OSError, ValueError, AttributeError):
        return NOTICE
    return notice if isinstance(notice, str) and notice else NOTICE
