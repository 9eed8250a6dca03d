"""Grouped-query attention: one function for global and sliding layers, with a cache or without, padded or not.

Letters: B batch, T tokens (queries), S keys, H query heads, K key/value heads, G = H/K, D width of q and k, Dv of v.
Source: text specification 4.2 to 4.5.
"""

import torch
from torch import Tensor, nn

from mimo_cli.checkpoint.config import AttentionConfig
from mimo_cli.kvcache.cache import LayerKV
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.linear import Linear

MAX_SCORES = 1 << 24
"""Attention scores (B*H*T*S, float32) alive at once: 64 MiB. More queries are taken in tiles."""


class Attention(nn.Module):
    """Attention of one layer. The window, the sink and the head counts are those of `attention`."""

    def __init__(
        self, hidden_size: int, attention: AttentionConfig, value_scale: float, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.attention = attention
        self.value_scale = value_scale
        self.qkv_proj = Linear(hidden_size, attention.qkv_rows, dtype=dtype)  # rows: all Q, all K, all V
        self.o_proj = Linear(attention.num_heads * attention.v_head_dim, hidden_size, dtype=dtype)
        # float32: the sink joins the float32 scores.
        sink = nn.Parameter(torch.zeros(attention.num_heads, dtype=torch.float32)) if attention.has_sink else None
        self.register_parameter("attention_sink_bias", sink)

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
        query, keys, values = self.project(hidden_states, rotary)
        first_key = 0
        if cache is not None:
            keys, values, first_key = cache.update(keys, values, start)
        mixed = attend(
            query,
            keys,
            values,
            offset=start - first_key,
            window=self.attention.window,
            sinks=self.attention_sink_bias,
            key_mask=padding_mask,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

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
) -> Tensor:
    """Attend causally from query [B, H, T, D] to keys [B, K, S, D], values [B, K, S, Dv]; returns [B, H, T, Dv].

    Query t stands at key `offset + t` and sees the keys up to itself, of them only the `window` before itself if that
    is given. `sinks` [H] are logits without a value, neither scaled nor masked. key_mask [B, S] hides keys where it is
    False, except a query's own (a row of padding would otherwise see nothing and be NaN).
    Scores and softmax in float32. Queries are taken in tiles: at most about MAX_SCORES scores exist at once, and a
    window layer computes only those of its band.
    """
    batch, heads, tokens, _ = query.shape
    span = keys.shape[2] if window is None else 2 * window
    rows = max(1, window or 1, MAX_SCORES // (batch * heads * span))
    tiles = []
    for first in range(0, tokens, rows):
        last = min(first + rows, tokens)
        low = 0 if window is None else max(0, offset + first - window)
        band = slice(low, offset + last)
        tile = _attend_tile(
            query[:, :, first:last],
            keys[:, :, band],
            values[:, :, band],
            _visible(first + offset - low, last - first, band, window, key_mask, query.device),
            sinks,
        )
        tiles.append(tile)
    return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=2)


def _visible(
    offset: int, tokens: int, band: slice, window: int | None, key_mask: Tensor | None, device: torch.device
) -> Tensor | None:
    """Return which key of the band each query sees, [T, S] or [B, 1, 1, T, S] bool; None if all see all."""
    keys = band.stop - band.start
    if tokens == 1 and key_mask is None:
        return None
    behind = torch.arange(offset, offset + tokens, device=device)[:, None] - torch.arange(keys, device=device)  # [T, S]
    visible = behind >= 0
    if window is not None and keys > window + 1:
        visible = visible & (behind <= window)
    if key_mask is not None:
        visible = visible & (key_mask[:, None, None, None, band] | (behind == 0))
    return visible


def _attend_tile(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, sinks: Tensor | None) -> Tensor:
    kv_heads, scale = keys.shape[1], query.shape[-1] ** -0.5
    query = query.unflatten(1, (kv_heads, -1)).float() * scale  # [B, K, G, T, D]
    scores = query @ keys.float()[:, :, None].transpose(-1, -2)  # [B, K, G, T, S]
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        column = sinks.float().view(1, kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    return (weights @ values.float()[:, :, None]).flatten(1, 2).to(values.dtype)  # [B, H, T, Dv]
