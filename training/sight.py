"""The vision tower's forward pass as training runs it: many pictures at once, each of its own shape, compiled.

The same parameters and the same function as `VisionTower`: windows become masks instead of tiles and permutations,
pictures are filled up to one number of patches, and the two equal halves of a still picture's patch are read once.
Letters: N pictures, P patches of each, filled up, C width.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.checkpoint.vision_config import COLUMN, FULL
from mimo_cli.model.vision import VisionTower
from mimo_cli.model.vision_rope import column_order, patch_positions, rotary_angles
from training.precision import dtype_for
from training.sink_softmax import sink_softmax

MAX_PATCHES = 112


def fill_up(pictures: Sequence[np.ndarray], patches: int = MAX_PATCHES) -> Tensor:
    """Stack the patches [p, 768] of pictures to [N, patches, 768], zeros behind each one's own."""
    filled = torch.zeros(len(pictures), patches, pictures[0].shape[1])
    for row, picture in zip(filled, pictures, strict=True):
        row[: len(picture)] = torch.from_numpy(picture)
    return filled


def _block(
    x: Tensor,
    norms: tuple[Tensor, Tensor],
    attention: tuple[Tensor, ...],
    mlp: tuple[Tensor, ...],
    sinks: Tensor | None,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    shape: tuple[int, int, int],
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """One block on [N, P, C] float32; bias [N, 1, P, P], cos and sin [N, P, 1, D/2]."""
    heads, kv_heads, dim = shape
    qkv, qkv_bias, proj, proj_bias = (part.to(dtype) for part in attention)
    gate, gate_bias, up, up_bias, down, down_bias = (part.to(dtype) for part in mlp)
    normed = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norms[0]).to(dtype)
    q, k, v = functional.linear(normed, qkv, qkv_bias).unflatten(-1, (-1, dim)).split((heads, kv_heads, kv_heads), 2)
    q, k = _turn(q, cos, sin).transpose(1, 2), _turn(k, cos, sin).transpose(1, 2)
    count, patches = x.shape[:2]
    q = q.reshape(count, kv_heads, heads // kv_heads * patches, dim)
    scores = (q @ k.transpose(-1, -2)).view(count, heads, patches, patches).float() * dim**-0.5 + bias
    shares = sink_softmax(scores, sinks).to(dtype).view(count, kv_heads, -1, patches)
    mixed = (shares @ v.transpose(1, 2)).view(count, heads, patches, dim).transpose(1, 2).flatten(2)
    x = x + functional.linear(mixed, proj, proj_bias).float()
    normed = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norms[1]).to(dtype)
    hidden = functional.silu(functional.linear(normed, gate, gate_bias)) * functional.linear(normed, up, up_bias)
    return x + functional.linear(hidden, down, down_bias).float()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Sight:
    """Runs a VisionTower on equal-sized pictures."""

    def __init__(self, tower: VisionTower, dtype: torch.dtype | None = None, *, compiled: bool = True) -> None:
        """`dtype` is that of the products; where none is named, what the device is quick at."""
        self.tower = tower
        self.dtype = dtype or dtype_for(tower.patch_embed.proj.weight)
        self._block: Any = torch.compile(_block, dynamic=False) if compiled else _block
        self._tables = lru_cache(maxsize=256)(self._make_tables)

    def rows(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """patches [N, P, 768 or 1536] of pictures of (height, width) patches -> rows [N, P / 4, out], in `dtype`.

        Stills give one of the two equal halves of each patch, frames of a film (one temporal step each) both. What
        stands behind a picture's own rows means nothing.
        """
        return self.merge(self.patch_states(patches, grids))

    def patch_states(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """The states [N, P, C] float32 behind the last block."""
        tower, config = self.tower, self.tower.config
        tables = [self._tables(height, width, patches.shape[1]) for height, width in grids]
        device = tower.patch_embed.proj.weight.device
        whole, row, column, cos, sin = (torch.stack(parts).to(device) for parts in zip(*tables, strict=True))
        kernel = tower.patch_embed.proj.weight
        kernel = (kernel if patches.shape[-1] == config.patch_values else kernel.sum(2)).flatten(1)
        x = functional.linear(patches.to(device, self.dtype), kernel.to(self.dtype)).float()
        for block, kind in zip(tower.blocks, config.vit_window_attn_types, strict=True):
            bias = whole if kind == FULL else column if kind == COLUMN else row
            x = self._run(block, x, bias, cos, sin)
        return x

    def merge(self, x: Tensor) -> Tensor:
        """States of patches [N, P, C] become rows [N, P / 4, out]."""
        merger = self.tower.merger
        normed = functional.layer_norm(x, merger.ln_q.weight.shape, merger.ln_q.weight, eps=merger.ln_q.eps)
        units = normed.to(self.dtype).view(len(x), -1, merger.unit_width)
        inner, outer = (merger.get_parameter(f"mlp.{i}.weight").to(self.dtype) for i in (0, 2))
        return functional.linear(functional.gelu(functional.linear(units, inner).float()).to(self.dtype), outer)

    def _run(self, block: Any, x: Tensor, bias: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        config, attention, mlp = self.tower.config, block.attn, block.mlp
        return self._block(
            x,
            (block.norm1.weight, block.norm2.weight),
            (attention.qkv.weight, attention.qkv.bias, attention.proj.weight, attention.proj.bias),
            tuple(
                part for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj) for part in (linear.weight, linear.bias)
            ),
            attention.sinks,
            bias,
            cos,
            sin,
            (config.num_heads, config.num_key_value_heads, config.head_dim),
            block.norm1.eps,
            self.dtype,
        )

    def _make_tables(self, height: int, width: int, patches: int) -> tuple[Tensor, ...]:
        """Masks [1, patches, patches] of the three kinds of blocks, cos and sin [patches, 1, D/2], of one shape."""
        config = self.tower.config
        grid, merge = [(1, height, width)], config.spatial_merge_size
        count = height * width
        angles = torch.zeros(patches, 1, config.head_dim // 2)
        angles[:count, 0] = rotary_angles(patch_positions(grid, merge), config.head_dim, config.rope_theta)
        in_columns = column_order(grid, merge).argsort()
        biases = []
        for places in (None, torch.arange(count), in_columns):
            seen = torch.eye(patches, dtype=torch.bool)
            near = torch.ones(count, count, dtype=torch.bool)
            if places is not None:
                near = (places[:, None] - places).abs() <= config.visual_token_window_size
            seen[:count, :count] = near
            biases.append(torch.zeros(1, patches, patches).masked_fill_(~seen, float("-inf")))
        return *biases, angles.cos(), angles.sin()
