"""The text model's forward pass as training runs it: same parameters, same function, less overhead.

`TextModel` computes one conversation after the other; here rows hold many conversations that share beginnings (see
packing.py), so attention gets a mask and positions for every token. Elementwise work is compiled; experts are sorted
(experts.py). Tests hold this equal to `TextModel.forward`. Letters: R rows, L tokens of a row, N = R * L, H hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.checkpoint.config import AttentionConfig
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts, Router
from mimo_cli.model.rope import RotaryTable
from training.experts import SortedExperts
from training.packing import Batch
from training.precision import dtype_for
from training.sink_softmax import sink_softmax

PARTS, SMALLEST_PART = 8, 64  # into how many parts attention cuts a row's queries; tokens of a part at least


@dataclass
class RouterLoad:
    """What one MoE layer's router did in a step: uses of each expert [E], and the balance term (a scalar)."""

    counts: Tensor
    balance: Tensor


@dataclass(frozen=True)
class Layout:
    """Who sees whom: additive masks [R, 1, L, L] for the two kinds of layers, rotary tables, which tokens are real.

    No token sees what stands behind it in its row.
    """

    global_bias: Tensor
    window_bias: Tensor
    global_rotary: RotaryTable
    sliding_rotary: RotaryTable
    valid: Tensor

    @classmethod
    def of(cls, visible: Tensor, positions: Tensor, valid: Tensor, model: TextModel) -> "Layout":
        """visible [R, L, L] bool: query sees key; positions [R, L]; valid [R, L] False for padding."""
        config = model.config
        window = config.sliding_attention.window or positions.shape[1]
        near = positions[:, :, None] - positions[:, None, :] <= window
        return cls(
            _bias(visible),
            _bias(visible & near),
            RotaryTable.at(positions, config.global_attention),
            RotaryTable.at(positions, config.sliding_attention),
            valid.flatten(),
        )

    @classmethod
    def of_batch(cls, batch: Batch, model: TextModel) -> "Layout":
        """The layout of packed rows."""
        device = model.norm.weight.device
        visible, positions, valid = (
            torch.from_numpy(part).to(device) for part in (batch.visible, batch.positions, batch.valid)
        )
        return cls.of(visible, positions, valid, model)


