"""Other kernels that a Python program would use for the experts of one token: bitsandbytes' NF4, torch's int4.

Each is a loop over the experts with SwiGLU between its products, as libraries compute them, in bfloat16. bitsandbytes
is measured at its best: weights rearranged for its compiled AVX-512 kernel, as its Linear4bit does in evaluation.
"""

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

Product = Callable[[Tensor, int, int], Tensor]
"""x [T, I], expert, matrix (0 gate, 1 up, 2 down) -> [T, O]."""

COPIES_BYTES = 1e9


class LoopedExperts:
    """Experts of one layer computed one after the other, each product by `product`."""

    def __init__(self, name: str, experts: int, expert_bytes: float, product: Product) -> None:
        self.name = name
        self.experts = experts
        self.expert_bytes = expert_bytes
        self._product = product

    def decode(self, x: Tensor, experts: Sequence[int]) -> Tensor:
        """One token x float32 [1, H] through some experts, averaged."""
        x, out = x.bfloat16(), torch.zeros_like(x)
        for e in experts:
            hidden = silu(self._product(x, e, 0)) * self._product(x, e, 1)
            out += self._product(hidden, e, 2).float() / len(experts)
        return out

    def prefill(self, x: Tensor, ids: Tensor) -> Tensor:
        """Tokens x float32 [T, H] through experts ids [T, A]: every expert once, for all its tokens."""
        rows, out = x.bfloat16(), torch.zeros_like(x)
        for e in ids.unique().tolist():
            tokens = (ids == e).any(dim=1).nonzero().flatten()
            mine = rows[tokens]
            hidden = silu(self._product(mine, e, 0)) * self._product(mine, e, 1)
            out.index_add_(0, tokens, self._product(hidden, e, 2).float() / ids.shape[1])
        return out


def bitsandbytes_nf4(hidden: int, width: int, gigabytes: float) -> LoopedExperts:
    """Return experts in NF4, blocks of 64, as many as fill `gigabytes`."""
    import bitsandbytes as bnb
    from bitsandbytes import functional

    def quantized(rows: int, cols: int) -> tuple[Tensor, Any]:
        weight = torch.randn(rows, cols).bfloat16()
        codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        if functional.has_avx512bf16():
            codes, state = functional._convert_weight_packed_for_cpu(codes, state)
        return codes, state

    def copied(codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = copy.copy(state)
        state.absmax = state.absmax.clone()
        return codes.clone(), state

    first = [quantized(width, hidden), quantized(width, hidden), quantized(hidden, width)]
    expert_bytes = sum(codes.nbytes + state.absmax.nbytes for codes, state in first)
    count = int(gigabytes * 1e9 / expert_bytes) + 1
    stored = [[copied(*matrix) for matrix in first] for _ in range(count)]

    def product(x: Tensor, expert: int, matrix: int) -> Tensor:
        codes, state = stored[expert][matrix]
        out: Tensor = bnb.matmul_4bit(x, codes.t(), quant_state=state)
        return out

    kind = "compiled" if functional.has_avx512bf16() else "fallback"
    return LoopedExperts(f"bitsandbytes {bnb.__version__} nf4 ({kind})", count, expert_bytes, product)


def torch_int4(hidden: int, width: int, gigabytes: float, group: int = 32) -> LoopedExperts:
    """Return experts in torch's int4pack layout, as many as fill `gigabytes`."""

    def packed(rows: int, cols: int) -> tuple[Tensor, Tensor]:
        codes = torch.randint(0, 16, (rows, cols), dtype=torch.int32)
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        return weight, torch.full((cols // group, rows, 2), 0.01).bfloat16()

    first = [packed(width, hidden), packed(width, hidden), packed(hidden, width)]
    expert_bytes = sum(weight.nbytes + scales.nbytes for weight, scales in first)
    count = int(gigabytes * 1e9 / expert_bytes) + 1
    stored = [[(weight.clone(), scales.clone()) for weight, scales in first] for _ in range(count)]

    def product(x: Tensor, expert: int, matrix: int) -> Tensor:
        weight, scales = stored[expert][matrix]
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, group, scales)
        return out

    return LoopedExperts(f"torch {torch.__version__} int4pack g{group}", count, expert_bytes, product)


def rivals(hidden: int, width: int, active: int) -> dict[str, Callable[[], None]]:
    """Return a decode step per rival, by name."""
    x = torch.randn(1, hidden)

    def step(layer: LoopedExperts) -> None:
        layer.decode(x, random.sample(range(layer.experts), active))

    layers = [make(hidden, width, COPIES_BYTES / 1e9) for make in (bitsandbytes_nf4, torch_int4)]
    return {f"rival {layer.name}": lambda layer=layer: step(layer) for layer in layers}  # type: ignore[misc]
