"""The directory of a TIFF file: enough to know a picture's size and that its pixels are inside the file.

EXIF data is such a directory as well, so the orientation of JPEG, PNG and WebP files is read here too.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mimo_cli.errors import MediaError

_WIDTH, _HEIGHT, _ORIENTATION = 0x100, 0x101, 0x112
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA_SAMPLES = 0x102, 0x106, 0x115, 0x11C, 0x152
_OFFSETS_AND_COUNTS = ((0x111, 0x117), (0x144, 0x145))  # of strips, of tiles
_MAX_ENTRIES = 4096
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # the unsigned integers; other types are not needed here


@dataclass(frozen=True)
class TiffHeader:
    """Size in pixels, and what a decoder does not act on.

    has_alpha    the sample behind the colours is said to be opacity (by default it is anything)
    is_negative  samples of 16 bits count from white to black; fewer bits are turned by the decoder
    """

    width: int
    height: int
    has_alpha: bool = False
    is_negative: bool = False


def read_tiff_header(data: bytes) -> TiffHeader:
    """Read what the first picture of a TIFF or BigTIFF file says about itself.

    Raises MediaError if its pixels are not all inside the file, or stored as no decoder here reads them; struct.error
    if the directory itself is cut short.
    """
    known = (_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA_SAMPLES)
    tags = dict(_directory(data, (*known, *sum(_OFFSETS_AND_COUNTS, ()))))
    for offset_tag, count_tag in _OFFSETS_AND_COUNTS:
        for offset, size in zip(tags.get(offset_tag, ()), tags.get(count_tag, ()), strict=False):
            if offset + size > len(data):
                raise MediaError(
                    f"the TIFF file is cut short: pixels up to byte {offset + size} expected, {len(data)} bytes found"
                )
    if not any(tags.get(offset_tag) for offset_tag, _ in _OFFSETS_AND_COUNTS):
        raise MediaError("the TIFF file names no place of its pixels")

    def first(tag: int, default: int = 0) -> int:
        return (tags.get(tag) or (default,))[0]

    is_deep = first(_BITS, 1) == 16
    if is_deep and first(_PLANAR, 1) == 2 and first(_SAMPLES, 1) > 1:
        raise MediaError(  # the decoder takes such planes for interleaved samples and returns noise
            f"the TIFF file stores {first(_SAMPLES)} channels of 16 bits one after the other (PlanarConfiguration 2); "
            "they were expected pixel by pixel",
            hint="convert it to PNG first",
        )
    is_negative = is_deep and first(_PHOTOMETRIC, 1) == 0
    return TiffHeader(first(_WIDTH), first(_HEIGHT), first(_EXTRA_SAMPLES) in (1, 2), is_negative)


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF data states; 1 (upright) where it states none or is damaged."""
    try:
        for _, values in _directory(exif, (_ORIENTATION,)):
            if values and 1 <= values[0] <= 8:
                return values[0]
    except (struct.error, MediaError):
        pass  # the reference ignores damaged EXIF data as well: the picture itself is fine
    return 1


def _directory(data: bytes, wanted: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (tag, values) of the wanted entries of the first directory; struct.error where the data ends early."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise MediaError("the TIFF data starts with neither `II` nor `MM`")
    is_big = _unpack(order + "H", data, 2)[0] == 43
    word, entry_bytes = ("Q", 20) if is_big else ("I", 12)
    start = _unpack(order + word, data, 8 if is_big else 4)[0]
    number = _unpack(order + ("Q" if is_big else "H"), data, start)[0]
    if number > _MAX_ENTRIES:
        raise MediaError(f"the TIFF directory claims {number} entries; at most {_MAX_ENTRIES} are read")
    start += 8 if is_big else 2
    for entry in range(start, start + number * entry_bytes, entry_bytes):
        tag, kind, count = _unpack(order + "HH" + word, data, entry)
        if tag in wanted and kind in _TYPES:
            yield tag, _values(data, order, word, entry, (_TYPES[kind], count))


def _values(data: bytes, order: str, word: str, entry: int, form: tuple[str, int]) -> tuple[int, ...]:
    """Read the values of one entry, which stand in it if they fit and elsewhere if not."""
    code, count = form
    size = struct.calcsize(code) * count
    if size > len(data):  # before a format string of that length is built
        raise struct.error("more values than bytes")
    place = entry + 4 + struct.calcsize("=" + word)
    if size > struct.calcsize("=" + word):
        place = _unpack(order + word, data, place)[0]
    return _unpack(f"{order}{count}{code}", data, place)


def _unpack(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    """Unpack at an offset from the file, which may be anything up to 2**64; struct.error beyond the end."""
    if offset > len(data):
        raise struct.error(f"no byte {offset}")
    return struct.unpack_from(form, data, offset)
