"""`processor_config`: limits and token ids, with the serving stack's fallbacks."""

from typing import Any

import pytest

from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN

RELEASED = read_json(GOLDEN / "text" / "config.json")
LIMITS = {
    "image_min_pixels": 4096,
    "image_max_pixels": 4194304,
    "video_min_pixels": 4096,
    "video_max_pixels": 4194304,
    "video_total_max_pixels": 16777216,
    "min_frames": 8,
    "max_frames": 256,
    "fps": 2.0,
}


def processor(**changes: Any) -> ProcessorConfig:
    return ProcessorConfig.from_dict({"processor_config": RELEASED["processor_config"] | changes})


def test_the_released_values_are_read() -> None:
    read = ProcessorConfig.from_dict(RELEASED)
    assert (read.image_min_pixels, read.image_max_pixels) == (8192, 8388608)
    assert read.video_total_max_pixels == 268435456 and read.fps == 1.0
    assert read.min_frames == 8 and read.max_frames == 3600  # the release's min_frames is null
    assert read.audio_tokens_per_second == 6.25 and read.audio_sampling_rate == 24000
    assert (read.audio_token_id, read.audio_start_token_id, read.audio_end_token_id) == (151669, 151673, 151674)
    assert (read.video_start_token_id, read.video_end_token_id) == (151670, 151671)


@pytest.mark.parametrize("empty", [None, 0])
@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_of_null_or_zero_falls_back(key: str, empty: Any) -> None:
    assert getattr(processor(**{key: empty}), key) == LIMITS[key]


def test_without_the_section_everything_falls_back() -> None:
    read = ProcessorConfig.from_dict({})
    assert {key: getattr(read, key) for key in LIMITS} == LIMITS
    assert read.patch_size == 16 and read.merge_size == 2 and read.image_token_id is None


def test_picture_ids_fall_back_to_the_top_level() -> None:
    read = ProcessorConfig.from_dict(
        {"image_token_id": 7, "video_token_id": 8, "processor_config": {"video_token_id": 9}}
    )
    assert (read.image_token_id, read.video_token_id, read.audio_token_id) == (7, 9, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 0}, "`patch_size` must be at least 1"),
        ({"fps": "fast"}, "`fps` must be int or float"),
        ({"image_max_pixels": -1}, "`image_max_pixels` must be at least 0"),
        ({"audio_group_size": 0}, "`audio_group_size` must be at least 1"),
    ],
)
def test_values_that_cannot_be_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: processor_config: {message}"):
        processor(**changes)
