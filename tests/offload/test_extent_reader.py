"""Reading extents: the right bytes wherever they lie, in as few reads as possible, and nothing left in the cache."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.extent_reader import ExtentReader, Scratch, merge_extents, read_bytes
from mimo_cli.quant.buffers import allocate_bytes

SIZE = 300_007
NOISE = os.urandom(SIZE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "a", folder / "b"]
    for path in paths:
        path.write_bytes(NOISE)
    return paths


@pytest.mark.parametrize("mode", ["direct", "buffered"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_extents_come_back_byte_for_byte(files: list[Path], mode: str, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.tuples(st.sampled_from(files), st.integers(0, SIZE - 1)), min_size=1, max_size=6))
    extents = [Extent(path, at, data.draw(st.integers(1, min(SIZE - at, 70_000)))) for path, at in places]
    reader, scratch = ExtentReader(mode), Scratch()  # type: ignore[arg-type]
    for extent, part in zip(extents, reader.read(extents, scratch), strict=True):
        assert bytes(part.numpy()) == NOISE[extent.offset : extent.end]
    assert reader.bytes_read <= read_bytes(extents)
    reader.close()


def test_neighbours_are_one_read_and_strangers_are_not(files: list[Path]) -> None:
    first, second = files
    parts = [Extent(first, 100, 50), Extent(first, 150, 7), Extent(first, 60_000, 9), Extent(second, 157, 5)]
    assert merge_extents(parts[::-1]) == [Extent(first, 100, 59_909), Extent(second, 157, 5)]
    assert merge_extents([Extent(first, 0, 10), Extent(first, 200_000, 10)]) == [
        Extent(first, 0, 10),
        Extent(first, 200_000, 10),
    ]
    assert merge_extents([Extent(first, 0, 100), Extent(first, 10, 5)]) == [Extent(first, 0, 100)]
    assert read_bytes([Extent(first, 4095, 2)]) == 8192


@pytest.mark.parametrize("mode", ["direct", "buffered"])
def test_a_record_goes_straight_into_its_slot(files: list[Path], mode: str) -> None:
    reader, slot = ExtentReader(mode), allocate_bytes(3 * 4096)  # type: ignore[arg-type]
    reader.read_record(Extent(files[0], 8192, 3 * 4096), slot)
    assert bytes(slot.numpy()) == NOISE[8192 : 8192 + 3 * 4096] and reader.bytes_read == 3 * 4096
    reader.close()
    reader.read_record(Extent(files[0], 0, 4096), slot)  # opened again when needed
    assert bytes(slot[:4096].numpy()) == NOISE[:4096]
    reader.close()


@pytest.mark.parametrize("mode", ["direct", "buffered"])
def test_the_end_of_a_file_is_found_out(files: list[Path], mode: str) -> None:
    reader = ExtentReader(mode)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"is truncated: 300,008 bytes expected, 300,007 found"):
        reader.read([Extent(files[0], SIZE - 5, 6)], Scratch())
    reader.close()


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    reader = ExtentReader("buffered")
    with pytest.raises(CheckpointError, match="cannot be read"):
        reader.read([Extent(tmp_path, 0, 10)], Scratch())
    reader.close()


def test_scratch_memory_grows_to_the_largest_need_and_stays() -> None:
    scratch = Scratch()
    assert scratch.nbytes == 0
    scratch.ensure(10)
    assert scratch.nbytes == 4096
    first = scratch.ensure(5000).data_ptr()
    assert scratch.ensure(100).data_ptr() == first and scratch.nbytes == 8192
