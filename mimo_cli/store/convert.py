"""Making a store: one file after the other, each finished for good before the next, several experts at a time.

    mapped shards -> codes and scales in slabs of rows -> records -> file, hashed as it is written -> journal

Peak memory is some records and the codes in work, whatever the size of the model: pages of the source are let go as
soon as an expert is packed.
"""

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mimo_cli.checkpoint.index import INDEX_FILE
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE, expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.shard_writer import disk_error, shard_layout
from mimo_cli.errors import CapacityError, MimoError, UsageError
from mimo_cli.quant.buffers import PAGE_BYTES, allocate_bytes
from mimo_cli.quant.kernels import missing_reason
from mimo_cli.quant.packed import BLOCK_ROWS, PackedShape
from mimo_cli.quant.stored import StoredMatrix
from mimo_cli.store.checksums import CHECKSUM_FILE, encode_checksums, layer_checksums
from mimo_cli.store.deletion import deletion_of
from mimo_cli.store.emptying import PROJECTIONS, Emptier
from mimo_cli.store.encode import Error, pack_matrices
from mimo_cli.store.journal import Finished, Journal
from mimo_cli.store.manifest import JOURNAL_FILE, STORE_FILE, RecordLayout, StoreManifest, layer_file
from mimo_cli.store.output import OutputFile, file_entries, remove_parts
from mimo_cli.store.plan import DENSE, EXPERTS, DenseTensor, StorePlan, is_same_conversion
from mimo_cli.units import format_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OnProgress = Callable[[int, int], None]
"""Told bytes written and bytes of the finished store."""

_COPY_BYTES = 1 << 24
_MOST_JOBS = 16
"""More would not fit the promise of 4 GB: a job holds about 50 MB of MiMo-V2.5."""


@dataclass
class Report:
    """What a conversion did: files kept from earlier runs, and those of them that had to be made again."""

    manifest: StoreManifest
    kept: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    read_bytes: int = 0


