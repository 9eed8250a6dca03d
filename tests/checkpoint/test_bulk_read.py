"""Large reads: the same bytes from the cache, past it and half of each, at any offset the format allows."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint import bulk_read, direct_file
from mimo_cli.checkpoint.bulk_read import read_bytes
from mimo_cli.errors import CheckpointError


def _file(folder: Path, size_bytes: int) -> tuple[Path, bytes]:
    content = torch.randint(0, 256, (size_bytes,), dtype=torch.uint8).numpy().tobytes()
    path = folder / "data.bin"
    path.write_bytes(content)
    return path, content


def _forget(path: Path, offset: int = 0, size_bytes: int = 0) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), offset, size_bytes, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize(("offset", "size_bytes"), [(0, 100_000), (64, 99_936), (4096, 4096), (8256, 70_001)])
def test_a_part_is_the_same_bytes_wherever_it_lies(
    offset: int, size_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_read, "CHUNK_BYTES", 1 << 14)  # so that there are several reads
    path, content = _file(tmp_path, 100_000)
    for forgotten in ((0, 0), (0, 32_768), (40_960, 8192), None):
        if forgotten:
            _forget(path, *forgotten)
        data = read_bytes(path, offset, size_bytes)
        assert data is not None and data.data_ptr() % 64 == 0
        assert data.numpy().tobytes() == content[offset : offset + size_bytes]


def test_without_reads_past_the_cache_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = _file(tmp_path, 50_000)
    monkeypatch.setattr(direct_file, "DIRECT", 0)
    data = read_bytes(path, 128, 40_000)
    assert data is not None and data.numpy().tobytes() == content[128:40_128]


def test_an_offset_that_kernels_do_not_like_is_left_to_others(tmp_path: Path) -> None:
    assert read_bytes(_file(tmp_path, 10_000)[0], 8, 9000) is None


def test_a_file_that_ends_too_early_is_named(tmp_path: Path) -> None:
    path, _ = _file(tmp_path, 50_000)
    with pytest.raises(CheckpointError, match=r"data.bin` is truncated: 60,000 bytes expected, 50,000 found"):
        read_bytes(path, 0, 60_000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_bytes(tmp_path / "none.bin", 0, 4096)


def test_a_disk_that_refuses_reads_past_the_cache_is_read_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = _file(tmp_path, 50_000)
    _forget(path)
    read, refused = os.preadv, []

    def preadv(descriptor: int, parts: list[memoryview], offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & direct_file.DIRECT:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return read(descriptor, parts, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    data = read_bytes(path, 128, 40_000)
    assert data is not None and data.numpy().tobytes() == content[128:40_128]
    assert refused or not direct_file.DIRECT
