"""The random-weight miniature that `mimo miniature` writes: for tests that want a small model and not what it says."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from mimo_cli.miniature.build import write_miniature


@cache
def random_miniature() -> Path:
    """Its folder, written once per process and removed at its end; tests must leave the files as they are."""
    parent = Path(tempfile.mkdtemp(prefix="mimo-miniature-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    write_miniature(parent / "model")
    return parent / "model"
