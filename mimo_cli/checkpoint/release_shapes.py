"""The sizes of the released models, and slices of them: the same layers, only fewer.

For measuring and planning without a checkpoint. Whoever has a checkpoint reads its config.json; nothing here decides
about it. Source: text specification, section 2; vision and audio specifications, section 2.
"""

from typing import Any

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import GLOBAL, SLIDING, ModelConfig
from mimo_cli.errors import UsageError

_GLOBAL_OF_48 = (0, 5, 11, 17, 23, 29, 35, 41, 47)
_GLOBAL_OF_70 = (0, 7, 15, 23, 31, 39, 47, 55, 62, 69)

_FP8: dict[str, Any] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}

_TOWERS: dict[str, Any] = {
    "vision_config": {
        "depth": 28,
        "hidden_size": 1280,
        "intermediate_size": 4608,
        "num_heads": 32,
        "num_key_value_heads": 8,
        "in_chans": 3,
        "patch_size": 16,
        "out_hidden_size": 4096,
        "fullatt_block_indexes": [0, 9, 18, 27],
        "vit_window_attn_types": [-1, *([0] * 4 + [1] * 4 + [-1]) * 3],
        "use_sink": True,
    },
    "audio_config": {
        "audio_channels": 20,
        "input_local_attn_heads": 16,
        "input_local_dim": 1024,
        "input_local_head_dim": 64,
        "input_local_intermediate_size": 4096,
        "input_local_layers": 6,
        "out_hidden_size": 4096,
        "speech_vocab_size": "1280",
    },
}

_AUDIO_TOKENIZER: dict[str, Any] = {
    "d_model": 1024,
    "encoder_layers": 24,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "num_quantizers": 20,
    "codebook_size": [1024, 1024, 256, 128],
}

_V2_5: dict[str, Any] = {
    "model_type": "mimo_v2",
    "vocab_size": 152_576,
    "hidden_size": 4096,
    "intermediate_size": 16_384,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 48,
    "hybrid_layer_pattern": [GLOBAL if i in _GLOBAL_OF_48 else SLIDING for i in range(48)],
    "moe_layer_freq": [0] + [1] * 47,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "swa_num_key_value_heads": 8,
    "head_dim": 192,
    "v_head_dim": 128,
    "partial_rotary_factor": 0.334,
    "rope_theta": 10_000_000,
    "swa_rope_theta": 10_000,
    "sliding_window_size": 128,
    "add_swa_attention_sink_bias": True,
    "attention_value_scale": 0.707,
    "attention_projection_layout": "fused_qkv",
    "layernorm_epsilon": 1e-5,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "max_position_embeddings": 1_048_576,
    "eos_token_id": 151_645,
    "num_nextn_predict_layers": 3,
    "quantization_config": _FP8,
}

SHAPES: dict[str, dict[str, Any]] = {
    "v2.5": {**_V2_5, **_TOWERS},
    "v2.5-pro": {
        **_V2_5,
        "hidden_size": 6144,
        "num_hidden_layers": 70,
        "hybrid_layer_pattern": [GLOBAL if i in _GLOBAL_OF_70 else SLIDING for i in range(70)],
        "moe_layer_freq": [0] + [1] * 69,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "n_routed_experts": 384,
        "attention_value_scale": 0.612,
    },
    "v2.6-flash": {
        **_V2_5,
        **_TOWERS,
        "layernorm_epsilon": 1e-6,
        "moe_router_dtype": "bfloat16",
        "quantization_config": {**_FP8, "store_dtype": "mxfp4"},
    },
}
"""By name, the keys of config.json that shape weights. (V2.5's own lacks the number of its MTP modules, which is 3.)"""


def release_config(shape: str) -> ModelConfig:
    """Return the configuration of a release, its towers' included. Raises UsageError for a name that is none."""
    if shape not in SHAPES:
        raise UsageError(f"shape `{shape}` is unknown, {' or '.join(SHAPES)} expected")
    return ModelConfig.from_dict(SHAPES[shape], f"shape {shape}")


def release_audio_tokenizer(release: ModelConfig) -> AudioTokenizerConfig | None:
    """Return the codec that lies beside a release in `audio_tokenizer/`; None for one without ears."""
    return AudioTokenizerConfig.from_dict(_AUDIO_TOKENIZER) if release.audio else None


def slice_config(release: ModelConfig, layers: int) -> ModelConfig:
    """Return the first layers of a release; the last of three or more is global if no other with experts would be.

    Three layers are thus global dense, sliding with experts, global with experts: one of each kind there is.
    Raises UsageError for a number of layers that the release does not have.
    """
    if not 1 <= layers <= release.num_hidden_layers:
        raise UsageError(f"{layers} layers are not possible, 1 to {release.num_hidden_layers} expected")
    pattern = list(release.hybrid_layer_pattern[:layers])
    if layers >= 3 and GLOBAL not in pattern[1:]:
        pattern[-1] = GLOBAL
    moe = list(release.moe_layer_freq[:layers])
    return ModelConfig.from_dict(
        {**release.raw, "num_hidden_layers": layers, "hybrid_layer_pattern": pattern, "moe_layer_freq": moe},
        f"{layers} layers",
    )
