"""Where each patch stands: 2-D rotary angles, and the column order of windowed blocks.

Patches come unit by unit (a unit is merge x merge patches, one language-model token), units row by row, frame by frame.
In column order the units of each frame are listed column by column; patches inside a unit and frames keep their order.
Letters: P patches, D head dim. Source: vision specification, sections 7.2 and 7.3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def patch_positions(grid: Sequence[tuple[int, int, int]], merge: int) -> Tensor:
    """Return the row and column [P, 2] int64 of each patch in the patch grid of its frame."""
    parts = []
    for frames, height, width in grid:
        rows = torch.arange(height).view(height // merge, 1, merge, 1)
        columns = torch.arange(width).view(1, width // merge, 1, merge)
        pairs = torch.stack(torch.broadcast_tensors(rows, columns), -1)  # [h/m, w/m, m, m, 2]
        parts.append(pairs.reshape(-1, 2).repeat(frames, 1))
    return torch.cat(parts)


def rotary_angles(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Return angles [P, D/2] float32: the first half turns with the row, the second with the column."""
    steps = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=positions.device)  # [D/4]
    frequencies = 1.0 / theta ** (steps / (head_dim // 2))
    return (positions[:, :, None].float() * frequencies).flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [P, H, D] by angles cos and sin [P, 1, D/2]; dimension d pairs with d + D/2. Computed in float32."""
    first, second = x.float().chunk(2, -1)  # [P, H, D/2] each
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def column_unit_order(rows: int, columns: int) -> Tensor:
    """Return [rows * columns] int64: which unit, counted row by row, stands at each place of the column order."""
    return torch.arange(rows * columns).view(rows, columns).t().flatten()


def column_order(grid: Sequence[tuple[int, int, int]], merge: int) -> Tensor:
    """Return [P] int64: which patch of the row order stands at each place of the column order."""
    parts, start = [], 0
    for frames, height, width in grid:
        units = column_unit_order(height // merge, width // merge)
        patches = (units[:, None] * merge**2 + torch.arange(merge**2)).flatten()  # [h*w]
        firsts = start + torch.arange(frames)[:, None] * height * width
        parts.append((firsts + patches).flatten())
        start += frames * height * width
    return torch.cat(parts)
