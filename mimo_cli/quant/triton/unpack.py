"""Packed experts as plain matrices on the device, for products of many tokens: bfloat16 values, or e4m3 as stored.

A program unpacks a step of 16 rows; a thread writes 4 rows of 2 to 8 columns side by side. Untested on a card.
Letters: G experts, H hidden size, I expert width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.slot_layout import MatrixLayout, SlotLayout
from mimo_cli.quant.triton.blocks import INT4_WORD, MXFP4_WORD, e2m1, e8m0, fp8_values, in_mantissa, word_values
from mimo_cli.quant.triton.launch import TILE, is_fast, places, require_slots, scale_view, spans_per_step, unit_view

_STEP_SPANS: dict[PackedFormat, int] = {"int4": 8, "mxfp4": 8, "int8": 4, "fp8": 4, "bf16": 2}


@triton.jit
def columns_of_words(words: tl.tensor, kind: tl.constexpr, fast: tl.constexpr) -> tl.tensor:
    """Decode words [..] to float32 [.., C]: 8 columns of a 4-bit format, 4 of int8 or 2 of bf16, without scales."""
    if kind == "bf16":
        values = tl.join((words << 16).to(tl.float32, bitcast=True), (words & -65536).to(tl.float32, bitcast=True))
    elif kind == "int8":
        even = tl.join(in_mantissa(words, 15, 0x007F8000), in_mantissa(words, -1, 0x007F8000))
        odd = tl.join(in_mantissa(words, 7, 0x007F8000), in_mantissa(words, -9, 0x007F8000))
        values = tl.join(even, odd) * 256.0 - 384.0
    else:
        if kind == "int4" and fast:
            w0, w1, w2, w3, w4, w5, w6, w7 = word_values(words, INT4_WORD)
        elif kind == "int4":
            w0, w1 = in_mantissa(words, 19, 0x00780000), in_mantissa(words, 11, 0x00780000)
            w2, w3 = in_mantissa(words, 3, 0x00780000), in_mantissa(words, -5, 0x00780000)
            w4, w5 = in_mantissa(words, 15, 0x00780000), in_mantissa(words, 7, 0x00780000)
            w6, w7 = in_mantissa(words, -1, 0x00780000), in_mantissa(words, -9, 0x00780000)
        elif fast:
            w0, w1, w2, w3, w4, w5, w6, w7 = word_values(words, MXFP4_WORD)
        else:
            w0, w1, w2, w3 = e2m1(words, 0), e2m1(words, 8), e2m1(words, 16), e2m1(words, 24)
            w4, w5, w6, w7 = e2m1(words, 4), e2m1(words, 12), e2m1(words, 20), e2m1(words, 28)
        # A join appends the lowest bit of the column's number: first columns 4 apart, then 2, then 1.
        even = tl.join(tl.join(w0, w4), tl.join(w2, w6))
        odd = tl.join(tl.join(w1, w5), tl.join(w3, w7))
        values = tl.join(even, odd)
        if kind == "mxfp4":
            values *= 64.0
        elif not fast:
            values = values * 16.0 - 24.0
    return values


@triton.jit
def unpack_kernel(
    codes: tl.tensor,
    scales: tl.tensor,
    slot_ids: tl.tensor,
    out: tl.tensor,
    out_scales: tl.tensor,
    slot_units: tl.constexpr,
    slot_scales: tl.constexpr,
    first_code: tl.constexpr,
    first_scale: tl.constexpr,
    block_units: tl.constexpr,
    block_scales: tl.constexpr,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    rows: tl.constexpr,
    cols: tl.constexpr,
    out_rows: tl.constexpr,
    first_row: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
    U: tl.constexpr,
    C: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    raw: tl.constexpr,
    fast: tl.constexpr,
) -> None:
    """Write S spans of one block of one expert into out [G, out_rows, cols], its rows from `first_row` on.

    raw: fp8 units as they are, two codes each, out being int16 [G, out_rows, cols / 2], and a scale per 128 x 128.
    """
    block, step, expert = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.maximum(tl.load(slot_ids + expert), 0).to(tl.int64)
    place = tl.arange(0, 4 * L * S)
    line = place // 4 % L
    span = step * S + place // (4 * L)
    unit = (place % 4 * U)[:, None] + tl.arange(0, U)[None, :]
    at = codes + slot * slot_units + block * block_units + first_code
    at_scales = scales + slot * slot_scales + block * block_scales + first_scale
    units = tl.load(at + ((span * span_units + line * (4 * U))[:, None] + unit))  # [M, U]
    column = (span * 128 + line * (128 // L))[:, None, None]
    row = (block * 16 + place % 4 * 4)[:, None, None] + tl.arange(0, 4)[None, :, None]
    first_value = (expert * out_rows + first_row).to(tl.int64) * cols
    if raw:
        units = tl.permute(tl.reshape(units, (4 * L * S, 2, 4)), (0, 2, 1))  # [M, pair, row] -> [M, row, pair]
        into = out + first_value // 2 + (row * (cols // 2) + column // 2 + tl.arange(0, 2)[None, None, :])
        tl.store(into, units, mask=(row < rows) & (column < cols))
        if block % 8 == 0:
            each = step * S + tl.arange(0, S)
            grid = (expert * (out_rows // 128) + first_row // 128 + block // 8) * (cols // 128)
            tl.store(out_scales + grid + each, tl.load(at_scales + each * span_scales), mask=each * 128 < cols)
    else:
        if kind == "fp8":
            first, second = fp8_values(units, fast)
            values = tl.join(first, second) * tl.load(at_scales + span * span_scales)[:, None, None]
            values = tl.permute(tl.reshape(values, (4 * L * S, 2, 4, 2)), (0, 2, 1, 3))
        else:
            values = columns_of_words(units, kind, fast)
            if kind != "bf16":
                of_line = span * span_scales + line * (128 // L) // group * 16
                scale = tl.load(at_scales + (of_line[:, None] + unit))
                scale = e8m0(scale) if kind == "mxfp4" else scale.to(tl.float32)
                values = tl.reshape(values, (4 * L * S, 4, C)) * scale[:, :, None]
        values = tl.reshape(values, (4 * L * S, 4, C))
        column += tl.arange(0, C)[None, None, :]
        is_real = (row < rows) & (column < cols)
        tl.store(out + first_value + (row * cols + column), values.to(out.dtype.element_ty), mask=is_real)


def unpack_experts(
    slots: Tensor,
    slot_ids: Tensor,
    layout: SlotLayout,
    dtype: torch.dtype = torch.bfloat16,
    *,
    fast: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return gate above up [G, 2I, H] and down [G, H, I] of the slots slot_ids int32 [G], as `dtype`.

    Peak memory is the result: 50 MB in bfloat16 for an expert of MiMo-V2.5.
    """
    gate_up = torch.empty(len(slot_ids), 2 * layout.width, layout.hidden_size, dtype=dtype, device=slots.device)
    down = torch.empty(len(slot_ids), layout.hidden_size, layout.width, dtype=dtype, device=slots.device)
    for out, matrix, first_row in _parts(layout, gate_up, down):
        _unpack(slots, slot_ids, layout, matrix, out, None, first_row, fast)
    return gate_up, down


