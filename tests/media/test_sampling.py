"""Sampling, times and frame sizes against the reference tables."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media.layout import time_label
from mimo_cli.media.options import VideoOptions
from mimo_cli.media.sampling import frame_pixel_cap, frame_times_s, pad_to_steps, sample_indices, segment_end_s
from tests.support.vision_golden import cases, expected


def unshortened(found: list, wanted: list) -> bool:
    """Compare with a list in which `...` stands for what was left out."""
    if "..." not in wanted:
        return found == wanted
    gap = wanted.index("...")
    return found[:gap] == wanted[:gap] and found[gap - len(wanted) + 1 :] == wanted[gap + 1 :]


@pytest.mark.parametrize(
    "case", cases()["sampling_cases"], ids=lambda case: f"{case['total_frames']}@{case['avg_fps']}"
)
def test_every_row_of_the_sampling_table_is_met(case: dict) -> None:
    options = VideoOptions(**case["request"])
    if "error" in case:
        with pytest.raises(MediaError, match="at least 2 frames"):
            sample_indices(case["total_frames"], case["avg_fps"], options)
        return
    indices = sample_indices(case["total_frames"], case["avg_fps"], options)
    times = frame_times_s(indices, case["avg_fps"])
    assert len(indices) == case["n_indices"] == case["nframes"]
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == case["indices_sha256"]
    assert unshortened(indices.tolist(), case["indices"])
    assert unshortened([float(time) for time in times], case["timestamps"])
    assert unshortened([time_label(time) for time in times[::2]], case["labels"])
    assert frame_pixel_cap(len(indices), options) == case["max_pixels_per_frame"]


def test_the_reference_film_is_sampled_as_the_reference_does() -> None:
    rate = float(expected()["vid_fps"])
    indices = sample_indices(len(expected()["vid_frames"]), rate, VideoOptions())
    times = frame_times_s(indices, rate)
    meta = cases()["video_meta"]
    assert indices.tolist() == expected()["vid_indices"].tolist()
    assert np.array_equal(pad_to_steps(times), expected()["vid_timestamps"])
    assert float(segment_end_s(times)) == meta["segment_end_time"]
    assert times.dtype == np.float32 and segment_end_s(times).dtype == np.float32


def test_times_are_one_float32_division() -> None:
    assert float(frame_times_s(np.array([4]), 25.0)[0]) == np.float32(4) / np.float32(25)
    indices = np.arange(10_000)
    found = frame_times_s(indices, 23.976)
    assert (found != (indices / 23.976).astype(np.float32)).any()  # a rounded float64 quotient is another number


@given(
    frames=st.integers(2, 200_000),
    rate=st.floats(0.1, 240.0),
    fps=st.floats(0.01, 120.0),
    low=st.integers(1, 100),
    high=st.integers(2, 5000),
)
def test_samples_are_even_ascending_and_span_the_film(
    frames: int, rate: float, fps: float, low: int, high: int
) -> None:
    indices = sample_indices(frames, rate, VideoOptions(fps=fps, min_frames=low, max_frames=high))
    assert len(indices) % 2 == 0 and 2 <= len(indices) <= min(frames, high)
    assert indices[0] == 0 and indices[-1] == frames - 1 and (np.diff(indices) > 0).all()


@pytest.mark.parametrize("rate", [0.0, -25.0, math.nan, math.inf])
def test_a_film_without_a_usable_rate_is_refused(rate: float) -> None:
    with pytest.raises(MediaError, match="frame rate"):
        sample_indices(100, rate, VideoOptions())


@pytest.mark.parametrize(("frames", "options"), [(0, {}), (1, {}), (100, {"max_frames": 1})])
def test_fewer_than_two_frames_are_refused(frames: int, options: dict) -> None:
    with pytest.raises(MediaError, match="at least 2 frames"):
        sample_indices(frames, 25.0, VideoOptions(**options))


def test_the_maximum_wins_over_the_minimum() -> None:
    assert len(sample_indices(900, 30.0, VideoOptions(min_frames=20, max_frames=6))) == 6


@pytest.mark.parametrize(("frames", "cap"), [(2, 8388608), (64, 8388608), (65, 8259552), (600, 894784), (3600, 149130)])
def test_the_pixel_budget_is_shared_from_65_frames_on(frames: int, cap: int) -> None:
    assert frame_pixel_cap(frames, VideoOptions()) == cap


def test_the_cap_never_falls_below_the_minimum() -> None:
    assert frame_pixel_cap(3600, VideoOptions(total_max_pixels=1024)) == 8192


def test_the_end_of_a_lone_frame_is_a_second_later() -> None:
    assert float(segment_end_s(np.array([3.5], np.float32))) == 4.5


def test_an_odd_count_repeats_the_last_entry_once() -> None:
    assert pad_to_steps(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0, 3.0]
    assert pad_to_steps(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]
