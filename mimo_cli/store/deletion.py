"""The end of a source that goes: its shards are listed beside the finished store until the last of them is deleted.

Emptied shards are no checkpoint any more, and neither is a folder of which some shards are gone: after a crash there,
nothing could be planned from the source. So the list is what a repeated command goes on with.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mimo_cli.checkpoint.shard_writer import disk_error
from mimo_cli.errors import MimoError
from mimo_cli.store.manifest import JOURNAL_FILE
from mimo_cli.store.output import sync_folder

DELETING_FILE = ".mimo_deleting.json"


@dataclass(frozen=True)
class Deletion:
    """Shards of a source that are to be deleted, as a finished store holds all that they were."""

    source: Path
    shards: tuple[str, ...]

    @classmethod
    def pending(cls, store: Path) -> "Deletion | None":
        """Return what is still to be deleted for a store; None where nothing is."""
        try:
            values = json.loads((store / DELETING_FILE).read_text("utf-8"))
            names = tuple(str(name) for name in values["shards"])
            return cls(Path(values["source"]), tuple(name for name in names if Path(name).name == name))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise MimoError(
                f"`{store / DELETING_FILE}` cannot be read: {type(err).__name__} {err}",
                hint="the store is whole; delete the shards of the source and that file by hand",
            ) from err

    def write(self, store: Path) -> None:
        """Write the list, whole and on the disk when this returns."""
        path = store / DELETING_FILE
        part = path.with_suffix(".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump({"source": str(self.source), "shards": list(self.shards)}, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(store)
        except OSError as err:
            raise disk_error(path, err) from err

    def finish(self, store: Path) -> list[str]:
        """Delete what is left of the shards, then the list and the journal; returns the names of all shards."""
        try:
            for name in self.shards:
                (self.source / name).unlink(missing_ok=True)
            (store / JOURNAL_FILE).unlink(missing_ok=True)
            (store / DELETING_FILE).unlink(missing_ok=True)
        except OSError as err:
            raise MimoError(
                f"`{err.filename}` cannot be deleted: {err.strerror or err}",
                hint="the store is whole; the same command deletes the rest, or you do by hand",
            ) from err
        return list(self.shards)


def deletion_of(source: Path, shards: Iterable[Path]) -> Deletion:
    """Return the deletion of all shards of a source."""
    return Deletion(source.resolve(), tuple(path.name for path in shards))
