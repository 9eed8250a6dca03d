"""Files that a user names: the path that is meant, and the error to raise where one cannot be written."""

import errno
from pathlib import Path

from mimo_cli.errors import CapacityError, MimoError


def user_path(name: str | Path) -> Path:
    """Return the path that a name stands for. `~` is a home folder, `~tmp.png` a file unless a user is so called."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def write_error(path: Path, err: OSError) -> MimoError:
    """Return the error for a file that could not be written: CapacityError where the disk or a quota is full."""
    message = f"`{path}` cannot be written: {err.strerror or err}"
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(message, hint="make room on the disk, or name a file on another one")
    return MimoError(message, hint="name a file you may write to")
