"""Random experts in files are those of memory, byte for byte, and leave nothing behind unless they are kept."""

from pathlib import Path

import pytest

from mimo_cli.engine import disk_experts as disk_module
from mimo_cli.engine.disk_experts import disk_experts, expert_files
from mimo_cli.engine.random_weights import RandomRecords
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.random_streams import RandomStreams
from tests.support.tiny_shape import tiny_release

CONFIG = tiny_release()


def records(kind: str = "int4") -> RandomRecords:
    return RandomRecords(CONFIG, kind, RandomStreams())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["int4", "mxfp4", "fp8"])
def test_a_file_holds_what_memory_would(kind: str, tmp_path: Path) -> None:
    made = records(kind)
    with disk_experts(tmp_path, CONFIG, made) as stored:
        for layer in CONFIG.moe_layers:
            for expert in (0, CONFIG.n_routed_experts - 1):
                slot = allocate_bytes(stored.record_bytes)
                made.place(layer, expert, (), slot[: made.record_bytes])
                (extent,) = stored.extents(layer, expert)
                with extent.path.open("rb") as file:
                    file.seek(extent.offset)
                    assert file.read(extent.size_bytes) == bytes(slot.numpy())
        assert all(path.stat().st_size == stored.layout.file_bytes for path in expert_files(stored))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), disk_experts(tmp_path, CONFIG, records(), on_write=stop):
        pass
    assert list(tmp_path.iterdir()) == []


def test_kept_experts_are_written_once(tmp_path: Path) -> None:
    told: list[int] = []
    for _ in range(2):
        with disk_experts(tmp_path, CONFIG, records(), tmp_path / "kept", lambda done, _: told.append(done)) as stored:
            times = [path.stat().st_mtime_ns for path in expert_files(stored)]
        written = len(told)
    assert written == len(told) > 0 and len(set(told)) == len(told)
    assert times == [path.stat().st_mtime_ns for path in expert_files(stored)]


def test_a_kept_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with disk_experts(tmp_path, CONFIG, records("int4"), tmp_path / "kept"):
        pass
    with (
        pytest.raises(UsageError, match="does not hold these experts"),
        disk_experts(tmp_path, CONFIG, records("fp8"), tmp_path / "kept"),
    ):
        pass


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(CapacityError, match=r"of disk, .* are free"), disk_experts(tmp_path, CONFIG, records()):
        pass
    assert list(tmp_path.iterdir()) == []
