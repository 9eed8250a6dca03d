"""Names and shapes against the released files: counts, parameters and bytes, exact to the last one."""

import math
from collections.abc import Iterable
from typing import Any

import pytest

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.encoder import WeightEncoder
from mimo_cli.checkpoint.names import (
    NamedWeight,
    audio_tokenizer_weights,
    audio_weights,
    expert_weight_name,
    expert_weights,
    mtp_weights,
    text_weights,
    vision_weights,
)
from mimo_cli.checkpoint.shard_writer import PlannedTensor
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.checkpoint.writer import StorageLayout, default_formats, plan_files
from tests.support.checkpoint_files import GOLDEN
from tests.support.family_configs import AUDIO, AUDIO_TOKENIZER, V2_5, V2_5_PRO, V2_6, V2_FLASH, VISION


def parameters(weights: Iterable[NamedWeight]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def shapes(weights: Iterable[NamedWeight]) -> dict[str, tuple[int, ...]]:
    return {weight.name: weight.shape for weight in weights}


def stored(values: dict[str, Any]) -> list[PlannedTensor]:
    """Plan every stored tensor of a release."""
    encoder = WeightEncoder(ModelConfig.from_dict(values), default_formats(values))
    files = plan_files(ModelConfig.from_dict(values), StorageLayout())
    return [tensor for weights in files.values() for weight in weights for tensor in encoder.plan(weight)]


@pytest.mark.parametrize(
    ("values", "tensors", "size_bytes"),
    [
        (V2_5, 73_081, 315_031_102_208),
        (V2_5_PRO, 159_581, 1_033_369_538_304),
    ],
)
def test_a_release_has_its_number_of_tensors_and_bytes(values: dict[str, Any], tensors: int, size_bytes: int) -> None:
    planned = stored(values)
    assert len(planned) == len({tensor.name for tensor in planned}) == tensors
    assert sum(tensor.size_bytes for tensor in planned) == size_bytes


def test_v2_6_has_as_many_tensors_in_fewer_bytes() -> None:
    planned = stored(V2_6)
    assert len(planned) == 73_081
    assert sum(tensor.size_bytes for tensor in planned) == pytest.approx(172.9e9, rel=1e-3)
    one = [t for t in planned if t.name.startswith("model.layers.9.mlp.experts.200.")]
    assert sum(tensor.size_bytes for tensor in one) == 13_369_344


def test_parameters_by_part_are_the_released_ones() -> None:
    config = ModelConfig.from_dict(V2_5)
    assert parameters(text_weights(config)) == 5_983_586_496
    assert parameters(expert_weights(config)) == 302_795_194_368
    assert parameters(w for k in range(3) for w in mtp_weights(config, k)) == 987_820_224
    assert parameters(vision_weights(VisionConfig.from_dict(VISION))) == 728_594_432
    audio = list(audio_weights(AudioConfig.from_dict(AUDIO)))
    assert parameters(w for w in audio if w.name.startswith("speech_embeddings.")) == 26_214_400
    assert parameters(audio) == 26_214_400 + 234_912_768
    codec = list(audio_tokenizer_weights(AudioTokenizerConfig.from_dict(AUDIO_TOKENIZER)))
    books = [weight for weight in codec if weight.role == "float32"]
    assert parameters(codec) - parameters(books) == 307_927_040 and parameters(books) == 4_587_520


def test_towers_have_their_numbers_of_tensors() -> None:
    assert len(list(vision_weights(VisionConfig.from_dict(VISION)))) == 364
    assert len(list(audio_weights(AudioConfig.from_dict(AUDIO)))) == 95
    assert len(list(audio_tokenizer_weights(AudioTokenizerConfig.from_dict(AUDIO_TOKENIZER)))) == 389


def test_layer_kinds_shape_the_fused_projection() -> None:
    names = shapes(text_weights(ModelConfig.from_dict(V2_5)))
    fused = "model.layers.{}.self_attn.qkv_proj.weight"
    assert names[fused.format(5)] == (13568, 4096) and names[fused.format(6)] == (14848, 4096)
    assert "model.layers.6.self_attn.attention_sink_bias" in names
    assert "model.layers.5.self_attn.attention_sink_bias" not in names
    assert names["model.layers.0.mlp.down_proj.weight"] == (4096, 16384)
    assert names["model.layers.5.self_attn.o_proj.weight"] == (4096, 8192)
    assert names["model.layers.1.mlp.gate.weight"] == (256, 4096)
    assert shapes(text_weights(ModelConfig.from_dict(V2_5_PRO)))[fused.format(7)] == (27136, 6144)


def test_v2_flash_has_split_projections() -> None:
    config = ModelConfig.from_dict(V2_FLASH)
    names = shapes(text_weights(config)) | shapes(mtp_weights(config, 0))
    assert not any("qkv_proj" in name for name in names)
    for prefix, k_rows, v_rows in (("layers.0", 768, 512), ("layers.1", 1536, 1024), ("mtp.layers.0", 1536, 1024)):
        assert names[f"model.{prefix}.self_attn.q_proj.weight"] == (12288, 4096)
        assert names[f"model.{prefix}.self_attn.k_proj.weight"] == (k_rows, 4096)
        assert names[f"model.{prefix}.self_attn.v_proj.weight"] == (v_rows, 4096)


def test_mtp_modules_are_sliding_and_dense_with_five_norms() -> None:
    names = shapes(mtp_weights(ModelConfig.from_dict(V2_5), 2))
    assert all(name.startswith("model.mtp.layers.2.") for name in names) and len(names) == 5 + 1 + 3 + 3
    assert names["model.mtp.layers.2.eh_proj.weight"] == (4096, 8192)
    assert names["model.mtp.layers.2.self_attn.qkv_proj.weight"] == (14848, 4096)
    assert not any("post_attention" in name for name in names)


def test_a_tied_head_is_not_expected() -> None:
    assert "lm_head.weight" not in shapes(text_weights(ModelConfig.from_dict({**V2_5, "tie_word_embeddings": True})))


def test_an_audio_projection_of_one_layer_is_one_matrix() -> None:
    names = shapes(audio_weights(AudioConfig.from_dict({**AUDIO, "projection_layers": 1, "add_post_norm": False})))
    assert names["audio_encoder.projection.weight"] == (4096, 4096)
    assert not any(".mlp.0." in name or name.endswith("transformer.norm.weight") for name in names)


def test_expert_names_are_those_listed() -> None:
    config = ModelConfig.from_file(GOLDEN / "text" / "config.json")
    listed = {weight.name for weight in expert_weights(config)}
    made = {
        expert_weight_name(layer, expert, projection)
        for layer in config.moe_layers
        for expert in range(16)
        for projection in ("gate_proj", "up_proj", "down_proj")
    }
    assert listed == made
