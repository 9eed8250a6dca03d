"""Deleting the source while it is converted: a shard goes as soon as everything made of it is verified on the disk.

A shard is cut off behind its header, so that the same command can go on after a crash: plan and identity come from
headers alone. The headers are deleted with the rest once the store is finished.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE, expert_weight_name
from mimo_cli.errors import CheckpointError
from mimo_cli.store.journal import Journal
from mimo_cli.store.manifest import layer_file
from mimo_cli.store.output import file_entry
from mimo_cli.store.plan import StorePlan, source_names

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def made_of(plan: StorePlan) -> dict[Path, set[str]]:
    """Return the files of the store that are made of each shard; shards of which nothing is made are left out."""
    files: dict[Path, set[str]] = {}

    def uses(file: str, weight: str) -> None:
        for name in (weight, weight + FP8_SCALE, weight + MXFP4_SCALE):
            if name in plan.index:
                files.setdefault(plan.index[name].shard, set()).add(file)

    for file, tensors in plan.dense.items():
        for tensor in tensors:
            for name in source_names(tensor.weight, plan.index):
                uses(file, name)
    for layer in plan.records.layers if plan.records else ():
        for expert in range(plan.config.n_routed_experts):
            for projection in PROJECTIONS:
                uses(layer_file(layer), expert_weight_name(layer, expert, projection))
    return files


def peak_bytes(plan: StorePlan, finished: Mapping[str, object], emptied: Mapping[str, int]) -> int:
    """Return the bytes that must be free to go on while shards are emptied, their space being used again."""
    left = {shard: files - finished.keys() for shard, files in made_of(plan).items() if shard.name not in emptied}
    taken = peak = 0
    for name, size_bytes in plan.sizes.items():
        if name in finished:
            continue
        taken += size_bytes
        peak = max(peak, taken)
        for shard, files in left.items():
            if name in files:
                files.discard(name)
                if not files and _may_empty(shard):
                    taken -= plan.index.shard_bytes[shard]
    return peak


class Emptier:
    """Empties shards as the files made of them are finished. `forget` is told of a shard before it is cut off."""

    def __init__(self, plan: StorePlan, folder: Path, journal: Journal, forget: Callable[[Path], None]) -> None:
        self._plan, self._folder, self._journal, self._forget = plan, folder, journal, forget
        self._files = made_of(plan)
        self._verified: set[str] = set()

    def empty_finished(self) -> None:
        """Empty every shard whose files are all in the journal. Raises CheckpointError where one is not as written."""
        for shard, files in self._files.items():
            if not files or not files <= self._journal.finished.keys() or not _may_empty(shard):
                continue
            if shard.name in self._journal.emptied and shard.stat().st_size < self._plan.index.shard_bytes[shard]:
                continue
            for name in sorted(files - self._verified):
                if file_entry(self._folder / name) != self._journal.finished[name].entry:
                    raise CheckpointError(
                        f"`{self._folder / name}` is not what was written; no shard that it is made of was deleted",
                        hint="check the disk, then run the same command again",
                    )
                self._verified.add(name)
            self._journal.add_emptied(shard.name, self._plan.index.shard_bytes[shard])
            self._forget(shard)
            _cut_off(shard, self._data_start(shard))

    def refuse_lost(self) -> None:
        """Raise CheckpointError where a file must be made again of a shard that is emptied."""
        for shard, files in self._files.items():
            missing = sorted(files - self._journal.finished.keys())
            is_empty = shard.is_file() and shard.stat().st_size < self._plan.index.shard_bytes[shard]
            if missing and is_empty:
                raise CheckpointError(
                    f"`{missing[0]}` must be made again, and its shard `{shard.name}` is deleted already",
                    hint="fetch that shard again",
                )

    def _data_start(self, shard: Path) -> int:
        index = self._plan.index
        return min(index[name].offset for name in index if index[name].shard == shard)


def _may_empty(shard: Path) -> bool:
    """A link, or a file of several names, belongs to someone else, who did not ask for anything."""
    return not shard.is_symlink() and shard.stat().st_nlink == 1


def _cut_off(shard: Path, size_bytes: int) -> None:
    with shard.open("r+b") as file:
        file.truncate(size_bytes)
        os.fsync(file.fileno())
