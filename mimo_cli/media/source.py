"""Where media bytes come from: a file, or bytes already read (standard input, a download). Reading is bounded."""

import os
import tempfile
import weakref
from pathlib import Path
from typing import TypeAlias

from mimo_cli.errors import MediaError

Source: TypeAlias = Path | bytes

MAX_PIPE_BYTES = 2 << 30
"""Most bytes read into memory from something that is not a regular file."""


def source_name(source: Source) -> str:
    """Name a source in messages: the path as given, or where bytes without one come from."""
    return str(source) if isinstance(source, Path) else "standard input"


def settle(path: Path, limit_bytes: int = MAX_PIPE_BYTES) -> Source:
    """Return the path of a regular file itself, the bytes of a pipe or device: those can be read only once."""
    check_is_file(path)
    return path if path.is_file() else read_all(path, limit_bytes)


def local_path(path: Path) -> str:
    """Return a path that no media library can take for an address or protocol: absolute, without links."""
    return str(path.resolve())


def read_head(source: Source, size_bytes: int) -> bytes:
    """Return the first bytes of a source. Raises MediaError if it cannot be read."""
    if isinstance(source, bytes):
        return source[:size_bytes]
    check_is_file(source)
    try:
        with source.open("rb") as file:
            return file.read(size_bytes)
    except OSError as err:
        raise MediaError(f"`{source_name(source)}` cannot be read: {err.strerror or err}") from err


def read_all(source: Source, limit_bytes: int) -> bytes:
    """Return all bytes of a source. Raises MediaError if it is empty, unreadable or larger than the limit."""
    data = read_head(source, limit_bytes + 1)
    if not data:
        raise MediaError(f"`{source_name(source)}` is empty (0 bytes)")
    if len(data) > limit_bytes:
        raise MediaError(f"`{source_name(source)}` is larger than the limit of {limit_bytes // 10**6} MB")
    return data


def check_is_file(path: Path) -> None:
    """Raise MediaError unless the path names an existing file that is not a folder."""
    try:
        if path.is_dir():
            raise MediaError(f"`{path}` is a folder; a media file was expected")
        if not path.exists():
            raise MediaError(f"`{path}` does not exist", hint="check the path; it is relative to the current folder")
    except (OSError, ValueError) as err:  # a name too long or with a zero byte
        raise MediaError(f"`{path}` is not a usable path: {err}") from err


class MediaFile:
    """A file that decoders can open by name: the given one, or a private temporary copy of bytes.

    The copy can be read by its owner only and is removed when this object goes, at the latest at exit.
    """

    def __init__(self, source: Source) -> None:
        if isinstance(source, Path):
            check_is_file(source)
            self.path = local_path(source)
            return
        try:
            descriptor, self.path = tempfile.mkstemp(prefix="mimo-", suffix=".media")
            weakref.finalize(self, os.unlink, self.path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(source)
        except OSError as err:
            folder = tempfile.gettempdir()
            raise MediaError(
                f"a temporary copy of {len(source)} bytes cannot be written to `{folder}`: {err.strerror}",
                hint="pass a file name instead of standard input, or set TMPDIR to a folder with space",
            ) from err
