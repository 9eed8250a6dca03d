"""Other kernels that a Python program would use for the experts of one token: bitsandbytes' NF4, torch's int4.

Each is a loop over the experts with SwiGLU between its products, as libraries compute them. They turn over 1 GB of
experts each: fewer than ours do, still far more than any cache.
"""

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

COPIES_BYTES = 1e9


def rivals(hidden: int, width: int, active: int) -> dict[str, Callable[[], None]]:
    """Return a decode step per rival, by name."""
    return {
        "rival bitsandbytes nf4": _nf4(hidden, width, active),
        "rival torch int4 g32": _torch_int4(hidden, width, active),
    }


def _nf4(hidden: int, width: int, active: int) -> Callable[[], None]:
    import bitsandbytes as bnb

    def quantized(rows: int, cols: int) -> tuple[Tensor, object]:
        codes, state = bnb.functional.quantize_4bit(torch.randn(rows, cols).bfloat16(), blocksize=64, quant_type="nf4")
        return codes, state

    count = int(COPIES_BYTES / (3 * hidden * width * 4.5 / 8))
    first = [quantized(width, hidden), quantized(width, hidden), quantized(hidden, width)]
    experts = [[(codes.clone(), state) for codes, state in first] for _ in range(count)]
    x = torch.randn(1, hidden).bfloat16()

    def step() -> None:
        out = torch.zeros(1, hidden)
        for e in random.sample(range(count), active):
            gate, up, down = (lambda v, w=w: bnb.matmul_4bit(v, w[0].t(), quant_state=w[1]) for w in experts[e])
            out += down(silu(gate(x)) * up(x)).float() / active

    return step


def _torch_int4(hidden: int, width: int, active: int) -> Callable[[], None]:
    def packed(rows: int, cols: int) -> tuple[Tensor, Tensor]:
        codes = torch.randint(0, 16, (rows, cols), dtype=torch.int32)
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        return weight, torch.full((cols // 32, rows, 2), 0.01).bfloat16()

    count = int(COPIES_BYTES / (3 * hidden * width * 5 / 8))
    first = [packed(2 * width, hidden), packed(hidden, width)]
    experts = [[(weight.clone(), scales.clone()) for weight, scales in first] for _ in range(count)]
    x = torch.randn(1, hidden).bfloat16()

    def product(v: Tensor, matrix: tuple[Tensor, Tensor]) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(v, matrix[0], 32, matrix[1])

    def step() -> None:
        out = torch.zeros(1, hidden)
        for e in random.sample(range(count), active):
            gate, up = product(x, experts[e][0]).chunk(2, dim=1)
            out += product(silu(gate) * up, experts[e][1]).float() / active

    return step
