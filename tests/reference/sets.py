"""The reference sets as folders: `text`, `text_mxfp4`, `vision` and `audio`, each a checkpoint and its expected values.

`tests/golden` holds what cannot be computed. From it, and from seeds, the sets are made once for all test processes of
this user, in the system's temporary folder; what they are made of is part of the folder's name, so a change of the
files or of this package makes them anew.
"""

import fcntl
import getpass
import hashlib
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from tests.reference import random_text, random_vision
from tests.reference.packed import copy_set

FILES = Path(__file__).parents[1] / "golden"
PACKED_SETS = ("text", "text_mxfp4", "vision", "audio")


@cache
def reference_sets() -> Path:
    """Return the folder of all sets, made if it is not there; processes that ask at once wait for the first."""
    root = Path(tempfile.gettempdir())
    folder = root / f"mimo-reference-{getpass.getuser()}-{_fingerprint()}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    """Make the sets aside and move them into place whole, so that an interrupted attempt leaves nothing to trust."""
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name in PACKED_SETS:
            copy_set(FILES / name, aside / name)
        make_text(aside / "text")
        make_vision(aside / "vision")
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def make_text(folder: Path) -> None:
    """Add weights and expected values to a folder with the `config.json` of the text set."""
    random_text.write_checkpoint(folder, json.loads((folder / "config.json").read_text()))
    random_text.write_values(folder)


def make_vision(folder: Path) -> None:
    """Add weights and expected values to a folder with the `config.json` and `inputs.npz` of the vision set."""
    random_vision.write_checkpoint(folder)
    with np.load(folder / "inputs.npz") as inputs:
        random_vision.write_values(folder, dict(inputs))


def _fingerprint() -> str:
    """A hash of everything the sets depend on: the files, this package, and the library that computes."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    files = sorted(path for name in PACKED_SETS for path in (FILES / name).rglob("*") if path.is_file())
    digest = hashlib.sha256(np.__version__.encode())
    for path in [path for path in sources if not path.name.startswith("test_")] + files:
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
