"""Attention inside the frames of pictures and films: whole frames, or a window along the flattened frame with sinks.

No N x N mask or score matrix is ever built. Whole frames go through torch's fused attention; windowed ones go tile by
tile of queries against the keys from W before the tile to W after it.
Letters: P patches, F frames of equal size, N patches of a frame, H heads, K key/value heads, D head dim, W window.
Source: vision specification, sections 7.4, 14 and 15.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.model.vision_rope import rotate

_SCORES_PER_PASS = 1 << 24
"""Scores of windowed attention alive at once: 64 MiB in float32, and a few temporaries of that size."""


@dataclass(frozen=True)
class Layout:
    """How the patches of a call lie in memory: (frames, patches per frame) of each run, and cos, sin [P, 1, D/2]."""

    runs: Sequence[tuple[int, int]]
    cos: Tensor
    sin: Tensor

    def reordered(self, order: Tensor) -> "Layout":
        """Return the layout of the same patches in another order within their frames."""
        return Layout(self.runs, self.cos[order], self.sin[order])


class VisionAttention(nn.Module):
    """Grouped-query attention of one block; `sinks` [H] exists on windowed blocks only."""

    def __init__(self, config: VisionConfig, block: int) -> None:
        super().__init__()
        self.config = config
        self.is_windowed = config.is_windowed(block)
        heads, kv_heads, dim = config.num_heads, config.num_key_value_heads, config.head_dim
        self.qkv = nn.Linear(config.hidden_size, (heads + 2 * kv_heads) * dim)
        self.proj = nn.Linear(heads * dim, config.hidden_size)
        if self.is_windowed and config.use_sink:
            self.sinks = nn.Parameter(torch.zeros(heads))
        else:
            self.register_parameter("sinks", None)

    def forward(self, hidden_states: Tensor, layout: Layout) -> Tensor:
        """[P, hidden] -> [P, hidden]; every frame attends to itself only."""
        config = self.config
        heads, kv_heads = config.num_heads, config.num_key_value_heads
        qkv = self.qkv(hidden_states).unflatten(-1, (-1, config.head_dim))  # [P, H + 2K, D]
        q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
        q, k = rotate(q, layout.cos, layout.sin), rotate(k, layout.cos, layout.sin)
        outputs, start = [], 0
        for frames, patches in layout.runs:
            run = slice(start, start + frames * patches)
            q_run, k_run, v_run = (x[run].unflatten(0, (frames, patches)).transpose(1, 2) for x in (q, k, v))
            k_run, v_run = (x.repeat_interleave(heads // kv_heads, 1) for x in (k_run, v_run))  # [F, H, N, D]
            outputs.append(self._attend(q_run, k_run, v_run).transpose(1, 2).flatten(0, 1).flatten(1))
            start = run.stop
        return self.proj(torch.cat(outputs))  # [P, H*D] -> [P, hidden]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[F, H, N, D] x 3 -> [F, H, N, D]."""
        if not self.is_windowed:
            return F.scaled_dot_product_attention(q, k, v)
        sinks = None if self.config.sink_form == "ignore" else self.sinks
        return windowed_attention(
            q, k, v, self.config.visual_token_window_size, sinks, is_key_bias=self.config.sink_form == "key0"
        )


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, sinks: Tensor | None = None, *, is_key_bias: bool = False
) -> Tensor:
    """Let query i of each frame see the keys j with |i - j| <= window; softmax in float32.

    q, k, v [F, H, N, D]; returns [F, H, N, D] in their dtype. sinks [H] enlarge the denominator of every query, or,
    with is_key_bias, are added to the score of key 0 of each frame.
    """
    frames, heads, patches, dim = q.shape
    tile = max(16, 2 * window)
    span = tile + 2 * window
    tiles = -(-patches // tile)
    padding = tiles * tile - patches
    q_tiles = F.pad(q, (0, 0, 0, padding)).unflatten(2, (tiles, tile))  # [F, H, tiles, tile, D]
    k_tiles, v_tiles = (
        F.pad(x, (0, 0, window, window + padding)).unfold(2, span, tile) for x in (k, v)
    )  # [F, H, tiles, D, span], views
    per_pass = max(1, _SCORES_PER_PASS // (frames * heads * tile * span))
    outputs = []
    for first in range(0, tiles, per_pass):
        part = slice(first, first + per_pass)
        scores = torch.matmul(q_tiles[:, :, part].float() * dim**-0.5, k_tiles[:, :, part].float())
        keys = _key_positions(first, scores.shape[2], tile, window, q.device)  # [part, 1, span]
        queries = keys[:, :, window : window + tile].transpose(1, 2)  # [part, tile, 1]
        visible = ((queries - keys).abs() <= window) & (keys >= 0) & (keys < patches)
        # Not -inf: a padded query may see no key, and its NaN would reach the gradients.
        scores = scores.masked_fill(~visible, torch.finfo(torch.float32).min)
        probabilities = _softmax(scores, keys == 0, sinks, is_key_bias=is_key_bias)
        outputs.append(torch.matmul(probabilities, v_tiles[:, :, part].transpose(-1, -2).float()))
    return torch.cat(outputs, 2).flatten(2, 3)[:, :, :patches].to(q.dtype)


def _key_positions(first: int, count: int, tile: int, window: int, device: torch.device) -> Tensor:
    """Return the position in its frame of each key that `count` tiles from tile `first` on look at."""
    starts = (first + torch.arange(count, device=device)) * tile - window
    return starts[:, None, None] + torch.arange(tile + 2 * window, device=device)


def _softmax(scores: Tensor, is_first_key: Tensor, sinks: Tensor | None, *, is_key_bias: bool) -> Tensor:
    """Turn scores [F, H, tiles, tile, span] into probabilities, with the sinks [H] in one of their two forms."""
    if sinks is None:
        return scores.softmax(-1)
    sinks = sinks.float().view(1, -1, 1, 1, 1)
    if is_key_bias:
        return (scores + sinks * is_first_key).softmax(-1)
    # One more column takes part in the softmax and has no value row.
    return torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1).softmax(-1)[..., :-1]
