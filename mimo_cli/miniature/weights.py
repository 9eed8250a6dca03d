"""Random weights of every part of the miniature, one named weight at a time.

Each matrix is drawn so that activations keep about unit size: its spread is a gain over the square root of its inputs,
and the gain makes up for what the step before did to the size. So scores and router logits spread by about one, every
layer adds about a quarter of an embedding's power to the residual stream, and rows of pictures and sound are as large
as embeddings. Text matrices leave the dimensions alone that `ending.py` reserves.
"""

import math
import re

from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import NamedWeight
from mimo_cli.miniature.ending import RESERVED, UNIT, add_clock_head, bias_head, mark_embedding, reserve
from mimo_cli.miniature.random_values import RandomValues
from mimo_cli.miniature.vocabulary import Vocabulary

# Makes up for the entries of a norm's output being 0.75 instead of 1: the reserved ones hold the rest of the power.
_AFTER_NORM = 1.35
_AFTER_SWIGLU = 0.7 / 0.6  # silu(gate) * up has entries of about 0.6; each MLP adds 0.7
_AFTER_GELU = 1.0 / 0.65
_AFTER_ATTENTION = 1.5  # values are averaged over keys, which shrinks them
_LOGIT_SPREAD = 2.5
_LOG_MEL_GAIN = 0.1  # log-mel values lie around -8
_CODEBOOK_SPREAD, _CODEBOOK_DECAY = 0.6, 0.85  # each stage quantises what the one before left over

_GAINS: tuple[tuple[str, float], ...] = (
    (r"lm_head\.weight", _LOGIT_SPREAD * _AFTER_NORM),
    (r"model\..*\.(qkv_proj|gate_proj|up_proj|gate)\.weight", _AFTER_NORM),
    (r"model\..*\.eh_proj\.weight", _AFTER_NORM),
    (r".*\.(o_proj|out_proj|attn\.proj)\.weight", _AFTER_ATTENTION),
    (r".*\.down_proj\.weight", _AFTER_SWIGLU),
    (r".*\.fc2\.weight", 0.7 * _AFTER_GELU),
    (r".*\.mlp\.2\.weight", _AFTER_GELU),
    (r"encoder\.conv1\.weight", _LOG_MEL_GAIN),
    (r".*", 1.0),
)
"""Gains of matrices by name; the first pattern that fits counts."""

_SPREADS: tuple[tuple[str, float], ...] = (
    (r".*(sinks|attention_sink_bias)", 1.0),
    (r".*e_score_correction_bias", 0.05),
    (r".*\.bias", 0.1),
)
"""Spreads of vectors by name; all others are the weights of norms."""

_READS_RESIDUAL = re.compile(r"model\..*\.(qkv_proj|gate_proj|up_proj|gate)\.weight")
_WRITES_RESIDUAL = re.compile(
    r"(model\..*\.(o_proj|down_proj)|visual\.merger\.mlp\.2|audio_encoder\.projection\.mlp\.2)\.weight"
)


class RandomWeights:
    """The weights of one seed, by official name and shape; q, k and v are one matrix in plain order [Q; K; V]."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, seed: int) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.values = RandomValues(seed)

    def weight(self, weight: NamedWeight) -> Tensor:
        """Make one weight, float32 of the shape asked for."""
        name, shape = weight.name, weight.shape
        if len(shape) == 1:
            return self._vector(name, shape[0])
        if name == "model.embed_tokens.weight":
            return mark_embedding(self.values.uniform(name, shape, 1.0), self.vocabulary)
        if name.startswith("speech_embeddings."):  # the embeddings of all channels are added up
            channels = self.config.audio.audio_channels if self.config.audio else 1
            return self.values.uniform(name, shape, 1.0 / math.sqrt(channels))
        if match := re.fullmatch(r"encoder\.quantizer\.vq\.layers\.(\d+)\._codebook\.embed", name):
            return self.values.uniform(name, shape, _CODEBOOK_SPREAD * _CODEBOOK_DECAY ** int(match[1]))
        matrix = self.values.uniform(name, shape, _lookup(_GAINS, name) / math.sqrt(math.prod(shape[1:])))
        return self._with_ending(name, matrix)

    def _vector(self, name: str, size: int) -> Tensor:
        for pattern, spread in _SPREADS:
            if re.fullmatch(pattern, name):
                return self.values.uniform(name, (size,), spread)
        values = self.values.around_one(name, size)
        if name.startswith("model."):
            values[:RESERVED] = 1.0
        return values

    def _with_ending(self, name: str, matrix: Tensor) -> Tensor:
        """Clear what is reserved and write the few weights made by hand."""
        if name == "lm_head.weight":
            return bias_head(matrix, self.vocabulary)
        if name.endswith(".eh_proj.weight"):
            return _hand_on_reserved(matrix)
        reserve(matrix, inputs=bool(_READS_RESIDUAL.fullmatch(name)), outputs=bool(_WRITES_RESIDUAL.fullmatch(name)))
        if match := re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.(qkv_proj|o_proj)\.weight", name):
            layer = int(match[1])
            add_clock_head(layer, match[2], matrix, self.config.attention(layer))
        return matrix


def _lookup(table: tuple[tuple[str, float], ...], name: str) -> float:
    return next(value for pattern, value in table if re.fullmatch(pattern, name))


def _hand_on_reserved(eh_proj: Tensor) -> Tensor:
    """Make an MTP module's projection [H, 2 H] take the reserved dimensions from the state, its second half."""
    hidden = eh_proj.shape[0]
    reserve(eh_proj, outputs=True)
    eh_proj[:, hidden : hidden + RESERVED] = 0.0
    for entry in range(RESERVED):
        eh_proj[entry, hidden + entry] = UNIT / 5.0  # back from the size that a norm leaves to that of an embedding
    return eh_proj
