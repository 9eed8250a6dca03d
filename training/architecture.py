"""The trained miniature's configuration: every key of the release's config.json, sizes that fit 25 MB.

Taken from the random miniature's configuration (mimo_cli/miniature/configuration.py) with other sizes. Pictures and
frames are brought to one area before they are cut into patches, so a drawing looks the same whatever its file's size.
"""

from typing import Any

from mimo_cli.miniature.configuration import audio_tokenizer_config as small_audio_tokenizer_config
from mimo_cli.miniature.configuration import model_config as small_model_config
from mimo_cli.miniature.vocabulary import Vocabulary

HIDDEN_SIZE = 256
LAYER_PATTERN = (0, 1, 0, 1, 1, 0)  # 0 global, 1 window
VOCAB_ROWS = 2048
CODEBOOK_SIZES = (256, 256, 128, *[16] * 17)
IMAGE_PIXELS = (20 * 32 * 32, 25 * 32 * 32)  # at least, at most: 20 to 25 tokens
FRAME_PIXELS = (9 * 32 * 32, 12 * 32 * 32)


def model_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of config.json."""
    values = small_model_config(vocabulary)
    layers = len(LAYER_PATTERN)
    ignored = [f"model.layers.{i}.self_attn.o_proj" for i in range(layers)] + ["model.decoder.self_attn.o_proj"]
    values.update(
        hidden_size=HIDDEN_SIZE,
        hybrid_layer_pattern=list(LAYER_PATTERN),
        num_hidden_layers=layers,
        moe_layer_freq=[0] + [1] * (layers - 1),
        intermediate_size=384,
        moe_intermediate_size=128,
        n_routed_experts=16,
        num_experts_per_tok=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=96,
        v_head_dim=64,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=4,
        swa_head_dim=96,
        swa_v_head_dim=64,
        max_position_embeddings=1048576,
        quantization_config={**values["quantization_config"], "ignored_layers": ignored},
    )
    values["audio_config"] = {
        **values["audio_config"],
        "input_local_attn_heads": 4,
        "input_local_dim": 64,
        "input_local_head_dim": 16,
        "input_local_intermediate_size": 128,
        "input_local_layers": 3,
        "out_hidden_size": HIDDEN_SIZE,
        "speech_vocab_size": "-".join(str(size + 8) for size in CODEBOOK_SIZES),
        "speech_zeroemb_idx": "-".join(map(str, CODEBOOK_SIZES)),
    }
    values["vision_config"] = {
        **values["vision_config"],
        "depth": 6,
        "fullatt_block_indexes": [0, 5],
        "vit_window_attn_types": [-1, 0, 1, 0, 1, -1],
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "num_key_value_heads": 2,
        "num_query_groups": 2,
        "qk_channels": 32,
        "out_hidden_size": HIDDEN_SIZE,
        "visual_token_window_size": 16,
    }
    values["processor_config"] = {
        **values["processor_config"],
        "audio_zeroemb_idx": list(CODEBOOK_SIZES),
        "fps": 2.0,
        "image_max_pixels": IMAGE_PIXELS[1],
        "image_min_pixels": IMAGE_PIXELS[0],
        "max_frames": 16,
        "min_frames": 8,
        "video_max_pixels": FRAME_PIXELS[1],
        "video_min_pixels": FRAME_PIXELS[0],
    }
    return values


def audio_tokenizer_config() -> dict[str, Any]:
    """Return the content of audio_tokenizer/config.json."""
    return {
        **small_audio_tokenizer_config(),
        "d_model": 96,
        "encoder_layers": 4,
        "encoder_skip_layer_id": 2,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 384,
        "hybrid_block_size": 4,
        "codebook_size": list(CODEBOOK_SIZES),
    }
