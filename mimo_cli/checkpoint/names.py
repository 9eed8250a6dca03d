"""The official tensor names and their logical shapes, made from the configurations alone.

One entry per weight of the network, whatever format it is stored in: scales and packing are added by those who know the
storage (`contents.py` for what is there, `writer.py` for what is to be written). Letters: i layer, e expert,
k MTP module. Source: the indices of the release's shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.vision_config import VisionConfig

Role = Literal["plain", "linear", "qkv", "expert", "router", "float32"]
"""plain: never quantised. linear: quantised to blocks. qkv: the fused projection, or its three parts (`part`).
expert: a matrix of a routed expert. router: the router's weight. float32: kept in float32 (bias, code book)."""

PACKED_SUFFIX = ".packed"
"""What is added to a weight's name where a packed store holds it in the layout of the kernels."""

FP8_SCALE, MXFP4_SCALE = "_scale_inv", "_scale"
"""What is added to a weight's name to name its scales; which of the two exists tells how the weight is stored."""

VISION_PREFIX = "visual."
AUDIO_PREFIXES = ("speech_embeddings.", "audio_encoder.")
MTP_PREFIX = "model.mtp.layers."
AUDIO_TOKENIZER_PREFIX = "encoder."


@dataclass(frozen=True, slots=True)
class NamedWeight:
    """One weight of the network: its official name and its shape as numbers (not as packed bytes).

    `sliding` tells, for the qkv role, which kind of attention it belongs to.
    """

    name: str
    shape: tuple[int, ...]
    role: Role = "plain"
    sliding: bool = False


def expert_weight_name(layer: int, expert_id: int, projection: str) -> str:
    """Return the name of `gate_proj`, `up_proj` or `down_proj` of one routed expert."""
    return f"model.layers.{layer}.mlp.experts.{expert_id}.{projection}.weight"


