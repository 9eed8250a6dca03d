"""Multi-token prediction: small modules that draft the tokens after the next one from the main model's states.

    x = eh_proj [norm(embed(token)) ; norm(state)]
    x = x + attention(norm(x));  x = x + mlp(norm(x))
    logits = norm(x) lm_head^T           (embedding and head are the main model's)

Module k at row p takes the embedding of token p+1+k and the main model's state of row p (after its final norm, never
another module's output), at position p, and predicts token p+2+k. Letters: B batch, T rows, H hidden size.
Source: the serving code of SGLang and vLLM, which agree.
"""

import torch
from torch import Tensor, nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.attention import Attention
from mimo_cli.model.mlp import MLP
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.linear import Linear


class MTPModule(nn.Module):
    """One module: a sliding-window layer with a dense MLP over token and state."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layernorm_epsilon
        self.attention = config.sliding_attention
        self.enorm = RMSNorm(hidden, eps, dtype)
        self.hnorm = RMSNorm(hidden, eps, dtype)
        self.eh_proj = Linear(2 * hidden, hidden, dtype=dtype)
        self.input_layernorm = RMSNorm(hidden, eps, dtype)
        self.self_attn = Attention(hidden, self.attention, config.attention_value_scale, dtype)
        self.pre_mlp_layernorm = RMSNorm(hidden, eps, dtype)
        self.mlp = MLP(hidden, config.intermediate_size, dtype)
        self.final_layernorm = RMSNorm(hidden, eps, dtype)

    def forward(
        self,
        embeds: Tensor,
        states: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """embeds, states [B, T, H] at positions [T] or [B, T] -> states [B, T, H] for `TextModel.logits`.

        `cache` is this module's own (`KVCache.for_mtp`); as with TextModel, the caller commits with `cache.advance`.
        """
        layer_cache, start = (cache.layers[0], cache.length) if cache is not None else (None, 0)
        rotary = RotaryTable.at(positions, self.attention)
        hidden_states = self.eh_proj(torch.cat([self.enorm(embeds), self.hnorm(states)], dim=-1))
        normed = self.input_layernorm(hidden_states)
        hidden_states = hidden_states + self.self_attn(normed, rotary, layer_cache, start, padding_mask)
        hidden_states = hidden_states + self.mlp(self.pre_mlp_layernorm(hidden_states))
        return self.final_layernorm(hidden_states)
