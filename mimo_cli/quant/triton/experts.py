"""Routed experts of a few tokens: gather, dequantise, SwiGLU and weighted sum in two launches.

A program of the first launch makes 16 rows of gate and up of one expert for one token, one of the second 16 rows of
the result from all of a token's experts, in the order of its list. Which slot an expert is in is looked up on the
device: nothing waits for the host, and both launches can be captured in a CUDA graph. Untested on a card.
Letters: N tokens, A experts per token, H hidden size, I expert width, E experts, S slots.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mimo_cli.quant.packed import SPAN_COLS, PackedFormat
from mimo_cli.quant.slot_layout import SlotLayout
from mimo_cli.quant.triton.blocks import row_sums, step_sums
from mimo_cli.quant.triton.cores import core_row_sums, core_sums
from mimo_cli.quant.triton.launch import (
    TILE,
    LaunchShape,
    is_fast,
    places,
    require_slots,
    scale_view,
    spans_per_step,
    unit_view,
)

GATE_UP_SHAPES: dict[PackedFormat, LaunchShape] = {
    "int4": LaunchShape(4, 4, 3),
    "mxfp4": LaunchShape(4, 4, 3),
    "int8": LaunchShape(2, 4, 4),
    "fp8": LaunchShape(2, 4, 4),
    "bf16": LaunchShape(1, 4, 4),
}
DOWN_SHAPES: dict[PackedFormat, LaunchShape] = {
    "int4": LaunchShape(8, 8, 4),
    "mxfp4": LaunchShape(8, 8, 4),
    "int8": LaunchShape(4, 8, 4),
    "fp8": LaunchShape(4, 8, 4),
    "bf16": LaunchShape(2, 8, 4),
}
"""Steps of both launches by format: enough bytes in flight for the memory of a large card, reckoned, not measured."""


@triton.jit
def gate_up_kernel(
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    expert_ids: tl.tensor,
    slot_of_expert: tl.tensor,
    products: tl.tensor,
    slot_units: tl.constexpr,
    slot_scales: tl.constexpr,
    gate_codes: tl.constexpr,
    gate_scales: tl.constexpr,
    up_codes: tl.constexpr,
    up_scales: tl.constexpr,
    block_units: tl.constexpr,
    block_scales: tl.constexpr,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    spans: tl.constexpr,
    hidden: tl.constexpr,
    width: tl.constexpr,
    active: tl.constexpr,
    stages: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
    U: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    padded: tl.constexpr,
    fast: tl.constexpr,
    cores: tl.constexpr,
) -> None:
    """Write silu(gate) * up of one block of 16 rows of one expert for one token: products [N * A, I]."""
    block, pair = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slot_of_expert + tl.load(expert_ids + pair))
    base = tl.maximum(slot, 0).to(tl.int64)  # an expert that is not here: read another, write zeros
    at = codes + base * slot_units + block * block_units
    at_scales = scales + base * slot_scales + block * block_scales
    if cores:
        row = x + pair // active * (hidden // 2)
    else:
        row = x + pair // active * hidden
    gates, ups = tl.zeros((4 * L * S, U), tl.float32), tl.zeros((4 * L * S, U), tl.float32)
    for first in tl.range(0, spans, S, num_stages=stages):
        if cores:
            gates += core_sums(
                at + gate_codes, at_scales + gate_scales, row, first, span_units, span_scales, S, kind, group
            )
            ups += core_sums(at + up_codes, at_scales + up_scales, row, first, span_units, span_scales, S, kind, group)
        else:
            gates += step_sums(
                at + gate_codes, at_scales + gate_scales, row, row, 0.0, first, hidden, span_units, span_scales,
                S, L, U, kind, group, padded, False, fast,
            )  # fmt: skip
            ups += step_sums(
                at + up_codes, at_scales + up_scales, row, row, 0.0, first, hidden, span_units, span_scales,
                S, L, U, kind, group, padded, False, fast,
            )  # fmt: skip
    if cores:
        gate, up = core_row_sums(gates, S), core_row_sums(ups, S)
    else:
        gate, up = row_sums(gates, S, L, U, kind), row_sums(ups, S, L, U, kind)
    product = tl.where(slot >= 0, gate * tl.sigmoid(gate) * up, 0.0)
    rows = block * 16 + tl.arange(0, 16)
    tl.store(products + pair * width + rows, product.to(products.dtype.element_ty), mask=rows < width)


@triton.jit
def down_kernel(
    products: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    expert_ids: tl.tensor,
    expert_weights: tl.tensor,
    slot_of_expert: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    slot_units: tl.constexpr,
    slot_scales: tl.constexpr,
    down_codes: tl.constexpr,
    down_scales: tl.constexpr,
    block_units: tl.constexpr,
    block_scales: tl.constexpr,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    spans: tl.constexpr,
    hidden: tl.constexpr,
    width: tl.constexpr,
    active: tl.constexpr,
    lookup: tl.constexpr,
    stages: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
    U: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    padded: tl.constexpr,
    has_residual: tl.constexpr,
    fast: tl.constexpr,
    cores: tl.constexpr,
) -> None:
    """Write 16 values of one token: the weighted sum of its experts, and `residual` [N, H] if there is one."""
    block, token = tl.program_id(0), tl.program_id(1)
    # All slots and weights are looked up at once, before the loop: it then waits for nothing but what it loads ahead.
    place = tl.arange(0, lookup)
    pairs = token * active + place
    ids = tl.load(expert_ids + pairs, mask=place < active, other=0)
    found = tl.load(slot_of_expert + ids)
    weights = tl.load(expert_weights + pairs, mask=place < active, other=0.0)
    at = codes + block * block_units + down_codes
    at_scales = scales + block * block_scales + down_scales
    total = tl.zeros((4 * L * S, U), tl.float32)
    for step in tl.range(0, active * (spans // S), num_stages=stages):
        chosen = step // (spans // S)
        slot = tl.sum(tl.where(place == chosen, found, 0))
        weight = tl.sum(tl.where(place == chosen, weights, 0.0))
        base = tl.maximum(slot, 0).to(tl.int64)
        first = step % (spans // S) * S
        codes_here, scales_here = at + base * slot_units, at_scales + base * slot_scales
        if cores:
            row = products + (token * active + chosen) * (width // 2)
            sums = core_sums(codes_here, scales_here, row, first, span_units, span_scales, S, kind, group)
        else:
            row = products + (token * active + chosen) * width
            sums = step_sums(
                codes_here, scales_here, row, row, 0.0, first, width, span_units, span_scales,
                S, L, U, kind, group, padded, False, fast,
            )  # fmt: skip
        total += tl.where(slot >= 0, sums * weight, 0.0)  # what is read for an absent expert may be no number
    if cores:
        result = core_row_sums(total, S)
    else:
        result = row_sums(total, S, L, U, kind)
    rows = block * 16 + tl.arange(0, 16)
    result = result.to(out.dtype.element_ty)
    if has_residual:
        before = tl.load(residual + token * hidden + rows, mask=rows < hidden, other=0.0).to(tl.float32)
        result = (before + result.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + token * hidden + rows, result, mask=rows < hidden)


def decode_experts(
    hidden_states: Tensor,
    expert_ids: Tensor,
    expert_weights: Tensor,
    slot_of_expert: Tensor,
    slots: Tensor,
    layout: SlotLayout,
    *,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    gate_up: LaunchShape | None = None,
    down: LaunchShape | None = None,
    fast: bool | None = None,
    cores: bool = False,
) -> Tensor:
    """Return sum_a expert_weights[n, a] * expert_{expert_ids[n, a]}(hidden_states[n]), and `residual` [N, H] if given.

    hidden_states [N, H] bfloat16 or float32; expert_ids [N, A] of any integer type; expert_weights [N, A] float32;
    slot_of_expert int32 [E], -1 where an expert is in no slot: what it would give is left out; slots uint8 [S, bytes],
    records of `layout`. All on one device. Returns [N, H] of `out_dtype`, or the dtype of hidden_states. Sums are
    float32, rounded once between SwiGLU and down, to the dtype of hidden_states, and once at the end; their order does
    not depend on N, S or the slots. gate_up, down and fast stand in for the launch shapes and the choice of
    instructions (see `launch`); cores: 4-bit products on the tensor cores where activations are bfloat16 (see `cores`).
    """
    tokens, active = expert_ids.shape
    hidden_states, expert_ids = hidden_states.contiguous(), expert_ids.contiguous()
    expert_weights = expert_weights.contiguous()
    require_slots(slots, layout.record_bytes)
    out = torch.empty_like(hidden_states, dtype=out_dtype)
    if not tokens:
        return out
    kind, fast = layout.format, is_fast(slots.device) if fast is None else fast
    gate_up, down = gate_up or GATE_UP_SHAPES[kind], down or DOWN_SHAPES[kind]
    codes, scales = unit_view(slots, kind), scale_view(slots, kind)
    slot = codes.shape[1], scales.shape[1]
    products = hidden_states.new_empty(tokens * active, layout.width)
    gates, ups, downs = (places(matrix, kind) for matrix in (layout.gate, layout.up, layout.down))
    sizes = layout.hidden_size, layout.width, active
    is_padded = layout.hidden_size % SPAN_COLS > 0, layout.width % SPAN_COLS > 0
    cores = cores and kind in ("int4", "mxfp4") and hidden_states.dtype == torch.bfloat16 and not any(is_padded)
    given, between = (t.view(torch.int32) if cores else t for t in (hidden_states, products))
    gate_up_kernel[(layout.gate.blocks, tokens * active)](
        given, codes, scales, expert_ids, slot_of_expert, products, *slot, gates.codes, gates.scales,
        ups.codes, ups.scales, *gates[2:], layout.gate.spans, *sizes, gate_up.stages,
        spans_per_step(layout.gate.spans, gate_up.spans), *TILE[kind], kind, layout.group, is_padded[0], fast, cores,
        num_warps=gate_up.warps,
    )  # fmt: skip
    down_kernel[(layout.down.blocks, tokens)](
        between, codes, scales, expert_ids, expert_weights, slot_of_expert, out if residual is None else residual,
        out, *slot, *downs, layout.down.spans, *sizes, triton.next_power_of_2(active), down.stages,
        spans_per_step(layout.down.spans, down.spans), *TILE[kind], kind, layout.group, is_padded[1],
        residual is not None, fast, cores, num_warps=down.warps,
    )  # fmt: skip
    return out
