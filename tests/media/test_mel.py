"""The log-mel front end against reference rows, against a plain transform, and streamed against whole."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import CheckpointError, MediaError
from mimo_cli.media.mel import MelOptions, MelStream, log_mel, mel_filterbank, segment_rows
from mimo_cli.media.resample import resample
from tests.support import audio_golden as golden


def noise(length, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def plain_log_mel(waveform, options):
    """Pad, cut, transform and weigh in float64, all at once."""
    edge = options.nfft // 2
    padded = np.pad(np.pad(waveform, (0, max(0, edge + 1 - len(waveform)))).astype(np.float64), edge, mode="reflect")
    rows = 1 + (len(padded) - options.nfft) // options.hop_length
    frames = np.stack([padded[row * options.hop_length :][: options.nfft] for row in range(rows)])
    window = np.hanning(options.window_size + 1)[:-1]
    left = (options.nfft - options.window_size) // 2
    window = np.pad(window, (left, options.nfft - options.window_size - left))
    magnitude = np.abs(np.fft.rfft(frames * window))
    return np.log(np.maximum(magnitude @ mel_filterbank(options).astype(np.float64), 1e-7))


def assert_near_reference(mel, expected):
    """The reference README's bands: float32 transforms differ where there is next to nothing."""
    difference = np.abs(mel - expected)
    for low, high, bound in ((-6, np.inf, 3e-3), (-9.2, -6, 0.06), (-np.inf, -9.2, 0.5)):
        inside = (expected > low) & (expected <= high)
        assert difference[inside].max(initial=0) <= bound


@pytest.mark.parametrize("key", list(golden.CLIPS))
def test_rows_of_recordings_are_the_references(key):
    mel = log_mel(resample(*golden.read_mono(key)))
    assert mel.dtype == np.float32
    assert mel.shape == (golden.CLIPS[key]["mel_frames"], 128)
    if f"{key}/mel" in golden.expected():
        expected = golden.expected()[f"{key}/mel"]
        assert_near_reference(mel[: len(expected)], expected)
    else:
        assert_near_reference(mel[golden.expected()[f"{key}/mel_rows"]], golden.expected()[f"{key}/mel_at_rows"])


def test_the_filter_bank_is_the_references():
    bank = np.zeros(481 * 128, np.float32)
    bank[golden.expected()["mel_filterbank_at"]] = golden.expected()["mel_filterbank_weights"]
    np.testing.assert_allclose(mel_filterbank(MelOptions()), bank.reshape(481, 128), atol=2e-5)


def test_the_filter_bank_has_the_published_landmarks():
    bank = mel_filterbank(MelOptions())
    assert np.count_nonzero(bank) in (947, 948)
    assert bank.any(axis=0).all()
    assert np.flatnonzero(bank[:, 0]).tolist() == np.flatnonzero(bank[:, 1]).tolist() == [1]
    np.testing.assert_allclose([bank[1, 0], bank[1, 1], bank[2, 2]], [0.44088, 0.55912, 0.92992], atol=1e-5)


def test_the_upper_limit_of_the_bank_is_configurable():
    bank = mel_filterbank(MelOptions(fmin=110, fmax=8010))
    heard = np.flatnonzero(bank.any(axis=1)) * 25
    assert (heard[0], heard[-1]) == (125, 8000)


def test_every_row_is_the_logarithm_of_the_filtered_magnitudes():
    waveform = noise(24_000)
    np.testing.assert_allclose(log_mel(waveform), plain_log_mel(waveform, MelOptions()), atol=2e-4)


@pytest.mark.parametrize(
    "options", [MelOptions(window_size=600), MelOptions(nfft=512, hop_length=128, window_size=400, n_mels=40)]
)
def test_other_frames_and_windows_are_computed_too(options):
    waveform = noise(5000)
    np.testing.assert_allclose(log_mel(waveform, options), plain_log_mel(waveform, options), atol=5e-4)


@pytest.mark.parametrize("count", json.loads((golden.FOLDER / "token_counts.json").read_text())[:17])
def test_row_counts_are_the_references(count):
    samples = count["samples_24k"]
    assert MelOptions().num_rows(samples) == count["mel_frames"]
    if samples <= 100_000:
        assert len(log_mel(noise(samples))) == count["mel_frames"]


def test_short_signals_are_padded_with_zeros_to_481():
    waveform = noise(100)
    assert np.array_equal(log_mel(waveform), log_mel(np.pad(waveform, (0, 381))))
    assert log_mel(waveform).shape == (3, 128)


def test_nothing_and_samples_that_are_no_numbers_are_refused():
    with pytest.raises(MediaError, match="mono samples"):
        log_mel(noise(0))
    with pytest.raises(MediaError, match="not numbers"):
        log_mel(np.full(1000, np.inf, np.float32))


def test_silence_is_the_floor_everywhere():
    np.testing.assert_allclose(log_mel(np.zeros(12_000, np.float32)), np.log(1e-7), atol=1e-6)


@given(st.integers(1, 60_000), st.lists(st.integers(0, 60_000), max_size=8))
def test_a_stream_gives_the_rows_of_the_whole_bit_by_bit(length, cuts):
    waveform = noise(length)
    stream = MelStream(MelOptions())
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    parts = [stream.push(waveform[start:stop]) for start, stop in pairwise(edges)]
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), log_mel(waveform))


def test_one_changed_sample_changes_only_the_rows_that_hear_it():
    waveform = noise(24_000)
    other = waveform.copy()
    other[12_000] += 0.5
    changed = np.flatnonzero((log_mel(waveform) != log_mel(other)).any(axis=1))
    assert changed.tolist() == [49, 50, 51]  # rows 48 and 52 see it where the window is zero or ends


def test_what_a_stream_holds_does_not_grow():
    stream = MelStream(MelOptions())
    for _ in range(20):
        stream.push(noise(24_000))
        assert len(stream._buffer) <= 24_000 + 960


@pytest.mark.parametrize("bad", [{"hop_length": 0}, {"hop_length": 481}, {"window_size": 961}, {"window_size": 0}])
def test_frames_that_are_not_implemented_are_refused(bad):
    with pytest.raises(CheckpointError, match="not implemented"):
        MelOptions(**bad)


@given(st.lists(st.integers(0, 25), max_size=10), st.integers(1, 12))
def test_segments_are_the_same_rows_in_full_pieces_and_a_rest(blocks, size):
    rows = np.arange(sum(blocks), dtype=np.float32)[:, None]
    edges = np.cumsum([0, *blocks])
    pieces = list(segment_rows((rows[a:b] for a, b in pairwise(edges)), size))
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert all(0 < len(piece) <= size for piece in pieces)
    joined = np.concatenate([np.zeros((0, 1), np.float32), *pieces])
    assert np.array_equal(joined, rows)
