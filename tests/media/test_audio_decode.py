"""Which decoder reads what, and what is refused before any does."""

import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media.audio_decode import MAX_CHANNELS, open_stream
from mimo_cli.media.audio_file import RawFormat
from tests.support.media_files import encode_picture, smooth_picture
from tests.support.sound_files import encode, encode_container, film_without_sound, noise, voice


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(2400), 24_000),
        encode(noise(2400), 24_000, "FLAC"),
        encode(noise(24_000), 24_000, "MP3"),
        encode(noise(24_000), 24_000, "OGG", "VORBIS"),
        encode_container(voice(1.0), 24_000, "mp4", "aac"),
        encode_container(voice(1.0), 24_000, "adts", "aac"),
        encode_container(voice(1.0, 8000), 8000, "amr", "libopencore_amrnb"),
        encode_container(voice(1.0), 24_000, "mp4", "aac", picture=True),
    ],
    ids=["wav", "flac", "mp3", "ogg", "m4a", "aac", "amr", "film"],
)
def test_every_kind_of_recording_is_recognised_from_its_bytes(data, tmp_path):
    path = tmp_path / "recording.txt"
    path.write_bytes(data)
    from_file, from_bytes = open_stream(path, "recording"), open_stream(data, "recording")
    assert from_file.rate == from_bytes.rate
    assert all(np.array_equal(a, b) for a, b in zip(from_file.read_blocks(), from_bytes.read_blocks(), strict=True))


def test_a_wav_with_a_codec_of_its_own_goes_to_the_other_decoder():
    stream = open_stream(encode_container(voice(1.0, 44_100), 44_100, "wav", "libmp3lame"), "talk")
    assert sum(len(block) for block in stream.read_blocks()) >= 44_100


def test_nothing_is_refused_by_its_size():
    with pytest.raises(MediaError, match=r"^talk is empty \(0 bytes\)$"):
        open_stream(b"", "talk")


@pytest.mark.parametrize(
    "data", [b"hello, world", b"\0" * 5000, b"#EXTM3U\nhttp://example.org/a.ts\n", b"ffconcat version 1.0\nfile a\n"]
)
def test_what_is_no_medium_never_reaches_a_decoder(data):
    with pytest.raises(MediaError, match="talk is of no known kind; a recording was expected"):
        open_stream(data, "talk")


def test_a_picture_is_named():
    with pytest.raises(MediaError, match="talk is a png file; a recording was expected"):
        open_stream(encode_picture(smooth_picture(), ".png"), "talk")


def test_a_film_without_sound_says_so():
    with pytest.raises(MediaError, match="has no sound track"):
        open_stream(film_without_sound(), "talk")


def test_a_file_without_samples_holds_no_sound():
    with pytest.raises(MediaError, match="talk holds no sound"):
        open_stream(encode(noise(0), 24_000), "talk")


def test_absurd_numbers_of_channels_are_refused():
    with pytest.raises(MediaError, match=f"talk has {MAX_CHANNELS + 1} channels, 1 to {MAX_CHANNELS} expected"):
        open_stream(encode(noise(10, MAX_CHANNELS + 1), 8000), "talk")
    assert open_stream(encode(noise(10, MAX_CHANNELS), 8000), "talk").channels == MAX_CHANNELS


def test_absurd_rates_are_refused():
    with pytest.raises(MediaError, match="a sample rate of 2000000 Hz, 1 to 384000 expected"):
        open_stream(encode(noise(10), 2_000_000), "talk")


def test_a_rate_of_zero_is_refused():
    data = bytearray(encode(noise(100), 8000))
    data[24:28] = b"\0\0\0\0"
    with pytest.raises(MediaError, match="talk cannot be decoded as sound"):
        open_stream(bytes(data), "talk")


@pytest.mark.parametrize(
    "kind", [b"RIFF\x24\0\0\0WAVE", b"fLaC\0\0\0\x22", b"OggS", b"ID3\x03\0\0\0\0\0\0", b"\0\0\0\x20ftypisom"]
)
def test_a_head_without_a_body_is_an_error_that_gives_a_reason(kind):
    with pytest.raises(MediaError, match="talk"):
        open_stream(kind + b"\x11\x22" * 40, "talk")


def test_raw_samples_need_no_head():
    stream = open_stream(np.zeros(100, np.int16).tobytes(), "talk", RawFormat.parse("s16le:16000:1"))
    assert (stream.rate, stream.num_frames) == (16_000, 100)
    with pytest.raises(MediaError, match="talk"):
        open_stream(b"ab", "talk", RawFormat("PCM_16", "LITTLE", 0, 1))
