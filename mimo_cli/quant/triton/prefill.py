"""Routed experts of many tokens: rows sorted by expert, each expert's matrices read once and multiplied as matrices.

"exact" unpacks some experts at a time to the dtype of the activations and multiplies by torch's grouped product; W8A8
quantises the activations too and multiplies e4m3 by e4m3: another precision, which is never chosen for anybody. The
rows' sizes come to the host, once a call, to lay out the products: a prompt can wait for that. Untested on a card.
Letters: N tokens, A experts per token, P = N A pairs, H hidden size, I expert width, E experts, S slots, G of a group.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mimo_cli.quant.slot_layout import SlotLayout
from mimo_cli.quant.triton.grouped import TILE_SHAPES, grouped_product, quantize_rows, tile_table
from mimo_cli.quant.triton.unpack import unpack_experts, unpack_fp8

PrefillPrecision = Literal["exact", "w8a8"]

GROUP_EXPERTS = 32
"""Experts unpacked at a time: 1.6 GB in bfloat16 for MiMo-V2.5."""


class SortedPairs(NamedTuple):
    """tokens int64 [P]: whose row each place of the sorted order is; places int64 [N, A]: where each pair's row is.

    counts: rows per expert, in ascending order of experts; those of experts without a slot stand behind all others and
    are not counted.
    """

    tokens: Tensor
    places: Tensor
    counts: list[int]


@triton.jit
def swiglu_kernel(gate_up: tl.tensor, out: tl.tensor, width: tl.constexpr, lanes: tl.constexpr) -> None:
    """Write silu(gate) * up of `lanes` columns of one row: gate_up [P, 2I] -> out [P, I]."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * lanes + tl.arange(0, lanes)
    gate = tl.load(gate_up + row * 2 * width + at, mask=at < width, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=at < width, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=at < width)


@triton.jit
def combine_kernel(
    products: tl.tensor,
    places: tl.tensor,
    expert_weights: tl.tensor,
    out: tl.tensor,
    computed: tl.tensor,
    hidden: tl.constexpr,
    active: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Write the weighted sum of a token's rows, in the order of its list; places from `computed` on have no row."""
    token, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * lanes + tl.arange(0, lanes)
    rows = tl.load(computed)
    total = tl.zeros((lanes,), tl.float32)
    for chosen in range(active):
        place = tl.load(places + token * active + chosen)
        weight = tl.load(expert_weights + token * active + chosen)
        row = tl.load(products + place * hidden + at, mask=(at < hidden) & (place < rows), other=0.0)
        total += row.to(tl.float32) * weight
    tl.store(out + token * hidden + at, total.to(out.dtype.element_ty), mask=at < hidden)


def prefill_experts(
    hidden_states: Tensor,
    expert_ids: Tensor,
    expert_weights: Tensor,
    slot_of_expert: Tensor,
    slots: Tensor,
    layout: SlotLayout,
    *,
    precision: PrefillPrecision = "exact",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return what `decode_experts` does, for many tokens; arguments and result are the same.

    Products of "exact" are rounded to the dtype of hidden_states after gate and up, SwiGLU and down, and weights are
    rounded to it when they are unpacked; "w8a8" needs FP8 records whose sides are multiples of 128.
    """
    hidden = hidden_states.contiguous()
    pairs = sort_pairs(expert_ids, slot_of_expert)
    rows = sum(pairs.counts)
    products = hidden.new_empty(max(1, rows), layout.hidden_size)
    first = 0
    run = _exact if precision == "exact" else _w8a8
    for experts in _groups(pairs.counts):
        counts = [pairs.counts[expert] for expert in experts]
        slot_ids = slot_of_expert[torch.tensor(experts, device=hidden.device)]
        end = first + sum(counts)
        products[first:end] = run(hidden[pairs.tokens[first:end]], counts, slots, slot_ids, layout)
        first = end
    return combine(products, pairs.places, expert_weights, rows, out_dtype or hidden.dtype)


def sort_pairs(expert_ids: Tensor, slot_of_expert: Tensor) -> SortedPairs:
    """Sort the pairs of expert_ids [N, A] by expert, in the order of tokens; experts without a slot go to the end."""
    experts = len(slot_of_expert)
    ids = expert_ids.reshape(-1).long()
    keys = torch.where(slot_of_expert[ids] >= 0, ids, experts)
    order = keys.argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    counts = torch.bincount(keys, minlength=experts + 1)[:experts].tolist()
    return SortedPairs(order // expert_ids.shape[1], places.view_as(expert_ids), counts)


def combine(products: Tensor, places: Tensor, expert_weights: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """Return sum_a expert_weights[n, a] * products[places[n, a]], [N, H]; places from `rows` on add nothing."""
    (tokens, active), hidden = places.shape, products.shape[1]
    out = torch.empty(tokens, hidden, dtype=dtype, device=products.device)
    if tokens:
        lanes = min(1024, triton.next_power_of_2(hidden))
        computed = torch.tensor([rows], device=products.device)
        combine_kernel[(tokens, triton.cdiv(hidden, lanes))](
            products, places, expert_weights.contiguous(), out, computed, hidden, active, lanes, num_warps=4
        )
    return out


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up of gate_up [P, 2I], computed in float32 and rounded once: [P, I]."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    lanes = min(1024, triton.next_power_of_2(width))
    swiglu_kernel[(rows, triton.cdiv(width, lanes))](gate_up, out, width, lanes, num_warps=4)
    return out


def _groups(counts: list[int]) -> Iterator[list[int]]:
    """Yield the experts that have rows, GROUP_EXPERTS at a time."""
    chosen = [expert for expert, count in enumerate(counts) if count]
    for first in range(0, len(chosen), GROUP_EXPERTS):
        yield chosen[first : first + GROUP_EXPERTS]


def _exact(rows: Tensor, counts: list[int], slots: Tensor, slot_ids: Tensor, layout: SlotLayout) -> Tensor:
    gate_up, down = unpack_experts(slots, slot_ids, layout, rows.dtype)
    return _multiply(swiglu(_multiply(rows, gate_up, counts)), down, counts)


def _multiply(rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
    """Return each row times its expert's matrix of weights [G, O, I]; rows are sorted by expert."""
    if rows.is_cuda and rows.dtype == torch.bfloat16:
        ends = torch.tensor(counts, device=rows.device).cumsum(0).int()
        return torch._grouped_mm(rows, weights.transpose(1, 2), offs=ends)
    parts = zip(rows.split(counts), weights, strict=True)
    return torch.cat([part @ matrix.T for part, matrix in parts])


def _w8a8(rows: Tensor, counts: list[int], slots: Tensor, slot_ids: Tensor, layout: SlotLayout) -> Tensor:
    gate_up, up_scales, down, down_scales = unpack_fp8(slots, slot_ids, layout)
    shape = TILE_SHAPES["block"]
    for_up = tile_table(counts, 2 * layout.width, shape).to(rows.device)
    for_down = tile_table(counts, layout.hidden_size, shape).to(rows.device)
    codes, scales = quantize_rows(rows, "block")
    mixed = swiglu(grouped_product(codes, scales, gate_up, up_scales, for_up, "block", shape, rows.dtype))
    codes, scales = quantize_rows(mixed, "block")
    return grouped_product(codes, scales, down, down_scales, for_down, "block", shape, rows.dtype)
