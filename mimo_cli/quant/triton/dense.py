"""A packed matrix times a few vectors, with the norm before it and the sum after it in the same launch.

A program makes 16 rows for one vector, so a matrix of thousands of rows fills a card. Untested on a card.
Letters: N vectors, O rows, I columns.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mimo_cli.quant.packed import SPAN_COLS, PackedFormat, PackedShape
from mimo_cli.quant.slot_layout import MatrixLayout
from mimo_cli.quant.triton.blocks import row_sums, step_sums
from mimo_cli.quant.triton.launch import TILE, LaunchShape, is_fast, places, scale_view, spans_per_step, unit_view

SHAPES: dict[PackedFormat, LaunchShape] = {
    "int4": LaunchShape(8, 8, 4),
    "mxfp4": LaunchShape(8, 8, 4),
    "int8": LaunchShape(4, 8, 4),
    "fp8": LaunchShape(4, 8, 4),
    "bf16": LaunchShape(2, 8, 4),
}
"""Steps by format, reckoned, not measured."""


class RowNorm(NamedTuple):
    """An RMSNorm of the vectors before the product: weight [I] in their dtype."""

    weight: Tensor
    eps: float


@triton.jit
def inverse_rms(x: tl.tensor, cols: tl.constexpr, lanes: tl.constexpr, eps: tl.constexpr) -> tl.tensor:
    """Return 1 / sqrt(mean(x^2) + eps) of `cols` values, float32."""
    at = tl.arange(0, lanes)
    values = tl.load(x + at, mask=at < cols, other=0.0).to(tl.float32)
    return 1.0 / tl.sqrt_rn(tl.sum(values * values) / cols + eps)


@triton.jit
def product_kernel(
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    norm: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    eps: tl.constexpr,
    first_code: tl.constexpr,
    first_scale: tl.constexpr,
    block_units: tl.constexpr,
    block_scales: tl.constexpr,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    spans: tl.constexpr,
    rows: tl.constexpr,
    cols: tl.constexpr,
    lanes: tl.constexpr,
    stages: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
    U: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    padded: tl.constexpr,
    normed: tl.constexpr,
    has_residual: tl.constexpr,
    fast: tl.constexpr,
) -> None:
    """Write 16 rows of `matrix x`, plus `residual`, for one vector; `normed`: of x after its norm."""
    block, token = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = x + token * cols
    rms = 0.0
    if normed:
        rms = inverse_rms(row, cols, lanes, eps)
    at = codes + block * block_units + first_code
    at_scales = scales + block * block_scales + first_scale
    total = tl.zeros((4 * L * S, U), tl.float32)
    for first in tl.range(0, spans, S, num_stages=stages):
        total += step_sums(
            at, at_scales, row, norm, rms, first, cols, span_units, span_scales,
            S, L, U, kind, group, padded, normed, fast,
        )  # fmt: skip
    result = row_sums(total, S, L, U, kind).to(out.dtype.element_ty)
    places = block * 16 + tl.arange(0, 16)
    if has_residual:
        before = tl.load(residual + token * rows + places, mask=places < rows, other=0.0).to(tl.float32)
        result = (before + result.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + token * rows + places, result, mask=places < rows)


def packed_product(
    x: Tensor,
    data: Tensor,
    shape: PackedShape,
    *,
    norm: RowNorm | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    launch: LaunchShape | None = None,
    fast: bool | None = None,
) -> Tensor:
    """Return matrix @ x for each of the vectors x [N, I], plus `residual` [N, O]: [N, O] of `out_dtype` (that of x).

    data: uint8 [shape.nbytes], a packed stream of one matrix on the device of x, at a multiple of 16 bytes. Products
    are float32 and rounded once. With `norm` the matrix is applied to the vectors' RMSNorm.
    """
    if shape.streams != 1 or data.numel() != shape.nbytes or x.shape[-1] != shape.cols:
        raise ValueError(f"{data.numel()} bytes and vectors {list(x.shape)} do not go with {shape}")
    x, kind = x.contiguous(), shape.format
    out = torch.empty(len(x), shape.rows, dtype=out_dtype or x.dtype, device=x.device)
    if not len(x):
        return out
    launch, fast = launch or SHAPES[kind], is_fast(x.device) if fast is None else fast
    matrix = MatrixLayout.within(shape, 0, 0)
    product_kernel[(matrix.blocks, len(x))](
        x, unit_view(data, kind), scale_view(data, kind), x if norm is None else norm.weight,
        out if residual is None else residual, out, 0.0 if norm is None else norm.eps, *places(matrix, kind),
        matrix.spans, shape.rows, shape.cols, triton.next_power_of_2(shape.cols), launch.stages,
        spans_per_step(matrix.spans, launch.spans), *TILE[kind], kind, shape.group, shape.cols % SPAN_COLS > 0,
        norm is not None, residual is not None, fast, num_warps=launch.warps,
    )  # fmt: skip
    return out
