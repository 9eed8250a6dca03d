"""Pixel values against the reference, and the order of patches and of the values inside them."""

import numpy as np
import pytest

from mimo_cli.media.image import preprocess_image
from mimo_cli.media.options import ImageOptions, PixelOptions
from mimo_cli.media.patches import frames_to_patches, grid_of, normalise
from tests.support.media_files import smooth_picture
from tests.support.vision_golden import expected

TOLERANCE = 3e-5  # two implementations of the exact float32 steps differ by 6.8e-6; one grey level is 0.014


@pytest.mark.parametrize("image", [0, 1, 2])
def test_pixel_values_equal_the_reference(image: int) -> None:
    found, grid = preprocess_image(expected()[f"img{image}_rgb"])
    name = f"img{image}_pixel_values"
    wanted = expected()[name] if image == 2 else expected()[f"{name}_every_7"]
    assert grid.tolist() == [expected()["image_grid_thw"][image].tolist()] and grid.dtype == np.int64
    assert found.dtype == np.float32 and len(found) == grid.prod()
    assert np.abs((found if image == 2 else found[::7]) - wanted).max() < TOLERANCE


def test_patches_are_ordered_by_units_and_values_by_channel_time_row_column() -> None:
    height, width = 64, 96
    rows, columns = np.mgrid[:height, :width]
    first = np.stack([rows, columns, np.full_like(rows, 7)], -1).astype(np.uint8)  # R its row, G its column, B constant
    second = first + np.uint8(100)
    patches = frames_to_patches([first, second], (1, 4, 6), PixelOptions())
    mean = np.array([0.48145466, 0.4578275, 0.40821073]) * 255
    deviation = np.array([0.26862954, 0.26130258, 0.27577711]) * 255
    levels = patches.reshape(-1, 3, 2, 16, 16) * deviation[:, None, None, None] + mean[:, None, None, None]
    levels = np.rint(levels).astype(int)
    corners = [tuple(levels[patch, :2, 0, 0, 0]) for patch in range(24)]
    assert corners[:8] == [(0, 0), (0, 16), (16, 0), (16, 16), (0, 32), (0, 48), (16, 32), (16, 48)]
    assert corners[12] == (32, 0)  # the second row of units
    assert (levels[0, 0, 0] == np.arange(16)[:, None]).all() and (levels[0, 1, 0] == np.arange(16)).all()
    assert (levels[:, 2, 0] == 7).all() and (levels[:, :, 1] - levels[:, :, 0] == 100).all()


def test_steps_follow_one_another() -> None:
    frames = [np.full((32, 32, 3), level, np.uint8) for level in (0, 50, 100, 150)]
    patches = frames_to_patches(iter(frames), (2, 2, 2), PixelOptions()).reshape(2, 4, 3, 2, 256)
    levels = patches[:, 0, 0, :, 0] * 0.26862954 * 255 + 0.48145466 * 255
    assert np.rint(levels).tolist() == [[0, 50], [100, 150]]


def test_statistics_differ_as_stated() -> None:
    white = np.full((1, 1, 3), 255, np.float32)
    assert normalise(white.copy(), "clip")[0, 0] == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-4)
    assert normalise(white.copy(), "imagenet")[0, 0] == pytest.approx([2.2489, 2.4286, 2.6400], abs=1e-4)


@pytest.mark.parametrize(
    "options", [PixelOptions(resize_filter="bicubic_antialias"), PixelOptions(statistics="imagenet")]
)
def test_other_filters_and_statistics_change_pixel_values(options: PixelOptions) -> None:
    picture = smooth_picture(90, 130)
    default, _ = preprocess_image(picture)
    other, _ = preprocess_image(picture, ImageOptions(pixels=options))
    assert other.shape == default.shape and np.abs(other - default).max() > 0.01


def test_grid_counts_patches_of_the_resized_frame() -> None:
    assert grid_of(3, 704, 1280, PixelOptions()) == (3, 44, 80)
    assert grid_of(1, 704, 1280, PixelOptions(patch_size=8, merge_size=4)) == (1, 88, 160)


def test_too_few_frames_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="shorter"):
        frames_to_patches([smooth_picture(32, 32)], (1, 2, 2), PixelOptions())
