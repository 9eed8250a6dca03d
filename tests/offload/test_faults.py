"""Faults of the disk: a clear error or the right answer, never a wrong one, and the store goes on afterwards."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mimo_cli.errors import CheckpointError
from mimo_cli.offload import extent_reader
from mimo_cli.offload.record_checks import RecordChecks
from tests.support.kernels import needs_kernels
from tests.support.offload_faults import EXPERTS, LAYER, FaultyDisk, answer, eio_at, open_records, open_store, step
from tests.support.stores import copied_store, flip_byte

pytestmark = needs_kernels

KINDS = ["shards", "store"]
MODES = ["direct", "buffered"]
NO_WAITS = (0.0, 0.0)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent_reader, "RETRY_WAITS_S", NO_WAITS)


def same(store: object, kind: str, tokens: int = 1, seed: int = 0) -> bool:
    """Tell whether a step has exactly the answer of a sound disk with room for everything."""
    return torch.equal(store.run(LAYER, *step(tokens, seed)), answer(kind, tokens, seed))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_an_error_at_any_one_read_is_overcome(kind: str, mode: str) -> None:
    for read in range(5):
        disk = FaultyDisk()
        disk.fails = eio_at(read)
        store = open_store(kind, mode=mode, read_at=disk.read_at)
        assert same(store, kind) and store.counters.retries == (1 if disk.reads > read else 0)
        store.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [1, 4, 8])
def test_a_disk_that_is_gone_is_an_error_and_may_come_back(kind: str, slots: int) -> None:
    disk = FaultyDisk()
    store = open_store(kind, slots, mode="direct", read_at=disk.read_at)
    for seed in range(3):
        disk.fails = lambda read: errno.EIO
        with pytest.raises(
            CheckpointError, match=r"expert \d of layer 1: .* cannot be read.*: Input/output error"
        ) as e:
            store.run(LAYER, *step(3, seed + 10))
        assert "dmesg" in (e.value.hint or "")
        disk.fails = lambda read: None
        assert same(store, kind, 2, seed)
        store.clear()
    store.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_reads_cut_short_are_continued(kind: str, mode: str) -> None:
    for seed in range(3):
        disk = FaultyDisk()
        disk.shorten = random.Random(seed)
        store = open_store(kind, mode=mode, read_at=disk.read_at)
        assert same(store, kind, 5, seed)
        store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_takes_no_direct_reads_is_read_the_other_way(kind: str) -> None:
    refused = []

    def read_at(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return os.preadv(descriptor, buffers, offset)

    store = open_store(kind, mode="direct", threads=1, read_at=read_at)
    assert same(store, kind) and refused and store.counters.retries == 0
    store.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_record_is_named(tmp_path: Path, mode: str) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    records = open_records("store", folder)
    extent = records.extents(LAYER, EXPERTS - 1)[0]
    store = open_store("store", folder=folder, mode=mode)
    for kept in (0, 1, 4096, extent.size_bytes - 4096, extent.size_bytes - 1):
        os.truncate(extent.path, extent.offset + kept)
        with pytest.raises(CheckpointError, match=rf"expert {EXPERTS - 1} of layer 1: .*is truncated: .* found"):
            store.run(LAYER, *step(30, 0))  # every expert has tokens
    store.close()


def test_a_file_that_vanished_is_named_and_one_that_is_open_is_still_read(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    records = open_records("store", folder)
    path = records.extents(LAYER, 0)[0].path
    store, late = open_store("store", folder=folder), open_store("store", folder=folder)
    assert same(store, "store")
    path.rename(path.with_suffix(".away"))
    store.clear()
    assert same(store, "store")
    with pytest.raises(CheckpointError, match="No such file"):
        late.run(LAYER, *step(1, 0))
    path.with_suffix(".away").rename(path)
    assert same(late, "store")
    store.close()
    late.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_that_changes_on_the_way_is_read_again_where_checksums_are_compared(kind: str, tmp_path: Path) -> None:
    checks = RecordChecks(tmp_path / "checks.json")
    first = open_store(kind, checks=checks)
    assert same(first, kind, 30)
    first.close()
    for read in range(3):
        disk = FaultyDisk()
        disk.flips = {read}
        store = open_store(kind, threads=1, checks=RecordChecks(tmp_path / "checks.json"), read_at=disk.read_at)
        assert same(store, kind)
        store.close()


def test_a_byte_that_changed_on_the_disk_is_an_error_where_checksums_are_compared(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    checks = RecordChecks()
    store = open_store("store", folder=folder, checks=checks)
    assert same(store, "store", 30)
    extent = open_records("store", folder).extents(LAYER, 3)[0]
    store.clear()
    flip_byte(extent.path, extent.offset + 1000)
    with pytest.raises(CheckpointError, match=r"expert 3 of layer 1: its checksum is not the recorded one"):
        store.run(LAYER, *step(30, 0))
    flip_byte(extent.path, extent.offset + 1000)
    assert same(store, "store", 30)
    store.close()


def test_a_store_that_was_corrupted_before_anyone_read_it_is_found_at_the_first_reading(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    extent = open_records("store", folder).extents(LAYER, 3)[0]
    flip_byte(extent.path, extent.offset + 1000)
    store = open_store("store", folder=folder, checks=RecordChecks())
    with pytest.raises(CheckpointError, match=r"expert 3 of layer 1: its checksum is not the recorded one"):
        store.run(LAYER, *step(30, 0))
    store.close()


KILLED = """
import sys
from pathlib import Path
from mimo_cli.offload.record_checks import RecordChecks
from tests.support.offload_faults import LAYER, open_store, step
folder = Path(sys.argv[1])
for turn in range(10**6):
    store = open_store("shards", 2, mode="direct", checks=RecordChecks(folder / "checks.json"))
    store.run(LAYER, *step(3, turn % 20))
    print("ran", flush=True)
    store.close()
"""


def test_a_process_killed_at_any_moment_leaves_nothing_that_misleads_the_next(tmp_path: Path) -> None:
    draw = random.Random(3)
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ran\n"
            time.sleep(draw.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        store = open_store("shards", checks=RecordChecks(tmp_path / "checks.json"))
        assert same(store, "shards", 30)
        store.close()
