"""Widened networks: bfloat16 in memory, float32 in their results."""

import pytest
import torch
from torch import nn

from mimo_cli.engine.bind import module_bytes
from mimo_cli.engine.towers import load_audio_tower, load_vision_tower
from mimo_cli.engine.widening import widen
from tests.engine.test_towers import AUDIO, VISION
from tests.support.engines import GOLDEN


def sight(dtype: torch.dtype) -> nn.Module:
    return load_vision_tower(GOLDEN / "vision", dtype, VISION)


def test_a_widened_tower_gives_what_a_float32_tower_of_its_weights_gives() -> None:
    narrow, wide = sight(torch.bfloat16), sight(torch.bfloat16).float()
    stored_bytes = module_bytes([narrow])
    widen(narrow)
    assert module_bytes([narrow]) == stored_bytes == module_bytes([wide]) // 2
    pixels, grid = torch.randn(64, 1536, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 8, 8]])
    with torch.inference_mode():
        found = narrow(pixels, grid)
        assert found.dtype == torch.float32 and torch.equal(found, wide(pixels, grid))


@pytest.mark.parametrize("tables", ["rounded", "exact"])
def test_a_widened_codec_hears_the_same_codes(tables: str) -> None:
    folder = GOLDEN / "audio" / "checkpoint"
    narrow, wide = (load_audio_tower(folder, torch.bfloat16, AUDIO, tables).tokenizer for _ in range(2))
    wide.float()
    widen(narrow)
    mel = torch.randn(200, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(narrow.codes(mel), wide.codes(mel))
