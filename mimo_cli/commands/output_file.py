"""Files that a command writes for its user: looked at before the work, and written whole or not at all."""

import os
import shlex
from contextlib import suppress
from pathlib import Path

from mimo_cli.chat.named_files import write_error
from mimo_cli.errors import UsageError


def require_writable(path: Path) -> None:
    """Raise UsageError where a file could not be written: before the work, which would be lost after it."""
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise UsageError(f"`{path}` is a folder, a file to write was expected", hint="name a file in it with -o")
    if os.path.exists(target) and not os.path.isfile(target):
        return  # a device or a named pipe is written to directly: its folder does not matter
    folder = os.path.dirname(target)
    if not os.path.exists(folder):
        hint = f"mkdir -p {shlex.quote(folder)}"
        raise UsageError(f"`{path}` cannot be written: there is no folder `{folder}`", hint=hint)
    if not os.path.isdir(folder):
        raise UsageError(f"`{path}` cannot be written: `{folder}` is a file, a folder was expected", hint="another -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = "name a file in a folder you may write to"
        raise UsageError(f"`{path}` cannot be written: the folder `{folder}` takes no files of yours", hint=hint)


def write_atomically(path: Path, content: str) -> None:
    """Write a text file so that it appears complete or not at all. Raises MimoError naming it.

    A link is followed; a device or a named pipe is written to directly, for it must not be replaced by a file.
    """
    target = Path(os.path.realpath(path))  # unlike resolve, it takes a link in a circle for what it is
    is_special = target.exists() and not target.is_file()
    part = target if is_special else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(content, "utf-8")
        if part != target:
            os.replace(part, target)
    except OSError as err:
        raise write_error(path, err) from err
    finally:
        if part != target:
            with suppress(OSError):  # what is wrong with the folder was said already
                part.unlink(missing_ok=True)
