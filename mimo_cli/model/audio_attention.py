"""Attention of the audio path: rotation of queries and keys, and a band of keys around each query.

Letters: B batch, H heads, T positions, D head dim. No full score matrix is ever formed: whole pieces go through the
fused kernel, windowed layers through tiles of queries, each with the few keys it may see.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE_QUERIES = 128


def rotary_tables(
    length: int, head_dim: int, theta: float, *, rounded: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Build cos and sin [length, head_dim] of `dtype` for positions from 0, in the split-half form.

    Angles are float32. `rounded` rounds the inverse frequencies to bfloat16 first, as the vendor's loader does when it
    casts the whole module (audio specification, section 10).
    """
    powers = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies = 1.0 / theta**powers
    if rounded:
        frequencies = frequencies.to(torch.bfloat16).float()
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn states [B, H, T, D] by their position's angles; cos and sin [T, D]."""
    low, high = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-high, low], dim=-1) * sin


def band_attention(q: Tensor, k: Tensor, v: Tensor, before: int, after: int) -> Tensor:
    """Attend from each position i to the keys i-before .. i+after; q, k, v and the result are [B, H, T, D].

    -1 means no limit on that side, so (128, 0) is causal with 129 keys and (-1, 0) plainly causal. Differentiable; peak
    memory is a copy of keys and values and T * (before + after + tile) scores.
    """
    last = q.shape[2] - 1
    before = last if before < 0 else min(before, last)
    after = last if after < 0 else min(after, last)
    if before == last and after in (0, last):
        # A single position may count as either; both are right for it.
        return F.scaled_dot_product_attention(q, k, v, is_causal=after == 0)
    return _tiled_attention(q, k, v, before, after)


def _tiled_attention(q: Tensor, k: Tensor, v: Tensor, before: int, after: int) -> Tensor:
    batch, heads, length, head_dim = q.shape
    tiles = -(-length // _TILE_QUERIES)
    rest = tiles * _TILE_QUERIES - length
    width = before + _TILE_QUERIES + after

    def tile_keys(states: Tensor) -> Tensor:
        padded = F.pad(states, (0, 0, before, rest + after))
        windows = padded.unfold(2, width, _TILE_QUERIES)  # [B, H, tiles, D, width]
        return windows.permute(0, 2, 1, 4, 3).reshape(batch * tiles, heads, width, head_dim)

    queries = F.pad(q, (0, 0, 0, rest)).view(batch, heads, tiles, _TILE_QUERIES, head_dim)
    queries = queries.transpose(1, 2).reshape(batch * tiles, heads, _TILE_QUERIES, head_dim)
    mask = _band_mask(tiles, length, before, after, q.device).repeat(batch, 1, 1, 1)
    out = F.scaled_dot_product_attention(queries, tile_keys(k), tile_keys(v), attn_mask=mask)
    out = out.view(batch, tiles, heads, _TILE_QUERIES, head_dim).transpose(1, 2)
    return out.reshape(batch, heads, tiles * _TILE_QUERIES, head_dim)[:, :, :length]


def _band_mask(tiles: int, length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Say which keys a tile's queries see: bool [tiles, 1, tile, width]. Filler queries see filler, never nothing."""
    starts = torch.arange(tiles, device=device)[:, None, None] * _TILE_QUERIES
    query = starts + torch.arange(_TILE_QUERIES, device=device)[:, None]
    key = starts - before + torch.arange(before + _TILE_QUERIES + after, device=device)
    in_band = (key >= query - before) & (key <= query + after)
    in_piece = (key >= 0) & ((key < length) | (query >= length))
    return (in_band & in_piece)[:, None]
