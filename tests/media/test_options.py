"""Media options refuse what cannot work before any file is opened."""

import math

import pytest

from mimo_cli.errors import UsageError
from mimo_cli.media.options import ImageOptions, PixelOptions, VideoOptions


def test_defaults_are_the_released_values() -> None:
    image, video = ImageOptions(), VideoOptions()
    assert (image.min_pixels, image.max_pixels) == (8192, 8388608)
    assert (video.fps, video.min_frames, video.max_frames) == (1.0, 8, 3600)
    assert (video.min_pixels, video.max_pixels, video.total_max_pixels) == (8192, 8388608, 268435456)
    assert PixelOptions().unit_px == 32


@pytest.mark.parametrize("limits", [(0, 10), (-1, 10), (20, 10)])
def test_pixel_limits_must_be_ordered_and_positive(limits: tuple[int, int]) -> None:
    for options in (ImageOptions, VideoOptions):
        with pytest.raises(UsageError, match=r"1 <= min <= max, found"):
            options(min_pixels=limits[0], max_pixels=limits[1])


@pytest.mark.parametrize("fps", [0.0, -1.0, math.inf, math.nan])
def test_sampling_rate_must_be_positive_and_finite(fps: float) -> None:
    with pytest.raises(UsageError, match="sampling rate must be above 0"):
        VideoOptions(fps=fps)


@pytest.mark.parametrize("field", ["min_frames", "max_frames", "total_max_pixels"])
def test_counts_must_be_at_least_one(field: str) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        VideoOptions(**{field: 0})
