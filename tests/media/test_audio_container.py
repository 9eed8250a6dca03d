"""Sound tracks of containers by FFmpeg: right samples, missing ends noticed, errors that say what is wrong."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media.audio_container import open_container
from mimo_cli.media.samples import NoSoundError, mix_down
from tests.support.sound_files import encode, encode_container, film_without_sound, noise, voice

# Container, codec, rate, and the samples that the codec adds at most (a frame or two of padding).
TRACKS = [
    ("mp4", "aac", 44_100, 2048),
    ("matroska", "aac", 16_000, 2048),
    ("webm", "libopus", 48_000, 0),
    ("amr", "libopencore_amrnb", 8_000, 160),
    ("adts", "aac", 24_000, 2048),
    ("mov", "pcm_s24le", 48_000, 0),
    ("mov", "alac", 44_100, 0),
    ("avi", "mp3", 44_100, 2304),
    ("mpegts", "aac", 48_000, 2048),
    ("flv", "aac", 44_100, 2048),
]


def level_track(samples, rate):
    """Power in steps of 20 ms: what of a recording no codec changes much."""
    steps = len(samples) // (rate // 50)
    return np.square(samples[: steps * (rate // 50)].reshape(steps, -1)).mean(axis=1)


@pytest.mark.parametrize(("kind", "codec", "rate", "padding"), TRACKS)
def test_sound_comes_back_at_its_own_rate_and_level(kind, codec, rate, padding):
    samples = voice(2.0, rate)
    stream = open_container(encode_container(samples, rate, kind, codec), "film")
    decoded = mix_down(np.concatenate(list(stream.read_blocks())))
    assert (stream.rate, stream.channels, stream.num_frames) == (rate, 1, None)
    assert 0 <= len(decoded) - len(samples) <= padding
    before, after = level_track(samples, rate)[5:85], level_track(decoded, rate)
    # The codec's own delay is up to 100 ms; a speech codec does a pure tone no justice.
    likeness = [np.corrcoef(before, after[5 + lag : 85 + lag])[0, 1] for lag in range(6)]
    assert max(likeness) > 0.9
    assert 0.4 < after.mean() / before.mean() < 1.4


@pytest.mark.parametrize(("kind", "codec"), [("mov", "pcm_s16le"), ("mov", "alac"), ("matroska", "pcm_f32le")])
def test_lossless_stereo_is_exact_and_in_order(kind, codec):
    samples = np.stack([voice(1.0, 44_100), voice(1.0, 44_100, level=0.1)], axis=1)
    stream = open_container(encode_container(samples, 44_100, kind, codec), "film")
    decoded = np.concatenate(list(stream.read_blocks()))
    np.testing.assert_allclose(decoded, samples, atol=0 if codec == "pcm_f32le" else 2**-15)
    assert stream.may_be_nan is (codec == "pcm_f32le")


def test_blocks_are_bounded_whatever_the_length():
    stream = open_container(encode_container(voice(20, 48_000), 48_000, "mov", "pcm_s16le"), "film")
    lengths = [len(block) for block in stream.read_blocks()]
    assert len(lengths) > 10
    assert max(lengths) < 2 * 65536


def test_only_the_first_sound_track_of_a_film_is_read():
    stream = open_container(encode_container(voice(2.0), 24_000, "mp4", "aac", picture=True), "film")
    assert 2.0 <= sum(len(block) for block in stream.read_blocks()) / 24_000 < 2.1


def test_a_film_without_sound_is_told_apart():
    with pytest.raises(NoSoundError, match="film has no sound track") as caught:
        open_container(film_without_sound(), "film")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "codec", "rate"), [("mp4", "aac", 44_100), ("mov", "pcm_s16le", 8000), ("webm", "libopus", 48_000)]
)
@pytest.mark.parametrize("kept", [0.4, 0.7])
def test_a_missing_end_is_an_error_not_a_shorter_recording(kind, codec, rate, kept):
    data = encode_container(voice(4.0, rate), rate, kind, codec)
    stream = open_container(data[: int(len(data) * kept)], "film")
    with pytest.raises(MediaError, match=r"film is (truncated|damaged).* \d+\.\d\d s") as caught:
        list(stream.read_blocks())
    assert "again" in caught.value.hint


def with_a_pause(kind: str, *, pause_s: float = 3.0, rate: int = 24_000) -> bytes:
    """Two seconds of sound in AAC, timed as a recorder does that was paused after the first."""
    file, samples = io.BytesIO(), voice(2.0, rate)
    with av.open(file, "w", format=kind) as container:
        track = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + (round(pause_s * rate) if start >= rate else 0)
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return file.getvalue()


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_pause_of_the_recorder_is_no_missing_end(kind):
    data = with_a_pause(kind)
    assert 2.0 <= sum(map(len, open_container(data, "talk").read_blocks())) / 24_000 < 2.1
    if kind == "matroska":  # the index of the MP4 is at its end
        with pytest.raises(MediaError, match=r"promises 5\.04 s of sound, 4\.\d\d s are there"):
            list(open_container(data[: int(len(data) * 0.7)], "talk").read_blocks())


def test_a_container_that_breaks_off_before_its_tracks_is_refused():
    data = encode_container(voice(2.0), 24_000, "mp4", "aac")
    with pytest.raises(MediaError, match="film holds neither sound nor pictures"):
        open_container(data[:300], "film")
    with pytest.raises(MediaError, match=r"film cannot be decoded as sound: the other reason; \w+"):
        open_container(b"\x1a\x45\xdf\xa3" + bytes(500), "film", "the other reason")


def test_a_track_without_a_frame_holds_no_sound():
    with pytest.raises(NoSoundError, match="film holds no sound: its track has 0 samples"):
        open_container(encode_container(voice(0.0), 24_000, "matroska", "pcm_s16le", picture=True), "film")


def test_sound_files_may_be_read_too():
    stream = open_container(encode(voice(1.0), 24_000), "talk")
    assert sum(len(block) for block in stream.read_blocks()) == 24_000


def test_a_change_of_rate_within_a_stream_is_refused():
    data = encode_container(voice(1.0), 24_000, "adts", "aac") + encode_container(
        voice(1.0, 48_000), 48_000, "adts", "aac"
    )
    with pytest.raises(MediaError, match="film changes its sample rate from 24000 to 48000 Hz at 1"):
        list(open_container(data, "film").read_blocks())


def test_a_change_of_channels_within_a_stream_is_followed():
    both = np.stack([voice(1.0), voice(1.0)], axis=1)
    data = encode_container(voice(1.0), 24_000, "adts", "aac") + encode_container(both, 24_000, "adts", "aac")
    blocks = list(open_container(data, "film").read_blocks())
    assert {block.shape[1] for block in blocks} == {1, 2}
    assert 2.0 <= sum(map(len, blocks)) / 24_000 < 2.2


def test_an_mp3_is_as_long_as_what_was_encoded_and_quiet_about_it(capfd):
    samples = voice(20, 16_000) + noise(20 * 16_000, level=0.1)[:, 0]
    stream = open_container(encode(samples, 16_000, "MP3"), "talk")
    decoded = np.concatenate(list(stream.read_blocks()))[:, 0]
    assert len(decoded) == len(samples)
    assert np.corrcoef(decoded, samples)[0, 1] > 0.9  # in place as well: the encoder's delay is taken off
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tag_bytes", [0, 20_000])
def test_an_mp3_with_a_length_tag_that_ends_early_is_refused(tag_bytes):
    picture = b"ID3\x04\0\0" + bytes((tag_bytes >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(tag_bytes)
    data = encode(noise(240_000), 24_000, "MP3")
    assert sum(len(block) for block in open_container(picture + data, "talk").read_blocks()) == 240_000
    with pytest.raises(MediaError, match=r"promises 10\.00 s of sound, [45]\.\d\d s are there|damaged"):
        list(open_container(picture + data[: len(data) // 2], "talk").read_blocks())


def test_an_mp3_without_a_length_tag_is_as_long_as_it_is():
    data = encode(noise(240_000), 24_000, "MP3")
    frames = [
        place for place in range(len(data) - 1) if data[place] == 0xFF and data[place + 1] & 0xFE == data[1] & 0xFE
    ]
    start = next(place for place in frames if place > 200)
    whole = sum(len(block) for block in open_container(data[start:], "talk").read_blocks())
    assert 236_000 <= whole <= 242_304  # nothing says how much of it is the delay and padding of the encoder