def unpack_fp8(slots: Tensor, slot_ids: Tensor, layout: SlotLayout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `unpack_experts` does as stored, float8_e4m3fn, and both matrices' scales per 128 x 128.

    gate above up [G, 2I, H] with [G, 2I/128, H/128] float32, down [G, H, I] with [G, H/128, I/128]. Raises ValueError
    where the format is another or a side is no multiple of 128: rows of a block then share no scale.
    """
    hidden, width = layout.hidden_size, layout.width
    if layout.format != "fp8" or hidden % 128 or width % 128:
        raise ValueError(f"{layout.format} experts of {width} x {hidden} are no FP8 blocks of 128 x 128")
    count, device = len(slot_ids), slots.device
    gate_up = torch.empty(count, 2 * width, hidden // 2, dtype=torch.int16, device=device)
    down = torch.empty(count, hidden, width // 2, dtype=torch.int16, device=device)
    up_scales = torch.empty(count, 2 * width // 128, hidden // 128, dtype=torch.float32, device=device)
    down_scales = torch.empty(count, hidden // 128, width // 128, dtype=torch.float32, device=device)
    for out, matrix, first_row in _parts(layout, gate_up, down):
        scales = down_scales if matrix is layout.down else up_scales
        _unpack(slots, slot_ids, layout, matrix, out, scales, first_row, None)
    kind = torch.float8_e4m3fn
    return gate_up.view(kind), up_scales, down.view(kind), down_scales


def _parts(layout: SlotLayout, gate_up: Tensor, down: Tensor) -> list[tuple[Tensor, MatrixLayout, int]]:
    return [(gate_up, layout.gate, 0), (gate_up, layout.up, layout.width), (down, layout.down, 0)]


def _unpack(
    slots: Tensor,
    slot_ids: Tensor,
    layout: SlotLayout,
    matrix: MatrixLayout,
    out: Tensor,
    out_scales: Tensor | None,
    first_row: int,
    fast: bool | None,
) -> None:
    kind = layout.format
    require_slots(slots, layout.record_bytes)
    codes, scales = unit_view(slots, kind), scale_view(slots, kind)
    step = spans_per_step(matrix.spans, _STEP_SPANS[kind])
    columns = 128 // TILE[kind][0]
    unpack_kernel[(matrix.blocks, matrix.spans // step, len(slot_ids))](
        codes, scales, slot_ids, out, scales if out_scales is None else out_scales, codes.shape[1], scales.shape[1],
        *places(matrix, kind), matrix.rows, matrix.cols, out.shape[1], first_row, step, *TILE[kind], columns, kind,
        layout.group, out_scales is not None, is_fast(slots.device) if fast is None else fast, num_warps=4,
    )  # fmt: skip
