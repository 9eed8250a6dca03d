"""Each kernel against a reference in float64 or float32, on fresh random inputs, before anything is measured."""

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_report import DEVICE, DTYPE, SIMULATE, SIZES, Report, relative
from benchmarks.gpu_weights import Pool, random_choice, random_dense, random_pool, random_states
from mimo_cli.quant.packed import PackedFormat, PackedShape, decode_packed
from mimo_cli.quant.triton.attention import decode_attention
from mimo_cli.quant.triton.dense import RowNorm
from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.grouped import TileShape, grouped_product, quantize_rows, tile_table
from mimo_cli.quant.triton.launch import is_fast
from mimo_cli.quant.triton.prefill import prefill_experts
from mimo_cli.quant.triton.routing import route
from mimo_cli.quant.triton.unpack import unpack_experts

EPS = 1e-5


def expected_experts(pool: Pool, x: Tensor, ids: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Return the weighted sum in float64, from weights unpacked in float32 (checked apart)."""
    out = torch.zeros(x.shape, dtype=torch.float64, device=DEVICE)
    for token, chosen in enumerate(ids.tolist()):
        for place, expert in enumerate(chosen):
            slot = table[expert : expert + 1]
            if int(slot) >= 0:
                gate_up, down = unpack_experts(pool.slots, slot, pool.layout, torch.float32)
                gate, up = (gate_up[0].double() @ x[token].double()).chunk(2)
                product = (functional.silu(gate) * up).to(x.dtype).double()
                out[token] += weights[token, place].double() * (down[0].double() @ product)
    return out


def check_unpacking(report: Report, kind: PackedFormat, group: int) -> None:
    """Compare with the decoder in numpy, which states the format; values must be the same."""
    pool = random_pool(kind, group, 2, 256, 128)
    record = pool.slots[1].cpu().numpy()
    up, down = PackedShape(kind, group, 128, 256, 2), PackedShape(kind, group, 256, 128)
    matrices = [*decode_packed(record[: up.nbytes], up), *decode_packed(record[up.nbytes :][: down.nbytes], down)]
    gate, above, below = (torch.from_numpy(matrix) for matrix in matrices)
    for fast in {False, is_fast(DEVICE)}:
        slot = torch.ones(1, dtype=torch.int32, device=DEVICE)
        gate_up, found = unpack_experts(pool.slots, slot, pool.layout, torch.float32, fast=fast)
        name = f"unpack {kind} {'ptx' if fast else 'portable'}"
        error = max(relative(gate_up[0].cpu(), torch.cat([gate, above])), relative(found[0].cpu(), below))
        report.check(name, error, 1e-7)


def check_experts(report: Report, kind: PackedFormat, group: int) -> None:
    """Compare the experts of a few tokens, of one that has no slot too, and those of many tokens."""
    pool = random_pool(kind, group, min(12, SIZES.experts))
    table = torch.full((SIZES.experts,), -1, dtype=torch.int32, device=DEVICE)
    table[torch.randperm(SIZES.experts, device=DEVICE)[: len(pool.slots)]] = torch.arange(
        len(pool.slots), dtype=torch.int32, device=DEVICE
    )
    present = (table >= 0).nonzero()[:, 0]
    tokens = 1 if SIMULATE else 3
    ids, weights = random_choice(tokens, len(present))
    ids = present[ids]
    if len(present) < SIZES.experts:
        ids[-1, -1] = (table < 0).nonzero()[0, 0]
    x = random_states(tokens)
    expected = expected_experts(pool, x, ids, weights, table)
    allowed = 1e-5 if SIMULATE else 8e-3  # bfloat16: rounded before down (in the reference too) and at the end
    for fast in {False, is_fast(DEVICE)}:
        out = decode_experts(x, ids, weights, table, pool.slots, pool.layout, fast=fast)
        report.check(f"decode {kind} {'ptx' if fast else 'portable'}", relative(out, expected), allowed)
    if is_fast(DEVICE) and kind in ("int4", "mxfp4"):
        out = decode_experts(x, ids, weights, table, pool.slots, pool.layout, cores=True)
        report.check(f"decode {kind} cores", relative(out, expected), allowed)
    if SIMULATE and kind != "fp8":
        return
    rows = 3 if SIMULATE else 64
    many, (ids, weights) = random_states(rows), random_choice(rows, len(present))
    given = many, present[ids], weights, table, pool.slots, pool.layout
    few = decode_experts(*given)
    # Weights and three results are rounded to bfloat16; in 8 bits the activations are rounded to 4 bits, twice.
    report.check(f"prefill {kind} exact", relative(prefill_experts(*given), few), allowed if SIMULATE else 2e-2)
    if kind == "fp8":
        out = prefill_experts(*given, precision="w8a8")
        report.check("prefill fp8 w8a8", relative(out, few), 0.2 if SIMULATE else 6e-2)


def check_dense(report: Report) -> None:
    """Compare products with a norm before and a sum after them."""
    rows = min(1024, 2 * SIZES.hidden)
    for kind in ("fp8", "bf16", "int8", "int4"):
        dense, x, residual = random_dense(kind, rows, SIZES.hidden), random_states(1), random_states(1, rows)
        norm = RowNorm(torch.rand(SIZES.hidden, device=DEVICE).to(DTYPE) + 0.5, EPS)
        weights = torch.from_numpy(decode_packed(dense.data.cpu().numpy(), dense.shape)[0]).to(DEVICE).double()
        wide = x.float()
        normed = (wide * torch.rsqrt(wide.square().mean() + EPS)).to(DTYPE) * norm.weight
        expected = (normed.double() @ weights.T).to(DTYPE).double() + residual.double()
        report.check(f"dense {kind}", relative(dense.times(x, norm=norm, residual=residual), expected), 1e-2)


def check_attention(report: Report) -> None:
    """Compare with a softmax in float64, of a ring gone round and of a cache that grows."""
    s = SIZES
    for name, kv_heads, places, length, window in (
        ("ring", s.sliding_kv_heads, s.window + 1, 3 * s.window, s.window),
        ("growing", s.global_kv_heads, 400, 390, None),
    ):
        keys, values = (
            random_states(kv_heads * length, w).view(1, kv_heads, length, w) for w in (s.head, s.value_head)
        )
        query, sinks = random_states(s.heads, s.head)[None], torch.randn(s.heads, device=DEVICE)
        at = torch.arange(max(0, length - places), length, device=DEVICE)
        ring_keys, ring_values = (torch.full((1, kv_heads, places, w), float("nan"), device=DEVICE, dtype=DTYPE) for w in (s.head, s.value_head))  # fmt: skip  # noqa: E501
        ring_keys[:, :, at % places], ring_values[:, :, at % places] = keys[:, :, at], values[:, :, at]
        lengths = torch.tensor([length], dtype=torch.int32, device=DEVICE)
        out = decode_attention(query, ring_keys, ring_values, lengths, sinks=sinks, window=window)
        seen = slice(max(0, length - 1 - window) if window else 0, length)
        groups = s.heads // kv_heads
        k, v = (t[0, :, seen].double().repeat_interleave(groups, 0) for t in (keys, values))  # [H, n, D]
        scores = (k @ query[0].double()[:, :, None])[..., 0] * s.head**-0.5
        chances = torch.cat([scores, sinks.double()[:, None]], 1).softmax(1)[:, :-1]
        report.check(f"attention {name}", relative(out[0], (chances[:, None] @ v)[:, 0]), 1e-5 if SIMULATE else 1e-2)


def check_router(report: Report) -> None:
    """Compare the choice with torch's; random scores have no near-ties to speak of."""
    s = SIZES
    x, weight = random_states(4), torch.randn(s.experts, s.hidden, device=DEVICE) * 0.02
    bias = torch.rand(s.experts, device=DEVICE)
    scores = (x.double() @ weight.double().T).sigmoid()
    ids = (scores + bias).topk(s.active).indices
    expected = scores.gather(1, ids) / scores.gather(1, ids).sum(-1, keepdim=True)
    choice = route(x, weight, bias, s.active)
    report.check("route ids", float((choice.expert_ids != ids).float().mean()), 0.0)
    report.check("route weights", relative(choice.expert_weights, expected), 1e-4)


def check_grouped(report: Report) -> None:
    """Compare 8-bit products of sorted rows with float32 ones, in both scalings."""
    shape = TileShape(16, 128, 4, 2) if SIMULATE else TileShape(128, 128, 8, 3, 128)
    counts, outputs, inputs = [3, 0, 18], 256, 256
    for scaling in ("block", "row"):
        rows, row_scales = quantize_rows(torch.randn(21, inputs, device=DEVICE), scaling)
        weights = torch.randn(3, outputs, inputs, device=DEVICE).mul(16).to(torch.float8_e4m3fn)
        size = (3, outputs // 128, inputs // 128) if scaling == "block" else (3, outputs)
        scales = torch.rand(size, device=DEVICE) + 0.5
        out = grouped_product(rows, row_scales, weights, scales, tile_table(counts, outputs, shape).to(DEVICE), scaling, shape, torch.float32)  # fmt: skip  # noqa: E501
        wide = weights.double()
        wide *= scales.double().repeat_interleave(128, 1).repeat_interleave(128, 2) if scaling == "block" else scales.double()[..., None]  # fmt: skip  # noqa: E501
        spread = row_scales.double().repeat_interleave(inputs // row_scales.shape[1], 1)
        expected = torch.einsum("pi,poi->po", rows.double() * spread, wide[[0] * 3 + [2] * 18])
        report.check(f"grouped {scaling}", relative(out, expected), 1e-3)
