"""`config.json` of the MiMo-V2 family as one frozen object.

V2-Flash, V2.5, V2.5-Base, V2.5-Pro and V2.6 differ only in values read here; no model is known by name.
Keys without effect on the network are ignored, values that are not implemented are refused by name.
Source: text specification, sections 2 to 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mimo_cli.checkpoint.audio_config import AudioConfig
from mimo_cli.checkpoint.fields import Fields
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.checkpoint.untrusted import parse_json_object
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.errors import CheckpointError

GLOBAL, SLIDING = 0, 1
"""Entries of `hybrid_layer_pattern`."""


@dataclass(frozen=True)
class AttentionConfig:
    """One kind of attention layer. `window` is the number of previous tokens seen beside the own one, None for all."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    rotary_dim: int
    rope_theta: float
    window: int | None
    has_sink: bool

    @property
    def q_rows(self) -> int:
        """Rows of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def k_rows(self) -> int:
        """Rows of all key heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def v_rows(self) -> int:
        """Rows of all value heads."""
        return self.num_kv_heads * self.v_head_dim

    @property
    def qkv_rows(self) -> int:
        """Rows of q, k and v together."""
        return self.q_rows + self.k_rows + self.v_rows


@dataclass(frozen=True)
class ModelConfig:
    """Facts of a checkpoint's network, with the vendor's names where `config.json` has one."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    hybrid_layer_pattern: tuple[int, ...]
    moe_layer_freq: tuple[int, ...]
    global_attention: AttentionConfig
    sliding_attention: AttentionConfig
    attention_projection_layout: Literal["fused_qkv", "split"]
    attention_value_scale: float
    layernorm_epsilon: float
    n_routed_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    num_nextn_predict_layers: int | None
    weight_block_size: tuple[int, int]
    processor: ProcessorConfig
    vision: VisionConfig | None = None
    audio: AudioConfig | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def is_sliding(self, layer: int) -> bool:
        """Tell whether a layer attends to a sliding window."""
        return self.hybrid_layer_pattern[layer] == SLIDING

    def is_moe(self, layer: int) -> bool:
        """Tell whether a layer routes to experts (otherwise it has a dense MLP)."""
        return self.moe_layer_freq[layer] != 0

    def attention(self, layer: int) -> AttentionConfig:
        """Return the attention shape of a layer."""
        return self.sliding_attention if self.is_sliding(layer) else self.global_attention

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers with experts."""
        return tuple(i for i in range(self.num_hidden_layers) if self.is_moe(i))

    @classmethod
    def from_file(cls, path: Path) -> "ModelConfig":
        """Read a config.json; raises CheckpointError naming file and key."""
        return cls.from_dict(read_json(path), where=str(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> "ModelConfig":
        """Build from the parsed JSON; raises CheckpointError for missing, contradictory or unknown settings."""
        fields = Fields(values, where)
        _refuse_unimplemented(fields)
        layers = fields.integer("num_hidden_layers", minimum=1, maximum=10_000)
        experts = fields.integer("n_routed_experts", 0, maximum=100_000)
        active = fields.integer("num_experts_per_tok", 0)
        groups, best_groups = fields.integer("n_group", 1, minimum=1), fields.integer("topk_group", 1, minimum=1)
        moe_layer_freq = _layer_list(fields, "moe_layer_freq", layers, default=(0,) * layers if not experts else None)
        if any(moe_layer_freq) and not 0 < active <= experts:
            raise CheckpointError(f"{where}: {active} of {experts} experts per token cannot be routed")
        if experts % groups or best_groups > groups or active > experts // groups * best_groups:
            raise CheckpointError(
                f"{where}: {active} of {experts} experts cannot be chosen from {best_groups} of {groups} groups"
            )
        return cls(
            model_type=fields.text("model_type"),
            vocab_size=fields.integer("vocab_size", minimum=1),
            hidden_size=fields.integer("hidden_size", minimum=1),
            intermediate_size=fields.integer("intermediate_size", minimum=1),
            moe_intermediate_size=fields.integer("moe_intermediate_size", 0, minimum=1 if any(moe_layer_freq) else 0),
            num_hidden_layers=layers,
            hybrid_layer_pattern=_hybrid_pattern(fields, layers),
            moe_layer_freq=moe_layer_freq,
            global_attention=_attention(fields, sliding=False),
            sliding_attention=_attention(fields, sliding=True),
            attention_projection_layout=fields.require("attention_projection_layout", ("fused_qkv", "split"), "split"),
            attention_value_scale=fields.number("attention_value_scale", 1.0),
            layernorm_epsilon=fields.number("layernorm_epsilon", fields.number("rms_norm_eps", 1e-6)),
            n_routed_experts=experts,
            num_experts_per_tok=active,
            n_group=groups,
            topk_group=best_groups,
            norm_topk_prob=fields.flag("norm_topk_prob", True),
            routed_scaling_factor=fields.number("routed_scaling_factor", 1.0),
            max_position_embeddings=fields.integer("max_position_embeddings", minimum=1),
            tie_word_embeddings=fields.flag("tie_word_embeddings", False),
            eos_token_ids=token_ids(values.get("eos_token_id")),
            pad_token_id=fields.optional_integer("pad_token_id"),
            num_nextn_predict_layers=fields.optional_integer("num_nextn_predict_layers"),
            weight_block_size=_block_size(fields),
            processor=ProcessorConfig.from_dict(values, where),
            vision=VisionConfig.from_dict(values["vision_config"]) if fields.has("vision_config") else None,
            audio=AudioConfig.from_dict(values["audio_config"]) if fields.has("audio_config") else None,
            raw=values,
        )


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON file of a checkpoint, one object; raises CheckpointError where it is missing or anything else."""
    try:
        return parse_json_object(path.read_bytes(), f"`{path}`")
    except FileNotFoundError:
        raise CheckpointError(
            f"`{path}` is missing", hint="name the folder that holds config.json with -m DIR"
        ) from None
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err


def token_ids(value: Any) -> tuple[int, ...]:
    """Read an id or a list of ids; null is none."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(int(item) for item in items if isinstance(item, int) and not isinstance(item, bool))


def _refuse_unimplemented(fields: Fields) -> None:
    fields.require("model_type", ("mimo_v2", "mimo_v2_flash"), None)
    fields.require("hidden_act", ("silu",), "silu")
    fields.require("attention_bias", (False,), False)
    fields.require("n_shared_experts", (0,), 0)
    fields.require("scoring_func", ("sigmoid",), "sigmoid")
    fields.require("topk_method", ("noaux_tc",), "noaux_tc")
    for key in ("rope_scaling", "rope_parameters"):
        section = fields.section(key)
        section.require("rope_type", ("default",), "default")
        section.require("type", ("default",), "default")
        if section.has("mrope_section"):
            raise CheckpointError(f"{section.where}: `mrope_section` is not implemented")
    quantization = fields.section("quantization_config")
    quantization.require("quant_method", ("fp8",), "fp8")
    quantization.require("fmt", ("e4m3",), "e4m3")
    quantization.require("store_dtype", ("fp8", "mxfp4"), "fp8")
    quantization.require("mxfp4_block_size", (32,), 32)


def _layer_list(fields: Fields, key: str, layers: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    entries = fields.integers(key, ... if default is None else default)
    if len(entries) != layers or any(entry not in (0, 1) for entry in entries):
        raise CheckpointError(
            f"{fields.where}: `{key}` must hold {layers} entries of 0 or 1, found {len(entries)}: {entries}"
        )
    return entries


def _hybrid_pattern(fields: Fields, layers: int) -> tuple[int, ...]:
    if not fields.has("hybrid_layer_pattern") and fields.has("hybrid_block_size"):
        block = fields.integer("hybrid_block_size", minimum=1)
        return tuple(GLOBAL if (i + 1) % block == 0 else SLIDING for i in range(layers))
    return _layer_list(fields, "hybrid_layer_pattern", layers)


def _attention(fields: Fields, sliding: bool) -> AttentionConfig:
    def integer(key: str) -> int:
        base = fields.integer(key, minimum=1)
        return fields.integer(f"swa_{key}", base, minimum=1) if sliding else base

    rope = fields.section("rope_parameters")
    theta = fields.number("rope_theta", rope.number("rope_theta", 10000.0))
    factor = fields.number("partial_rotary_factor", rope.number("partial_rotary_factor", 1.0))
    head_dim, heads, kv_heads = integer("head_dim"), integer("num_attention_heads"), integer("num_key_value_heads")
    if heads % kv_heads:
        raise CheckpointError(f"{fields.where}: {heads} attention heads cannot share {kv_heads} key/value heads")
    window = fields.integer("sliding_window_size", fields.integer("sliding_window", 128, minimum=1), minimum=1)
    sink_key = "add_swa_attention_sink_bias" if sliding else "add_full_attention_sink_bias"
    return AttentionConfig(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=integer("v_head_dim"),
        rotary_dim=int(head_dim * factor) // 2 * 2,
        rope_theta=fields.number("swa_rope_theta", theta) if sliding else theta,
        window=window if sliding else None,
        has_sink=fields.flag(sink_key, False),
    )


def _block_size(fields: Fields) -> tuple[int, int]:
    sizes = fields.section("quantization_config").integers("weight_block_size", (128, 128))
    if len(sizes) != 2 or not all(1 <= size <= 1 << 20 for size in sizes):
        raise CheckpointError(f"{fields.where}: `weight_block_size` must hold two positive numbers, found {sizes}")
    return sizes[0], sizes[1]
