"""Kinds of media from their bytes."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.sniff import HEAD_BYTES, Kind, identify, sniff
from tests.support.media_files import EXAMPLES, encode_picture, numbered_frames, smooth_picture, write_film

TONE = (np.sin(np.arange(4800) / 10) * 0.3).astype(np.float32)


def sound(container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, TONE, 24000, format=container, subtype=subtype)
    return file.getvalue()


def film(container: str, codec: str, **options: float) -> bytes:
    file = io.BytesIO()
    write_film(file, numbered_frames(12), codec=codec, container=container, **options)  # type: ignore[arg-type]
    return file.getvalue()


def sound_only(container: str) -> bytes:
    file = io.BytesIO()
    write_film(file, [], container=container, sound_s=0.5)
    return file.getvalue()


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".gif", ".bmp", ".tiff"])
def test_pictures_are_recognised(extension: str) -> None:
    data = encode_picture(smooth_picture(), extension)
    assert identify(data) == {".jpg": "jpeg"}.get(extension, extension[1:])
    assert sniff(data) == sniff(data[:HEAD_BYTES]) == "image"


@pytest.mark.parametrize(
    ("container", "name"),
    [
        ("WAV", "wav"),
        ("RF64", "wav"),
        ("FLAC", "flac"),
        ("OGG", "ogg"),
        ("AIFF", "aiff"),
        ("MP3", "mp3"),
        ("CAF", "caf"),
    ],
)
def test_recordings_are_recognised(container: str, name: str) -> None:
    data = sound(container)
    assert identify(data) == name
    assert sniff(data) == "audio"


def test_mp3_is_recognised_with_and_without_a_tag() -> None:
    data = sound("MP3")
    bare = data[data.index(b"\xff\xfb") :] if b"\xff\xfb" in data else data[data.index(b"\xff\xf3") :]
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10 + bare
    assert (identify(bare), identify(tagged)) == ("mp3", "mp3")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"#!AMR\n" + bytes(20), "amr"),
        (b"#!AMR-WB\n" + bytes(20), "amr"),
        (b"\0\0\x01\xba" + bytes(20), "mpeg-ps"),
        (b"FLV\x01\x05" + bytes(20), "flv"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"MM\0*\0\0\0\x08", "tiff"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(8), "asf"),
    ],
)
def test_rarer_formats_are_recognised(head: bytes, name: str) -> None:
    assert identify(head) == name


def test_aac_frames_are_recognised_by_two_headers() -> None:
    size = 40
    header = bytes((0xFF, 0xF1, 0x50, 0x80 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC))
    frame = header + bytes(size - 7)
    assert identify(frame * 3) == "aac" and sniff(frame * 3) == "audio"
    assert identify(frame + b"some other thing") is None


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "mpeg4"),
        ("mov", "mpeg4"),
        ("matroska", "mpeg4"),
        ("webm", "libvpx"),
        ("avi", "mjpeg"),
        ("mpegts", "mpeg2video"),
    ],
)
def test_films_are_recognised(container: str, codec: str, tmp_path: Path) -> None:
    data = film(container, codec)
    (tmp_path / "misleading.mp3").write_bytes(data)
    assert sniff(data) == sniff(tmp_path / "misleading.mp3") == "video"


@pytest.mark.parametrize("container", ["mp4", "matroska", "ipod"])
def test_containers_without_pictures_are_recordings(container: str) -> None:
    assert sniff(sound_only(container)) == "audio"


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_containers_with_pictures_and_sound_are_films(container: str) -> None:
    assert sniff(film(container, "mpeg4", sound_s=0.5)) == "video"


def test_a_damaged_container_counts_as_its_usual_kind() -> None:
    assert sniff(b"\0\0\0\x18ftypisom" + bytes(100)) == "video"
    assert sniff(b"OggS" + bytes(100)) == "audio"


def test_real_files_are_recognised() -> None:
    kinds: dict[str, Kind] = {"cat.jpg": "image", "clip.mp4": "video", "speech.flac": "audio"}
    assert {name: sniff(EXAMPLES / name) for name in kinds} == kinds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"plain text",
        "Grüße".encode("utf-16"),
        ("Ein längerer Text in UTF-16, der mit FF FE beginnt. " * 200).encode("utf-16"),
        b"BM is how this sentence starts, and it is no bitmap at all",
        b"GIF is a format",
        b"RIFF and other words",
        b"G" * 187 + b"\n" + b"text",
        b"ID",
        b"\xff\xfb",
        b'{"json": true}',
    ],
)
def test_text_is_no_medium(text: bytes) -> None:
    assert sniff(text, allow_text=True) is None


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x1cftypheic" + bytes(16), "HEIC"),
        (b"\0\0\0\x1cftypmif1" + bytes(16), "HEIC"),
        (b"\0\0\0\x1cftypavif" + bytes(16), "AVIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a drawing -->\n<svg/>", "SVG"),
    ],
)
def test_known_but_unsupported_formats_are_named_with_a_hint(head: bytes, named: str) -> None:
    with pytest.raises(MediaError, match=f"`standard input` is an? {named}") as caught:
        sniff(head)
    assert caught.value.hint


def test_svg_may_be_wanted_as_text() -> None:
    assert sniff(b"<svg/>", allow_text=True) is None
    assert sniff(b"<?xml version='1.0'?><note/>") is None


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"RIFF\0\0\0\0", b"\xff\xfb\x90", b"\xff\xf1", b"BM", b"OggS", b"\x1aE\xdf\xa3"]),
)
def test_random_bytes_never_fail(data: bytes, start: bytes) -> None:
    try:
        assert sniff(start + data) in (None, "image", "video", "audio")
    except MediaError as err:
        assert "is not supported" in str(err)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0xFF))
def test_every_frame_header_is_read_without_failing(first: int, second: int, third: int) -> None:
    header = struct.pack(">HBB", first | 0xFFE0, second, third)
    assert identify(header + bytes(2000)) in (None, "jpeg")  # no second header follows
