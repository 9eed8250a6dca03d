"""What an image file says before any pixel is decoded: its size and orientation, and whether it is all there.

Decoders believe the header and allocate what it says, and several hand out grey areas for a file cut short. So the
structure is walked here first: PNG, JPEG, WebP, GIF (first frame), BMP and TIFF. No pixel is touched.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from mimo_cli.errors import MediaError
from mimo_cli.media.tiff import read_orientation, read_tiff_header


@dataclass(frozen=True)
class ImageHeader:
    """Stored size in pixels and EXIF orientation (1 to 8; 1 is upright).

    has_alpha           a TIFF says that its fourth sample is opacity
    transparent_level   of a grey PNG: pixels decoded to this level are transparent
    is_negative         samples of a TIFF come out of the decoder counting from white to black
    """

    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False
    transparent_level: int | None = None
    is_negative: bool = False


def read_image_header(data: bytes, image_format: str) -> ImageHeader:
    """Read the header of a whole image file of a known format.

    Raises MediaError if it is damaged, incomplete or says a size of zero.
    """
    try:
        header = _READERS[image_format](data)
    except (struct.error, IndexError) as err:
        raise MediaError(f"the {image_format.upper()} file is cut short: its header is incomplete") from err
    if header.width < 1 or header.height < 1:
        raise MediaError(f"the {image_format.upper()} header says {header.width}x{header.height} pixels")
    return header


def _png(data: bytes) -> ImageHeader:
    """Walk all chunks: each must be complete and, where pixels depend on it, have its checksum; IEND comes last."""
    width, height, bits, colour_type = struct.unpack_from(">IIBB", data, 16)
    offset, orientation, level = 8, 1, None
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        body = memoryview(data)[offset + 8 : offset + 8 + length]
        if len(body) < length or offset + 12 + length > len(data):
            break
        if offset == 8 and (kind != b"IHDR" or length != 13):
            raise MediaError("the PNG file does not start with an IHDR chunk of 13 bytes")
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, offset + 8 + length)[0]:
            raise MediaError(f"the PNG file is damaged: wrong checksum of its {kind.decode('latin-1')} chunk")
        if kind == b"eXIf":
            orientation = read_orientation(bytes(body))
        if kind == b"tRNS" and colour_type == 0:
            level = _png_level(bytes(body), bits)
        if kind == b"IEND":
            return ImageHeader(width, height, orientation, transparent_level=level)
        offset += 12 + length
    raise MediaError(f"the PNG file is cut short: it ends after {len(data)} bytes without its IEND chunk")


def _png_level(body: bytes, bits: int) -> int | None:
    """Return the grey level that a tRNS chunk names, spread to 8 bits if there are fewer, as decoders do."""
    if len(body) != 2 or bits not in (1, 2, 4, 8, 16):
        return None  # the decoder passes over such a chunk as well
    level = int.from_bytes(body, "big") & ((1 << bits) - 1)
    return level if bits >= 8 else level * 255 // ((1 << bits) - 1)


def _jpeg(data: bytes) -> ImageHeader:
    """Walk segments and scans up to the end marker; thumbnails inside segments are stepped over."""
    size, orientation, offset, has_scan = (0, 0), 1, 2, False
    while offset + 2 <= len(data):
        if data[offset] != 0xFF:
            raise MediaError(f"the JPEG file is damaged: no marker where one was expected, at byte {offset}")
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker == 0xD9 and has_scan:
            return ImageHeader(*size, orientation)
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:
            offset += 2
            continue
        length = struct.unpack_from(">H", data, offset + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not any(size):
            size = struct.unpack_from(">xHH", data, offset + 4)[::-1]
        elif marker == 0xE1 and data[offset + 4 : offset + 10] == b"Exif\0\0":
            orientation = read_orientation(data[offset + 10 : offset + 2 + length])
        offset += 2 + max(2, length)
        if marker == 0xDA:
            has_scan = True
            offset = _end_of_scan(data, offset)
    raise MediaError(f"the JPEG file is cut short: it ends after {len(data)} bytes without its end marker")


def _end_of_scan(data: bytes, offset: int) -> int:
    """Return where the next marker stands that is neither a stuffed zero nor a restart marker."""
    while (offset := data.find(b"\xff", offset)) >= 0 and offset + 1 < len(data):
        if data[offset + 1] and not 0xD0 <= data[offset + 1] <= 0xD7:
            return offset
        offset += 2
    return len(data)


def _webp(data: bytes) -> ImageHeader:
    """The size is in the first chunk; every chunk must lie inside the file, and the file be as long as it says."""
    riff_bytes = struct.unpack_from("<I", data, 4)[0]
    if len(data) < riff_bytes + 8:
        raise MediaError(f"the WebP file is cut short: {riff_bytes + 8} bytes expected, {len(data)} found")
    kind = data[12:16]
    orientation, offset = 1, 12
    while offset + 8 <= riff_bytes + 8:
        name, length = struct.unpack_from("<4sI", data, offset)
        if offset + 8 + length > len(data):
            raise MediaError(f"the WebP file is damaged: its {name.decode('latin-1')} chunk is longer than the file")
        if name == b"EXIF":
            orientation = read_orientation(data[offset + 8 : offset + 8 + length].removeprefix(b"Exif\0\0"))
        offset += 8 + length + length % 2
    if kind == b"VP8X":
        low, high = struct.unpack_from("<HB", data, 24), struct.unpack_from("<HB", data, 27)
        return ImageHeader(1 + low[0] + (low[1] << 16), 1 + high[0] + (high[1] << 16), orientation)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ImageHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), orientation)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader(width & 0x3FFF, height & 0x3FFF, orientation)
    raise MediaError(f"the WebP file starts with an unknown chunk {kind!r}")


def _gif(data: bytes) -> ImageHeader:
    """Walk to the end of the first frame; what follows it is not read."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    offset = 13 + _palette_bytes(flags)
    while True:
        block = data[offset]
        if block == 0x2C:
            left, top, frame_width, frame_height, frame_flags = struct.unpack_from("<HHHHB", data, offset + 1)
            _end_of_gif_blocks(data, offset + 11 + _palette_bytes(frame_flags))
            return ImageHeader(max(width, left + frame_width), max(height, top + frame_height))
        if block != 0x21:
            raise MediaError("the GIF file is damaged: it holds no complete picture")
        offset = _end_of_gif_blocks(data, offset + 2)


def _palette_bytes(flags: int) -> int:
    """Return the size of a GIF colour table, 0 if the flags announce none."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_gif_blocks(data: bytes, offset: int) -> int:
    """Step over data blocks up to and including the empty one; IndexError where the file ends before."""
    while data[offset]:
        offset += 1 + data[offset]
    return offset + 1


def _bmp(data: bytes) -> ImageHeader:
    """Uncompressed rows, padded to four bytes, must fit into the file; a negative height only turns their order."""
    pixel_offset, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    width, height = abs(width), abs(height)
    needed = pixel_offset + (width * bits + 31) // 32 * 4 * height
    if compression in (0, 3, 6) and len(data) < needed:
        raise MediaError(f"the BMP file is cut short: {needed} bytes expected, {len(data)} found")
    return ImageHeader(width, height)


def _tiff(data: bytes) -> ImageHeader:
    """Pixel strips or tiles must lie inside the file. The decoder turns a TIFF upright itself, always."""
    header = read_tiff_header(data)
    return ImageHeader(header.width, header.height, has_alpha=header.has_alpha, is_negative=header.is_negative)


_READERS: dict[str, Callable[[bytes], ImageHeader]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
}
