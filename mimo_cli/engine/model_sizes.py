"""What a model takes, part by part, on disk and in memory: arithmetic over a configuration, no weight is read.

    configuration + formats -> parts (parameters, stored bytes, bytes in memory), bytes of an expert, bytes of a token

Formats are those of the release (FP8 or MXFP4 experts, the rest as it came) and those that `mimo quantize` makes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.encoder import WeightEncoder
from mimo_cli.checkpoint.names import (
    NamedWeight,
    audio_tokenizer_weights,
    audio_weights,
    expert_weights,
    mtp_weights,
    text_weights,
    vision_weights,
)
from mimo_cli.checkpoint.writer import default_formats
from mimo_cli.quant.buffers import PAGE_BYTES, round_up
from mimo_cli.quant.packed import GROUPS, PackedFormat, PackedShape
from mimo_cli.store.plan import DEFAULT_GROUP, DenseFormat

ExpertsFormat = Literal["as released", "int4", "mxfp4", "fp8"]

DENSE, EMBEDDING, EXPERTS, MTP, VISION, AUDIO = "dense", "embedding", "experts", "MTP", "vision", "audio"
"""The parts. Dense is what every token reads: attention, routers, norms, the dense layers and the head."""

_PLAIN_MATRICES = (".o_proj.weight", "lm_head.weight", ".eh_proj.weight")
"""Matrices that the releases keep in bfloat16."""


@dataclass(frozen=True)
class Part:
    """A part of a model. `memory_bytes` is what it takes once loaded (of experts: if all of them are)."""

    name: str
    parameters: int
    stored_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model in one pair of formats.

    record_bytes         of an expert in memory; expert_stored_bytes what is read from disk for it
    token_dense_bytes    weights and scales that every decoded token reads, without the experts
    dtype                of activations, KV cache and all that is not packed
    """

    config: ModelConfig
    experts_format: PackedFormat
    dense_format: DenseFormat
    is_released: bool
    parts: tuple[Part, ...]
    record_bytes: int
    expert_stored_bytes: int
    token_dense_bytes: int
    dtype: torch.dtype

    def part(self, name: str) -> Part:
        """Return a part; one that the model lacks has no bytes."""
        return next((part for part in self.parts if part.name == name), Part(name, 0, 0, 0))

    @property
    def parameters(self) -> int:
        """Numbers in all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk of all parts."""
        return sum(part.stored_bytes for part in self.parts)

    @property
    def num_experts(self) -> int:
        """Routed experts of all layers."""
        return self.config.n_routed_experts * len(self.config.moe_layers)

    @property
    def experts_per_token(self) -> int:
        """Experts that a token visits in all layers."""
        return self.config.num_experts_per_tok * len(self.config.moe_layers)

    @property
    def experts_label(self) -> str:
        """The experts' format as people write it: `int4 g32`."""
        return f"int4 g{DEFAULT_GROUP}" if self.experts_format == "int4" else self.experts_format


@dataclass(frozen=True)
class Extras:
    """What a model has beside its text network: MTP modules, eyes, and the codec that goes with its ears."""

    num_mtp: int = 0
    has_vision: bool = False
    codec: AudioTokenizerConfig | None = None


def model_sizes(
    config: ModelConfig,
    extras: Extras | None = None,
    experts: ExpertsFormat = "as released",
    dense: DenseFormat = "keep",
    dtype: torch.dtype = torch.bfloat16,
) -> ModelSizes:
    """Return the sizes of a model. `dtype` is the compute dtype, in which all that is not packed is held."""
    extras = extras or Extras()
    formats = default_formats(config.raw)
    encoder = WeightEncoder(config, formats)
    kind: PackedFormat = {"plain": "bf16", "fp8": "fp8", "mxfp4": "mxfp4"}[formats.experts]  # type: ignore[assignment]
    is_as_released = experts in ("as released", kind) and dense == "keep"
    if experts != "as released":
        kind = experts
    up, down = expert_shapes(config, kind)
    streams_bytes = up.nbytes + down.nbytes
    record_bytes = round_up(streams_bytes, PAGE_BYTES)
    stored_bytes = _planned_bytes(encoder, _one_expert(config)) if is_as_released else record_bytes
    sizer = _Sizer(encoder, dense, dtype)
    network = list(text_weights(config))
    embedding = [weight for weight in network if weight.name.endswith("embed_tokens.weight")]
    parts = [
        sizer.part(DENSE, (weight for weight in network if weight not in embedding)),
        sizer.part(EMBEDDING, embedding),
        _experts_part(config, stored_bytes, record_bytes),
        sizer.part(MTP, (weight for k in range(extras.num_mtp) for weight in mtp_weights(config, k))),
        sizer.part(VISION, vision_weights(config.vision) if extras.has_vision and config.vision else ()),
        sizer.part(AUDIO, _hearing(config, extras.codec)),
    ]
    return ModelSizes(
        config=config,
        experts_format=kind,
        dense_format=dense,
        is_released=is_as_released,
        parts=tuple(part for part in parts if part.parameters),
        record_bytes=record_bytes,
        expert_stored_bytes=stored_bytes,
        token_dense_bytes=parts[0].memory_bytes,
        dtype=dtype,
    )


