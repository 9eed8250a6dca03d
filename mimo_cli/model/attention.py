"""Grouped-query attention: one function for global and sliding layers, with a cache or without, padded or not.

Letters: B batch, T tokens (queries), S keys, H query heads, K key/value heads, G = H/K, D width of q and k, Dv of v.
Source: the release's modeling file.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.checkpoint.config import AttentionConfig
from mimo_cli.kvcache.cache import LayerKV
from mimo_cli.model.plain_attention import attend_plainly
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import FEW_TOKENS, Heads, Kernels
from mimo_cli.quant.linear import Linear

QUERY_TILE = 128
"""Queries taken together; measured best on a CPU, and equal to the released window, of which a tile needs two."""

MAX_MASK = 1 << 24
"""Mask entries (float32) of one tile: 64 MiB. Before many keys a tile has fewer queries."""


class Attention(nn.Module):
    """Attention of one layer. The window, the sink and the head counts are those of `attention`."""

    def __init__(
        self, hidden_size: int, attention: AttentionConfig, value_scale: float, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.attention = attention
        self.value_scale = value_scale
        self.kernels: Kernels | None = None  # given at loading, where there are any
        self.is_widened = False  # set at loading where the processor emulates bfloat16 products
        self.qkv_proj = Linear(hidden_size, attention.qkv_rows, dtype=dtype)  # rows: all Q, all K, all V
        self.o_proj = Linear(attention.num_heads * attention.v_head_dim, hidden_size, dtype=dtype)
        # float32: the sink joins the float32 scores.
        sink = nn.Parameter(torch.zeros(attention.num_heads, dtype=torch.float32)) if attention.has_sink else None
        self.attention_sink_bias: nn.Parameter | None = sink

    def forward(
        self,
        hidden_states: Tensor,
        rotary: RotaryTable,
        cache: LayerKV | None = None,
        start: int = 0,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, T, hidden] -> [B, T, hidden]; with a cache the tokens are numbers start .. start+T-1 of the timeline.

        padding_mask [B, T] is True for real tokens and goes without a cache.
        """
        if cache is not None and self.kernels and self._is_native(hidden_states, padding_mask):
            return self._decode(self.kernels, hidden_states, rotary, cache, start)
        query, keys, values = self.project(hidden_states, rotary)
        first_key = 0
        if cache is not None:
            keys, values, first_key = cache.update(keys, values, start)
        # Fused kernels of a card want masks in the dtype of the queries, which would round the sinks.
        on_processor = partial(attend, is_widened=True) if self.is_widened else attend
        way = attend_plainly if query.is_cuda else on_processor
        mixed = way(
            query,
            keys,
            values,
            offset=start - first_key,
            window=self.attention.window,
            sinks=self.attention_sink_bias,
            key_mask=padding_mask,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _is_native(self, hidden_states: Tensor, padding_mask: Tensor | None) -> bool:
        """Whether the kernels attend: to a few tokens of one sequence. More are faster by torch's matrix products."""
        batch, tokens, _ = hidden_states.shape
        return (
            (batch == 1 and tokens <= FEW_TOKENS and padding_mask is None)
            and hidden_states.dtype in (torch.float32, torch.bfloat16)
            and not (torch.is_grad_enabled() and hidden_states.requires_grad)
        )

    def _decode(
        self, kernels: Kernels, hidden_states: Tensor, rotary: RotaryTable, cache: LayerKV, start: int
    ) -> Tensor:
        """Do what `forward` does, by the kernels; the softmax and both products are float32 and rounded once."""
        a = self.attention
        heads = Heads(a.num_heads, a.num_kv_heads, a.head_dim, a.v_head_dim)
        projected = self.qkv_proj(hidden_states)[0].contiguous()
        new = kernels.rotate(projected, rotary.cos, rotary.sin, heads, self.value_scale)
        keys, values, first_key = cache.update(new.keys[None], new.values[None], start)
        mixed = kernels.attend(
            new.query,
            keys[0],
            values[0],
            offset=start - first_key,
            window=a.window,
            sinks=self.attention_sink_bias,
        )
        return self.o_proj(mixed.to(hidden_states.dtype).flatten(1)[None])

    def project(self, hidden_states: Tensor, rotary: RotaryTable) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated q [B, H, T, D] and k [B, K, T, D], and scaled v [B, K, T, Dv]: what the cache stores."""
        a = self.attention
        widths = [a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim, a.num_kv_heads * a.v_head_dim]
        query, keys, values = self.qkv_proj(hidden_states).split(widths, dim=-1)
        query = rotary.rotate(query.unflatten(-1, (a.num_heads, a.head_dim)))  # [B, T, H, D]
        keys = rotary.rotate(keys.unflatten(-1, (a.num_kv_heads, a.head_dim)))  # [B, T, K, D]
        values = values.unflatten(-1, (a.num_kv_heads, a.v_head_dim)) * self.value_scale  # [B, T, K, Dv]
        return query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    offset: int = 0,
    window: int | None = None,
    sinks: Tensor | None = None,
    key_mask: Tensor | None = None,
    is_widened: bool = False,
) -> Tensor:
    """Attend causally from query [B, H, T, D] to keys [B, K, S, D], values [B, K, S, Dv]; returns [B, H, T, Dv].

    Query t stands at key `offset + t` and sees the keys up to itself, of them only the `window` before itself if that
    is given. `sinks` [H] are logits without a value, neither scaled nor masked. key_mask [B, S] hides keys where it is
    False, except a query's own (a row of padding would otherwise see nothing and be NaN).
    The softmax is float32, and so are both products where `is_widened`. Queries are taken in tiles of at most MAX_MASK
    mask entries, each with the keys it can see.
    """
    batch, heads, tokens, _ = query.shape
    query = query.unflatten(1, (keys.shape[1], -1))  # [B, K, G, T, D]
    # The fused kernels need values as wide as keys; the columns added are zero and dropped below.
    padded = functional.pad(values, (0, keys.shape[-1] - values.shape[-1]))
    reach = keys.shape[2] if window is None else min(keys.shape[2], window + QUERY_TILE)
    masks = (heads if sinks is not None else heads // keys.shape[1]) * (batch if key_mask is not None else 1)
    rows = max(1, min(QUERY_TILE, MAX_MASK // (masks * reach)))
    tiles = []
    for first in range(0, tokens, rows):
        last = min(first + rows, tokens)
        low = 0 if window is None else max(0, offset + first - window)
        band = slice(low, offset + last)
        mask = None
        if last - first > 1 or key_mask is not None:  # a single query sees its whole band
            behind = _distances(offset + first - low, last - first, band.stop - low, query.device)
            mask = _mask(behind, window, key_mask[:, band] if key_mask is not None else None)
        seen = query[:, :, :, first:last], keys[:, :, band], padded[:, :, band]
        if is_widened:
            seen = seen[0].float(), seen[1].float(), seen[2].float()
        tiles.append(_attend_tile(*seen, mask, sinks).to(query.dtype))
    return torch.cat(tiles, dim=3).flatten(1, 2)[..., : values.shape[-1]]


def _distances(offset: int, tokens: int, keys: int, device: torch.device) -> Tensor:
    """Return how far each query stands behind each key, [T, S]; negative where the key is in its future."""
    return torch.arange(offset, offset + tokens, device=device)[:, None] - torch.arange(keys, device=device)


def _mask(behind: Tensor, window: int | None, key_mask: Tensor | None) -> Tensor:
    """Return 0 where a query sees a key and -inf elsewhere, [B or 1, 1, 1, T, S] float32."""
    visible = behind >= 0
    if window is not None:
        visible = visible & (behind <= window)
    if key_mask is not None:
        visible = visible & (key_mask[:, None, :] | (behind == 0))
    mask = torch.zeros(visible.shape, dtype=torch.float32, device=behind.device).masked_fill(~visible, float("-inf"))
    return mask.view(-1, 1, 1, *behind.shape)


def _attend_tile(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, sinks: Tensor | None) -> Tensor:
    """Attend from query [B, K, G, T, D] to keys, values [B, K, S, D] under mask [B or 1, 1, 1, T, S]."""
    group, tokens, dtype = query.shape[2], query.shape[3], query.dtype
    if sinks is not None:
        # One more key and value of zeros, whose score the mask replaces by the sink.
        if mask is None:
            mask = torch.zeros(1, 1, 1, tokens, keys.shape[2], device=query.device)
        mask = _with_sinks(mask, sinks.float().view(keys.shape[1], group))
        keys, values = functional.pad(keys, (0, 0, 1, 0)), functional.pad(values, (0, 0, 1, 0))
        if mask.requires_grad:
            # Fused kernels have no gradient for the mask, and the plain path would round bfloat16 scores.
            query, keys, values = query.float(), keys.float(), values.float()
    if mask is not None:
        mask = mask.expand(-1, -1, group, -1, -1).flatten(2, 3)  # [B or 1, K or 1, G*T, S]
    # The queries of a group stand in one row block: the keys they share are read once.
    mixed = functional.scaled_dot_product_attention(query.flatten(2, 3), keys, values, attn_mask=mask)
    return mixed.to(dtype).unflatten(2, (group, tokens))  # [B, K, G, T, D]


def _with_sinks(mask: Tensor, sinks: Tensor) -> Tensor:
    """Put the sinks [K, G] as a first key before mask [B, 1, 1, T, S]: [B, K, G, T, 1+S]."""
    batch, tokens, keys = mask.shape[0], *mask.shape[-2:]
    column = sinks[None, :, :, None, None].expand(batch, -1, -1, tokens, 1)
    return torch.cat([column, mask.expand(batch, *sinks.shape, tokens, keys)], dim=-1)
