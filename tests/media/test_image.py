"""Image files to RGB and to pixel values: every format, orientation, transparency, damage and limits."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.image import decode_image, open_image, preprocess_image
from mimo_cli.media.options import ImageOptions
from tests.support.media_files import (
    EXAMPLES,
    encode_picture,
    exif_bytes,
    jpeg_with_exif,
    png_chunk,
    png_header,
    smooth_picture,
)
from tests.support.vision_golden import FOLDER

PICTURE = smooth_picture()
LOSSLESS = [".png", ".webp", ".bmp", ".tiff"]
EXTENSIONS = [*LOSSLESS, ".jpg", ".gif"]


@pytest.mark.parametrize("extension", LOSSLESS)
def test_lossless_formats_give_the_very_samples(extension: str) -> None:
    parameters = (cv2.IMWRITE_WEBP_QUALITY, 101) if extension == ".webp" else ()
    assert np.array_equal(decode_image(encode_picture(PICTURE, extension, *parameters)), PICTURE)


@pytest.mark.parametrize(("extension", "levels"), [(".jpg", 2.0), (".gif", 30.0)])
def test_lossy_formats_give_nearly_the_samples_in_rgb_order(extension: str, levels: float) -> None:
    found = decode_image(encode_picture(PICTURE, extension))
    # JPEG halves the colour resolution; the encoder of GIF has 256 colours and dithers.
    error = np.abs(found.astype(int) - PICTURE).mean()
    assert error < levels
    assert np.abs(found[..., ::-1].astype(int) - PICTURE).mean() > 2 * error


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_grey_pictures_are_replicated_to_three_channels(extension: str) -> None:
    found = decode_image(encode_picture(PICTURE[..., 0], extension))
    assert found.shape == PICTURE.shape
    assert np.ptp(found.astype(int), axis=2).max() <= (1 if extension == ".webp" else 0)  # WebP stores them in colour


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_samples_keep_their_high_byte(extension: str, channels: int) -> None:
    samples = np.dstack([PICTURE, np.full_like(PICTURE[..., :1], 255)])[..., :channels].astype(np.uint16) * 256 + 77
    found = decode_image(encode_picture(samples[..., 0] if channels == 1 else samples, extension), faithful=True)
    assert np.array_equal(found, PICTURE[..., :1].repeat(3, 2) if channels == 1 else PICTURE)


def test_cmyk_jpeg_is_converted_to_its_colours() -> None:
    found = decode_image((FOLDER / "cmyk.jpg").read_bytes())
    corners = found[[5, 5, 18, 18], [10, 30, 10, 30]].astype(int)
    wanted = [(220, 30, 30), (30, 200, 40), (20, 40, 210), (240, 230, 20)]
    assert np.abs(corners - wanted).max() <= 3  # JPEG, and a conversion in whole levels


def palette_png(*, transparent: int | None) -> bytes:
    """A picture of 2x1 pixels, red and blue, with a colour table."""
    pieces = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))]
    pieces.append(png_chunk(b"PLTE", bytes((255, 0, 0, 0, 0, 255))))
    if transparent is not None:
        pieces.append(png_chunk(b"tRNS", bytes(0 if entry == transparent else 255 for entry in range(2))))
    pieces += [png_chunk(b"IDAT", zlib.compress(b"\0\0\1")), png_chunk(b"IEND", b"")]
    return b"".join(pieces)


def test_palettes_become_colours_and_their_transparency_white() -> None:
    assert decode_image(palette_png(transparent=None)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert decode_image(palette_png(transparent=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert decode_image(palette_png(transparent=0), faithful=True).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_grey_tiff_that_counts_from_white_is_not_a_negative(kind: type) -> None:
    samples = PICTURE[..., :1].astype(kind) * (257 if kind is np.uint16 else 1)
    for data in (tiff_file(samples, photometric=1), tiff_file(np.iinfo(kind).max - samples, photometric=0)):
        assert np.array_equal(decode_image(data), PICTURE[..., :1].repeat(3, 2))


def test_channels_one_after_the_other_are_read_or_refused_never_mixed_up() -> None:
    assert np.array_equal(decode_image(tiff_file(PICTURE, planar=2)), PICTURE)
    deep = PICTURE.astype(np.uint16) * 257
    assert np.array_equal(decode_image(tiff_file(deep)), PICTURE)
    with pytest.raises(MediaError, match="3 channels of 16 bits one after the other") as caught:
        decode_image(tiff_file(deep, planar=2))
    assert "PNG" in (caught.value.hint or "")
    assert np.array_equal(decode_image(tiff_file(deep[..., :1], planar=2)), PICTURE[..., :1].repeat(3, 2))


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_transparent_level_of_a_grey_png_shows_white(bits: int) -> None:
    """Zero is transparent, and one is not even where eight bits do not tell them apart."""
    row = {1: b"\x40", 8: bytes((0, 255, 1)), 16: struct.pack(">HHH", 0, 65535, 1)}[bits]
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0))
    data += png_chunk(b"tRNS", b"\0\0") + png_chunk(b"IDAT", zlib.compress(b"\0" + row)) + png_chunk(b"IEND", b"")
    last = {1: 255, 8: 1, 16: 0}[bits]
    assert decode_image(data)[0, :, 0].tolist() == [255, 255, last]
    assert decode_image(data, faithful=True)[0, :, 0].tolist() == [0, 255, {1: 0}.get(bits, last)]


@pytest.mark.parametrize("extension", [".png", ".webp", ".tiff"])
def test_transparency_shows_white_unless_faithful_drops_it(extension: str) -> None:
    alpha = np.linspace(0, 255, PICTURE.shape[1]).astype(np.uint8)[None, :, None].repeat(PICTURE.shape[0], 0)
    data = encode_picture(
        np.dstack([PICTURE, alpha]), extension, *((cv2.IMWRITE_WEBP_QUALITY, 101) * (extension == ".webp"))
    )
    blended = np.rint((PICTURE * (alpha / 255) + 255 * (1 - alpha / 255)).astype(np.float64))
    assert np.abs(decode_image(data) - blended).max() <= 1  # halves may round either way
    opaque = alpha[..., 0] > 0  # WebP may forget the colour of what cannot be seen
    assert np.array_equal(decode_image(data, faithful=True)[opaque], PICTURE[opaque])


def bmp_of_four_bytes(rgb: np.ndarray, fourth: int) -> bytes:
    """A BMP of 32 bits with masks for red, green and blue (BI_BITFIELDS): what the fourth byte is, it does not say."""
    height, width = rgb.shape[:2]
    pixels = np.dstack([rgb[::-1, :, ::-1], np.full((height, width), fourth, np.uint8)]).tobytes()
    start = 14 + 40 + 12
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    return head + info + struct.pack("<III", 0xFF0000, 0xFF00, 0xFF) + pixels


def tiff_file(samples: np.ndarray, **tags: int) -> bytes:
    """A TIFF of samples [H, W, C], not compressed, in one strip or, with planar=2, in one for each channel.

    `photometric` is 1 or 2 unless given; `extra` says what the last channel is.
    """
    height, width, channels = samples.shape
    planes = channels if tags.get("planar") == 2 else 1
    body = (samples.transpose(2, 0, 1) if planes > 1 else samples).tobytes()
    size = len(body) // planes
    values = {
        256: [width],
        257: [height],
        258: [samples.itemsize * 8] * channels,
        259: [1],
        262: [tags.get("photometric", 2 if channels >= 3 else 1)],
        273: [8 + size * plane for plane in range(planes)],
        277: [channels],
        278: [height],
        279: [size] * planes,
        284: [tags.get("planar", 1)],
        **({338: [tags["extra"]]} if "extra" in tags else {}),
    }
    rows, place = b"", 8 + len(body)
    for tag, numbers in values.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        rows += struct.pack("<HHI", tag, 4, len(numbers))
        rows += packed if len(numbers) == 1 else struct.pack("<I", place)
        body, place = (body, place) if len(numbers) == 1 else (body + packed, place + len(packed))
    return struct.pack("<2sHI", b"II", 42, place) + body + struct.pack("<H", len(values)) + rows + bytes(4)


def test_a_fourth_channel_of_zeros_is_padding_unless_it_is_said_to_be_opacity() -> None:
    assert np.array_equal(decode_image(bmp_of_four_bytes(PICTURE, 0)), PICTURE)
    padded = np.dstack([PICTURE, np.zeros_like(PICTURE[..., :1])])
    assert np.array_equal(decode_image(tiff_file(padded, extra=0)), PICTURE)
    assert decode_image(tiff_file(padded, extra=2)).min() == 255
    assert decode_image(encode_picture(padded, ".png")).min() == 255
    # A few pixels that can be seen make it opacity.
    padded[0, :2, 3] = 255
    found = decode_image(tiff_file(padded, extra=0))
    assert np.array_equal(found[0, :2], PICTURE[0, :2]) and found[1:].min() == 255


def test_opaque_pictures_do_not_depend_on_how_transparency_is_handled() -> None:
    data = encode_picture(np.dstack([PICTURE, np.full_like(PICTURE[..., :1], 255)]), ".png")
    assert np.array_equal(decode_image(data), decode_image(data, faithful=True))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),  # shown after a turn to the right
        (7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_exif_orientation_is_applied_unless_faithful(orientation: int, turned: object) -> None:
    plain = encode_picture(PICTURE, ".jpg")
    stored, data = decode_image(plain), jpeg_with_exif(plain, exif_bytes(orientation))
    assert np.array_equal(decode_image(data), turned(stored))  # type: ignore[operator]
    assert np.array_equal(decode_image(data, faithful=True), stored)
    # OpenCV's own reader, where it turns pictures, is a second opinion.
    own = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(cv2.cvtColor(own, cv2.COLOR_BGR2RGB), decode_image(data))


def test_size_and_tokens_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(jpeg_with_exif(encode_picture(smooth_picture(64, 256), ".jpg"), exif_bytes(6)))
    found = open_image(path)
    assert (found.source, found.size_px, found.grid_thw, found.num_tokens) == (str(path), (64, 256), (1, 16, 4), 16)
    assert open_image(path, ImageOptions(faithful=True)).size_px == (256, 64)


def test_real_photographs_open() -> None:
    cat = open_image(EXAMPLES / "cat.jpg")
    assert (cat.size_px, cat.grid_thw, cat.num_tokens) == ((451, 300), (1, 18, 28), 126)
    ((pixel_values, grid),) = cat.chunks()
    assert pixel_values.shape == (18 * 28, 1536) and grid.tolist() == [[1, 18, 28]]
    assert -1.8 < pixel_values.min() < -1 < 1 < pixel_values.max() < 2.2


def test_chunks_can_be_read_again_and_bytes_equal_a_file() -> None:
    path = EXAMPLES / "coffee.jpg"
    image = open_image(path)
    first, second = (next(image.chunks())[0] for _ in range(2))
    from_bytes = next(open_image(path.read_bytes(), name="a photo").chunks())[0]
    assert np.array_equal(first, second) and np.array_equal(first, from_bytes)


def test_a_picture_is_shown_without_its_bytes() -> None:
    shown = repr(open_image(EXAMPLES / "cat.jpg"))
    assert "num_tokens=126" in shown and len(shown) < 300


def test_one_changed_pixel_changes_the_pixel_values() -> None:
    changed = PICTURE.copy()
    changed[40, 50, 2] ^= 64
    assert not np.array_equal(preprocess_image(PICTURE)[0], preprocess_image(changed)[0])


def test_a_single_pixel_becomes_a_small_picture() -> None:
    pixel_values, grid = preprocess_image(np.array([[[255, 0, 0]]], np.uint8))
    assert grid.tolist() == [[1, 6, 6]] and np.ptp(pixel_values.reshape(36, 3, -1), axis=(0, 2)).max() < 1e-6
    assert open_image(encode_picture(np.zeros((1, 1, 3), np.uint8), ".png")).num_tokens == 9


@pytest.mark.parametrize(
    ("size", "options", "tokens"),
    [((480, 640), {}, 300), ((480, 640), {"max_pixels": 102400}, 88), ((64, 64), {"min_pixels": 262144}, 256)],
)
def test_pixel_limits_bound_the_tokens(size: tuple[int, int], options: dict, tokens: int) -> None:
    image = open_image(encode_picture(smooth_picture(*size), ".png"), ImageOptions(**options))
    assert image.num_tokens == tokens
    assert len(next(image.chunks())[0]) == 4 * tokens


@pytest.mark.parametrize(("height", "width"), [(1, 20000), (20000, 1), (40, 8001)])
def test_extreme_shapes_are_clear_errors(height: int, width: int) -> None:
    data = encode_picture(np.zeros((height, width), np.uint8), ".png")
    with pytest.raises(MediaError, match=f"{width}x{height} pixels.*(would shrink|200 times)"):
        open_image(data)


def test_decompression_bombs_are_refused_by_their_header() -> None:
    bomb = png_header(60_000, 60_000) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    with pytest.raises(MediaError, match=r"says 60000x60000 pixels; at most 256 megapixels"):
        decode_image(bomb)


def test_pixels_that_do_not_fill_the_announced_size_are_damage() -> None:
    rows = b"".join(b"\0" + bytes(64 * 3) for _ in range(32))
    short = png_header(64, 64) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    with pytest.raises(MediaError, match="damaged: its pixels cannot be decoded"):
        decode_image(short)


def test_float_pictures_are_refused_by_type() -> None:
    data = cv2.imencode(".tiff", PICTURE.astype(np.float32))[1].tobytes()
    with pytest.raises(MediaError, match="samples of type float32; 8 or 16 bits were expected"):
        decode_image(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"just some text", "those of no known format"),
        (b"fLaC" + bytes(100), "those of flac"),
        (b"%PDF-1.4", "a PDF document"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC picture"),
        (encode_picture(PICTURE, ".jpg")[:500], "cut short"),
        (encode_picture(PICTURE, ".png")[:-5], "cut short"),
    ],
)
def test_anything_else_is_an_error_that_names_the_source(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=message) as caught:
        open_image(path)
    assert "cat.png" in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_that_are_no_rgb_pictures_are_refused(array: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"\[H, W, 3\] of uint8"):
        preprocess_image(array)


@settings(max_examples=300)
@given(
    extension=st.sampled_from(EXTENSIONS),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_give_a_picture_or_a_media_error(extension: str, cut: float, changes: list) -> None:
    data = bytearray(encode_picture(PICTURE[::4, ::4].copy(), extension))
    del data[max(1, round(cut * len(data)) if cut < 0.5 else len(data)) :]
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        found = decode_image(bytes(data))
    except MediaError as err:
        assert str(err)
        return
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF\x20\0\0\0WEBPVP8L", b""]
    ),
)
def test_random_bytes_are_a_media_error(data: bytes, start: bytes) -> None:
    with pytest.raises(MediaError):
        decode_image(start + data)
