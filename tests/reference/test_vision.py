"""The reference tower and pixels against numbers that others computed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference.packed import unpack
from tests.reference.pixels import (
    frame_times,
    frames_patches,
    picture_patches,
    resize,
    sampled_frames,
    target_size,
)
from tests.reference.sets import FILES
from tests.reference.storage import read_file
from tests.reference.vision import Tower, Variant, column_patches, column_units, coordinates, rope_angles

PIXEL_TOLERANCE = 2e-5  # float32 against float64; implementations in float32 differ by 7e-6
BLOCK_TOLERANCE = 5e-5  # values reach 14
CONFIG = json.loads((FILES / "vision" / "config.json").read_text())
CASES = json.loads((FILES / "vision" / "cases.json").read_text())


@cache
def inputs() -> dict[str, Any]:
    with np.load(FILES / "vision" / "inputs.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("number", "every"), [(0, 7), (1, 7), (2, 1)])
def test_patches_of_pictures_agree_with_those_made_elsewhere(number: int, every: int) -> None:
    found, grid = picture_patches(inputs()[f"img{number}_rgb"], CONFIG["processor_config"])
    wanted = inputs()[f"img{number}_pixel_values" + (f"_every_{every}" if every > 1 else "")]
    assert list(grid) == inputs()["image_grid_thw"][number].tolist()
    assert np.abs(found[::every] - wanted).max() < PIXEL_TOLERANCE


def test_patches_of_a_film_agree_with_those_made_elsewhere() -> None:
    rate = float(inputs()["vid_fps"])
    indices = sampled_frames(len(inputs()["vid_frames"]), rate)
    found, grid = frames_patches(inputs()["vid_frames"][indices], CONFIG["processor_config"])
    assert indices.tolist() == inputs()["vid_indices"].tolist() and list(grid) == inputs()["video_grid_thw"][0].tolist()
    assert np.array_equal(frame_times(indices, rate), inputs()["vid_timestamps"])
    assert np.abs(found - inputs()["vid_pixel_values"]).max() < PIXEL_TOLERANCE


def test_an_odd_number_of_frames_repeats_the_last() -> None:
    frames, rate = inputs()["vid_frames"][inputs()["vid_indices"][:3]], float(inputs()["vid_fps"])
    found, grid = frames_patches(frames, CONFIG["processor_config"])
    assert list(grid) == inputs()["vid3_grid_thw"][0].tolist()
    assert np.array_equal(found[48:], frames_patches(frames[[2, 2]], CONFIG["processor_config"])[0])
    assert np.array_equal(frame_times(inputs()["vid_indices"][:3], rate), inputs()["vid3_timestamps"])


def test_sizes_are_those_of_the_model_s_processor() -> None:
    for height, width, least, most, new_height, new_width, outcome in CASES["resize_cases"]:
        if isinstance(outcome, int):
            assert target_size(height, width, least, most) == (new_height, new_width)
        elif new_height is None:
            with pytest.raises(ValueError, match="too narrow"):
                target_size(height, width, least, most)


def test_resizing_to_the_same_size_changes_nothing_and_doubling_mixes_neighbours() -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(resize(rgb, 2, 4), rgb)
    assert resize(rgb, 2, 8)[0, :, 0].tolist() == [0, 0.75, 2.25, 3.75, 5.25, 6.75, 8.25, 9]


def test_angles_and_orders_are_those_made_elsewhere() -> None:
    _, rows, columns = inputs()["image_grid_thw"][0].tolist()
    assert np.abs(rope_angles(coordinates(rows, columns)) - inputs()["img0_rope_angles"]).max() < 1e-5
    assert column_units(rows, columns).tolist() == inputs()["img0_col_unit_index"].tolist()
    places = coordinates(4, 6)[column_patches(4, 6)]
    assert places[:6].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]  # the unit below follows


@pytest.mark.parametrize(("number", "before", "after"), [(1, "block_00", "block_01"), (5, "block_04", "block_05")])
def test_windowed_blocks_agree_with_values_computed_elsewhere(
    number: int, before: str, after: str, tmp_path: Path
) -> None:
    """Two blocks of another tower: 1 in row order, 5 in column order; their inputs stand in row order."""
    unpack(FILES / "blocks" / "vision.safetensors.xz", tmp_path / "vision.safetensors")
    stored = read_file(tmp_path / "vision.safetensors")
    tower = Tower.of(CONFIG["vision_config"], stored)
    _, rows, columns = inputs()["image_grid_thw"][0].tolist()
    x = stored[before].numbers().astype(np.float64)[tower.order(number, rows, columns)]
    wanted = stored[f"{after}_every_3"].numbers()
    found = tower.block(number, x, rows, columns, Variant())[::3]
    assert np.abs(found - wanted).max() < BLOCK_TOLERANCE
    narrower = Tower.of(CONFIG["vision_config"] | {"visual_token_window_size": 63}, stored)
    assert np.abs(narrower.block(number, x, rows, columns, Variant())[::3] - wanted).max() > 0.02
