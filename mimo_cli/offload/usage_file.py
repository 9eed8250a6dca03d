"""What earlier runs saw of a model: how often each expert was used, in a small file in the folder of caches.

A run begins with the experts that were popular before. The file is advice: whatever is wrong with it, it is ignored.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path

Usage = dict[int, list[float]]
"""Uses per step of every expert, by layer."""


def load_usage(path: Path) -> Usage:
    """Return what was saved; nothing where there is no such file, or a damaged one."""
    try:
        values = json.loads(path.read_text("utf-8"))
        usage = {int(layer): [float(rate) for rate in rates] for layer, rates in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {layer: rates for layer, rates in usage.items() if all(math.isfinite(rate) for rate in rates)}


def save_usage(path: Path, usage: Usage) -> None:
    """Write what a run saw, whole or not at all; a folder that cannot be written is no error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(usage), "utf-8")
        part.replace(path)