def text_weights(config: ModelConfig) -> Iterator[NamedWeight]:
    """Yield the text model without its routed experts and MTP modules."""
    yield NamedWeight("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        yield NamedWeight(f"{layer}.input_layernorm.weight", (config.hidden_size,))
        yield NamedWeight(f"{layer}.post_attention_layernorm.weight", (config.hidden_size,))
        yield from _attention(f"{layer}.self_attn", config, config.is_sliding(i))
        if config.is_moe(i):
            yield NamedWeight(f"{layer}.mlp.gate.weight", (config.n_routed_experts, config.hidden_size), "router")
            yield NamedWeight(f"{layer}.mlp.gate.e_score_correction_bias", (config.n_routed_experts,), "float32")
        else:
            yield from _mlp(f"{layer}.mlp", config.hidden_size, config.intermediate_size, "linear")
    yield NamedWeight("model.norm.weight", (config.hidden_size,))
    if not config.tie_word_embeddings:
        yield NamedWeight("lm_head.weight", (config.vocab_size, config.hidden_size))


def expert_weights(config: ModelConfig) -> Iterator[NamedWeight]:
    """Yield the matrices of all routed experts, layer by layer."""
    for i in config.moe_layers:
        for e in range(config.n_routed_experts):
            prefix = f"model.layers.{i}.mlp.experts.{e}"
            yield from _mlp(prefix, config.hidden_size, config.moe_intermediate_size, "expert")


def mtp_weights(config: ModelConfig, module: int) -> Iterator[NamedWeight]:
    """Yield one MTP module: a sliding layer with a dense MLP and norms of its own; it shares embedding and head."""
    prefix, hidden = f"{MTP_PREFIX}{module}", config.hidden_size
    for norm in ("enorm", "hnorm", "input_layernorm", "pre_mlp_layernorm", "final_layernorm"):
        yield NamedWeight(f"{prefix}.{norm}.weight", (hidden,))
    yield NamedWeight(f"{prefix}.eh_proj.weight", (hidden, 2 * hidden))
    yield from _attention(f"{prefix}.self_attn", config, sliding=True)
    yield from _mlp(f"{prefix}.mlp", hidden, config.intermediate_size, "linear")


def vision_weights(config: VisionConfig) -> Iterator[NamedWeight]:
    """Yield the vision tower."""
    hidden, width = config.hidden_size, config.intermediate_size
    heads_rows, unit = config.num_heads * config.head_dim, config.hidden_size * config.unit_tokens
    patch = (config.in_chans, config.temporal_patch_size, config.patch_size, config.patch_size)
    yield NamedWeight("visual.patch_embed.proj.weight", (hidden, *patch))
    for b in range(config.depth):
        block = f"visual.blocks.{b}"
        yield from _biased(f"{block}.attn.qkv", heads_rows + 2 * config.num_key_value_heads * config.head_dim, hidden)
        yield from _biased(f"{block}.attn.proj", hidden, heads_rows)
        if config.use_sink and config.is_windowed(b):
            yield NamedWeight(f"{block}.attn.sinks", (config.num_heads,))
        yield from _biased(f"{block}.mlp.gate_proj", width, hidden)
        yield from _biased(f"{block}.mlp.up_proj", width, hidden)
        yield from _biased(f"{block}.mlp.down_proj", hidden, width)
        yield NamedWeight(f"{block}.norm1.weight", (hidden,))
        yield NamedWeight(f"{block}.norm2.weight", (hidden,))
    yield NamedWeight("visual.merger.ln_q.weight", (hidden,))
    yield NamedWeight("visual.merger.mlp.0.weight", (unit, unit))
    yield NamedWeight("visual.merger.mlp.2.weight", (config.out_hidden_size, unit))


def audio_weights(config: AudioConfig) -> Iterator[NamedWeight]:
    """Yield the speech embeddings, the local transformer and the projection (they lie in the main shards)."""
    dim, width = config.input_local_dim, config.input_local_intermediate_size
    rows, group = config.input_local_attn_heads * config.input_local_head_dim, dim * config.group_size
    for channel, vocabulary in enumerate(config.speech_vocab_size):
        yield NamedWeight(f"speech_embeddings.{channel}.weight", (vocabulary, dim))
    transformer = "audio_encoder.input_local_transformer"
    for i in range(config.input_local_layers):
        layer = f"{transformer}.layers.{i}"
        yield NamedWeight(f"{layer}.input_layernorm.weight", (dim,))
        yield NamedWeight(f"{layer}.post_attention_layernorm.weight", (dim,))
        for projection in ("q_proj", "k_proj", "v_proj"):
            yield from _biased(f"{layer}.self_attn.{projection}", rows, dim)
        yield NamedWeight(f"{layer}.self_attn.o_proj.weight", (dim, rows))
        yield from _mlp(f"{layer}.mlp", dim, width, "plain")
    if config.add_post_norm:
        yield NamedWeight(f"{transformer}.norm.weight", (dim,))
    if config.projection_layers == 1:
        yield NamedWeight("audio_encoder.projection.weight", (config.out_hidden_size, group))
    else:
        yield NamedWeight("audio_encoder.projection.mlp.0.weight", (4 * group, group))
        yield NamedWeight("audio_encoder.projection.mlp.2.weight", (config.out_hidden_size, 4 * group))


def audio_tokenizer_weights(config: AudioTokenizerConfig) -> Iterator[NamedWeight]:
    """Yield the encoder and the code books of `audio_tokenizer/`; its decoder is never used."""
    dim, width = config.d_model, config.encoder_ffn_dim
    yield from _biased("encoder.conv1", dim, config.n_mels, config.kernel_size)
    yield from _biased("encoder.conv2", dim, dim, config.kernel_size)
    for i in range(config.encoder_layers):
        layer = f"encoder.layers.{i}"
        for projection in ("q_proj", "v_proj", "out_proj"):
            yield from _biased(f"{layer}.self_attn.{projection}", dim, dim)
        yield NamedWeight(f"{layer}.self_attn.k_proj.weight", (dim, dim))
        yield from _biased(f"{layer}.self_attn_layer_norm", dim)
        yield from _biased(f"{layer}.final_layer_norm", dim)
        yield from _biased(f"{layer}.fc1", width, dim)
        yield from _biased(f"{layer}.fc2", dim, width)
    yield from _biased("encoder.layer_norm", dim)
    yield NamedWeight("encoder.down_sample_layer.0.weight", (dim, dim, config.avg_pooler))
    yield from _biased("encoder.down_sample_norm", dim)
    for stage, size in enumerate(config.codebook_size):
        yield NamedWeight(f"encoder.quantizer.vq.layers.{stage}._codebook.embed", (size, dim), "float32")


def _attention(prefix: str, config: ModelConfig, sliding: bool) -> Iterator[NamedWeight]:
    attention = config.sliding_attention if sliding else config.global_attention
    q, k, v = attention.q_rows, attention.k_rows, attention.v_rows
    fused = config.attention_projection_layout == "fused_qkv"
    for projection, rows in [("qkv_proj", q + k + v)] if fused else [("q_proj", q), ("k_proj", k), ("v_proj", v)]:
        yield NamedWeight(f"{prefix}.{projection}.weight", (rows, config.hidden_size), "qkv", sliding)
    yield NamedWeight(f"{prefix}.o_proj.weight", (config.hidden_size, attention.num_heads * attention.v_head_dim))
    if attention.has_sink:
        yield NamedWeight(f"{prefix}.attention_sink_bias", (attention.num_heads,))


def _mlp(prefix: str, hidden: int, width: int, role: Role) -> Iterator[NamedWeight]:
    yield NamedWeight(f"{prefix}.gate_proj.weight", (width, hidden), role)
    yield NamedWeight(f"{prefix}.up_proj.weight", (width, hidden), role)
    yield NamedWeight(f"{prefix}.down_proj.weight", (hidden, width), role)


def _biased(prefix: str, rows: int, *columns: int) -> Iterator[NamedWeight]:
    yield NamedWeight(f"{prefix}.weight", (rows, *columns))
    yield NamedWeight(f"{prefix}.bias", (rows,))
