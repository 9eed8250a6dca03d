"""The text model against transformers' own MiMoV2Flash class, both reading one random checkpoint with split q, k, v."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.binding import text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from tests.support.text_checkpoint import build_text_model
from tests.support.tiny_config import randomize, tiny_config, tiny_values

pytestmark = pytest.mark.slow

TOKENS = 300
REAL_WIDTHS = {
    "model_type": "mimo_v2_flash",
    "architectures": ["MiMoV2FlashForCausalLM"],
    "attention_projection_layout": "split",
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 192,
    "v_head_dim": 128,
    "partial_rotary_factor": 0.334,
    "rope_theta": 5e6,
    "swa_rope_theta": 1e4,
    "sliding_window_size": 128,
    "attention_value_scale": 0.707,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
}
"""The released head shapes and window; only the counts are small."""

LIBRARY_KEYS = {
    "rms_norm_eps": 1e-5,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 0.334}
        for kind, theta in (("full_attention", 5e6), ("sliding_attention", 1e4))
    },
}
"""What the library's class reads in place of `layernorm_epsilon`, `hybrid_layer_pattern` and the two thetas."""


def _split_tensors(model: TextModel) -> dict[str, Tensor]:
    """Return a model's weights under the names of the V2-Flash release."""
    tensors = {}
    state = model.state_dict()
    for binding in text_bindings(model):
        value, a = state[binding.parameter], binding.attention
        if binding.kind == "qkv":
            rows = [a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim, a.num_kv_heads * a.v_head_dim]
            for projection, part in zip("qkv", value.split(rows), strict=True):
                tensors[f"{binding.tensor}.{projection}_proj.weight"] = part.clone()
        else:
            tensors[binding.tensor] = value
    for layer in model.config.moe_layers:
        for expert_id in range(model.config.n_routed_experts):
            for part, weight in zip(("gate", "up", "down"), model.experts.expert(layer, expert_id), strict=True):
                tensors[f"model.layers.{layer}.mlp.experts.{expert_id}.{part}_proj.weight"] = weight.detach().clone()
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint that both implementations read, weights large enough for every part to matter."""
    target = tmp_path_factory.mktemp("split_qkv")
    config = tiny_config(**REAL_WIDTHS)
    model = TextModel(config, ResidentExperts(config))
    randomize(model, seed=8, std=0.12)
    save_file(_split_tensors(model), target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(tiny_values(**REAL_WIDTHS) | LIBRARY_KEYS))
    return target


@pytest.fixture(scope="module")
def ids() -> Tensor:
    """One random sequence longer than two windows, [1, T]."""
    return torch.randint(0, 40, (1, TOKENS), generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def reference(folder: Path, ids: Tensor) -> Tensor:
    """Logits [T, V] of the library's class with its plain attention, in float32."""
    transformers = pytest.importorskip("transformers", minversion="5.23")
    model, info = transformers.MiMoV2FlashForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        return model(ids).logits[0]


def test_logits_are_those_of_the_library(folder: Path, ids: Tensor, reference: Tensor) -> None:
    """The library widens `sliding_window_size` by one as well: 129 visible keys."""
    model, _ = build_text_model(folder)
    with torch.no_grad():
        logits = model.logits(model(model.embed(ids), torch.arange(TOKENS)))[0]
    assert reference.std() > 0.5  # not a comparison of noise
    assert (logits - reference).abs().max() <= 1e-4
    assert torch.equal(logits.argmax(-1), reference.argmax(-1))


def test_token_by_token_logits_are_those_of_the_library(folder: Path, ids: Tensor, reference: Tensor) -> None:
    model, _ = build_text_model(folder)
    cache = KVCache.for_decoder(model.config, torch.float32)
    rows = []
    with torch.no_grad():
        for t in range(TOKENS):
            rows.append(model.logits(model(model.embed(ids[:, t : t + 1]), torch.tensor([t]), cache))[0, 0])
            cache.advance(1)
    assert (torch.stack(rows) - reference).abs().max() <= 1e-4


def test_one_key_less_in_the_window_is_another_function(folder: Path, ids: Tensor, reference: Tensor) -> None:
    model, _ = build_text_model(folder, window=127)
    with torch.no_grad():
        error = (model.logits(model(model.embed(ids), torch.arange(TOKENS)))[0] - reference).abs().amax(-1)
    assert error[:128].max() <= 1e-4
    assert error[128:].max() > 1e-2
