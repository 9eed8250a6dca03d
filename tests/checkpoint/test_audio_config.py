"""`audio_config` and the audio tokenizer's own configuration."""

from typing import Any

import pytest

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig, per_channel
from mimo_cli.checkpoint.config import read_json
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN
from tests.support.family_configs import AUDIO, AUDIO_TOKENIZER


def encoder(**changes: Any) -> AudioConfig:
    values = AUDIO | changes
    return AudioConfig.from_dict({key: value for key, value in values.items() if value is not ...})


def tokenizer(**changes: Any) -> AudioTokenizerConfig:
    values = AUDIO_TOKENIZER | changes
    return AudioTokenizerConfig.from_dict({key: value for key, value in values.items() if value is not ...})


def test_the_released_encoder_is_read() -> None:
    read = encoder()
    assert read.speech_vocab_size == (1280,) * 20 and read.group_size == 4
    assert (read.input_local_attn_heads, read.input_local_head_dim, read.input_local_layers) == (16, 64, 6)
    assert read.rope_theta == 640000.0 and read.rms_norm_eps == 1e-6  # the Qwen2 default, not the text model's
    assert read.input_full_attention and read.add_post_norm and read.projection_layers == 2


@pytest.mark.parametrize(
    ("text", "channels", "sizes"),
    [
        ("1280", 3, (1280, 1280, 1280)),
        (1280, 2, (1280, 1280)),
        ("1025-1025-129", 3, (1025, 1025, 129)),
        ("1025-1025-129-129", 2, (1025, 1025)),
    ],
)
def test_vocabularies_are_one_number_or_one_per_channel(text: Any, channels: int, sizes: tuple[int, ...]) -> None:
    assert per_channel(text, channels, "it") == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [("a", "numbers joined by dashes"), ("1-2", "lists 2 channels, 3 expected"), ("", "dashes"), ("0", "positive")],
)
def test_a_vocabulary_that_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^it .*{message}"):
        per_channel(text, 3, "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partial_rotary_factor": 0.5}, "`partial_rotary_factor` = 0.5 is not implemented"),
        ({"projection_layers": 3}, "`projection_layers` = 3 is not implemented"),
        ({"audio_channels": ...}, "has no `audio_channels`"),
        ({"audio_channels": 0}, "`audio_channels` must be at least 1"),
        ({"input_local_head_dim": 63}, "`input_local_head_dim` must be even"),
        ({"input_full_attention": "yes"}, "`input_full_attention` must be bool"),
    ],
)
def test_an_encoder_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: audio_config.*{message}"):
        encoder(**changes)


def test_the_released_tokenizer_is_read() -> None:
    read = tokenizer()
    assert read.codebook_size == (1024, 1024, 256, *[128] * 17) and read.num_quantizers == 20
    assert read.encoder_skip_layer_id == 3 and read.encoder_causal and read.encoder_attn_window_size == (128, 0)
    assert [layer for layer in range(6) if read.is_windowed(layer)] == [0, 2, 4]
    assert read.fmin == 0.0 and read.fmax is None and read.rope_theta == 10000.0


def test_without_the_hybrid_switch_every_layer_is_windowed() -> None:
    read = tokenizer(hybrid_attention=False)
    assert all(read.is_windowed(layer) for layer in range(4))
    assert tokenizer(encoder_attn_window_size=None).encoder_attn_window_size == (-1, -1)
    three = tokenizer(swa_per_block=3)
    assert [three.is_windowed(layer) for layer in range(6)] == [True, True, False] * 2


def test_code_books_are_extended_with_the_last_and_cut() -> None:
    assert tokenizer(codebook_size=[8], num_quantizers=3).codebook_size == (8, 8, 8)
    assert tokenizer(codebook_size=[8, 4, 2], num_quantizers=2).codebook_size == (8, 4)
    assert tokenizer(encoder_skip_layer_id=None).encoder_skip_layer_id is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ln_type": "RMSNorm"}, "`ln_type` = RMSNorm is not implemented"),
        ({"activation_function": "relu"}, "`activation_function` = relu"),
        ({"rope_type": "yarn"}, "`rope_type` = yarn"),
        ({"position_embedding_type": "learned"}, "`position_embedding_type` = learned"),
        ({"kernel_size": 5}, "`kernel_size` = 5"),
        ({"stride_size": 1}, "`stride_size` = 1"),
        ({"avg_pooler": 4}, "`avg_pooler` = 4"),
        ({"codebook_size": []}, "`codebook_size` must hold positive numbers"),
        ({"codebook_size": [8, 0]}, "`codebook_size` must hold positive numbers"),
        ({"encoder_attn_window_size": [128]}, "`encoder_attn_window_size` must hold two numbers"),
        ({"encoder_attention_heads": 7}, "`d_model` 1024 cannot be split into 7 heads"),
        ({"num_quantizers": 10**9}, "`num_quantizers` must be at most"),
        ({"d_model": ...}, "has no `d_model`"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"audio_tokenizer/config.json.*{message}"):
        tokenizer(**changes)


def test_the_reference_configurations_are_read() -> None:
    folder = GOLDEN / "audio" / "checkpoint"
    read = AudioConfig.from_dict(read_json(folder / "config.json")["audio_config"])
    codec = AudioTokenizerConfig.from_dict(read_json(folder / "audio_tokenizer" / "config.json"))
    assert read.audio_channels == codec.num_quantizers == 20
