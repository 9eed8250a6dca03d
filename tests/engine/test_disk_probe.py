"""A probe reads whole records at random places, leaves nothing behind, and says how it read."""

import os
from pathlib import Path

import pytest

from mimo_cli.engine import disk_probe
from mimo_cli.engine.disk_probe import disk_kind, probe_reads, scratch_file
from mimo_cli.errors import CapacityError, MimoError


def test_a_probe_counts_whole_records(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(300_000))
    rate = probe_reads([tmp_path / "a"], 50_000, seconds=0.05, threads=2)
    assert rate is not None and rate.gbps > 0 and rate.read_s > 0
    assert rate.bytes_read % 53_248 == 0 and rate.bytes_read > 0


def test_files_smaller_than_a_record_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 100)
    assert probe_reads([tmp_path / "small"], 4096, seconds=0.01) is None
    (tmp_path / "exact").write_bytes(b"x" * 8192)
    assert probe_reads([tmp_path / "small", tmp_path / "exact"], 8192, seconds=0.01) is not None


def test_where_direct_reads_are_refused_it_reads_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(os.urandom(20_000))
    real_open = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real_open(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    rate = probe_reads([tmp_path / "a"], 4096, seconds=0.01)
    assert rate is not None and not rate.is_direct


def test_a_read_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(os.urandom(20_000))

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(MimoError, match="Input/output error"):
        probe_reads([tmp_path / "a"], 4096, seconds=0.01)


def test_a_scratch_file_is_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_file(tmp_path / "new", 40 << 20) as path:
        assert path.stat().st_size >= 40 << 20
        raise KeyError
    assert list((tmp_path / "new").iterdir()) == []


def test_a_slow_disk_gets_a_smaller_file(tmp_path: Path) -> None:
    with scratch_file(tmp_path, 1 << 30, seconds=0.0) as path:
        assert path.stat().st_size == 8 << 20


def test_a_full_disk_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="no room"), scratch_file(tmp_path, 1 << 60):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "rotational", "expected"),
    [
        ("devices/pci/nvme/nvme0/nvme0n1", "0", "NVMe"),
        ("devices/pci/ata1/sda", "0", "SSD"),
        ("devices/pci/ata1/sda", "1", "hard disk"),
        ("devices/pci/virtio0/block/vda", "1", "unknown"),
        ("devices/virtual/block/dm-0", "0", "unknown"),
    ],
)
def test_the_kind_of_a_disk_is_read_from_the_system(
    device: str, rotational: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / device
    (folder / "queue").mkdir(parents=True)
    (folder / "queue" / "rotational").write_text(f"{rotational}\n")
    number = tmp_path.stat().st_dev
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(folder)
    monkeypatch.setattr(disk_probe, "_SYS_BLOCK", tmp_path / "block")
    assert disk_kind(tmp_path / "not" / "there") == expected


def test_an_unheard_of_disk_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_probe, "_SYS_BLOCK", tmp_path / "nothing")
    assert disk_kind(tmp_path) == "unknown"