def convert(
    plan: StorePlan,
    folder: Path,
    *,
    jobs: int | None = None,
    empty_shards: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """Write the store, or what is missing of it. Returns the report with the manifest.

    `empty_shards` cuts each shard of the source off behind its header once all that is made of it is verified, and
    leaves the list of what is to be deleted (deletion.py).
    Raises UsageError for a folder in use, CapacityError without disk space (what is finished stays), CheckpointError
    where the source is damaged.
    """
    _prepare(plan, folder)
    with _alone(folder):
        remove_parts(folder)
        return _convert(plan, folder, jobs, empty_shards, on_progress)


def _convert(
    plan: StorePlan, folder: Path, jobs: int | None, empty_shards: bool, on_progress: OnProgress | None
) -> Report:
    journal = Journal(folder, plan.conversion)
    try:
        with _one_thread():
            conversion = _Conversion(plan, folder, journal, jobs or default_jobs(), on_progress)
            report = conversion.run(empty_shards)
    except CapacityError as err:
        raise _with_numbers(err, plan, folder, journal) from err
    finally:
        journal.close()
    if empty_shards:  # without the journal nothing can be planned from emptied shards
        deletion_of(plan.source, plan.index.shard_bytes).write(folder)
    journal.remove()
    return report


def default_jobs() -> int:
    """Return how many experts are packed at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MOST_JOBS))


def slowness() -> str | None:
    """Say why conversion is slow on this machine; None where the native kernels do it."""
    return missing_reason()


class _Conversion:
    def __init__(
        self, plan: StorePlan, folder: Path, journal: Journal, jobs: int, on_progress: OnProgress | None
    ) -> None:
        self.plan, self.folder, self.journal, self.jobs, self.on_progress = plan, folder, journal, jobs, on_progress
        self.reader = CheckpointReader(plan.index, plan.config)
        self.done_bytes = 0

    def run(self, empty_shards: bool) -> Report:
        report = Report(self.plan.manifest({}, {}))
        self._verify_kept(report)
        emptier = Emptier(self.plan, self.folder, self.journal, self.reader.forget)
        emptier.refuse_lost()
        for name, make in self._files():
            if name not in self.journal.finished:
                self.journal.add(name, make(self.folder / name))
                if empty_shards:
                    emptier.empty_finished()
        finished = self.journal.finished
        totals = {part: Error() for part in (DENSE, EXPERTS)}
        for file in finished.values():
            for part, error in file.errors.items():
                totals[part].add(error)
        files = {name: finished[name].entry for name in self.plan.sizes if name != STORE_FILE}
        errors = {part: error.relative for part, error in totals.items()}
        report.manifest = self.plan.manifest(files, errors, self.journal.source)
        self._write(self.folder / STORE_FILE, report.manifest.to_bytes())
        self.reader.close()
        return report

    def _verify_kept(self, report: Report) -> None:
        """Believe the journal only where the file still has the hash."""
        there = [name for name in self.journal.finished if (self.folder / name).is_file()]
        found = dict(zip(there, file_entries(self.folder / name for name in there), strict=True))
        for name, finished in list(self.journal.finished.items()):
            if found.get(name) == finished.entry:
                report.kept.append(name)
                self._advance(finished.entry.size_bytes)
            else:
                report.damaged.append(name)
                del self.journal.finished[name]

    def _files(self) -> Iterator[tuple[str, Callable[[Path], Finished]]]:
        for name, tensors in self.plan.dense.items():
            yield name, partial(self._write_dense, tensors=tensors)
        records = self.plan.records
        for layer in records.layers if records else ():
            yield layer_file(layer), partial(self._write_experts, layer=layer)
        if records:
            yield CHECKSUM_FILE, partial(self._write_checksums, layout=records)
        for name in self.plan.copies:
            yield name, partial(self._copy, source=self.plan.source / name)
        yield INDEX_FILE, partial(self._write, content=self.plan.index_bytes)

    def _write_dense(self, path: Path, tensors: tuple[DenseTensor, ...]) -> Finished:
        lost = Error()
        head, order = shard_layout([tensor.stored for tensor in tensors], PAGE_BYTES)
        by_name = {tensor.stored.name: tensor for tensor in tensors}
        with OutputFile(path, direct=True) as file:
            file.write(head)
            for planned in order:
                data = self._dense_bytes(by_name[planned.name], lost)
                for piece in data.split(_COPY_BYTES):
                    file.write(piece.numpy().data)
                self._release([planned.name])
                self._advance(planned.size_bytes)
            return Finished(file.commit(), {DENSE: lost})

    def _dense_bytes(self, tensor: DenseTensor, lost: Error) -> Tensor:
        """Return a tensor of a dense file as uint8; `lost` grows by what its format loses."""
        if tensor.packed is None:
            self.reader.prefetch(tensor.weight)
            return self.reader.raw(tensor.weight).reshape(-1).view(torch.uint8)
        data = torch.empty(tensor.packed.nbytes, dtype=torch.uint8)
        lost.add(pack_parts(dense_parts(self.reader, tensor), tensor.packed, data))
        return data

    def _write_experts(self, path: Path, layer: int) -> Finished:
        lost, checksums = Error(), []
        with OutputFile(path, direct=True) as file:
            for record, error, checksum in self._records(layer):
                file.write(record.numpy().data)
                lost.add(error)
                checksums.append(checksum)
                self._advance(len(record))
            return Finished(file.commit(), {EXPERTS: lost}, tuple(checksums))

    def _write_checksums(self, path: Path, layout: RecordLayout) -> Finished:
        rows = []
        for layer in layout.layers:  # a journal of an earlier version has none
            known = self.journal.finished[layer_file(layer)].checksums
            rows.append(known or layer_checksums(self.folder, layout, layer))
        return self._write(path, encode_checksums(rows))

    def _records(self, layer: int) -> Iterator["_Record"]:
        """Yield the records of a layer in order, the next ones already in work; each holds until the next is asked for.

        The memory of a record is used again: new pages for every one would cost as much as writing it.
        """
        layout = self.plan.records
        if layout is None:
            raise ValueError("records of a model without experts")
        experts = self.plan.config.n_routed_experts
        free = [allocate_bytes(layout.record_bytes) for _ in range(self.jobs + 2)]
        pool = ThreadPoolExecutor(self.jobs)
        waiting: deque[Future[_Record]] = deque()
        try:
            for expert in range(experts):
                if expert + self.jobs < experts:
                    self._prefetch(layer, expert + self.jobs)
                waiting.append(pool.submit(self._record, layout, layer, expert, free.pop()))
                if len(waiting) > self.jobs:
                    made = waiting.popleft().result()
                    yield made
                    free.append(made.data)
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _record(self, layout: RecordLayout, layer: int, expert: int, record: Tensor) -> "_Record":
        names = _expert_names(layer, expert)
        gate, up, down = (self.reader.stored(name) for name in names)
        middle, end = layout.up_shape.nbytes, layout.up_shape.nbytes + layout.down_shape.nbytes
        lost = pack_matrices([gate, up], layout.up_shape, record[:middle])
        lost.add(pack_matrices([down], layout.down_shape, record[middle:end]))
        record[end:].zero_()
        self._release(names)
        return _Record(record, lost, zlib.crc32(record.numpy().data))

    def _prefetch(self, layer: int, expert: int) -> None:
        for name in _expert_names(layer, expert):
            if name in self.reader.index:
                self.reader.prefetch(name)

    def _release(self, names: Iterable[str]) -> None:
        """Let the pages of tensors of the source go, with their scales."""
        for name in names:
            for stored in (name, name + FP8_SCALE, name + MXFP4_SCALE):
                if stored in self.reader.index:
                    self.reader.release(stored)

    def _copy(self, path: Path, source: Path) -> Finished:
        try:
            with source.open("rb") as file, OutputFile(path) as out:
                while block := file.read(_COPY_BYTES):
                    out.write(block)
                    self._advance(len(block))
                return Finished(out.commit(), {})
        except OSError as err:
            raise MimoError(f"`{source}` cannot be read: {err.strerror or err}") from err

    def _write(self, path: Path, content: bytes) -> Finished:
        with OutputFile(path) as file:
            file.write(content)
            self._advance(len(content))
            return Finished(file.commit(), {})

    def _advance(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes
        if self.on_progress:
            self.on_progress(self.done_bytes, self.plan.total_bytes)


class _Record(NamedTuple):
    """A packed expert, what it lost, and the CRC-32 of its bytes."""

    data: Tensor
    lost: Error
    checksum: int


def _expert_names(layer: int, expert: int) -> list[str]:
    return [expert_weight_name(layer, expert, projection) for projection in PROJECTIONS]


def dense_parts(reader: CheckpointReader, tensor: DenseTensor) -> list[StoredMatrix]:
    """Return what a packed dense matrix is made of: one stored matrix, or q, k and v one above the other."""
    if tensor.attention is None:
        return [reader.stored(tensor.weight)]
    return reader.stored_qkv(tensor.weight.removesuffix(".qkv_proj.weight"), tensor.attention)


def pack_parts(parts: list[StoredMatrix], shape: PackedShape, out: Tensor) -> Error:
    """Pack matrices that stand one above the other as one matrix."""
    if any(part.shape[0] % BLOCK_ROWS for part in parts[:-1]):
        joined = torch.cat([part.floats(torch.float32) for part in parts])
        parts = [StoredMatrix("plain", joined, source=parts[0].source)]
    lost, at = Error(), 0
    for part in parts:
        piece = PackedShape(shape.format, shape.group, part.shape[0], shape.cols)
        lost.add(pack_matrices([part], piece, out[at : at + piece.nbytes]))
        at += piece.nbytes
    return lost


def _prepare(plan: StorePlan, folder: Path) -> None:
    source = plan.source.resolve()
    if folder.resolve() == source or source in folder.resolve().parents:
        raise UsageError(f"`{folder}` lies in the source", hint="name a folder outside the model's")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise disk_error(folder, err) from err


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to write into a folder that another conversion writes into, where the system can tell."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; one that is held is another error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise UsageError(
                    f"another `mimo quantize` writes into `{folder}`", hint="wait for it, or stop it first"
                ) from err
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from using threads of its own: conversion has one for each expert in work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def missing_bytes(plan: StorePlan, folder: Path) -> tuple[int, int]:
    """Return the bytes that are still to be written, and those that are free where the store will be."""
    done = {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.is_dir() else set()
    needed_bytes = sum(size for name, size in plan.sizes.items() if name not in done)
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    status = os.statvfs(place)
    return needed_bytes, status.f_bavail * status.f_frsize


def _with_numbers(err: CapacityError, plan: StorePlan, folder: Path, journal: Journal) -> CapacityError:
    kept = sum(finished.entry.size_bytes for finished in journal.finished.values())
    free = missing_bytes(plan, folder)[1]
    return CapacityError(
        f"{err}: {format_bytes(plan.total_bytes - kept)} of {format_bytes(plan.total_bytes)} are still to be written, "
        f"{format_bytes(free)} are free in `{folder}`; {len(journal.finished)} files are finished and kept",
        hint="make room and run the same command again; it goes on where it stopped",
    )


def finished_manifest(plan: StorePlan, folder: Path) -> StoreManifest | None:
    """Return the manifest if the folder is the finished store of this very conversion, None if it is still to be made.

    Raises UsageError where the folder holds another store or anything else.
    """
    if (folder / STORE_FILE).is_file():
        manifest = StoreManifest.from_folder(folder)
        kept = {"source": dict(manifest.source), "precision": dict(manifest.precision)}
        if is_same_conversion(kept, plan.conversion):
            return manifest
        raise UsageError(
            f"`{folder}` is a packed store of another source or with other options",
            hint="name another folder, or remove this one",
        )
    if folder.exists() and not (folder / JOURNAL_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"`{folder}` exists and is not empty", hint="name a folder that is new or empty")
    return None