def _bias(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, float("-inf"))[:, None]


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """RMSNorm of float32 rows, rounded to dtype."""
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight).to(dtype)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RotaryTable.rotate on plain tensors."""
    half = cos.shape[-1]
    a, b, rest = heads[..., :half].float(), heads[..., half : 2 * half].float(), heads[..., 2 * half :]
    return torch.cat([(a * cos - b * sin).to(heads.dtype), (b * cos + a * sin).to(heads.dtype), rest], dim=-1)


def attention_part(
    x: Tensor,
    norm_weight: Tensor,
    qkv: Tensor,
    out: Tensor,
    sinks: Tensor | None,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    shape: tuple[int, int, int, int],
    value_scale: float,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """x + attention(norm(x)); x [N, H] float32, bias [R, 1, L, L], shape (heads, kv heads, head dim, v head dim)."""
    rows, length = bias.shape[0], bias.shape[-1]
    heads, kv_heads, dim, v_dim = shape
    projected = functional.linear(norm(x, norm_weight, eps, dtype), qkv.to(dtype)).view(rows, length, -1)
    q, k, v = projected.split([heads * dim, kv_heads * dim, kv_heads * v_dim], dim=-1)
    q = rotate(q.unflatten(-1, (heads, dim)), cos, sin).transpose(1, 2)  # [R, heads, L, D]
    k = rotate(k.unflatten(-1, (kv_heads, dim)), cos, sin).transpose(1, 2)
    v = (v.unflatten(-1, (kv_heads, v_dim)) * value_scale).transpose(1, 2)
    size = max(SMALLEST_PART, -(-length // PARTS))
    parts = []
    for start in range(0, length, size):  # of the queries; what stands behind a part is nothing to it
        end = min(start + size, length)
        some = q[:, :, start:end].reshape(rows, kv_heads, -1, dim)
        scores = (some @ k[:, :, :end].transpose(-1, -2)).view(rows, heads, end - start, end).float()
        shares = sink_softmax(scores * dim**-0.5 + bias[:, :, start:end, :end], sinks).to(dtype)
        parts.append((shares.view(rows, kv_heads, -1, end) @ v[:, :, :end]).view(rows, heads, end - start, v_dim))
    mixed = torch.cat(parts, dim=2).transpose(1, 2).reshape(rows * length, -1)
    return x + functional.linear(mixed, out.to(dtype)).float()


def route(normed: Tensor, gate: Tensor, bias: Tensor, valid: Tensor, active: int) -> tuple[Tensor, ...]:
    """Choose experts: ids and weights [N, A], uses [E] by real tokens, and the balance term."""
    scores = functional.linear(normed.float(), gate).sigmoid()
    ids = (scores.detach() + bias).topk(active, dim=-1).indices
    chosen = scores.gather(1, ids)
    weights = chosen / (chosen.sum(-1, keepdim=True) + 1e-20)
    real = valid[:, None].float()
    counts = torch.zeros_like(bias).index_add_(0, ids.flatten(), real.expand(-1, active).flatten())
    share = scores / scores.sum(-1, keepdim=True)
    balance = (counts / counts.sum() * (share * real).sum(0) / real.sum()).sum() * len(bias)
    return ids, weights, counts, balance


def dense_part(
    x: Tensor, norm_weight: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """x + mlp(norm(x)) of a dense layer."""
    normed = norm(x, norm_weight, eps, dtype)
    hidden = functional.silu(functional.linear(normed, gate.to(dtype))) * functional.linear(normed, up.to(dtype))
    return x + functional.linear(hidden, down.to(dtype)).float()


class Trunk:
    """Runs a TextModel whose experts are ResidentExperts. dtype is that of the products; the stream stays float32."""

    def __init__(self, model: TextModel, dtype: torch.dtype | None = None, *, compiled: bool = True) -> None:
        """Where no dtype is named, it is what the device is quick at."""
        if not isinstance(model.experts, ResidentExperts):
            raise TypeError("training needs the experts in memory")
        self.model = model
        self.experts = model.experts
        self.dtype = dtype or dtype_for(model.norm.weight)
        self.loads: dict[int, RouterLoad] = {}

        def compile_part(part: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(part, dynamic=False) if compiled else part

        self._attention = compile_part(attention_part)
        self._dense = compile_part(dense_part)
        self._norm = compile_part(norm)

    def states(self, embeds: Tensor, layout: Layout) -> Tensor:
        """embeds [R, L, H] -> states [N, H] after the final norm, in `dtype`; fills `loads`."""
        x = embeds.flatten(0, 1).float()
        for number, layer in enumerate(self.model.layers):
            x = self._layer(x, number, layer, layout)
        return self.normalise(x, self.model.norm)

    def normalise(self, x: Tensor, by: Any) -> Tensor:
        """RMSNorm of x [n, H], rounded to `dtype`."""
        return self._norm(x, by.weight, by.eps, self.dtype)

    def feed(self, x: Tensor, before: Any, mlp: Any) -> Tensor:
        """x [n, H] + mlp(norm(x)) of a dense layer."""
        weights = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
        return self._dense(x, before.weight, *weights, before.eps, self.dtype)

    def _layer(self, x: Tensor, number: int, layer: Any, layout: Layout) -> Tensor:
        x = self.attend(x, layer.input_layernorm, layer.self_attn, layout)
        after = layer.post_attention_layernorm
        if not layer.is_moe:
            return self.feed(x, after, layer.mlp)
        gate: Router = layer.mlp.gate
        normed = self.normalise(x, after)
        ids, weights, counts, balance = route(
            normed, gate.weight, gate.e_score_correction_bias, layout.valid, gate.num_experts_per_tok
        )
        self.loads[number] = RouterLoad(counts, balance)
        stacks = self.experts.gate_up_proj[str(number)], self.experts.down_proj[str(number)]
        return x + SortedExperts.apply(normed, ids, weights, *(stack.to(self.dtype) for stack in stacks)).float()

    def attend(self, x: Tensor, before: Any, attention: Any, layout: Layout) -> Tensor:
        """x [N, H] + attention of norm(x), under the layout's mask for this kind of attention."""
        kind: AttentionConfig = attention.attention
        bias = layout.window_bias if kind.window is not None else layout.global_bias
        rotary = layout.sliding_rotary if kind.window is not None else layout.global_rotary
        return self._attention(
            x,
            before.weight,
            attention.qkv_proj.weight,
            attention.o_proj.weight,
            attention.attention_sink_bias,
            bias,
            rotary.cos,
            rotary.sin,
            (kind.num_heads, kind.num_kv_heads, kind.head_dim, kind.v_head_dim),
            attention.value_scale,
            before.eps,
            self.dtype,
        )
