"""Attention written out: scores, softmax with the sink in its denominator, weighted values, all in float32.

For devices whose fused kernels take neither a float32 mask beside bfloat16 queries nor values narrower than keys. The
queries of a group stand in one block of rows, so keys are read once per key/value head.
Letters: B batch, T tokens (queries), S keys, H query heads, K key/value heads, G = H/K, D width of q and k, Dv of v.
"""

import torch
from torch import Tensor

MAX_SCORES = 1 << 26
"""Scores (float32) of one tile: 256 MiB."""


def attend_plainly(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    offset: int | Tensor = 0,
    window: int | None = None,
    sinks: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Attend as model.attention.attend does: query [B, H, T, D], keys [B, K, S, D], values [B, K, S, Dv] -> as values.

    `offset` may be a tensor, so that one captured graph serves every place of a timeline; all keys are then looked at.
    """
    batch, heads, tokens, _ = query.shape
    kv_heads, reach = keys.shape[1], keys.shape[2]
    grouped = query.unflatten(1, (kv_heads, -1))  # [B, K, G, T, D]
    band = reach if window is None or isinstance(offset, Tensor) else min(reach, window + tokens)
    rows = max(1, min(tokens, MAX_SCORES // (batch * heads * band)))
    tiles = []
    for first in range(0, tokens, rows):
        last = min(first + rows, tokens)
        low, high = 0, reach
        if not isinstance(offset, Tensor):
            low, high = 0 if window is None else max(0, offset + first - window), offset + last
        place = offset + torch.arange(first - low, last - low, device=query.device)
        hidden = _hidden(place, high - low, window, None if key_mask is None else key_mask[:, low:high])
        tiles.append(_tile(grouped[:, :, :, first:last], keys[:, :, low:high], values[:, :, low:high], hidden, sinks))
    return torch.cat(tiles, dim=3).flatten(1, 2)


def _hidden(place: Tensor, keys: int, window: int | None, key_mask: Tensor | None) -> Tensor:
    """Return where queries, at these keys [T], do not see keys: [B or 1, 1, 1, T, S] bool."""
    behind = place[:, None] - torch.arange(keys, device=place.device)
    hidden = behind < 0
    if window is not None:
        hidden = hidden | (behind > window)
    if key_mask is not None:
        hidden = hidden | ~(key_mask[:, None, :] | (behind == 0))
    return hidden.view(-1, 1, 1, *behind.shape)


def _tile(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, sinks: Tensor | None) -> Tensor:
    """Attend from query [B, K, G, T, D] to keys [B, K, S, D], values [B, K, S, Dv]; returns [B, K, G, T, Dv]."""
    group, tokens = query.shape[2:4]
    rows = query.flatten(2, 3).float() * query.shape[-1] ** -0.5  # [B, K, G T, D]
    scores = (rows @ keys.float().transpose(2, 3)).unflatten(2, (group, tokens))  # [B, K, G, T, S]
    scores = scores.masked_fill(hidden, float("-inf"))
    highest = scores.amax(dim=-1, keepdim=True)
    if sinks is not None:
        sink = sinks.float().view(1, keys.shape[1], group, 1, 1)
        highest = torch.maximum(highest, sink)
    shares = (scores - highest).exp()
    total = shares.sum(dim=-1, keepdim=True)
    if sinks is not None:
        total = total + (sink - highest).exp()
    mixed = (shares / total).flatten(2, 3) @ values.float()  # [B, K, G T, Dv]
    return mixed.to(query.dtype).unflatten(2, (group, tokens))
