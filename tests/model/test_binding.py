"""The list of parameters and the checkpoint tensors that fill them."""

import json
from collections import Counter

import torch

from mimo_cli.model.binding import mtp_bindings, text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from mimo_cli.model.mtp import MTPModule
from tests.support.text_checkpoint import GOLDEN, load_text_checkpoint
from tests.support.tiny_config import tiny_config


def _meta_model(dtype: torch.dtype = torch.bfloat16, **overrides: object) -> TextModel:
    config = tiny_config(**overrides)
    with torch.device("meta"):
        return TextModel(config, ResidentExperts(config, dtype), dtype)


def test_every_dense_tensor_of_the_release_layout_is_bound_exactly_once() -> None:
    golden = load_text_checkpoint("text")
    bound = Counter()
    bindings = [*text_bindings(golden.model)]
    for k, module in enumerate(golden.mtp):
        bindings += mtp_bindings(module, k)
    for binding in bindings:
        bound[f"{binding.tensor}.qkv_proj.weight" if binding.kind == "qkv" else binding.tensor] += 1
    index = json.loads((GOLDEN / "text" / "model.safetensors.index.json").read_text())
    dense = {name for name in index["weight_map"] if ".experts." not in name and not name.endswith("_scale_inv")}
    assert set(bound) == dense
    assert set(bound.values()) == {1}


def test_parameters_are_those_of_the_module_without_the_experts() -> None:
    model = _meta_model()
    names = [binding.parameter for binding in text_bindings(model)]
    assert names == [name for name in model.state_dict() if not name.startswith("experts.")]
    assert all(binding.shape == model.state_dict()[binding.parameter].shape for binding in text_bindings(model))


def test_router_and_sinks_are_float32_and_all_else_the_compute_dtype() -> None:
    exceptions = ("mlp.gate.weight", "e_score_correction_bias", "attention_sink_bias")
    for binding in text_bindings(_meta_model()):
        expected = torch.float32 if binding.parameter.endswith(exceptions) else torch.bfloat16
        assert binding.dtype == expected, binding.parameter


def test_qkv_knows_the_attention_of_its_layer() -> None:
    config = tiny_config()
    found = {b.tensor: b.attention for b in text_bindings(_meta_model()) if b.kind == "qkv"}
    assert found == {f"model.layers.{i}.self_attn": config.attention(i) for i in range(4)}
    with torch.device("meta"):
        module = MTPModule(config)
    assert {b.tensor: b.attention for b in mtp_bindings(module, 2) if b.kind == "qkv"} == {
        "model.mtp.layers.2.self_attn": config.sliding_attention
    }


def test_tied_embeddings_are_read_from_the_same_tensor() -> None:
    tensors = [b.tensor for b in text_bindings(_meta_model(tie_word_embeddings=True))]
    assert tensors.count("model.embed_tokens.weight") == 2
    assert "lm_head.weight" not in tensors
