"""Recordings as the engine sees them: exact counts, streamed segments, notes, and refusals."""

import json

import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media import audio as audio_module
from mimo_cli.media.audio import (
    AudioOptions,
    Recording,
    input_from_samples,
    mel_segments,
    open_audio,
    open_recording,
    open_sound_track,
)
from mimo_cli.media.audio_file import RawFormat
from mimo_cli.media.mel import MelOptions, log_mel
from mimo_cli.media.resample import resample
from mimo_cli.media.samples import SoundStream
from tests.support import audio_golden as golden
from tests.support.sound_files import encode, encode_container, film_without_sound, noise, voice

TOKEN_COUNTS = json.loads((golden.FOLDER / "token_counts.json").read_text())


def stream_of(blocks, rate=24_000, num_frames=None, may_be_nan=False):
    return SoundStream("talk", rate, blocks[0].shape[1], num_frames, may_be_nan, lambda: iter(blocks))


@pytest.mark.parametrize("count", TOKEN_COUNTS)
def test_token_counts_are_the_references(count):
    assert AudioOptions().num_tokens(count["samples_24k"]) == count["tokens"]


@pytest.mark.parametrize("count", [count for count in TOKEN_COUNTS if count["samples_24k"] <= 100_000])
def test_the_engine_is_promised_what_the_segments_hold(count):
    samples = noise(count["samples_24k"])[:, 0]
    audio = input_from_samples(samples, "talk", AudioOptions())
    rows = sum(len(segment) for segment in audio.segments())
    assert rows == count["mel_frames"]
    assert audio.num_tokens == -(-rows // 16) == count["tokens"]


def test_segments_that_are_no_multiple_of_a_token_still_give_an_exact_count():
    options = AudioOptions(segment_frames=90)
    audio = input_from_samples(noise(240 * 250)[:, 0], "talk", options)
    codes = sum(-(-len(segment) // 4) for segment in audio.segments())
    assert audio.num_tokens == -(-codes // 4)


@pytest.mark.parametrize("key", list(golden.CLIPS))
def test_recordings_have_the_references_counts_and_segments(key):
    clip, audio = golden.CLIPS[key], open_audio(golden.path(key))
    assert audio.num_samples_24k == clip["samples_24k"]
    assert audio.num_tokens == clip["tokens"]
    assert [len(segment) for segment in audio.segments()] == clip["segments"]


def test_segments_are_the_mel_of_the_whole_recording():
    audio = open_audio(golden.path("c05"))
    whole = log_mel(resample(*golden.read_mono("c05")))
    assert np.array_equal(np.concatenate(list(audio.segments())), whole)


def test_segments_can_be_read_again_and_do_not_change():
    audio = open_audio(golden.path("c03"))
    first, second = list(audio.segments()), list(audio.segments())
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_expansion_of_placeholders_is_as_long_as_the_rows():
    ids = json.loads((golden.FOLDER / "placeholder_ids.json").read_text())["c02"]
    assert len(ids) == open_audio(golden.path("c02")).num_tokens + 2


def test_a_file_and_its_bytes_are_the_same_recording():
    path = golden.path("c06")
    from_file, from_bytes = open_recording(path), open_recording(path.read_bytes(), name="the pipe")
    assert np.array_equal(np.concatenate(list(from_file.samples())), np.concatenate(list(from_bytes.samples())))
    assert from_file.to_input().source == str(path)
    assert from_bytes.to_input().source == "the pipe"


def test_a_pipe_is_read_once_and_kept(tmp_path):
    import os
    import threading

    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(golden.path("c01").read_bytes(),))
    writer.start()
    audio = open_audio(path)
    writer.join()
    assert [len(list(audio.segments())) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_one_sample_is_a_recording_at_any_rate(rate):
    audio = open_audio(encode(noise(1), rate))
    assert audio.num_samples_24k == -(-24_000 // rate)
    assert audio.num_tokens == 1
    assert [segment.shape for segment in audio.segments()] == [(3, 128)]


@pytest.mark.parametrize("kind", ["MP3", "OGG"])
def test_counts_of_compressed_recordings_are_those_of_their_decoding(kind):
    recording = open_recording(encode(noise(50_000, 2), 44_100, kind))
    assert recording.num_samples == sum(len(block) for block in recording.samples())


def test_counts_of_containers_are_those_of_their_decoding():
    recording = open_recording(encode_container(voice(3.0, 44_100), 44_100, "mp4", "aac"))
    assert recording.num_samples == sum(len(block) for block in recording.samples())
    assert 3.0 <= recording.duration_s < 3.1


def test_a_trusted_header_is_not_checked_by_decoding_everything():
    decoded = []

    def blocks():
        for index in range(1000):
            decoded.append(index)
            yield noise(240)

    recording = Recording(*audio_parts(SoundStream("talk", 24_000, 1, 240_000, False, blocks)))
    assert recording.num_samples == 240_000
    assert len(decoded) < 100


def audio_parts(stream):
    num_frames, notes = audio_module._scan(stream)
    return stream, AudioOptions(), num_frames, num_frames, notes


@pytest.mark.parametrize("found", [900, 1100])
def test_a_length_other_than_the_headers_is_an_error_when_it_is_read(found):
    recording = Recording(stream_of([noise(found)], num_frames=1000), AudioOptions(), 1000, 1000, ())
    with pytest.raises(MediaError, match=f"1000 samples expected, {found} found"):
        list(recording.samples())


def test_the_sound_track_of_a_film_is_a_recording_and_its_absence_none():
    film = encode_container(voice(2.0), 24_000, "mp4", "aac", picture=True)
    assert open_sound_track(film).num_tokens == open_audio(film).num_tokens
    assert open_sound_track(film_without_sound()) is None
    assert open_sound_track(encode_container(voice(0.0), 24_000, "matroska", "pcm_s16le", picture=True)) is None
    with pytest.raises(MediaError):
        open_sound_track(film[: len(film) * 2 // 3])


def test_channels_are_averaged():
    both = noise(24_000, 2)
    (block,) = (block for block in open_recording(encode(both, 24_000, "WAV", "FLOAT")).samples() if len(block))
    np.testing.assert_allclose(block, both.mean(axis=1), atol=1e-7)


def test_opposite_channels_cancel_and_are_remarked_on():
    one = noise(24_000)
    audio = open_audio(encode(np.hstack([one, -one]), 24_000, "WAV", "FLOAT"))
    assert "cancel each other" in audio.notes[0]
    np.testing.assert_allclose(np.concatenate(list(audio.segments())), np.log(1e-7), atol=1e-6)


def test_silence_and_clipping_are_remarked_on_and_encoded_all_the_same():
    assert open_audio(golden.path("c07")).notes == ("it is silent",)
    assert "clipped" in open_audio(golden.path("c06")).notes[0]
    assert open_audio(golden.path("c02")).notes == ()


@pytest.mark.parametrize("at", [0, 30_000, 59_999])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused_when_it_is_opened(at, value):
    samples = noise(60_000)
    samples[at] = value
    with pytest.raises(MediaError, match=rf"at {at / 24_000:.3f} s"):
        open_audio(encode(samples, 24_000, "WAV", "FLOAT"))


def test_an_empty_file_and_a_missing_one_are_refused_by_name(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    with pytest.raises(MediaError, match=r"empty\.wav is empty"):
        open_audio(empty)
    with pytest.raises(MediaError, match=r"gone\.wav"):
        open_audio(tmp_path / "gone.wav")
    with pytest.raises(MediaError, match="folder"):
        open_audio(tmp_path)


def test_a_stream_that_decodes_to_nothing_holds_no_sound():
    with pytest.raises(MediaError, match="talk holds no sound"):
        audio_module._scan(SoundStream("talk", 24_000, 1, None, False, lambda: iter([])))


def test_raw_samples_are_opened_by_their_option():
    options = AudioOptions(raw=RawFormat.parse("s16le:16000"))
    assert open_audio((noise(16_000) * 3e4).astype("<i2").tobytes(), options).num_samples_24k == 24_000


def test_the_front_end_is_the_checkpoints():
    options = AudioOptions(mel=MelOptions(sampling_rate=16_000, nfft=640, hop_length=160, window_size=640, n_mels=40))
    audio = open_audio(encode(noise(16_000), 16_000), options)
    assert [segment.shape for segment in audio.segments()] == [(101, 40)]


def test_reading_holds_one_segment_and_what_feeds_it():
    alive = []

    def blocks():
        for _ in range(100):
            alive.append(len(alive))
            yield noise(24_000)[:, 0]

    segments = mel_segments(blocks, AudioOptions(segment_frames=500))
    next(segments)
    assert len(alive) <= 6  # five seconds and the block that completes them
