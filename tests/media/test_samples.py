"""Integers to floats, channels to one, and what is noticed about the samples."""

import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media.samples import SoundCheck, check_samples, check_waveform, mix_down, to_float


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1.0, 0.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-128, 0, 64], np.int8), [-1.0, 0.0, 0.5]),
        (np.array([-1.5, 0.0, 3.0], np.float64), [-1.5, 0.0, 3.0]),
    ],
)
def test_integers_are_divided_by_their_full_scale_and_floats_taken_as_they_are(stored, expected):
    samples = to_float(stored)
    assert samples.dtype == np.float32
    assert samples.tolist() == expected


def test_wide_integers_are_rounded_once():
    stored = np.array([2**31 - 1, 123456789, -987654321], np.int32)
    assert np.array_equal(to_float(stored), (stored.astype(np.float64) / 2**31).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_mono_is_the_mean_over_all_channels(channels):
    block = np.random.default_rng(0).uniform(-1, 1, (500, channels)).astype(np.float32)
    np.testing.assert_allclose(mix_down(block), block.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_refused_with_its_time(bad):
    samples = np.zeros(1000, np.float32)
    samples[600] = bad
    with pytest.raises(MediaError, match=r"talk\.wav holds samples that are not numbers .* at 0\.350 s"):
        check_samples(samples, "talk.wav", rate=8000, first=2200)


def test_opposite_infinities_do_not_hide_each_other():
    with pytest.raises(MediaError):
        check_samples(np.array([np.inf, -np.inf], np.float32), "x", 8000)


def test_loud_finite_samples_pass():
    check_samples(np.full(100_000, 3e38, np.float32), "x", 8000)


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros((2, 5)), np.array(["a"]), np.float32(1)])
def test_a_waveform_must_be_one_row_of_numbers(waveform):
    with pytest.raises(MediaError, match="mono samples"):
        check_waveform(waveform)


def test_a_waveform_comes_back_as_float32():
    assert check_waveform(np.array([0.25, -2.0])).dtype == np.float32
    assert check_waveform(np.array([16384], np.int16)).tolist() == [0.5]


def notes_on(*blocks):
    check = SoundCheck()
    for block in blocks:
        check.add(np.asarray(block, np.float32), mix_down(np.asarray(block, np.float32)))
    return check.notes()


def tone(length=4800, level=0.5):
    return level * np.sin(np.arange(length) * 0.1)[:, None]


def test_ordinary_sound_is_not_remarked_on():
    assert notes_on(tone(), tone(level=1e-3)) == ()
    assert notes_on(np.hstack([tone(), 0.2 * tone()])) == ()


def test_silence_is_noted_unless_something_follows():
    assert notes_on(np.zeros((100, 2))) == ("it is silent",)
    assert notes_on(np.zeros((100, 1)), tone()) == ()


def test_channels_in_opposite_phase_are_noted():
    (note,) = notes_on(np.hstack([tone(), -tone()]))
    assert "cancel each other" in note


def test_clipping_is_noted_with_its_share():
    (note,) = notes_on(np.clip(5 * tone(), -1, 1))
    assert "clipped" in note
    assert note.startswith("7")  # 2/pi * asin(...) of a fivefold overdriven tone: 73-74 %
