"""New queries, keys and values of decoded tokens: rotated, scaled, and the keys and values put into the cache.

One launch; where a token stands is read from the device's memory. Untested on a card.
Letters: B sequences, H query heads, K KV heads, D width of queries and keys, Dv of values, R rotated dimensions,
S places of the cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def rotate_kernel(
    projected: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    lengths: tl.tensor,
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_batch: tl.constexpr,
    key_head: tl.constexpr,
    key_place: tl.constexpr,
    value_batch: tl.constexpr,
    value_head: tl.constexpr,
    value_place: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    value_width: tl.constexpr,
    half: tl.constexpr,
    places: tl.constexpr,
    value_scale: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Handle one head of one sequence: a query, then a key, then a value, by its number."""
    head, batch = tl.program_id(0), tl.program_id(1)
    columns: tl.constexpr = (heads + kv_heads) * width + kv_heads * value_width
    row = projected + batch * columns
    place = ((tl.load(lengths + batch) - 1) % places).to(tl.int64)
    at = tl.arange(0, lanes)
    if head < heads + kv_heads:
        value = tl.load(row + head * width + at, mask=at < width, other=0.0)
        is_turned = at < 2 * half
        partner = tl.where(at < half, at + half, at - half)
        other = tl.load(row + head * width + partner, mask=is_turned, other=0.0).to(tl.float32)
        angle = batch * half + tl.where(at < half, at, partner)
        c = tl.load(cos + angle, mask=is_turned, other=1.0)
        s = tl.load(sin + angle, mask=is_turned, other=0.0)
        # out[j] = a cos - b sin, out[j + half] = b cos + a sin
        turned = value.to(tl.float32) * c + tl.where(at < half, -other, other) * s
        value = tl.where(is_turned, turned.to(projected.dtype.element_ty), value)
        if head < heads:
            tl.store(query + (batch * heads + head) * width + at, value, mask=at < width)
        else:
            into = keys + batch.to(tl.int64) * key_batch + (head - heads) * key_head + place * key_place
            tl.store(into + at, value.to(keys.dtype.element_ty), mask=at < width)
    else:
        kv_head = head - heads - kv_heads
        first = (heads + kv_heads) * width + kv_head * value_width
        value = tl.load(row + first + at, mask=at < value_width, other=0.0)
        value = (value.to(tl.float32) * value_scale).to(projected.dtype.element_ty)
        into = values + batch.to(tl.int64) * value_batch + kv_head * value_head + place * value_place
        tl.store(into + at, value.to(values.dtype.element_ty), mask=at < value_width)


def rotate_into_cache(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    lengths: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    heads: int,
    value_scale: float,
) -> Tensor:
    """Return the rotated queries [B, H, D] of one new token per sequence; write its keys and values into the cache.

    projected [B, (H + K) * D + K * Dv]: all queries, all keys, all values; cos and sin float32 [B, R/2] of the token's
    position; lengths int32 [B], tokens with the new one, whose place is (length - 1) mod S; keys [B, K, S, D] and
    values [B, K, S, Dv] are changed in place. Values are multiplied by `value_scale` first.
    """
    batch, kv_heads, places, width = keys.shape
    value_width = values.shape[3]
    if projected.shape[1] != (heads + kv_heads) * width + kv_heads * value_width:
        raise ValueError(f"a row of {projected.shape[1]} does not hold {heads} + {kv_heads} heads of {width}")
    projected = projected.contiguous()
    query = torch.empty(batch, heads, width, dtype=projected.dtype, device=projected.device)
    rotate_kernel[(heads + 2 * kv_heads, batch)](
        projected, cos.contiguous(), sin.contiguous(), lengths, query, keys, values, keys.stride(0), keys.stride(1),
        keys.stride(2), values.stride(0), values.stride(1), values.stride(2), heads, kv_heads, width, value_width,
        cos.shape[-1], places, value_scale, triton.next_power_of_2(max(width, value_width)), num_warps=2,
    )  # fmt: skip
    return query
