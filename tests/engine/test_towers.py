"""Towers alone and beside the text model: the same weights, read from folders that hold nothing else."""

from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.audio_config import AudioConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.engine import bind
from mimo_cli.engine.towers import load_audio_tower, load_vision_tower
from mimo_cli.errors import CapacityError, CheckpointError
from tests.support.engines import GOLDEN, MINIATURE, miniature_engine

VISION = VisionConfig.from_dict(read_json(GOLDEN / "vision" / "config.json")["vision_config"])
AUDIO = AudioConfig.from_dict(read_json(GOLDEN / "audio" / "checkpoint" / "config.json")["audio_config"])


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_towers_alone_are_those_of_the_whole_model() -> None:
    config, media = ModelConfig.from_file(MINIATURE / "config.json"), miniature_engine().media
    assert same_state(load_vision_tower(MINIATURE, torch.float32, config.vision), media.vision)
    hearing = load_audio_tower(MINIATURE, torch.float32, config.audio, "rounded")
    assert same_state(hearing.tokenizer, media.audio_tokenizer) and same_state(hearing.encoder, media.audio)


def test_a_folder_of_a_tower_alone_is_enough() -> None:
    tower = load_vision_tower(GOLDEN / "vision", torch.bfloat16, VISION)
    assert tower.patch_embed.proj.weight.dtype == torch.bfloat16
    hearing = load_audio_tower(GOLDEN / "audio" / "checkpoint", torch.bfloat16, AUDIO, "exact")
    assert hearing.encoder.speech_embeddings[0].weight.dtype == torch.bfloat16


def test_code_books_stay_float32_whatever_the_dtype() -> None:
    hearing = load_audio_tower(GOLDEN / "audio" / "checkpoint", torch.bfloat16, AUDIO, "exact")
    assert hearing.tokenizer.quantizer.code_book(0).dtype == torch.float32
    assert hearing.tokenizer.conv1.weight.dtype == torch.bfloat16


def test_a_folder_without_the_tower_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no vision tower"):
        load_vision_tower(GOLDEN / "text", torch.float32, VISION)
    with pytest.raises(CheckpointError, match=r"no audio encoder"):
        load_audio_tower(GOLDEN / "vision", torch.float32, AUDIO, "exact")


def test_towers_are_refused_before_they_are_read_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind, "available_bytes", lambda: 1000)
    with pytest.raises(CapacityError, match="vision tower needs"):
        load_vision_tower(GOLDEN / "vision", torch.float32, VISION)
    with pytest.raises(CapacityError, match="audio encoder needs"):
        load_audio_tower(GOLDEN / "audio" / "checkpoint", torch.float32, AUDIO, "exact")


def test_a_missing_codec_folder_is_a_checkpoint_error(tmp_path: Path) -> None:
    for file in (GOLDEN / "audio" / "checkpoint").glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="audio_tokenizer"):
        load_audio_tower(tmp_path, torch.float32, AUDIO, "exact")
