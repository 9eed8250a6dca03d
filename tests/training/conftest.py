"""A small untrained miniature and its prompts, for the tests of training."""

import pytest
import torch

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from training.architecture import audio_tokenizer_config, model_config
from training.export import Parts
from training.prompts import Prompter
from training.words import WordVocabulary


@pytest.fixture(scope="session")
def prompter() -> Prompter:
    return Prompter(WordVocabulary.from_file())


@pytest.fixture(scope="session")
def text_model(prompter: Prompter) -> TextModel:
    torch.manual_seed(3)
    model = TextModel(prompter.config, ResidentExperts(prompter.config))
    with torch.no_grad():
        for layer in model.layers:
            if layer.self_attn.attention_sink_bias is not None:
                layer.self_attn.attention_sink_bias.normal_()
            layer.self_attn.qkv_proj.weight.mul_(4)  # attention that is not nearly uniform
    return model


@pytest.fixture
def small_parts() -> Parts:
    """Networks of the miniature's kinds of layers that take no time to train, the same each time."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32, "n_routed_experts": 4}
    layers = {"num_hidden_layers": 3, "hybrid_layer_pattern": [0, 1, 0], "moe_layer_freq": [0, 1, 1]}
    values = {**model_config(WordVocabulary.from_file()), **sizes, **layers}
    for part in ("vision_config", "audio_config"):
        values[part] = {**values[part], "out_hidden_size": 64}
    codec = AudioTokenizerConfig.from_dict(audio_tokenizer_config())
    return Parts.fresh(ModelConfig.from_dict(values), codec, 1)
