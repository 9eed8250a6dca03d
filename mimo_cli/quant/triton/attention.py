"""Attention of decoded tokens over cached keys and values: grouped heads, a window or none, a sink or none.

The keys of a KV head are cut into as many parts as there are programs; a second launch joins the parts, and the sink
with them: it is one more logit without a value, so it enters the largest logit and the sum, never the result. A cache
of S places holds position p at place p mod S: a ring once the timeline is longer than S, a growing cache before. How
long it is stands in the device's memory, so a captured graph stays valid while it grows. Untested on a card.
Letters: B sequences, H query heads, K KV heads, G = H / K, D width of queries and keys, Dv of values, S places.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

KEYS_PER_STEP = 64
MAX_PARTS = 64
"""Parts that the keys of a head are cut into, at most: the joining program holds all of them at once."""


@triton.jit
def part_kernel(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    lengths: tl.tensor,
    sums: tl.tensor,
    tops: tl.tensor,
    totals: tl.tensor,
    key_batch: tl.constexpr,
    key_head: tl.constexpr,
    key_place: tl.constexpr,
    value_batch: tl.constexpr,
    value_head: tl.constexpr,
    value_place: tl.constexpr,
    kv_heads: tl.constexpr,
    group: tl.constexpr,
    group_rows: tl.constexpr,
    width: tl.constexpr,
    width_low: tl.constexpr,
    width_high: tl.constexpr,
    value_width: tl.constexpr,
    value_lanes: tl.constexpr,
    places: tl.constexpr,
    window: tl.constexpr,
    parts: tl.constexpr,
    scale: tl.constexpr,
    keys_per_step: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Write sum_j exp(s_j - m) v_j, m and sum_j exp(s_j - m) of one part of the keys of one KV head."""
    head, part, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + batch)
    held = tl.minimum(length, places)
    per_part = tl.cdiv(tl.cdiv(held, parts), keys_per_step) * keys_per_step
    g = tl.arange(0, group_rows)
    low, high = tl.arange(0, width_low), width_low + tl.arange(0, width_high)
    column = tl.arange(0, value_lanes)
    rows = query + (batch * kv_heads + head) * group * width + g[:, None] * width
    q_low = tl.load(rows + low[None, :], mask=(g < group)[:, None] & (low < width)[None, :], other=0.0)
    q_high = tl.load(rows + high[None, :], mask=(g < group)[:, None] & (high < width)[None, :], other=0.0)
    key_rows = keys + batch.to(tl.int64) * key_batch + head * key_head
    value_rows = values + batch.to(tl.int64) * value_batch + head * value_head
    top = tl.full((group_rows,), float("-inf"), tl.float32)
    total = tl.zeros((group_rows,), tl.float32)
    mixed = tl.zeros((group_rows, value_lanes), tl.float32)
    for first in range(part * per_part, tl.minimum((part + 1) * per_part, held), keys_per_step):
        place = first + tl.arange(0, keys_per_step)
        # The latest position at a place: the last one is length - 1, and a step back in places is one in positions.
        behind = (length - 1 - place + places) % places
        is_seen = (place < held) & (behind < length)
        if window >= 0:
            is_seen = is_seen & (behind <= window)
        at = key_rows + place[None, :].to(tl.int64) * key_place
        k_low = tl.load(at + low[:, None], mask=(low < width)[:, None] & is_seen[None, :], other=0.0)
        k_high = tl.load(at + high[:, None], mask=(high < width)[:, None] & is_seen[None, :], other=0.0)
        scores = tl.dot(q_low, k_low, input_precision=precision)
        scores = tl.dot(q_high, k_high, scores, input_precision=precision) * scale  # [G, keys]
        scores = tl.where(is_seen[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)  # a step of which nothing is seen
        shrink = tl.exp(top - safe)
        chances = tl.exp(scores - safe[:, None])
        seen_values = tl.load(
            value_rows + place[:, None].to(tl.int64) * value_place + column[None, :],
            mask=is_seen[:, None] & (column < value_width)[None, :],
            other=0.0,
        )
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(chances.to(seen_values.dtype), seen_values, mixed, input_precision=precision)
        total = total * shrink + tl.sum(chances, axis=1)
        top = new_top
    row = ((batch * kv_heads + head) * group + g) * parts + part
    tl.store(tops + row, top, mask=g < group)
    tl.store(totals + row, total, mask=g < group)
    at_sums = sums + row[:, None] * value_width + column[None, :]
    tl.store(at_sums, mixed, mask=(g < group)[:, None] & (column < value_width)[None, :])


@triton.jit
def join_kernel(
    sums: tl.tensor,
    tops: tl.tensor,
    totals: tl.tensor,
    sinks: tl.tensor,
    out: tl.tensor,
    heads: tl.constexpr,
    value_width: tl.constexpr,
    value_lanes: tl.constexpr,
    parts: tl.constexpr,
    part_lanes: tl.constexpr,
    has_sink: tl.constexpr,
) -> None:
    """Join the parts of one query head of one sequence, and its sink."""
    head, batch = tl.program_id(0), tl.program_id(1)
    part, column = tl.arange(0, part_lanes), tl.arange(0, value_lanes)
    row = (batch * heads + head) * parts + part
    top = tl.load(tops + row, mask=part < parts, other=float("-inf"))
    total = tl.load(totals + row, mask=part < parts, other=0.0)
    at = sums + row[:, None] * value_width + column[None, :]
    mixed = tl.load(at, mask=(part < parts)[:, None] & (column < value_width)[None, :], other=0.0)
    highest = tl.max(top)
    if has_sink:
        sink = tl.load(sinks + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    share = tl.exp(top - highest)
    norm = tl.sum(total * share)
    if has_sink:
        norm += tl.exp(sink - highest)
    result = tl.sum(mixed * share[:, None], axis=0) / norm
    at_out = out + (batch * heads + head) * value_width + column
    tl.store(at_out, result.to(out.dtype.element_ty), mask=column < value_width)


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    *,
    sinks: Tensor | None = None,
    window: int | None = None,
    parts: int | None = None,
) -> Tensor:
    """Attend from the last token of each sequence to what it may see; returns [B, H, Dv] in the dtype of query.

    query [B, H, D]; keys [B, K, S, D] and values [B, K, S, Dv], places of any stride between them, already with the
    token itself; lengths int32 [B], tokens of each timeline with this one, 1 or more. window: how many tokens before
    itself the last one sees (None: all that are held); a ring must have window + 1 places. sinks float32 [H]: logits
    without a value, neither scaled nor masked. Scores, softmax and sums are float32; the chances are rounded to the
    dtype of the values before they are multiplied with them.
    """
    batch, heads, width = query.shape
    kv_heads, places, value_width = keys.shape[1], keys.shape[2], values.shape[3]
    if width != keys.shape[3] or heads % kv_heads or keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError(f"queries {list(query.shape)} do not go with keys {list(keys.shape)}")
    query, group = query.contiguous(), heads // kv_heads
    if parts is None:
        parts = min(MAX_PARTS, max(1, -(-places // (2 * KEYS_PER_STEP))))
    sums = torch.empty(batch, heads, parts, value_width, dtype=torch.float32, device=query.device)
    tops, totals = (torch.empty(batch, heads, parts, dtype=torch.float32, device=query.device) for _ in range(2))
    out = torch.empty(batch, heads, value_width, dtype=query.dtype, device=query.device)
    low = 1 << (width.bit_length() - 1)  # 192 = 128 + 64: a tile's side is a power of two
    high = max(16, triton.next_power_of_2(width - low)) if width > low else 16
    lanes = max(16, triton.next_power_of_2(value_width))
    part_kernel[(kv_heads, parts, batch)](
        query, keys, values, lengths, sums, tops, totals, keys.stride(0), keys.stride(1), keys.stride(2),
        values.stride(0), values.stride(1), values.stride(2), kv_heads, group, max(16, triton.next_power_of_2(group)),
        width, max(16, low), high, value_width, lanes, places, -1 if window is None else window, parts, width**-0.5,
        KEYS_PER_STEP, "ieee", num_warps=4,
    )  # fmt: skip
    join_kernel[(heads, batch)](
        sums, tops, totals, tops if sinks is None else sinks, out, heads, value_width, lanes, parts,
        triton.next_power_of_2(parts), sinks is not None, num_warps=4,
    )  # fmt: skip
    return out
