"""What a command does before torch is imported, which takes a second in which disk and memory may already work.

Loads nothing large itself.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimo_cli.checkpoint import early_read
from mimo_cli.engine.memory import available_bytes

_MEMORY_SHARE = 0.5
"""Of the free memory at most so much is filled before anybody has divided it."""


@contextmanager
def early_start(folder: Path) -> Iterator[None]:
    """Begin to read a model that is about to be loaded, and do not look for garbage before it is (`end_start`)."""
    gc.disable()
    try:
        early_read.begin(folder, int(_MEMORY_SHARE * available_bytes()))
        yield
    finally:
        early_read.forget()
        gc.unfreeze()
        gc.enable()


def end_start() -> None:
    """Note that the model is loaded: garbage is looked for again, but among what comes now.

    The million things that torch leaves behind would be looked through in the midst of the first answer.
    """
    early_read.forget()
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
