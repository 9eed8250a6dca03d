"""Products of many rows with the matrix of their expert in 8 bits: W8A8, a precision of its own, only where asked for.

Rows sorted by expert are cut into tiles; a tile never holds rows of two experts' results, though it may read on into
the next. Two scalings: "block", weights per 128 x 128 and rows per 128 columns, as the model stores and was served; and
"row", one scale per row of either side. Tiles come from device memory by the copy engine of Hopper and later.
Untested on a card. Letters: P rows, G experts, O outputs, I inputs.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

Scaling = Literal["block", "row"]

FP8_MAX = 448.0
BLOCK = 128
"""Columns, and rows of a weight, that share a scale; also the columns of a step."""


class TileShape(NamedTuple):
    """Rows and outputs of a tile, the warps of its program, and the steps loaded ahead."""

    rows: int
    outputs: int
    warps: int
    stages: int
    registers: int | None = None  # of a thread, at most: fewer let two programs share a multiprocessor


TILE_SHAPES: dict[Scaling, TileShape] = {"block": TileShape(128, 128, 8, 3, 128), "row": TileShape(128, 256, 8, 3)}
"""Reckoned, not measured: two block-scaled programs per multiprocessor, one scaling sums while the other multiplies."""


@triton.jit
def quantize_kernel(
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    cols: tl.constexpr,
    lanes: tl.constexpr,
    per_scale: tl.constexpr,
) -> None:
    """Write one row as e4m3 with a scale per `per_scale` columns: its largest magnitude becomes 448."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, lanes // per_scale)[:, None]
    at = part * per_scale + tl.arange(0, per_scale)[None, :]
    values = tl.load(x + row * cols + at, mask=at < cols, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), axis=1) / 448.0, 1e-30)
    tl.store(codes + row * cols + at, (values / scale[:, None]).to(tl.float8e4nv), mask=at < cols)
    count: tl.constexpr = (cols + per_scale - 1) // per_scale
    place = tl.arange(0, lanes // per_scale)
    tl.store(scales + row * count + place, scale, mask=place < count)


def quantize_rows(x: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Return rows [P, I] as float8_e4m3fn and their scales, float32 [P, I/128] ("block") or [P, 1] ("row")."""
    x, (rows, cols) = x.contiguous(), x.shape
    lanes = triton.next_power_of_2(cols)
    per_scale = BLOCK if scaling == "block" else lanes
    codes = torch.empty(rows, cols, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, triton.cdiv(cols, per_scale), dtype=torch.float32, device=x.device)
    if rows:
        quantize_kernel[(rows,)](x, codes, scales, cols, max(lanes, per_scale), per_scale, num_warps=4)
    return codes, scales


@triton.jit
def grouped_kernel(
    rows: tl.tensor,
    weights: tl.tensor,
    row_scales: tl.tensor,
    weight_scales: tl.tensor,
    tiles: tl.tensor,
    out: tl.tensor,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_outputs: tl.constexpr,
    by_block: tl.constexpr,
    stages: tl.constexpr,
) -> None:
    """Write one tile of out [P, O]."""
    tile = tl.program_id(0)
    expert, first = tl.load(tiles + tile * 4), tl.load(tiles + tile * 4 + 1)
    last, output = tl.load(tiles + tile * 4 + 2), tl.multiple_of(tl.load(tiles + tile * 4 + 3), tile_outputs)
    row = first + tl.arange(0, tile_rows)
    is_real = row < last
    sums = tl.zeros((tile_rows, tile_outputs), tl.float32)
    at_scales = row_scales + row * (inputs // 128)
    at_block = weight_scales + (expert * (outputs // 128) + output // 128) * (inputs // 128)
    for step in tl.range(0, inputs // 128, num_stages=stages):
        x = rows.load([first, step * 128])
        w = weights.load([expert * outputs + output, step * 128])
        if by_block:
            scale = tl.load(at_scales + step, mask=is_real, other=0.0) * tl.load(at_block + step)
            sums += tl.dot(x, w.T) * scale[:, None]
        else:
            sums = tl.dot(x, w.T, sums)
    column = output + tl.arange(0, tile_outputs)
    if not by_block:
        scale = tl.load(row_scales + row, mask=is_real, other=0.0)
        sums = sums * scale[:, None] * tl.load(weight_scales + expert * outputs + column)[None, :]
    place = row[:, None].to(tl.int64) * outputs + column[None, :]
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=is_real[:, None])


def tile_table(counts: list[int], outputs: int, shape: TileShape) -> Tensor:
    """Return int32 [tiles, 4]: expert, first row, end of its rows, first output; rows of an expert are neighbours.

    counts: rows of each expert, in the order of the sorted rows. All row tiles of a strip of weights follow each other,
    so that the strip is still in the device's cache when the second one asks for it.
    """
    ends = np.cumsum(counts)
    parts = []
    for expert, (count, end) in enumerate(zip(counts, ends.tolist(), strict=True)):
        firsts = np.arange(end - count, end, shape.rows)
        strips = np.arange(0, outputs, shape.outputs)
        table = np.empty((len(strips), len(firsts), 4), np.int32)
        table[..., 0], table[..., 1], table[..., 2] = expert, firsts[None, :], end
        table[..., 3] = strips[:, None]
        parts.append(table.reshape(-1, 4))
    return torch.from_numpy(np.concatenate(parts) if parts else np.empty((0, 4), np.int32))


def grouped_product(
    rows: Tensor,
    row_scales: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    tiles: Tensor,
    scaling: Scaling,
    shape: TileShape,
    out_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Return each row times its expert's matrix, [P, O].

    rows float8_e4m3fn [P, I] sorted by expert with the scales of `quantize_rows`; weights float8_e4m3fn [G, O, I] with
    float32 scales [G, O/128, I/128] ("block") or [G, O] ("row"); tiles: `tile_table` for `shape`, on the device.
    Raises ValueError where I is no multiple of 128, or O none of a tile's outputs, or those of 128 for "block".
    """
    (_, outputs, inputs), by_block = weights.shape, scaling == "block"
    if inputs % BLOCK or outputs % shape.outputs or (by_block and shape.outputs != BLOCK):
        raise ValueError(f"weights of {outputs} x {inputs} are not made of tiles of {shape.outputs} x {BLOCK}")
    out = torch.empty(len(rows), outputs, dtype=out_dtype, device=rows.device)
    if len(tiles):
        grouped_kernel[(len(tiles),)](
            TensorDescriptor.from_tensor(rows, [shape.rows, BLOCK]),
            TensorDescriptor.from_tensor(weights.view(-1, inputs), [shape.outputs, BLOCK]),
            row_scales, weight_scales, tiles, out, outputs, inputs, shape.rows, shape.outputs, by_block, shape.stages,
            num_warps=shape.warps, maxnreg=shape.registers,
        )  # fmt: skip
    return out
