"""The vision tower: pixel values of pictures or films to one row per language-model token.

    patches [P, 1536] -> patch embedding -> windowed blocks in row order, then in column order, full blocks between
    -> norm, four patches of a unit side by side, two-layer merger -> rows [P / 4, out_hidden_size]

Frames never see one another: a call with many pictures equals many calls. Parameter names are the checkpoint's after
`visual.`. Letters: P patches, C hidden_size. Source: vision specification, section 7.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_cli.checkpoint.vision_config import COLUMN, VisionConfig
from mimo_cli.errors import MediaError
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.vision_attention import Layout, VisionAttention
from mimo_cli.model.vision_rope import column_order, patch_positions, rotary_angles

_PATCHES_PER_PASS = 8192
"""Whole frames go through the blocks together up to this many patches: about 0.4 GB of activations in float32."""

_MLP_PATCHES = 4096
"""Rows of the MLP's inner layer alive at once, which is wider than anything else."""

Grid: TypeAlias = Sequence[tuple[int, int, int]]


class PatchEmbed(nn.Module):
    """The convolution whose kernel is as large as its step: a matrix product of flattened patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_chans, config.hidden_size, kernel, stride=kernel, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[P, in_chans * time * rows * columns] -> [P, C]."""
        return F.linear(pixel_values, self.proj.weight.flatten(1))


class VisionMLP(nn.Module):
    """SwiGLU with biases, a few thousand patches at a time."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[P, C] -> [P, C]."""
        parts = hidden_states.split(_MLP_PATCHES)
        return torch.cat([self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)) for x in parts])


class VisionBlock(nn.Module):
    """Norm, attention, norm, MLP, with residuals."""

    def __init__(self, config: VisionConfig, block: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = VisionAttention(config, block)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, hidden_states: Tensor, layout: Layout) -> Tensor:
        """[P, C] -> [P, C]."""
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states), layout)
        return hidden_states + self.mlp(self.norm2(hidden_states))


class LayerNorm(nn.Module):
    """LayerNorm with a weight and no bias, in float32; the checkpoint stores none."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., size] -> [..., size], same dtype."""
        normed = F.layer_norm(hidden_states.float(), self.weight.shape, self.weight.float(), eps=self.eps)
        return normed.to(hidden_states.dtype)


class Merger(nn.Module):
    """Joins the patches of a unit and brings them to the width of the language model."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        norm = LayerNorm if config.merger_norm == "layernorm" else RMSNorm
        self.unit_width = config.hidden_size * config.unit_tokens
        self.ln_q = norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(self.unit_width, self.unit_width, bias=False),
            nn.GELU(),  # exact, by erf
            nn.Linear(self.unit_width, config.out_hidden_size, bias=False),
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[P, C] -> [P / 4, out_hidden_size]."""
        return self.mlp(self.ln_q(hidden_states).view(-1, self.unit_width))


class VisionTower(nn.Module):
    """The whole tower. Differentiable; float32 and bfloat16 (float16 overflows in the released weights)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(VisionBlock(config, block) for block in range(config.depth))
        self.merger = Merger(config)

    def forward(self, pixel_values: Tensor, grid_thw: Tensor | Grid) -> Tensor:
        """Encode pictures and films: pixel_values [P, 1536], grid_thw one (t, h, w) in patches for each.

        Returns [P / 4, out_hidden_size] in the dtype of the weights: units row by row, frame after frame. Raises
        MediaError if the grid does not describe the patches.
        """
        grid = self._checked_grid(pixel_values, grid_thw)
        pixel_values = pixel_values.to(self.patch_embed.proj.weight.dtype)
        outputs, start = [], 0
        for part in _frame_groups(grid):
            patches = sum(t * h * w for t, h, w in part)
            outputs.append(self._encode(pixel_values[start : start + patches], part))
            start += patches
        return torch.cat(outputs)

    def _encode(self, pixel_values: Tensor, grid: Grid) -> Tensor:
        """Run the tower over some whole frames."""
        config, device = self.config, pixel_values.device
        merge = config.spatial_merge_size
        angles = rotary_angles(patch_positions(grid, merge).to(device), config.head_dim, config.rope_theta)[:, None]
        rows = Layout([(t, h * w) for t, h, w in grid], angles.cos(), angles.sin())
        to_columns = column_order(grid, merge).to(device)
        to_rows = to_columns.argsort()
        columns = rows.reordered(to_columns)  # each patch keeps its own angles
        hidden_states, layout = self.patch_embed(pixel_values), rows  # [P, C]
        for block, kind in zip(self.blocks, config.vit_window_attn_types, strict=True):
            wanted = columns if kind == COLUMN else rows
            if wanted is not layout:
                hidden_states = hidden_states[to_columns if wanted is columns else to_rows]
                layout = wanted
            hidden_states = block(hidden_states, layout)
        return self.merger(hidden_states if layout is rows else hidden_states[to_rows])

    def _checked_grid(self, pixel_values: Tensor, grid_thw: Tensor | Grid) -> list[tuple[int, int, int]]:
        """Return the grid as tuples; MediaError unless it fits the patches and whole units."""
        rows = torch.as_tensor(grid_thw).reshape(-1, 3).tolist()
        merge, width = self.config.spatial_merge_size, self.config.patch_values
        if any(t < 1 or h < merge or w < merge or h % merge or w % merge for t, h, w in rows):
            raise MediaError(f"patch grids must be (t, h, w) with sides that are multiples of {merge}, found {rows}")
        expected = sum(t * h * w for t, h, w in rows)
        if tuple(pixel_values.shape) != (expected, width) or not rows:
            found = list(pixel_values.shape)
            raise MediaError(f"pixel values [{expected}, {width}] were expected for the grids {rows}, found {found}")
        return [(int(t), int(h), int(w)) for t, h, w in rows]


def _frame_groups(grid: Grid) -> Iterator[list[tuple[int, int, int]]]:
    """Split pictures and films, in order, into groups of whole frames of limited size (at least one frame)."""
    group: list[tuple[int, int, int]] = []
    used = 0
    for frames, height, width in grid:
        while frames:
            fitting = max(0, _PATCHES_PER_PASS - used) // (height * width)
            take = min(frames, fitting if group else max(1, fitting))
            if not take:
                yield group
                group, used = [], 0
                continue
            group.append((take, height, width))
            used += take * height * width
            frames -= take
    yield group
