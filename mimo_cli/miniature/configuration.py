"""The JSON files of the miniature: every key of the release's, its values where they are no sizes, small sizes.

What the sizes were chosen to keep: matrices with whole 128-wide blocks, a fused qkv whose global chunks end in a ragged
block (176 rows) while its window chunks do not (256 rows), key/value heads that differ between the two kinds of layers,
two experts of eight, full, row and column blocks in the vision tower, 20 quantizer stages, and `vocab_size` rows that
no token uses. Token ids follow the small vocabulary.
Source: text specification, section 2; vision, section 2; audio, section 2; chat, section 8.
"""

from typing import Any

from mimo_cli.miniature.vocabulary import STOP_TOKENS, Vocabulary

HIDDEN_SIZE = 128
LAYER_PATTERN = (0, 1, 1, 0, 1, 0)  # 0 global, 1 sliding window; the first and the last are global as in the release
MTP_MODULES = 3
MERGES, VOCAB_SIZE = 344, 640
CODEBOOK_SIZES = (64, 64, 16, 8)  # the release's 1024, 1024, 256, 128, 128, ...: the last one repeats
QUANTIZERS = 20


def model_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of `config.json`."""
    layers = len(LAYER_PATTERN)
    token = vocabulary.id
    return {
        "architectures": ["MiMoV2ForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_mimo_v2.MiMoV2Config",
            "AutoModel": "modeling_mimo_v2.MiMoV2Model",
            "AutoModelForCausalLM": "modeling_mimo_v2.MiMoV2ForCausalLM",
        },
        "attention_bias": False,
        "attention_chunk_size": 128,
        "attention_dropout": 0.0,
        "attention_value_scale": 0.707,
        "attention_projection_layout": "fused_qkv",
        "add_full_attention_sink_bias": False,
        "add_swa_attention_sink_bias": True,
        "audio_config": _audio_config(),
        "swa_num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_head_dim": 48,
        "swa_v_head_dim": 32,
        "dtype": "bfloat16",
        "eos_token_id": token("<|im_end|>"),
        "head_dim": 48,
        "hidden_act": "silu",
        "hidden_size": HIDDEN_SIZE,
        "hybrid_block_size": None,
        "hybrid_layer_pattern": list(LAYER_PATTERN),
        "image_token_id": token("<|image_pad|>"),
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "layernorm_epsilon": 1e-05,
        "max_position_embeddings": 1048576,
        "model_type": "mimo_v2",
        "moe_intermediate_size": 128,
        "moe_layer_freq": [0] + [1] * (layers - 1),
        "n_group": 1,
        "n_routed_experts": 8,
        "n_shared_experts": None,
        "norm_topk_prob": True,
        "num_attention_heads": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "pad_token_id": token("<|endoftext|>"),
        "partial_rotary_factor": 0.334,
        "processor_config": _processor_config(vocabulary),
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "store_dtype": "fp8",
            "ignored_layers": [
                *(f"model.layers.{i}.self_attn.o_proj" for i in range(layers)),
                "model.decoder.self_attn.o_proj",
            ],
            "weight_block_size": [128, 128],
        },
        "rope_scaling": {"rope_type": "default", "type": "default"},
        "rope_theta": 10000000,
        "routed_scaling_factor": None,
        "scoring_func": "sigmoid",
        "sliding_window": 128,
        "sliding_window_size": 128,
        "swa_rope_theta": 10000,
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "transformers_version": "4.57.1",
        "use_cache": True,
        "v_head_dim": 32,
        "video_token_id": token("<|video_pad|>"),
        "vision_config": _vision_config(),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_model_type": "mimovl",
        "vision_start_token_id": token("<|vision_start|>"),
        "vocab_size": vocabulary.rows,
    }


def _audio_config() -> dict[str, Any]:
    return {
        "add_post_norm": True,
        "audio_channels": QUANTIZERS,
        "audio_segment_size": 6000,
        "group_size": 4,
        "input_full_attention": True,
        "input_local_attn_heads": 2,
        "input_local_dim": 32,
        "input_local_head_dim": 16,
        "input_local_hidden_dropout": 0.0,
        "input_local_intermediate_size": 64,
        "input_local_layers": 2,
        "out_hidden_size": HIDDEN_SIZE,
        "partial_rotary_factor": 1.0,
        "projection_layers": 2,
        "rope_theta": 640000,
        "speech_vocab_size": "80",  # strings, as in the release
        "speech_zeroemb_idx": str(CODEBOOK_SIZES[0]),
    }


def _processor_config(vocabulary: Vocabulary) -> dict[str, Any]:
    token = vocabulary.id
    return {
        "audio_avg_pooler": 2,
        "audio_channels": QUANTIZERS,
        "audio_end_token_id": token("<|mimo_audio_end|>"),
        "audio_fmax": None,
        "audio_fmin": 0,
        "audio_group_size": 4,
        "audio_hop_length": 240,
        "audio_input_id_per_second": 25.0,
        "audio_kernel_size": 3,
        "audio_n_mels": 128,
        "audio_nfft": 960,
        "audio_sampling_rate": 24000,
        "audio_segment_size": 6000,
        "audio_start_token_id": token("<|mimo_audio_start|>"),
        "audio_stride_size": 2,
        "audio_token_id": token("<|audio_pad|>"),
        "audio_window_size": 960,
        "audio_zeroemb_idx": [CODEBOOK_SIZES[0]] * QUANTIZERS,
        "fps": 1.0,
        "image_max_pixels": 8388608,
        "image_min_pixels": 8192,
        "image_token_id": token("<|image_pad|>"),
        "max_frames": 3600,
        "merge_size": 2,
        "min_frames": None,
        "num_frames": None,
        "pad_token_id": token("<|endoftext|>"),
        "patch_size": 16,
        "rope_type": "rope",
        "temporal_compression_ratio": 1,
        "temporal_patch_size": 2,
        "use_per_grid_t_timestamps": False,
        "use_video_timestamps": True,
        "video_audio_interleave_length": 0.0,
        "video_end_token_id": token("<|mimo_video_end|>"),
        "video_max_pixels": 8388608,
        "video_min_pixels": 8192,
        "video_process_num_threads": 16,
        "video_start_token_id": token("<|mimo_video_start|>"),
        "video_token_id": token("<|video_pad|>"),
        "video_tokens_per_second": 2,
        "video_total_max_pixels": 268435456,
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_start_token_id": token("<|vision_start|>"),
    }


def _vision_config() -> dict[str, Any]:
    return {
        "depth": 4,
        "fullatt_block_indexes": [0, 3],
        "hidden_act": "silu",
        "hidden_size": 48,
        "in_chans": 3,
        "intermediate_size": 96,
        "num_heads": 2,  # of 64 dims: `qk_channels` is absent, as in the release
        "num_key_value_heads": 1,
        "num_query_groups": 2,
        "out_hidden_size": HIDDEN_SIZE,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "spatial_patch_size": 16,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "use_sink": True,
        "visual_token_window_size": 64,
        "vit_window_attn_types": [-1, 0, 1, -1],
        "window_size": 128,
    }


def audio_tokenizer_config() -> dict[str, Any]:
    """Return the content of `audio_tokenizer/config.json`; the `decoder_*` part is never read, as in the release."""
    return {
        "max_audio_seconds": 300,
        "stride_size": 2,
        "avg_pooler": 2,
        "d_model": 48,
        "scale_embedding": False,
        "kernel_size": 3,
        "activation_function": "gelu",
        "encoder_layers": 4,
        "encoder_skip_layer_id": 3,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 96,
        "encoder_causal": True,
        "encoder_attn_window_size": [128, 0],
        "decoder_layers": 4,
        "decoder_attention_heads": 3,
        "decoder_ffn_dim": 96,
        "decoder_kernel_size": 3,
        "decoder_stride_size": 2,
        "decoder_causal": True,
        "decoder_attn_window_size": [128, 0],
        "nfft": 960,
        "n_mels": 128,
        "sampling_rate": 24000,
        "hop_length": 240,
        "window_size": 960,
        "vocoder_padding": "same",
        "fmin": 0,
        "fmax": None,
        "num_quantizers": QUANTIZERS,
        "codebook_size": list(CODEBOOK_SIZES) + [CODEBOOK_SIZES[-1]] * (QUANTIZERS - len(CODEBOOK_SIZES)),
        "threshold_ema_dead_code": 2,
        "position_embedding_type": "rope",
        "rope_theta": 10000,
        "rope_type": "default",
        "ln_type": "LayerNorm",
        "use_istft_only": True,
        "hybrid_attention": True,
        "hybrid_block_size": 8,
        "swa_per_block": 2,
    }


def generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of `generation_config.json`, with do_sample false and 2048, which readers must ignore."""
    return {
        "bos_token_id": vocabulary.id("<|endoftext|>"),
        "do_sample": False,
        "eos_token_id": [vocabulary.id(token) for token in STOP_TOKENS],
        "temperature": 1.0,
        "top_p": 0.95,
        "max_new_tokens": 2048,
        "transformers_version": "4.37.0",
    }


def preprocessor_config() -> dict[str, Any]:
    """Return the content of `preprocessor_config.json`; its pixel limits differ from config.json's, which win."""
    return {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
