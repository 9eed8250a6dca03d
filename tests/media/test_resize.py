"""Target sizes against the reference table, resampling against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import MediaError
from mimo_cli.media import resize as resize_module
from mimo_cli.media.options import PixelOptions
from mimo_cli.media.resize import resize, target_size
from tests.support.media_files import smooth_picture
from tests.support.vision_golden import cases

IMAGE_LIMITS = (8192, 8388608)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_torch(frame: np.ndarray, height: int, width: int, **how: object) -> np.ndarray:
    """Resize with torch, which is the reference."""
    channels_first = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(channels_first, (height, width), align_corners=False, **how)  # type: ignore[arg-type]
    return resized[0].permute(1, 2, 0).numpy()


def test_every_row_of_the_resize_table_is_met() -> None:
    refused = 0
    for height, width, low, high, wanted_height, wanted_width, outcome in cases()["resize_cases"]:
        if isinstance(outcome, str):
            with pytest.raises(MediaError, match="more than 200 times" if wanted_height is None else "would shrink to"):
                target_size(height, width, low, high, PixelOptions())
            refused += 1
        else:
            found = target_size(height, width, low, high, PixelOptions())
            assert found == (wanted_height, wanted_width), (height, width)
            assert found[0] * found[1] // 1024 == outcome
    assert (len(cases()["resize_cases"]), refused) == (220, 19)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((1, 1), (96, 96)), ((720, 1280), (704, 1280)), ((100, 28), (192, 64)), ((2160, 3840), (2176, 3840))],
)
def test_sizes_of_the_specification(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert target_size(*size, *IMAGE_LIMITS, PixelOptions()) == wanted


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), high=st.sampled_from([8192, 149130, 8388608]))
def test_target_sizes_are_whole_units_within_the_limits_or_a_clear_error(height: int, width: int, high: int) -> None:
    try:
        found = target_size(height, width, 8192, high, PixelOptions())
    except MediaError as err:
        assert f"{width}x{height} pixels" in str(err)
        return
    assert found[0] % 32 == 0 and found[1] % 32 == 0 and min(found) >= 32
    assert found[0] * found[1] <= high or found[0] * found[1] <= 2 * 8192  # growing rounds up, once


@pytest.mark.parametrize(("rule", "wanted"), [("round", (96, 128)), ("truncate", (96, 96)), ("floor", (96, 128))])
def test_small_side_rules_differ_where_implementations_do(rule: str, wanted: tuple[int, int]) -> None:
    # 8 * 32 / 7 = 36.57 is 37 rounded and 36 cut; `floor` scales the unscaled 7x8 up to the minimum instead.
    assert target_size(7, 8, *IMAGE_LIMITS, PixelOptions(small_side=rule)) == wanted  # type: ignore[arg-type]


def test_only_the_floor_rule_tests_the_aspect_of_small_pictures_and_never_reaches_zero() -> None:
    floor = PixelOptions(small_side="floor")
    assert target_size(1, 300, *IMAGE_LIMITS, PixelOptions())[0] == 32
    with pytest.raises(MediaError, match="more than 200 times"):
        target_size(1, 300, *IMAGE_LIMITS, floor)
    with pytest.raises(MediaError, match="would shrink to 5440x0"):
        target_size(32, 6400, 8192, 149130, PixelOptions())
    assert target_size(32, 6400, 8192, 149130, floor)[0] == 32


@pytest.mark.parametrize(
    ("size", "target"),
    [((108, 192), (64, 128)), ((31, 17), (96, 64)), ((1, 1), (96, 96)), ((300, 7), (320, 32)), ((64, 96), (64, 96))],
)
def test_bilinear_equals_torch(size: tuple[int, int], target: tuple[int, int]) -> None:
    frame = noise(*size)
    found = resize(frame, *target, "bilinear")
    # Two float32 roundings of values up to 255; OpenCV's own float32 resize is off by 0.03 at this noise.
    assert found.dtype == np.float32
    assert np.abs(found - by_torch(frame, *target, mode="bilinear")).max() < 1e-4


def test_bilinear_of_a_large_picture_equals_torch() -> None:
    frame = noise(1080, 1920)
    # Coordinates reach 1920, where float32 has steps of 1e-4 and a step between neighbours weighs up to 255; without
    # a fused multiply-subtract torch itself rounds them twice.
    assert np.abs(resize(frame, 704, 1248, "bilinear") - by_torch(frame, 704, 1248, mode="bilinear")).max() < 0.04


@pytest.mark.parametrize(("size", "target"), [((200, 300), (64, 96)), ((40, 50), (96, 128)), ((64, 96), (64, 96))])
def test_antialiased_bicubic_equals_torch_rounded_to_levels(size: tuple[int, int], target: tuple[int, int]) -> None:
    frame = noise(*size)
    found = resize(frame, *target, "bicubic_antialias")
    wanted = by_torch(frame, *target, mode="bicubic", antialias=True)
    assert np.array_equal(found, np.rint(found)) and found.min() >= 0 and found.max() <= 255
    # Half a level of rounding, and the last bits of both sums.
    assert np.abs(found - wanted.clip(0, 255)).max() <= 0.5 + 1e-2


def test_filters_differ_by_many_levels_when_reducing() -> None:
    frame = noise(200, 300)
    difference = np.abs(resize(frame, 64, 96, "bilinear") - resize(frame, 64, 96, "bicubic_antialias"))
    assert difference.max() > 28


def test_a_picture_at_its_target_size_is_unchanged() -> None:
    frame = smooth_picture(64, 96)
    for method in ("bilinear", "bicubic_antialias"):
        assert np.array_equal(resize(frame, 64, 96, method), frame.astype(np.float32))


def test_bands_of_rows_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = noise(90, 70)
    whole = resize(frame, 64, 96, "bilinear")
    monkeypatch.setattr(resize_module, "_BAND_VALUES", 1)
    assert np.array_equal(resize(frame, 64, 96, "bilinear"), whole)


def test_views_with_strides_are_resized_like_copies() -> None:
    frame = noise(60, 80)[::-1, ::2]
    assert np.array_equal(resize(frame, 32, 32, "bilinear"), resize(frame.copy(), 32, 32, "bilinear"))
