"""Sound files by libsndfile: exact samples, which lengths are believed, and what is refused."""

import struct

import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media.audio_file import RawFormat, open_sound_file
from mimo_cli.media.samples import SoundStream
from tests.support.sound_files import encode, noise, patched

UNCOMPRESSED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC")


def opened(data, raw=None):
    stream = open_sound_file(data, "talk", raw)
    assert isinstance(stream, SoundStream), stream
    return stream


def decoded(data, raw=None):
    return np.concatenate(list(opened(data, raw).read_blocks()))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("AIFF", "PCM_S8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-31),
        ("FLAC", "PCM_24", 2**-23),
        ("CAF", "PCM_16", 2**-15),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
    ],
)
def test_samples_come_back_as_they_were_stored(kind, subtype, step, channels):
    samples = noise(1000, channels)
    stored = decoded(encode(samples, 44_100, kind, subtype))
    assert stored.shape == (1000, channels)
    # One step of the stored integers (libsndfile rounds down when it writes), and float32's own 2^-24.
    np.testing.assert_allclose(stored, samples, atol=step + 2**-24)


def test_16_bit_samples_are_divided_by_32768():
    data = encode(np.array([-32768, -1, 1, 32767], np.int16), 8000)
    assert decoded(data)[:, 0].tolist() == [-1.0, -1 / 32768, 1 / 32768, 32767 / 32768]


def test_floats_beyond_full_scale_are_not_clipped():
    samples = np.array([-3.5, 2.0], np.float32)
    assert np.array_equal(decoded(encode(samples, 8000, "WAV", "FLOAT"))[:, 0], samples)


@pytest.mark.parametrize("rate", [8000, 11025, 44_100, 192_000])
def test_rate_channels_and_length_are_the_headers(rate):
    stream = opened(encode(noise(700, 2), rate))
    assert (stream.rate, stream.channels, stream.num_frames, stream.may_be_nan) == (rate, 2, 700, False)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_lengths_of_compressed_files_are_not_believed(subtype):
    stream = opened(encode(noise(24_000), 24_000, "OGG", subtype))
    assert stream.num_frames is None
    assert abs(sum(len(block) for block in stream.read_blocks()) - 24_000) < 100


def test_floating_point_files_may_hold_what_is_no_number():
    assert opened(encode(noise(10), 8000, "WAV", "FLOAT")).may_be_nan
    assert opened(encode(noise(10), 8000, "AU", "DOUBLE")).may_be_nan


def test_a_stream_can_be_read_again():
    stream = opened(encode(noise(300_000, 2), 48_000))
    first, second = (list(stream.read_blocks()) for _ in range(2))
    assert len(first) > 1
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", UNCOMPRESSED)
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_truncated_file_is_refused_when_it_is_opened(kind, kept):
    data = encode(noise(48_000), 24_000, kind, "PCM_16")
    with pytest.raises(MediaError, match="talk is truncated or damaged: its header promises") as caught:
        open_sound_file(data[: int(len(data) * kept)], "talk")
    assert "again" in caught.value.hint


def test_a_missing_pad_byte_is_forgiven():
    data = encode(noise(48_000), 24_000)
    assert len(decoded(data[:-2])) == 47_999


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_states_no_length(size):
    data = encode(noise(5000), 24_000)
    piped = patched(patched(data, 4, struct.pack("<I", size)), 40, struct.pack("<I", size))
    assert len(decoded(piped)) == 5000


def test_mp3_is_left_to_the_decoder_that_does_not_write_to_the_terminal():
    assert "FFmpeg" in open_sound_file(encode(noise(24_000), 24_000, "MP3"), "talk")


def test_a_flac_damaged_in_the_middle_says_from_where():
    data = encode(noise(240_000), 24_000, "FLAC")
    damaged = patched(data, len(data) // 2, b"\0" * 3000)
    with pytest.raises(MediaError, match=r"truncated or damaged|promises"):
        blocks = list(opened(damaged).read_blocks())
        assert sum(map(len, blocks)) < 240_000  # not reached: damage must raise


@pytest.mark.parametrize(
    ("offset", "value"),
    [(24, struct.pack("<I", 0)), (22, struct.pack("<H", 0)), (22, struct.pack("<H", 65535)), (0, b"JUNK")],
)
def test_headers_that_make_no_sense_are_given_a_reason(offset, value):
    reason = open_sound_file(patched(encode(noise(100), 8000), offset, value), "talk")
    assert isinstance(reason, str)
    assert reason


def test_names_play_no_part(tmp_path):
    path = tmp_path / "talk.raw"  # an ending from which the library would guess headerless samples
    path.write_bytes(encode(noise(100), 8000))
    assert opened(path).num_frames == 100


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("s16le:16000:1", "<i2"),
        ("s16be:16000", ">i2"),
        ("s32le:16000", "<i4"),
        ("f32le:16000", "<f4"),
        ("u8:16000", "u1"),
    ],
)
def test_samples_without_a_header_are_read_as_told(text, dtype):
    samples = noise(500)[:, 0]
    scale = {"i": 2.0 ** (8 * np.dtype(dtype).itemsize - 1), "u": 128, "f": 1}[np.dtype(dtype).kind]
    stored = (samples * scale + (128 if dtype == "u1" else 0)).astype(dtype)
    raw = RawFormat.parse(text)
    np.testing.assert_allclose(decoded(stored.tobytes(), raw)[:, 0], samples, atol=2 / scale if scale > 1 else 0)
    assert (opened(stored.tobytes(), raw).rate, opened(stored.tobytes(), raw).num_frames) == (16_000, 500)


def test_raw_channels_are_interleaved():
    samples = noise(50, 2)
    raw = RawFormat.parse("f32le:8000:2")
    assert np.array_equal(decoded(samples.astype("<f4").tobytes(), raw), samples)


@pytest.mark.parametrize("text", ["", "s16", "s16le", "s17le:16000:1", "s16le:fast:1", "s16le:16000:1:2"])
def test_a_raw_format_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(MediaError) as caught:
        RawFormat.parse(text)
    assert "s16le:16000:1" in caught.value.hint
