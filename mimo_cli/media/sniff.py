"""What kind of medium some bytes are, from the bytes alone; file names are never looked at.

Containers that may hold either pictures or only sound (MP4, Matroska, Ogg, ASF) are opened to see whether there is a
video track. Formats that are known but not supported are errors that name them.
"""

import io
import struct
from typing import Literal, TypeAlias

from mimo_cli.errors import MediaError
from mimo_cli.media.libraries import av
from mimo_cli.media.source import Source, local_path, read_head, source_name

Kind: TypeAlias = Literal["image", "video", "audio"]

HEAD_BYTES = 4096
"""So many first bytes suffice to recognise a format."""

IMAGE_FORMATS = frozenset({"png", "jpeg", "webp", "gif", "bmp", "tiff"})
AUDIO_FORMATS = frozenset({"wav", "flac", "mp3", "aac", "amr", "aiff", "caf", "au", "w64"})
VIDEO_FORMATS = frozenset({"avi", "mpeg-ts", "mpeg-ps", "flv"})
MIXED_FORMATS = frozenset({"mp4", "matroska", "ogg", "asf"})

_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"fLaC", "flac"),
    (0, b"#!AMR", "amr"),
    (0, b"caff\0", "caf"),
    (0, b".snd", "au"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"ID3", "mp3"),
    (0, b"OggS", "ogg"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\0\0\x01\xba", "mpeg-ps"),
    (0, b"\0\0\x01\xb3", "mpeg-ps"),
    (0, b"FLV\x01", "flv"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (4, b"wide", "mp4"),
)
_RIFF_KINDS = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)

_CONVERT = "convert it to PNG or JPEG first"
_UNSUPPORTED = (
    (0, b"%PDF-", "a PDF document", "export its pages as PNG, or its text"),
    (0, b"8BPS", "a Photoshop document", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _CONVERT),
    (4, b"ftypavif", "an AVIF picture", _CONVERT),
    (4, b"ftypavis", "an AVIF picture", _CONVERT),
    *((4, b"ftyp" + brand, "a HEIC picture", _CONVERT) for brand in (b"hei", b"hev", b"mif1", b"msf1")),
)


def sniff(source: Source, *, name: str | None = None, allow_text: bool = False) -> Kind | None:
    """Tell whether a file (or bytes: the first HEAD_BYTES at least, better all) is an image, a video or audio.

    `name` stands for it in errors. Returns None for anything unknown, text and nothing at all included. Raises
    MediaError, naming the kind, for HEIC, AVIF, PDF and the like, and for SVG unless `allow_text` (it is text, after
    all); and for an unreadable file.
    """
    head = read_head(source, HEAD_BYTES)
    refuse_unsupported(head, name or f"`{source_name(source)}`", allow_text=allow_text)
    found = identify(head)
    if found in IMAGE_FORMATS:
        return "image"
    if found in AUDIO_FORMATS:
        return "audio"
    if found in VIDEO_FORMATS:
        return "video"
    return _kind_by_tracks(source, found) if found else None


def identify(head: bytes) -> str | None:
    """Name the file format of some first bytes (`png`, `mp4`, ...), None if unknown."""
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            return name
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return _RIFF_KINDS.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if _is_bmp(head):
        return "bmp"
    if _is_transport_stream(head):
        return "mpeg-ts"
    return _mpeg_audio(head)


def refuse_unsupported(head: bytes, name: str, *, allow_text: bool = False) -> None:
    """Raise MediaError, naming the kind, for formats that are known and not read."""
    for offset, magic, kind, hint in _UNSUPPORTED:
        if head.startswith(magic, offset):
            raise MediaError(f"{name} is {kind}, which is not supported", hint=hint)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not allow_text and (start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start)):
        raise MediaError(f"{name} is an SVG drawing, which is not supported", hint="render it to PNG first")


def _is_bmp(head: bytes) -> bool:
    """Two letters are too little: the size of the second header must be one that exists."""
    return head[:2] == b"BM" and len(head) >= 26 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADER_BYTES


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes at the starts of three packets of 188 bytes, or of 192 with a time stamp in front of each."""
    return any(
        len(head) > start + 2 * size and all(head[start + n * size] == 0x47 for n in range(3))
        for start, size in ((0, 188), (4, 192))
    )


_MP3_KBPS = {  # (MPEG-1?, layer) -> kbit/s by the four bits of the header; 0 and 15 are not used here
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}


def _mpeg_audio(head: bytes) -> str | None:
    """Recognise MP3 and AAC (ADTS) without tags: a frame header, and another one where that frame ends.

    One header alone is no proof: text in UTF-16 starts with FF FE as well.
    """
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    is_adts = head[1] & 0xF6 == 0xF0
    size = ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5) if is_adts else _mp3_frame_bytes(head)
    following = head[size : size + 2]
    is_followed = len(following) == 2 and following[0] == 0xFF and following[1] & 0xFE == head[1] & 0xFE
    if size < 7 or not (is_followed or (len(head) < HEAD_BYTES and len(head) == size)):
        return None
    return "aac" if is_adts else "mp3"


def _mp3_frame_bytes(head: bytes) -> int:
    """Return the length of the MPEG audio frame whose header comes first, 0 if it is no valid header."""
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index = head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate_index == 3:
        return 0
    is_mpeg1 = version == 3
    rate = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    bits = _MP3_KBPS[is_mpeg1, layer if is_mpeg1 else min(layer, 2)][head[2] >> 4] * 1000
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4 if bits else 0
    samples = 72 if layer == 3 and not is_mpeg1 else 144
    return samples * bits // rate + padding if bits else 0


def _kind_by_tracks(source: Source, name: str) -> Kind:
    """Open a container and look for a video track; a cover picture is none. A damaged one counts as its usual kind."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else local_path(source)
        with av.open(file, metadata_errors="ignore") as container:
            pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            return "video" if pictures or not container.streams.audio else "audio"
    except (av.FFmpegError, OSError, ValueError):
        return "audio" if name == "ogg" else "video"
