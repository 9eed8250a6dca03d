"""`vision_config`: the released values, the defaults of absent keys, and contradictions."""

from typing import Any

import pytest

from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.vision_config import COLUMN, FULL, ROW, VisionConfig
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN
from tests.support.family_configs import VISION


def config(**changes: Any) -> VisionConfig:
    values = VISION | changes
    return VisionConfig.from_dict({key: value for key, value in values.items() if value is not ...})


def test_the_released_tower_is_read() -> None:
    read = config()
    assert (read.depth, read.hidden_size, read.num_heads, read.num_key_value_heads) == (28, 1280, 32, 8)
    assert [b for b in range(28) if not read.is_windowed(b)] == [0, 9, 18, 27]
    assert read.vit_window_attn_types[:6] == (FULL, ROW, ROW, ROW, ROW, COLUMN)
    assert read.unit_tokens == 4 and read.patch_values == 3 * 2 * 16 * 16 == 1536
    assert read.visual_token_window_size == 64 and read.use_sink


def test_absent_keys_have_the_documented_defaults() -> None:
    read = config()
    assert read.head_dim == 64  # not 1280 / 32
    assert read.rms_norm_eps == 1e-6 and read.rope_theta == 10000.0
    assert read.sink_form == "denominator" and read.merger_norm == "layernorm"
    assert config(in_chans=..., in_channels=1).in_chans == 1 and config(in_chans=...).in_chans == 3
    assert config(num_key_value_heads=...).num_key_value_heads == 32
    assert not config(use_sink=...).use_sink


def test_the_reference_tower_is_read() -> None:
    read = VisionConfig.from_dict(read_json(GOLDEN / "vision" / "config.json")["vision_config"])
    assert read.depth == len(read.vit_window_attn_types) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "`hidden_act` = gelu is not implemented"),
        ({"depth": ...}, "has no `depth`"),
        ({"depth": 27}, "`vit_window_attn_types` must hold 27 entries"),
        ({"vit_window_attn_types": [2] * 28}, "must hold 28 entries of -1, 0 or 1"),
        ({"fullatt_block_indexes": [0]}, "`fullatt_block_indexes` .* contradicts"),
        ({"num_key_value_heads": 5}, "32 heads cannot share 5"),
        ({"qk_channels": 62}, "`qk_channels` must be a multiple of 4"),
        ({"patch_size": 0}, "`patch_size` must be at least 1"),
        ({"depth": 10**9, "vit_window_attn_types": ...}, "`depth` must be at most"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: vision_config.*{message}"):
        config(**changes)
