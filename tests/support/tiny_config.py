"""A configuration small enough for exhaustive tests, with every mechanism of the family switched on."""

from typing import Any

import torch
from torch import nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts

WINDOW = 5


def tiny_values(**overrides: Any) -> dict[str, Any]:
    """Return the keys of a config.json: four layers (global dense, two sliding, global), six experts, two active."""
    values = {
        "model_type": "mimo_v2",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 4,
        "hybrid_layer_pattern": [0, 1, 1, 0],
        "moe_layer_freq": [0, 1, 1, 1],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "swa_num_key_value_heads": 2,
        "head_dim": 12,
        "v_head_dim": 8,
        "partial_rotary_factor": 0.34,
        "rope_theta": 1000.0,
        "swa_rope_theta": 100.0,
        "sliding_window_size": WINDOW,
        "add_swa_attention_sink_bias": True,
        "attention_value_scale": 0.7,
        "attention_projection_layout": "fused_qkv",
        "layernorm_epsilon": 1e-5,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "max_position_embeddings": 4096,
        "eos_token_id": 1,
    }
    return values | overrides


def tiny_config(**overrides: Any) -> ModelConfig:
    """Build the configuration; overrides are keys of config.json."""
    return ModelConfig.from_dict(tiny_values(**overrides))


def randomize(module: nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Fill parameters and buffers so that every one of them matters: norms around one, all else around zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator) * std
        value.copy_(1 + noise if "norm" in name else noise)


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any) -> TextModel:
    """Build a random model with resident experts."""
    config = tiny_config(**overrides)
    model = TextModel(config, ResidentExperts(config, dtype), dtype)
    randomize(model, seed)
    return model
