"""The resampler against the formula of its filter, against reference samples, and streamed against whole."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.resample import Resampler, resample, resampled_length
from tests.support import audio_golden as golden

RATES = (8000, 11025, 16000, 22050, 32000, 37800, 44100, 48000, 88200, 96000, 192000)


def noise(length, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def by_the_formula(waveform, rate, at, target=24_000):
    """Output samples `at`, each as its own sum over all inputs, in float64."""
    o, n = rate // math.gcd(rate, target), target // math.gcd(rate, target)
    base = 0.99 * min(o, n)
    places = np.arange(len(waveform))
    out = []
    for index in at:
        t = np.clip(base * (places / o - index / n), -6, 6)
        out.append((waveform * base / o * np.sinc(t) * np.cos(np.pi * t / 12) ** 2).sum())
    return np.array(out)


def stream(waveform, rate, cuts):
    resampler = Resampler(rate, 24_000)
    edges = [0, *sorted(cuts), len(waveform)]
    parts = [resampler.push(waveform[start:stop]) for start, stop in pairwise(edges)]
    return np.concatenate([*parts, resampler.finish()])


@pytest.mark.parametrize("rate", [*RATES, 7919, 44101, 12345, 6, 1])
def test_samples_are_those_of_the_windowed_sinc(rate):
    waveform = noise(min(3 * rate, 4000) + 7)
    resampled = resample(waveform, rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == math.ceil(len(waveform) * 24_000 / rate)
    at = np.unique(
        np.concatenate([np.arange(9), np.random.default_rng(1).integers(0, len(resampled), 60), [len(resampled) - 1]])
    )
    at = at[at < len(resampled)]
    # float32 taps and sums of some ten to hundred terms.
    np.testing.assert_allclose(resampled[at], by_the_formula(waveform, rate, at), atol=2e-6)


@pytest.mark.parametrize("key", ["c01", "c03", "c04", "c05", "c06"])
def test_samples_of_recordings_are_the_references(key):
    resampled = resample(*golden.read_mono(key))
    assert len(resampled) == golden.CLIPS[key]["samples_24k"]
    pairs = {"wav24k": resampled, "wav24k_head": resampled[:4800], "wav24k_tail": resampled[-4800:]}
    if key == "c06":
        pairs["wav24k"] = resampled[::4]
    checked = [name for name in pairs if f"{key}/{name}" in golden.expected()]
    assert checked
    for name in checked:
        np.testing.assert_allclose(pairs[name], golden.expected()[f"{key}/{name}"], atol=2e-5)


@given(st.sampled_from([8000, 16000, 22050, 44100, 48000, 44101, 192000]), st.lists(st.integers(0, 60_000), max_size=6))
def test_a_stream_gives_the_samples_of_the_whole_bit_by_bit(rate, cuts):
    waveform = noise(60_000)
    assert np.array_equal(stream(waveform, rate, cuts), resample(waveform, rate))


def test_the_rate_of_the_model_changes_nothing():
    waveform = noise(1000)
    assert np.array_equal(resample(waveform, 24_000), waveform)
    assert np.array_equal(stream(waveform, 24_000, [10, 500]), waveform)


def test_a_tone_keeps_its_pitch_and_level():
    seconds, hertz = 1, 1000
    waveform = np.sin(2 * np.pi * hertz * np.arange(48_000 * seconds) / 48_000).astype(np.float32)
    expected = np.sin(2 * np.pi * hertz * np.arange(24_000 * seconds) / 24_000)
    # The short filter's ripple in its pass band.
    np.testing.assert_allclose(resample(waveform, 48_000)[500:-500], expected[500:-500], atol=2e-3)


@pytest.mark.parametrize("length", [0, 1, 2, 5])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_a_few_samples_give_the_count_that_was_announced(rate, length):
    resampled = stream(noise(length), rate, [])
    assert len(resampled) == resampled_length(length, rate, 24_000) == math.ceil(length * 24_000 / rate)


@pytest.mark.parametrize("rate", [0, -8000, 384_001, 44_100.5])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(MediaError, match="sample rate is"):
        resample(noise(10), rate)


def test_what_a_stream_holds_does_not_grow():
    resampler = Resampler(44_100, 24_000)
    held = []
    for _ in range(50):
        resampler.push(noise(44_100))
        held.append(len(resampler._buffer))
    assert max(held) < 2 * 44_100


def test_nothing_and_samples_that_are_no_numbers_are_refused():
    with pytest.raises(MediaError, match="mono samples"):
        resample(noise(0), 8000)
    with pytest.raises(MediaError, match=r"at 0\.500 s"):
        resample(np.array([0] * 4000 + [np.nan], np.float32), 8000)
