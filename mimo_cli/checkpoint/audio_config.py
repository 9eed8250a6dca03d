"""`audio_config` of the release and `audio_tokenizer/config.json`. Source: audio specification, section 2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimo_cli.checkpoint.fields import Fields
from mimo_cli.errors import CheckpointError


def per_channel(text: str, channels: int, where: str) -> tuple[int, ...]:
    """Read the vendor's `"1280"` or `"1025-1025-129"` spelling: one number for all channels, or one for each."""
    try:
        numbers = tuple(int(part) for part in str(text).split("-"))
    except ValueError:
        raise CheckpointError(f"{where} must be a number or numbers joined by dashes, found {text!r}") from None
    if min(numbers) < 1:
        raise CheckpointError(f"{where} must hold positive numbers, found {text!r}")
    if len(numbers) == 1:
        return numbers * channels
    if len(numbers) < channels:
        raise CheckpointError(f"{where} lists {len(numbers)} channels, {channels} expected")
    return numbers[:channels]


@dataclass(frozen=True)
class AudioConfig:
    """Facts of the speech embeddings, the local transformer and the projection, with the vendor's names."""

    audio_channels: int
    audio_segment_size: int
    group_size: int
    input_full_attention: bool
    input_local_attn_heads: int
    input_local_dim: int
    input_local_head_dim: int
    input_local_intermediate_size: int
    input_local_layers: int
    out_hidden_size: int
    add_post_norm: bool
    projection_layers: int
    rope_theta: float
    speech_vocab_size: tuple[int, ...]
    rms_norm_eps: float = 1e-6

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json: audio_config") -> "AudioConfig":
        """Read `audio_config`; raises CheckpointError naming what is missing or not implemented."""
        fields = Fields(values, where)
        fields.require("partial_rotary_factor", (1, 1.0), 1.0)
        fields.require("projection_layers", (1, 2), 2)
        channels = fields.integer("audio_channels", minimum=1, maximum=1000)
        heads = fields.integer("input_local_attn_heads", minimum=1)
        dim = fields.integer("input_local_dim", minimum=1)
        head_dim = fields.integer("input_local_head_dim", dim // heads, minimum=2)
        if head_dim % 2:
            raise CheckpointError(f"{where}: `input_local_head_dim` must be even, found {head_dim}")
        return cls(
            audio_channels=channels,
            audio_segment_size=fields.integer("audio_segment_size", 6000, minimum=1),
            group_size=fields.integer("group_size", 4, minimum=1),
            input_full_attention=fields.flag("input_full_attention", True),
            input_local_attn_heads=heads,
            input_local_dim=dim,
            input_local_head_dim=head_dim,
            input_local_intermediate_size=fields.integer("input_local_intermediate_size", minimum=1),
            input_local_layers=fields.integer("input_local_layers", minimum=1, maximum=10_000),
            out_hidden_size=fields.integer("out_hidden_size", minimum=1),
            add_post_norm=fields.flag("add_post_norm", True),
            projection_layers=fields.integer("projection_layers", 2),
            rope_theta=fields.number("rope_theta", 640000.0),
            speech_vocab_size=per_channel(
                fields.values.get("speech_vocab_size", "1280"), channels, f"{where}: `speech_vocab_size`"
            ),
        )


@dataclass(frozen=True)
class AudioTokenizerConfig:
    """Facts of the audio tokenizer's encoder and code books, with the vendor's names.

    `encoder_attn_window_size` is (keys before, keys after) the own one; -1 means no limit on that side.
    """

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    encoder_skip_layer_id: int | None
    encoder_causal: bool
    encoder_attn_window_size: tuple[int, int]
    hybrid_attention: bool
    swa_per_block: int
    kernel_size: int
    stride_size: int
    avg_pooler: int
    rope_theta: float
    n_mels: int
    nfft: int
    hop_length: int
    window_size: int
    sampling_rate: int
    fmin: float
    fmax: float | None
    codebook_size: tuple[int, ...]

    @property
    def num_quantizers(self) -> int:
        """Stages of the residual quantizer."""
        return len(self.codebook_size)

    def is_windowed(self, layer: int) -> bool:
        """Tell whether a layer sees `encoder_attn_window_size` only."""
        return not self.hybrid_attention or layer % self.swa_per_block < self.swa_per_block - 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "audio_tokenizer/config.json") -> "AudioTokenizerConfig":
        """Read the codec's configuration; raises CheckpointError naming what is missing or not implemented."""
        fields = Fields(values, where)
        fields.require("ln_type", ("LayerNorm",), "LayerNorm")
        fields.require("activation_function", ("gelu",), "gelu")
        fields.require("position_embedding_type", ("rope",), "rope")
        fields.require("rope_type", ("default",), "default")
        fields.require("kernel_size", (3,), 3)
        fields.require("stride_size", (2,), 2)
        fields.require("avg_pooler", (2,), 2)
        stages = fields.integer("num_quantizers", minimum=1, maximum=1000)
        sizes = fields.integers("codebook_size")
        if not sizes or min(sizes) < 1:
            raise CheckpointError(f"{where}: `codebook_size` must hold positive numbers, found {sizes}")
        window = fields.integers("encoder_attn_window_size", (-1, -1))
        if len(window) != 2:
            raise CheckpointError(f"{where}: `encoder_attn_window_size` must hold two numbers, found {window}")
        width = fields.integer("d_model", minimum=1)
        heads = fields.integer("encoder_attention_heads", minimum=1)
        if width % (2 * heads):
            raise CheckpointError(f"{where}: `d_model` {width} cannot be split into {heads} heads of even width")
        return cls(
            d_model=width,
            encoder_layers=fields.integer("encoder_layers", minimum=1, maximum=10_000),
            encoder_attention_heads=heads,
            encoder_ffn_dim=fields.integer("encoder_ffn_dim", minimum=1),
            encoder_skip_layer_id=fields.optional_integer("encoder_skip_layer_id"),
            encoder_causal=fields.flag("encoder_causal", True),
            encoder_attn_window_size=(window[0], window[1]),
            hybrid_attention=fields.flag("hybrid_attention", False),
            swa_per_block=fields.integer("swa_per_block", 1, minimum=1),
            kernel_size=3,
            stride_size=2,
            avg_pooler=2,
            rope_theta=fields.number("rope_theta", 10000.0),
            n_mels=fields.integer("n_mels", 128, minimum=1),
            nfft=fields.integer("nfft", 960, minimum=1),
            hop_length=fields.integer("hop_length", 240, minimum=1),
            window_size=fields.integer("window_size", 960, minimum=1),
            sampling_rate=fields.integer("sampling_rate", 24000, minimum=1),
            fmin=fields.number("fmin", 0.0),
            fmax=fields.number("fmax") if fields.has("fmax") else None,
            codebook_size=(sizes + sizes[-1:] * stages)[:stages],
        )
