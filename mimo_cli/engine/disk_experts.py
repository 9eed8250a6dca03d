"""Random experts as files: what the disk tier is measured with where there is no model.

    RandomRecords -> experts-LLL.bin, as in a packed store -> StoreRecords, read like those of any store

In a folder of its own that is gone afterwards, or in one that the user names: then they are kept and used again.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.model_sizes import usual_group
from mimo_cli.engine.random_weights import RandomRecords
from mimo_cli.errors import CapacityError, MimoError, UsageError
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.store.manifest import RecordLayout, layer_file
from mimo_cli.store.records import StoreRecords
from mimo_cli.units import format_bytes

LABEL_FILE = "random_experts.json"
"""Says what the experts of a folder are, so that they are used again only for what they are."""

_FLUSH_RECORDS = 8
_SPARE_BYTES = 1_000_000_000
"""Room that is left on the disk."""


def record_layout(config: ModelConfig, records: RandomRecords) -> RecordLayout:
    """Return how a store holds such experts."""
    kind = records.up_shape.format
    sizes = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
    return RecordLayout(kind, usual_group(kind), *sizes, config.moe_layers)


@contextmanager
def disk_experts(
    parent: Path,
    config: ModelConfig,
    records: RandomRecords,
    kept: Path | None = None,
    on_write: Callable[[int, int], None] | None = None,
) -> Iterator[StoreRecords]:
    """Yield all experts of a slice as files: in `kept`, which stays, or in a new folder below `parent`.

    `on_write` hears bytes written and bytes in all. Raises CapacityError where the disk has no room, UsageError where
    `kept` holds something else, MimoError where writing fails. Interrupted anywhere, a new folder is deleted.
    """
    layout = record_layout(config, records)
    if kept is not None:
        _fill_kept(kept, layout, records, on_write)
        yield StoreRecords(kept, layout)
        return
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="random-experts-", dir=parent))
    except OSError as err:
        raise MimoError(f"`{parent}` cannot hold experts to measure with: {err.strerror or err}") from err
    try:
        _write(folder, layout, records, on_write)
        yield StoreRecords(folder, layout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def expert_files(stored: StoreRecords) -> list[Path]:
    """Return the files that experts lie in."""
    return [stored.folder / layer_file(layer) for layer in stored.layout.layers]


def _fill_kept(
    folder: Path, layout: RecordLayout, records: RandomRecords, on_write: Callable[[int, int], None] | None
) -> None:
    label = json.dumps(layout.to_json(), sort_keys=True)
    path = folder / LABEL_FILE
    files = [folder / layer_file(layer) for layer in layout.layers]
    with suppress(OSError):
        is_whole = all(file.stat().st_size == layout.file_bytes for file in files)
        if path.read_text("utf-8") == label and is_whole:
            return
    if folder.exists() and any(entry.name != LABEL_FILE for entry in folder.iterdir()):
        raise UsageError(f"`{folder}` is not empty and does not hold these experts", hint="name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise MimoError(f"`{folder}` cannot be made: {err.strerror or err}") from err
    _write(folder, layout, records, on_write)
    path.write_text(label, "utf-8")


def _write(
    folder: Path, layout: RecordLayout, records: RandomRecords, on_write: Callable[[int, int], None] | None
) -> None:
    total_bytes = layout.file_bytes * len(layout.layers)
    free_bytes = shutil.disk_usage(folder).free
    if total_bytes + _SPARE_BYTES > free_bytes:
        raise CapacityError(
            f"random experts take {format_bytes(total_bytes)} of disk, "
            f"{format_bytes(free_bytes)} are free in `{folder}`",
            hint="fewer --layers, or --scratch DIR on another disk",
        )
    slot, done_bytes = allocate_bytes(layout.record_bytes), 0
    try:
        for layer in layout.layers:
            with (folder / layer_file(layer)).open("wb", buffering=0) as file:
                for expert in range(layout.experts):
                    records.place(layer, expert, (), slot[: records.record_bytes])
                    file.write(slot.numpy().data)
                    done_bytes += layout.record_bytes
                    if expert % _FLUSH_RECORDS == 0:
                        _flush(file.fileno())
                        if on_write:
                            on_write(done_bytes, total_bytes)
                _flush(file.fileno())
    except OSError as err:
        raise MimoError(f"random experts cannot be written to `{folder}`: {err.strerror or err}") from err


def _flush(descriptor: int) -> None:
    """Bring what was written to the disk and out of the system's cache: memory is measured, too."""
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
