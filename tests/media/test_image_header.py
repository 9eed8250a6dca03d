"""Sizes and completeness of image files, without decoding."""

import struct

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.image_header import ImageHeader, read_image_header
from mimo_cli.media.sniff import IMAGE_FORMATS, identify
from tests.support.media_files import (
    encode_picture,
    exif_bytes,
    jpeg_with_exif,
    png_chunk,
    png_header,
    smooth_picture,
)

FILES = {name: encode_picture(smooth_picture(), "." + name) for name in sorted(IMAGE_FORMATS)}
FILES["jpeg progressive"] = encode_picture(smooth_picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
FILES["jpeg restarts"] = encode_picture(smooth_picture(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
FILES["webp lossy"] = encode_picture(smooth_picture(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)


CUT = r"cut short|damaged|header says 0x0|no place of its pixels|neither `II` nor `MM`"


def read(data: bytes) -> ImageHeader:
    return read_image_header(data, identify(data) or "png")


@pytest.mark.parametrize("name", FILES)
def test_the_size_is_read(name: str) -> None:
    assert read(FILES[name]) == ImageHeader(112, 80)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    data = FILES[name]
    kind = identify(data)
    assert kind is not None
    ends = range(len(data) - 1) if kind == "gif" else range(len(data))  # a GIF without its trailer has its picture
    for end in ends[:: max(1, len(data) // 500)]:
        with pytest.raises(MediaError, match=CUT):
            read_image_header(data[:end], kind)


@pytest.mark.parametrize("name", ["png", "jpeg", "gif", "bmp"])
def test_bytes_behind_the_end_do_no_harm(name: str) -> None:
    assert read(FILES[name] + b"trailing bytes") == ImageHeader(112, 80)


def test_orientation_is_read_from_jpeg_png_and_webp() -> None:
    exif = exif_bytes(6)
    assert read(jpeg_with_exif(FILES["jpeg"], exif)).orientation == 6
    png = FILES["png"]
    assert read(png[:33] + png_chunk(b"eXIf", exif) + png[33:]).orientation == 6
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif
    webp = FILES["webp"] + chunk
    assert read(webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:]).orientation == 6


@pytest.mark.parametrize(
    ("bits", "level", "decoded"), [(1, 1, 255), (2, 2, 170), (4, 1, 17), (8, 7, 7), (16, 300, 300)]
)
def test_the_transparent_level_of_a_grey_png_is_read_as_it_is_decoded(bits: int, level: int, decoded: int) -> None:
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0))
    end = png_chunk(b"IEND", b"")
    assert read(start + png_chunk(b"tRNS", struct.pack(">H", level)) + end).transparent_level == decoded
    assert read(start + png_chunk(b"tRNS", b"") + end).transparent_level is None
    assert read(start + end).transparent_level is None


def test_the_end_marker_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    data = FILES["jpeg"]
    with_thumbnail = data[:2] + b"\xff\xe2" + struct.pack(">H", len(data) + 2) + data + data[2:]
    assert read(with_thumbnail) == ImageHeader(112, 80)
    with pytest.raises(MediaError, match="without its end marker"):
        read(with_thumbnail[:-2])


def test_a_wrong_checksum_of_png_pixels_is_damage() -> None:
    data = bytearray(FILES["png"])
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(MediaError, match="wrong checksum of its IDAT chunk"):
        read(bytes(data))


def test_a_png_must_start_with_its_header() -> None:
    with pytest.raises(MediaError, match="IHDR"):
        read(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b"") + bytes(40))


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_a_size_of_zero_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=f"header says {size[0]}x{size[1]} pixels"):
        read(png_header(*size) + png_chunk(b"IEND", b""))


def test_a_gif_canvas_counts_where_it_is_larger_than_its_picture() -> None:
    data = bytearray(FILES["gif"])
    struct.pack_into("<HH", data, 6, 300, 200)
    assert read(bytes(data)) == ImageHeader(300, 200)


def test_a_bmp_upside_down_has_the_same_size() -> None:
    data = bytearray(FILES["bmp"])
    struct.pack_into("<i", data, 22, -80)
    assert read(bytes(data)) == ImageHeader(112, 80)


@given(name=st.sampled_from(sorted(IMAGE_FORMATS)), place=st.integers(0, 60), noise=st.binary(min_size=1, max_size=40))
def test_damaged_headers_never_fail_otherwise(name: str, place: int, noise: bytes) -> None:
    data = FILES[name]
    try:
        header = read_image_header(data[:place] + noise + data[place + len(noise) :], name)
        assert header.width > 0 and header.height > 0
    except MediaError:
        pass
