"""TIFF directories, and the orientation in EXIF data."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.tiff import TiffHeader, read_orientation, read_tiff_header
from tests.support.media_files import encode_picture, exif_bytes, smooth_picture


def big_tiff(entries: list[tuple[int, int, int]]) -> bytes:
    """A BigTIFF directory of single 64-bit integers."""
    rows = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(entries)) + rows + bytes(8)


def test_the_size_of_a_tiff_is_read() -> None:
    assert read_tiff_header(encode_picture(smooth_picture(30, 50), ".tiff")) == TiffHeader(50, 30)


def test_big_tiff_is_read() -> None:
    data = big_tiff([(0x100, 16, 50), (0x101, 16, 30), (0x111, 16, 8), (0x117, 16, 4)])
    assert read_tiff_header(data) == TiffHeader(50, 30)


@pytest.mark.parametrize(("meaning", "has_alpha"), [(0, False), (1, True), (2, True)])
def test_extra_samples_are_opacity_only_where_they_are_said_to_be(meaning: int, has_alpha: bool) -> None:
    data = big_tiff([(0x100, 16, 50), (0x101, 16, 30), (0x111, 16, 8), (0x117, 16, 4), (0x152, 3, meaning)])
    assert read_tiff_header(data).has_alpha is has_alpha


def test_pixels_beyond_the_end_are_named() -> None:
    data = big_tiff([(0x100, 16, 50), (0x101, 16, 30), (0x144, 16, 8), (0x145, 16, 4000)])
    with pytest.raises(MediaError, match=r"pixels up to byte 4008 expected, \d+ bytes found"):
        read_tiff_header(data)


def test_a_directory_without_pixels_is_refused() -> None:
    with pytest.raises(MediaError, match="no place of its pixels"):
        read_tiff_header(big_tiff([(0x100, 16, 50), (0x101, 16, 30)]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_read_in_both_byte_orders(orientation: int, order: str) -> None:
    assert read_orientation(exif_bytes(orientation, order)) == orientation


@pytest.mark.parametrize("data", [b"", b"II", b"XX*\0", exif_bytes(6)[:18], exif_bytes(0), exif_bytes(9)])
def test_damaged_or_silent_exif_data_means_upright(data: bytes) -> None:
    assert read_orientation(data) == 1


@given(st.binary(max_size=120), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b""]))
def test_random_directories_never_fail_otherwise(data: bytes, start: bytes) -> None:
    assert 1 <= read_orientation(start + data) <= 8
    with contextlib.suppress(MediaError, struct.error):  # image_header.py turns struct.error into an error of ours
        read_tiff_header(start + data)
