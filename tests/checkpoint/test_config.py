"""config.json of the whole family, by its values; nothing is known by name and nothing unknown is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.checkpoint.config import ModelConfig, read_json, token_ids
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN
from tests.support.family_configs import PATTERN_48, PATTERN_70, V2_5, V2_5_PRO, V2_6, V2_FLASH


def config(**changes: Any) -> ModelConfig:
    """Read the V2.5 configuration with changes; a key set to `...` is left out."""
    values = V2_5 | changes
    return ModelConfig.from_dict({key: value for key, value in values.items() if value is not ...})


def test_v2_5_is_read_as_released() -> None:
    read = config()
    assert (read.hidden_size, read.num_hidden_layers, read.n_routed_experts, read.num_experts_per_tok) == (
        4096,
        48,
        256,
        8,
    )
    assert read.hybrid_layer_pattern == tuple(PATTERN_48) and read.moe_layers == tuple(range(1, 48))
    assert read.layernorm_epsilon == 1e-5 and read.attention_value_scale == 0.707
    assert read.routed_scaling_factor == 1.0 and read.num_nextn_predict_layers is None
    assert read.attention_projection_layout == "fused_qkv" and read.weight_block_size == (128, 128)
    assert read.eos_token_ids == (151645,) and read.pad_token_id == 151643
    assert read.vision and read.vision.depth == 28 and read.audio and read.audio.audio_channels == 20
    assert read.processor.image_token_id == 151655


def test_the_two_kinds_of_attention_have_their_own_heads_theta_and_sinks() -> None:
    read = config()
    glob, sliding = read.attention(0), read.attention(1)
    assert (glob.num_kv_heads, glob.rope_theta, glob.window, glob.has_sink) == (4, 1e7, None, False)
    assert (sliding.num_kv_heads, sliding.rope_theta, sliding.window, sliding.has_sink) == (8, 1e4, 128, True)
    assert glob.rotary_dim == sliding.rotary_dim == 64  # int(192 x 0.334)
    assert (glob.q_rows, glob.k_rows, glob.v_rows, glob.qkv_rows) == (12288, 768, 512, 13568)
    assert sliding.qkv_rows == 14848
    assert [i for i in range(48) if not read.is_sliding(i)] == [0, 5, 11, 17, 23, 29, 35, 41, 47]


def test_v2_flash_is_split_text_only_and_has_its_own_theta() -> None:
    read = ModelConfig.from_dict(V2_FLASH)
    assert read.model_type == "mimo_v2_flash" and read.attention_projection_layout == "split"
    assert read.global_attention.rope_theta == 5e6 and read.vision is None and read.audio is None
    assert read.max_position_embeddings == 262144


def test_v2_5_pro_has_70_layers_and_384_experts() -> None:
    read = ModelConfig.from_dict(V2_5_PRO)
    assert read.hybrid_layer_pattern == tuple(PATTERN_70) and read.n_routed_experts == 384
    assert read.global_attention.qkv_rows == read.sliding_attention.qkv_rows == 27136
    assert read.attention_value_scale == 0.612


def test_v2_6_differs_in_epsilon_and_states_its_mtp_modules() -> None:
    read = ModelConfig.from_dict(V2_6)
    assert read.layernorm_epsilon == 1e-6 and read.num_nextn_predict_layers == 3


@pytest.mark.parametrize("name", ["text", "text_mxfp4"])
def test_the_reference_configurations_are_read(name: str) -> None:
    read = ModelConfig.from_file(GOLDEN / name / "config.json")
    assert read.hidden_size == 128 and read.raw["model_type"] == "mimo_v2"


def test_an_explicit_null_counts_as_absent_for_every_key() -> None:
    for key in V2_5:
        results = []
        for value in (None, ...):
            try:
                results.append(config(**{key: value}))
            except CheckpointError as error:
                results.append(str(error))
        assert results[0] == results[1], key


def test_keys_without_effect_are_ignored() -> None:
    harmless = {"auto_map": {"AutoModel": "x"}, "initializer_range": 0.02, "use_cache": True, "unknown_key": [1]}
    harmless |= {"attention_chunk_size": 7, "attention_dropout": 0.0, "transformers_version": "4.57.1"}
    assert config(**harmless) == config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "`model_type` = llama is not implemented"),
        ({"model_type": None}, "`model_type`"),
        ({"hidden_act": "gelu"}, "`hidden_act` = gelu"),
        ({"attention_bias": True}, "`attention_bias` = True"),
        ({"n_shared_experts": 1}, "`n_shared_experts` = 1"),
        ({"scoring_func": "softmax"}, "`scoring_func` = softmax"),
        ({"topk_method": "greedy"}, "`topk_method` = greedy"),
        ({"attention_projection_layout": "packed"}, "`attention_projection_layout` = packed"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling: `rope_type` = yarn"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: `type` = linear"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: `rope_type` = llama3"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, "`mrope_section` is not implemented"),
        ({"quantization_config": {"quant_method": "gptq"}}, "`quant_method` = gptq"),
        ({"quantization_config": {"fmt": "e5m2"}}, "`fmt` = e5m2"),
        ({"quantization_config": {"store_dtype": "int4"}}, "`store_dtype` = int4"),
        ({"quantization_config": {"mxfp4_block_size": 16}}, "`mxfp4_block_size` = 16"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": ...}, "config.json has no `hidden_size`"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1"),
        ({"hybrid_layer_pattern": [0, 1]}, "`hybrid_layer_pattern` must hold 48 entries of 0 or 1, found 2"),
        ({"hybrid_layer_pattern": [2] * 48}, "`hybrid_layer_pattern` must hold 48 entries"),
        ({"hybrid_layer_pattern": ...}, "has no `hybrid_layer_pattern`"),
        ({"moe_layer_freq": [1] * 47}, "`moe_layer_freq` must hold 48 entries"),
        ({"moe_layer_freq": ...}, "has no `moe_layer_freq`"),
        ({"num_experts_per_tok": 0}, "0 of 256 experts per token cannot be routed"),
        ({"num_experts_per_tok": 300}, "300 of 256 experts per token cannot be routed"),
        ({"moe_intermediate_size": ...}, "`moe_intermediate_size` must be at least 1"),
        ({"n_group": 3}, "8 of 256 experts cannot be chosen from 1 of 3 groups"),
        ({"n_group": 2, "topk_group": 4}, "cannot be chosen from 4 of 2 groups"),
        ({"n_group": 64, "topk_group": 1}, "8 of 256 experts cannot be chosen from 1 of 64 groups"),
        ({"num_key_value_heads": 3}, "64 attention heads cannot share 3"),
        ({"swa_num_key_value_heads": 7}, "64 attention heads cannot share 7"),
        ({"num_hidden_layers": 10**9}, "`num_hidden_layers` must be at most"),
        ({"quantization_config": {"weight_block_size": [128]}}, "`weight_block_size` must hold two positive"),
        ({"quantization_config": {"weight_block_size": [0, 128]}}, "`weight_block_size` must hold two positive"),
        ({"quantization_config": [1]}, "`quantization_config` must be dict"),
        ({"vision_config": 7}, "vision_config must be a JSON object"),
    ],
)
def test_what_is_missing_or_contradictory_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config(**changes)


def test_a_missing_pattern_follows_the_block_size() -> None:
    read = config(hybrid_layer_pattern=..., hybrid_block_size=6)
    assert [i for i in range(48) if not read.is_sliding(i)] == [5, 11, 17, 23, 29, 35, 41, 47]


def test_missing_sliding_keys_fall_back_to_the_global_ones() -> None:
    keys = ("swa_num_attention_heads", "swa_num_key_value_heads", "swa_head_dim", "swa_v_head_dim", "swa_rope_theta")
    read = config(**dict.fromkeys(keys, ...))
    sliding, glob = read.sliding_attention, read.global_attention
    assert sliding.num_kv_heads == glob.num_kv_heads == 4 and sliding.rope_theta == glob.rope_theta == 1e7


def test_the_window_is_its_size_key_before_the_general_one() -> None:
    assert config(sliding_window_size=64).sliding_attention.window == 64
    assert config(sliding_window_size=..., sliding_window=32).sliding_attention.window == 32
    assert config(sliding_window_size=..., sliding_window=...).sliding_attention.window == 128


def test_top_level_rope_settings_win_over_rope_parameters() -> None:
    nested = {"rope_theta": 123.0, "partial_rotary_factor": 0.5, "rope_type": "default"}
    both = config(rope_parameters=nested).global_attention
    assert (both.rope_theta, both.rotary_dim) == (1e7, 64)
    alone = config(rope_parameters=nested, rope_theta=..., partial_rotary_factor=...).global_attention
    assert (alone.rope_theta, alone.rotary_dim) == (123.0, 96)


@pytest.mark.parametrize(("factor", "rotary_dim"), [(0.334, 64), (0.34, 64), (0.345, 66), (1.0, 192)])
def test_rotary_dims_are_cut_to_an_even_number(factor: float, rotary_dim: int) -> None:
    assert config(partial_rotary_factor=factor).global_attention.rotary_dim == rotary_dim


def test_the_epsilon_has_two_spellings_and_a_default() -> None:
    assert config(layernorm_epsilon=..., rms_norm_eps=1e-3).layernorm_epsilon == 1e-3
    assert config(rms_norm_eps=1e-3).layernorm_epsilon == 1e-5
    assert config(layernorm_epsilon=...).layernorm_epsilon == 1e-6


def test_scales_that_are_null_change_nothing() -> None:
    read = config(attention_value_scale=None, routed_scaling_factor=None)
    assert read.attention_value_scale == 1.0 and read.routed_scaling_factor == 1.0
    assert config(routed_scaling_factor=2.5).routed_scaling_factor == 2.5


def test_a_model_without_experts_needs_no_list_of_them() -> None:
    read = config(n_routed_experts=..., num_experts_per_tok=..., moe_layer_freq=..., moe_intermediate_size=...)
    assert read.moe_layers == () and not read.is_moe(1)


@pytest.mark.parametrize(
    ("value", "ids"), [(5, (5,)), ([5, 6], (5, 6)), (None, ()), ([], ()), (True, ()), (["x", 3], (3,))]
)
def test_stop_tokens_are_one_or_many(value: Any, ids: tuple[int, ...]) -> None:
    assert token_ids(value) == ids


def test_a_file_that_is_missing_or_no_json_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"config\.json` is missing") as error:
        read_json(path)
    assert error.value.hint and "-m DIR" in error.value.hint
    for text in (b"", b"{", b"[1]", b"\xff", b'{"a": 1, "a": 2}'):
        path.write_bytes(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_json(path)
    path.write_text(json.dumps(V2_5 | {"hidden_size": "wide"}))
    with pytest.raises(CheckpointError, match=r"config\.json: `hidden_size` must be a whole number, found wide"):
        ModelConfig.from_file(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path)
