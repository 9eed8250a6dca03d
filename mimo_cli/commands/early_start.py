"""What a command does before torch is imported, which takes a second in which disk and memory may already work.

Loads nothing large itself.
"""

from pathlib import Path

from mimo_cli.checkpoint import early_read
from mimo_cli.engine.memory import available_bytes

_MEMORY_SHARE = 0.5
"""Of the free memory at most so much is filled before anybody has divided it."""


def start_early(folder: Path) -> None:
    """Begin to read a model that is about to be loaded."""
    early_read.begin(folder, int(_MEMORY_SHARE * available_bytes()))
