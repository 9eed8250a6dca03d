"""The text model: embedding, decoder layers, final norm, head.

    x = embed(ids)
    for each layer:  x = x + attention(norm(x));  x = x + feed_forward(norm(x))
    logits = norm(x) lm_head^T

Parameters carry the checkpoint's names without `model.`, except that q, k and v are one matrix (see model/binding.py).
Letters: B batch, T tokens, H hidden size, V vocabulary. Source: the release's modeling file.
"""

import torch
from torch import Tensor, nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.kvcache.cache import KVCache, LayerKV
from mimo_cli.model.attention import Attention
from mimo_cli.model.mlp import MLP
from mimo_cli.model.moe import ExpertSource, MoE
from mimo_cli.model.native_attention import NativeAttention
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.linear import INIT_STD, Linear


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and around a residual connection."""

    def __init__(self, config: ModelConfig, layer: int, experts: ExpertSource, dtype: torch.dtype) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = RMSNorm(hidden, eps, dtype)
        self.self_attn = Attention(hidden, config.attention(layer), config.attention_value_scale, dtype)
        self.post_attention_layernorm = RMSNorm(hidden, eps, dtype)
        self.native: NativeAttention | None = None  # given at loading, where the kernels read the projections
        self.is_moe = config.is_moe(layer)
        self.mlp = MoE(config, layer, experts) if self.is_moe else MLP(hidden, config.intermediate_size, dtype)

    def forward(
        self,
        hidden_states: Tensor,
        rotary: RotaryTable,
        cache: LayerKV | None = None,
        start: int = 0,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]; the arguments are those of Attention."""
        room = self.native.room(hidden_states, cache, start) if self.native is not None else None
        if self.native is not None and room is not None:
            hidden_states, normed = self.native(hidden_states, rotary, room)
        else:
            normed = self.input_layernorm(hidden_states)
            hidden_states = hidden_states + self.self_attn(normed, rotary, cache, start, padding_mask)
            normed = self.post_attention_layernorm(hidden_states)
        return hidden_states + (self.mlp(normed, padding_mask) if self.is_moe else self.mlp(normed))


class TextModel(nn.Module):
    """The network of the main model.

    `experts` runs the routed experts; if it is a module, it becomes a part of this one.
    `dtype` is that of weights and activations (float32 or bfloat16); router and sinks are float32 always.
    Observe layers by forward hooks on `layers[i]`, whose result is the residual stream [B, T, H] after that layer.
    """

    def __init__(self, config: ModelConfig, experts: ExpertSource, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.experts = experts
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, dtype=dtype)
        nn.init.normal_(self.embed_tokens.weight, std=INIT_STD)
        self.layers = nn.ModuleList(DecoderLayer(config, i, experts, dtype) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.layernorm_epsilon, dtype)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, dtype=dtype)
        if config.tie_word_embeddings:
            self.embed_tokens.weight = self.lm_head.weight

    def embed(self, ids: Tensor) -> Tensor:
        """Look up token ids [...] int64 -> [..., H]. There is no scaling."""
        return self.embed_tokens(ids)

    def forward(
        self,
        inputs_embeds: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Run all layers: inputs_embeds [B, T, H] at positions [T] or [B, T] -> states [B, T, H] after the final norm.

        With a cache the tokens continue its timeline; they are written behind its length, and the caller commits them
        with `cache.advance(T)` once the pass has succeeded. Without one the rows are whole sequences, padded on either
        side where padding_mask [B, T] is False (results there mean nothing).
        """
        if cache is not None and padding_mask is not None:
            raise ValueError("a padding mask goes with whole sequences, not with a KV cache")
        start = cache.length if cache is not None else 0
        global_rotary = RotaryTable.at(positions, self.config.global_attention)
        sliding_rotary = RotaryTable.at(positions, self.config.sliding_attention)
        hidden_states = inputs_embeds
        for i, layer in enumerate(self.layers):
            rotary = sliding_rotary if self.config.is_sliding(i) else global_rotary
            layer_cache = cache.layers[i] if cache is not None else None
            hidden_states = layer(hidden_states, rotary, layer_cache, start, padding_mask)
        return self.norm(hidden_states)

    def logits(self, states: Tensor) -> Tensor:
        """Apply the head to states after the final norm: [..., H] -> [..., V] float32, not rounded by the kernels."""
        return self.lm_head.float_outputs(states)
