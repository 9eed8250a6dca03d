"""How to read is found out once for each disk, remembered, and never a reason to fail."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.offload import reading
from mimo_cli.offload.reading import REMEMBERED_FILE, Reading, faster_mode, open_source
from tests.support.kernels import needs_kernels
from tests.support.offload_faults import EXPERTS, FaultyDisk, open_records

MB = 2**20


@pytest.fixture
def extents(tmp_path: Path) -> list[list[Extent]]:
    paths = [tmp_path / f"expert{at}" for at in range(8)]  # a file each: large pages of the cache go as a whole
    for path in paths:
        path.write_bytes(bytes(MB))
    return [[Extent(path, 0, MB)] for path in paths]


def test_the_faster_way_is_chosen(extents: list[list[Extent]], monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"direct": 0.0, "buffered": 0.0}

    class Timed(reading.ExtentReader):
        def read(self, *args: object) -> list[torch.Tensor]:
            time.sleep(slow[self.mode])
            return super().read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "ExtentReader", Timed)
    slow["direct"] = 0.05
    assert faster_mode(extents) == "buffered"
    slow["direct"], slow["buffered"] = 0.0, 0.05
    assert faster_mode(extents) == "direct"


def test_what_the_cache_does_not_give_up_says_nothing_of_the_disk(
    extents: list[list[Extent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reading._drop_cached(extents[0])  # though it was only just written
    monkeypatch.setattr(reading, "_is_cached", lambda descriptor, offset: True)
    assert not reading._drop_cached(extents[0])

    class Slow(reading.ExtentReader):
        def read(self, *args: object) -> list[torch.Tensor]:
            time.sleep(0.05 if self.mode == "direct" else 0.0)
            return super().read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "ExtentReader", Slow)
    assert faster_mode(extents) == "direct"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system does not tell what it has cached")
def test_the_system_tells_what_it_has_cached(extents: list[list[Extent]]) -> None:
    ((extent,), *_) = extents
    with extent.path.open("rb") as file:
        file.read()
        if not reading._is_cached(file.fileno(), 0):
            pytest.skip("this file system does not")
        assert reading._drop_cached([extent])
        assert not reading._is_cached(file.fileno(), 0)


@needs_kernels
def test_the_answer_is_remembered_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SMALL_BYTES", 0)
    asked = []
    monkeypatch.setattr(reading, "faster_mode", lambda *args: asked.append(args) or "buffered")
    for _ in range(2):
        source = open_source(open_records("store"), Reading(remember=tmp_path / "cache"), [1], EXPERTS)
        assert source.mode == "buffered" and len(asked) == 1
    assert list(json.loads((tmp_path / "cache" / REMEMBERED_FILE).read_text()).values()) == ["buffered"]
    (tmp_path / "cache" / REMEMBERED_FILE).write_text("{ damaged")
    open_source(open_records("store"), Reading(remember=tmp_path / "cache"), [1], EXPERTS)
    assert len(asked) == 2


@needs_kernels
def test_what_was_chosen_is_not_asked_again_and_little_is_not_worth_asking() -> None:
    records = open_records("store")
    assert open_source(records, Reading("direct"), [1], EXPERTS).mode == "direct"
    assert open_source(records, Reading("buffered"), [1], EXPERTS).mode == "buffered"
    disk = FaultyDisk()
    assert open_source(records, Reading(read_at=disk.read_at), [1], EXPERTS).mode == "buffered" and not disk.reads


@needs_kernels
def test_checksums_are_kept_for_files_that_bring_none(tmp_path: Path) -> None:
    for kind in ("store", "shards"):  # a store was written with its own
        source = open_source(open_records(kind), Reading(verify=True, remember=tmp_path / kind), [1], EXPERTS)
        slot = torch.zeros(source.slot_bytes, dtype=torch.uint8)
        source.fill(1, 0, slot)
        source.close()
    kept = list(tmp_path.glob("*/checks-*.json"))
    assert [path.parent.name for path in kept] == ["shards"]
    assert list(json.loads(kept[0].read_text())) == ["1.0"]
