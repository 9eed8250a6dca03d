"""Journal: what a conversion has finished, so that it goes on after kill -9 or a full disk.

One line of JSON for each thing: first the conversion itself, then every file that is whole and on the disk, with its
hash and what it lost, and every shard of the source that may be emptied since then. A last line that was cut off is as
if it had not been written.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_cli.checkpoint.shard_writer import disk_error
from mimo_cli.errors import UsageError
from mimo_cli.store.encode import Error
from mimo_cli.store.manifest import JOURNAL_FILE, FileEntry
from mimo_cli.store.output import sync_folder
from mimo_cli.store.plan import is_same_conversion

_EMPTIED = "emptied"


@dataclass(frozen=True)
class Finished:
    """A file that is done, its loss by part, and the CRC-32 of each record of a file of experts."""

    entry: FileEntry
    errors: Mapping[str, Error]
    checksums: tuple[int, ...] = ()


class Journal:
    """The journal of a folder. `finished` are the files of earlier runs, to be verified by whoever goes on.

    `emptied` are shards of the source of which only the header may be left, with the bytes they had; `source` is what
    the source was when the conversion began.
    """

    def __init__(self, folder: Path, conversion: Mapping[str, Any]) -> None:
        self.path = folder / JOURNAL_FILE
        self.finished: dict[str, Finished] = {}
        self.emptied: dict[str, int] = emptied_shards(folder)
        lines = _whole_lines(self.path)
        if lines and not is_same_conversion(lines[0], conversion):
            raise UsageError(
                f"`{folder}` holds an unfinished conversion of another source or with other options",
                hint="give the options of then, or name another folder, or remove this one",
            )
        self.source: Mapping[str, Any] = (lines[0] if lines else conversion)["source"]
        for line in lines[1:]:
            if _EMPTIED in line:
                continue
            errors = {part: Error(*sums) for part, sums in line["errors"].items()}
            entry, checksums = FileEntry(line["size_bytes"], line["sha256"]), tuple(line.get("crc32", ()))
            self.finished[line["file"]] = Finished(entry, errors, checksums)
        part = self.path.with_suffix(".part")
        try:
            # Rewritten beside, since a line that was cut off must not stay before the next one.
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines or [dict(conversion)])
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            sync_folder(folder)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as err:
            raise disk_error(self.path, err) from err

    def add(self, name: str, finished: Finished) -> None:
        """Record a file; it counts from when this returns."""
        self.finished[name] = finished
        errors = {part: [error.squared_error, error.squared_weights] for part, error in finished.errors.items()}
        self._append({"file": name, **vars(finished.entry), "errors": errors, "crc32": finished.checksums})

    def add_emptied(self, shard: str, size_bytes: int) -> None:
        """Record that a shard of the source is about to be cut off behind its header."""
        self.emptied[shard] = size_bytes
        self._append({_EMPTIED: shard, "size_bytes": size_bytes})

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def remove(self) -> None:
        """Remove the journal: the store is finished."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._sync()
        except OSError as err:
            raise disk_error(self.path, err) from err

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def emptied_shards(folder: Path) -> dict[str, int]:
    """Return the shards that an unfinished conversion into a folder may have emptied, with the bytes they had."""
    lines = _whole_lines(folder / JOURNAL_FILE)
    return {str(line[_EMPTIED]): int(line["size_bytes"]) for line in lines[1:] if _EMPTIED in line}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal up to the first that is not whole."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    lines: list[dict[str, Any]] = []
    for line in text.split("\n"):
        try:
            values = json.loads(line)
        except ValueError:
            break
        lines.append(values)
    return lines
