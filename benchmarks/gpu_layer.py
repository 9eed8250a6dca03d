"""One layer of the model with experts, as the launches of one decoded token: what is measured as a whole."""

from dataclasses import astuple
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_report import DEVICE, DTYPE, SIZES, Work
from benchmarks.gpu_weights import Pool, random_dense, random_states
from mimo_cli.quant.triton.attention import decode_attention
from mimo_cli.quant.triton.dense import RowNorm
from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.launch import LaunchShape
from mimo_cli.quant.triton.mapped import MappedRecords
from mimo_cli.quant.triton.rotary import rotate_into_cache
from mimo_cli.quant.triton.routing import route

EPS, VALUE_SCALE = 1e-5, 0.707


class Launch(NamedTuple):
    """How the experts of a token are launched: `decode_experts` takes it as keywords."""

    gate_up: LaunchShape
    down: LaunchShape
    fast: bool
    cores: bool

    @classmethod
    def of(cls, numbers: list[Any]) -> "Launch":
        """Read what json wrote."""
        return cls(LaunchShape(*numbers[0]), LaunchShape(*numbers[1]), *numbers[2:])

    @property
    def numbers(self) -> list[Any]:
        """As json writes it."""
        return [list(astuple(self.gate_up)), list(astuple(self.down)), self.fast, self.cores]


class Layer:
    """One layer of the model with experts: weights, a KV cache, and the launches of one decoded token."""

    def __init__(self, pool: Pool, launch: Launch, sliding: bool = True) -> None:
        s = self.sizes = SIZES
        self.pool, self.sliding = pool, sliding
        kv_heads = s.sliding_kv_heads if sliding else s.global_kv_heads
        self.qkv = random_dense("fp8", (s.heads + kv_heads) * s.head + kv_heads * s.value_head, s.hidden)
        self.o_proj = random_dense("bf16", s.hidden, s.heads * s.value_head)
        self.norms = [RowNorm(torch.ones(s.hidden, device=DEVICE, dtype=DTYPE), EPS) for _ in range(2)]
        self.router = torch.randn(s.experts, s.hidden, device=DEVICE) * 0.02
        self.bias = torch.rand(s.experts, device=DEVICE)
        places = s.window + 1 if sliding else s.context
        self.keys = random_states(kv_heads * places, s.head).view(1, kv_heads, places, s.head)
        self.values = random_states(kv_heads * places, s.value_head).view(1, kv_heads, places, s.value_head)
        self.lengths = torch.tensor([s.context], dtype=torch.int32, device=DEVICE)
        self.sinks = torch.randn(s.heads, device=DEVICE) if sliding else None
        angles = torch.rand(1, s.rotary // 2, device=DEVICE)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.table = torch.arange(s.experts, dtype=torch.int32, device=DEVICE)
        self.forced: tuple[Tensor, Tensor] | None = None
        self.mapped: MappedRecords | None = None  # keeps the pinned memory alive
        self.slots, self.launch = pool.slots, launch

    @property
    def stored_bytes(self) -> int:
        """Weights that a token reads."""
        dense = self.qkv.shape.nbytes + self.o_proj.shape.nbytes + self.router.nbytes
        return dense + self.sizes.active * self.pool.layout.record_bytes

    def run(self, x: Tensor) -> Tensor:
        """[1, H] -> [1, H]."""
        s = self.sizes
        projected = self.qkv.times(x, norm=self.norms[0])
        cache = self.keys, self.values
        query = rotate_into_cache(projected, self.cos, self.sin, self.lengths, *cache, heads=s.heads, value_scale=VALUE_SCALE)  # fmt: skip  # noqa: E501
        window = s.window if self.sliding else None
        mixed = decode_attention(query, *cache, self.lengths, sinks=self.sinks, window=window)
        x = self.o_proj.times(mixed.flatten(1), residual=x)
        choice = route(x, self.router, self.bias, s.active, norm=self.norms[1])
        ids, weights = self.forced or (choice.expert_ids, choice.expert_weights)
        return decode_experts(
            choice.normed,
            ids,
            weights,
            self.table,
            self.slots,
            self.pool.layout,
            residual=x,
            **self.launch._asdict(),
        )


def chain(layers: list[Layer], x: Tensor) -> Work:
    """Return a run of layers after one another. The first input is always the same, so nothing overflows."""

    def run() -> Tensor:
        out = x
        for layer in layers:
            out = layer.run(out)
        return out

    return run
