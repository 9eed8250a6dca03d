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
from mimo_cli.model.native_layers import LayerParts, NativeLayers, SlotSource
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import Kernels
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
        block_tokens: int | None = None,
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]; the arguments are those of Attention, block_tokens that of TextModel."""
        if block_tokens is not None and block_tokens < hidden_states.shape[1]:
            return self._by_blocks(hidden_states, rotary, cache, start, block_tokens)
        total, normed = self._attend(hidden_states, rotary, cache, start, padding_mask)
        return total + (self.mlp(normed, padding_mask) if self.is_moe else self.mlp(normed))

    def _attend(
        self, hidden_states: Tensor, rotary: RotaryTable, cache: LayerKV | None, start: int, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream after attention, and its norm."""
        room = self.native.room(hidden_states, cache, start) if self.native is not None else None
        if self.native is not None and room is not None:
            return self.native(hidden_states, rotary, room)
        normed = self.input_layernorm(hidden_states)
        total = hidden_states + self.self_attn(normed, rotary, cache, start, padding_mask)
        return total, self.post_attention_layernorm(total)

    def _by_blocks(
        self, hidden_states: Tensor, rotary: RotaryTable, cache: LayerKV | None, start: int, block_tokens: int
    ) -> Tensor:
        """Do what one pass for each block would do, but run the experts for all blocks at once; without gradients."""
        total, normed = torch.empty_like(hidden_states), torch.empty_like(hidden_states)
        for first in range(0, hidden_states.shape[1], block_tokens):
            at = slice(first, first + block_tokens)
            total[:, at], normed[:, at] = self._attend(hidden_states[:, at], rotary[at], cache, start + first, None)
            if not self.is_moe:
                total[:, at] += self.mlp(normed[:, at])
        return total.add_(self.mlp(normed, block_tokens=block_tokens)) if self.is_moe else total


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
        self.native: NativeLayers | None = None  # given at loading, where the kernels know every layer
        self.lm_head = Linear(config.hidden_size, config.vocab_size, dtype=dtype)
        if config.tie_word_embeddings:
            self.embed_tokens.weight = self.lm_head.weight

    def join_layers(self, kernels: Kernels, source: SlotSource) -> None:
        """Let steps of a few tokens go through all layers in one call, where the kernels know every part of them."""
        parts = []
        for number, layer in enumerate(self.layers):
            if not isinstance(layer, DecoderLayer) or layer.native is None or not NativeLayers.knows(layer.mlp):
                return
            parts.append(LayerParts(layer, layer.native, layer.mlp, self.config.is_sliding(number)))
        self.native = NativeLayers(kernels, parts, self.norm, source)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up token ids [...] int64 -> [..., H]. There is no scaling."""
        return self.embed_tokens(ids)

    def forward(
        self,
        inputs_embeds: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        padding_mask: Tensor | None = None,
        block_tokens: int | None = None,
    ) -> Tensor:
        """Run all layers: inputs_embeds [B, T, H] at positions [T] or [B, T] -> states [B, T, H] after the final norm.

        With a cache the tokens continue its timeline; they are written behind its length, and the caller commits them
        with `cache.advance(T)` once the pass has succeeded. Without one the rows are whole sequences, padded on either
        side where padding_mask [B, T] is False (results there mean nothing).

        More tokens than `block_tokens` have the bits of one pass for each block of so many, if the experts' source
        gives a row the same bits in any company; layer by layer its experts run once. With positions [T], a cache and
        no gradients only.
        """
        if cache is not None and padding_mask is not None:
            raise ValueError("a padding mask goes with whole sequences, not with a KV cache")
        if block_tokens is not None and (cache is None or positions.dim() != 1):
            raise ValueError("blocks go with a KV cache and positions [T]")
        start = cache.length if cache is not None else 0
        global_rotary = RotaryTable.at(positions, self.config.global_attention, block_tokens)
        sliding_rotary = RotaryTable.at(positions, self.config.sliding_attention, block_tokens)
        if self.native is not None and cache is not None:
            states = self.native.forward(inputs_embeds, (global_rotary, sliding_rotary), cache, start)
            if states is not None:
                return states
        hidden_states = inputs_embeds
        for i, layer in enumerate(self.layers):
            rotary = sliding_rotary if self.config.is_sliding(i) else global_rotary
            layer_cache = cache.layers[i] if cache is not None else None
            hidden_states = layer(hidden_states, rotary, layer_cache, start, padding_mask, block_tokens)
        if block_tokens is None or hidden_states.shape[1] <= block_tokens:
            return self.norm(hidden_states)
        return torch.cat([self.norm(block) for block in hidden_states.split(block_tokens, dim=1)], dim=1)

    def logits(self, states: Tensor) -> Tensor:
        """Apply the head to states after the final norm: [..., H] -> [..., V] float32, not rounded by the kernels."""
        return self.lm_head.float_outputs(states)
