"""Image files to RGB and to the pixel values of one picture. Decoding is OpenCV's; what it is handed is checked first.

An ImageInput keeps the compressed bytes only and decodes again when it is encoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.image_header import ImageHeader, read_image_header
from mimo_cli.media.libraries import cv2
from mimo_cli.media.options import ImageOptions
from mimo_cli.media.patches import frames_to_patches, grid_of
from mimo_cli.media.resize import target_size
from mimo_cli.media.sniff import HEAD_BYTES, IMAGE_FORMATS, identify, refuse_unsupported
from mimo_cli.media.source import Source, read_all, source_name
from mimo_cli.media.types import ImageInput, PixelChunk

MAX_IMAGE_BYTES = 512_000_000
"""Largest image file that is read."""

MAX_SOURCE_PIXELS = 256_000_000
"""Largest picture that is decoded, before resizing; more is taken for a decompression bomb."""


def open_image(source: Source, options: ImageOptions | None = None, *, name: str | None = None) -> ImageInput:
    """Read an image file (or its bytes) and check that it decodes; `name` stands for it in messages.

    Raises MediaError for anything but a complete PNG, JPEG, WebP, GIF (first frame), BMP or TIFF within the limits.
    """
    options = options or ImageOptions()
    name = name or source_name(source)
    data = read_all(source, MAX_IMAGE_BYTES)
    try:
        rgb = decode_image(data, faithful=options.faithful)
        grid = _grid(rgb, options)
    except MediaError as err:
        raise MediaError(f"{name}: {err}", hint=err.hint) from err
    size_px = rgb.shape[1], rgb.shape[0]
    num_tokens = grid[1] * grid[2] // options.pixels.merge_size**2
    return ImageInput(name, size_px, grid, num_tokens, _ImageChunks(data, options))


@dataclass(frozen=True)
class _ImageChunks:
    """Decodes the picture each time it is called."""

    data: bytes
    options: ImageOptions

    def __call__(self) -> Iterator[PixelChunk]:
        yield preprocess_image(decode_image(self.data, faithful=self.options.faithful), self.options)


def preprocess_image(rgb: NDArray[np.uint8], options: ImageOptions | None = None) -> PixelChunk:
    """Resize, normalise and cut a picture rgb [H, W, 3] uint8.

    Returns pixel_values [h*w, 1536] float32 and grid_thw [1, 3] int64. Raises MediaError for impossible sizes.
    """
    options = options or ImageOptions()
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise MediaError(f"a picture [H, W, 3] of uint8 was expected, found {rgb.shape} of {rgb.dtype}")
    grid = _grid(rgb, options)
    frames = [rgb] * options.pixels.temporal_patch_size
    return frames_to_patches(frames, grid, options.pixels), np.array([grid], np.int64)


def _grid(rgb: NDArray[np.uint8], options: ImageOptions) -> tuple[int, int, int]:
    """Return the patch grid (1, h, w) of a decoded picture."""
    height, width = target_size(rgb.shape[0], rgb.shape[1], options.min_pixels, options.max_pixels, options.pixels)
    return grid_of(1, height, width, options.pixels)


def decode_image(data: bytes, *, faithful: bool = False) -> NDArray[np.uint8]:
    """Decode a whole image file to RGB [H, W, 3] uint8.

    By default the picture is turned upright and transparency shows white; `faithful` ignores EXIF orientation and
    drops alpha, as the serving stack does. 16-bit samples keep their high byte. Raises MediaError.
    """
    image_format = identify(data[:HEAD_BYTES])
    if image_format not in IMAGE_FORMATS:
        refuse_unsupported(data[:HEAD_BYTES], "the file")
        found = f"its bytes are those of {image_format}" if image_format else "its bytes are those of no known format"
        raise MediaError(f"not an image: {found}", hint="images are PNG, JPEG, WebP, GIF, BMP or TIFF")
    header = read_image_header(data, image_format)
    if header.width * header.height > MAX_SOURCE_PIXELS:
        raise MediaError(
            f"the {image_format.upper()} header says {header.width}x{header.height} pixels; "
            f"at most {MAX_SOURCE_PIXELS // 10**6} megapixels are decoded",
            hint="scale it down first",
        )
    stored = _decode(data, image_format, header)
    if image_format in ("bmp", "tiff") and not header.has_alpha:
        stored = _without_padding(stored)
    if header.is_negative and stored.dtype == np.uint16:
        stored = np.iinfo(np.uint16).max - stored
    if header.transparent_level is not None and stored.ndim == 2 and not faithful:
        stored[stored == header.transparent_level] = np.iinfo(stored.dtype).max  # the decoder leaves it in its colour
    rgb = _to_rgb(stored, image_format, faithful=faithful)
    return rgb if faithful else _upright(rgb, header.orientation)


def _decode(data: bytes, image_format: str, header: ImageHeader) -> NDArray:
    """Return the samples as stored: [H, W] or [H, W, 3 or 4] in BGR(A) order, whatever their type."""
    cv2.utils.logging.setLogLevel(0)  # failures become errors of ours; OpenCV would print them as well
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as err:
        raise MediaError(f"the {image_format.upper()} file cannot be decoded: {err.err}") from err
    if stored is None:
        raise MediaError(f"the {image_format.upper()} file is damaged: its pixels cannot be decoded")
    if {stored.shape[0], stored.shape[1]} != {header.width, header.height}:
        raise MediaError(
            f"the {image_format.upper()} file is damaged: {header.width}x{header.height} pixels announced, "
            f"{stored.shape[1]}x{stored.shape[0]} decoded"
        )
    return stored


def _without_padding(stored: NDArray) -> NDArray:
    """Leave out a fourth channel of zeros: it pads pixels to four bytes, and read as opacity would hide them all."""
    return stored[..., :3] if stored.ndim == 3 and stored.shape[2] == 4 and not stored[..., 3].any() else stored


def _to_rgb(stored: NDArray, image_format: str, *, faithful: bool) -> NDArray[np.uint8]:
    """Bring samples to 8 bits and three channels."""
    if stored.dtype == np.uint16:
        stored = (stored >> 8).astype(np.uint8)
    if stored.dtype != np.uint8:
        raise MediaError(
            f"the {image_format.upper()} file holds samples of type {stored.dtype}; 8 or 16 bits were expected",
            hint="convert it to an 8-bit PNG first",
        )
    if stored.ndim == 2 or stored.shape[2] == 1:
        return _convert(stored, cv2.COLOR_GRAY2RGB)
    if stored.shape[2] == 3:
        return _convert(stored, cv2.COLOR_BGR2RGB)
    rgb = _convert(stored, cv2.COLOR_BGRA2RGB)
    return rgb if faithful else _on_white(rgb, stored[..., 3:])


def _convert(stored: NDArray, conversion: int) -> NDArray[np.uint8]:
    """Change the order or number of channels."""
    return np.asarray(cv2.cvtColor(stored, conversion), np.uint8)


def _on_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend with white, rounding to nearest: (rgb*alpha + 255*(255 - alpha)) / 255 in 16-bit integers."""
    sums = rgb.astype(np.uint16) * alpha + (255 - alpha).astype(np.uint16) * 255 + 128
    return ((sums + (sums >> 8)) >> 8).astype(np.uint8)


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation: 2 to 4 mirror and turn by 180 degrees, 5 to 8 swap rows and columns as well."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)