def expert_shapes(config: ModelConfig, kind: PackedFormat) -> tuple[PackedShape, PackedShape]:
    """Return how an expert is packed: gate and up in one stream, and down."""
    width, hidden, group = config.moe_intermediate_size, config.hidden_size, usual_group(kind)
    return PackedShape(kind, group, max(width, 1), hidden, streams=2), PackedShape(kind, group, hidden, max(width, 1))


def dense_shape(
    weight: NamedWeight, dense: DenseFormat, matrices: Literal["fp8", "plain"] = "fp8"
) -> PackedShape | None:
    """Return how a dense matrix is packed in memory, None for what is none; `matrices` is how the release has most."""
    is_plain = weight.name.endswith(_PLAIN_MATRICES)
    if weight.role not in ("linear", "qkv") and not is_plain:
        return None
    kept: PackedFormat = "bf16" if is_plain or matrices == "plain" else "fp8"
    kind: PackedFormat = kept if dense == "keep" else dense
    rows, cols = weight.shape
    return PackedShape(kind, usual_group(kind), rows, cols)


def usual_group(kind: PackedFormat) -> int:
    """Return how many columns share a scale where nothing else is asked for."""
    return DEFAULT_GROUP if kind == "int4" else GROUPS[kind][0]


class _Sizer:
    """Sizes of parts that are no experts."""

    def __init__(self, encoder: WeightEncoder, dense: DenseFormat, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._dense = dense
        self._dtype = dtype

    def part(self, name: str, weights: Iterable[NamedWeight]) -> Part:
        parameters = stored_bytes = memory_bytes = 0
        for weight in weights:
            count = math.prod(weight.shape)
            shape = dense_shape(weight, self._dense, self._encoder.formats.matrices) if name in (DENSE, MTP) else None
            parameters += count
            memory_bytes += shape.nbytes if shape else count * self._itemsize(weight)
            is_packed = shape is not None and self._dense != "keep"
            stored_bytes += shape.nbytes if shape and is_packed else _planned_bytes(self._encoder, [weight])
        return Part(name, parameters, stored_bytes, memory_bytes)

    def _itemsize(self, weight: NamedWeight) -> int:
        return 4 if weight.role in ("router", "float32") else self._dtype.itemsize


def _hearing(config: ModelConfig, codec: AudioTokenizerConfig | None) -> list[NamedWeight]:
    if codec is None or config.audio is None:
        return []
    return [*audio_weights(config.audio), *audio_tokenizer_weights(codec)]


def _experts_part(config: ModelConfig, stored_bytes: int, memory_bytes: int) -> Part:
    count = config.n_routed_experts * len(config.moe_layers)
    parameters = count * 3 * config.moe_intermediate_size * config.hidden_size
    return Part(EXPERTS, parameters, count * stored_bytes, count * memory_bytes)


def _one_expert(config: ModelConfig) -> list[NamedWeight]:
    weights = expert_weights(config)
    return [weight for weight, _ in zip(weights, range(3), strict=False)]


def _planned_bytes(encoder: WeightEncoder, weights: Iterable[NamedWeight]) -> int:
    return sum(tensor.size_bytes for weight in weights for tensor in encoder.plan(weight))
