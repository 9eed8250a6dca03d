"""Random experts, matrices and tokens for measurements on a card: made there, in the shapes of the model."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_report import DEVICE, DTYPE, SIZES
from mimo_cli.quant.packed import PackedFormat, PackedShape
from mimo_cli.quant.slot_layout import MatrixLayout, SlotLayout, slot_layout
from mimo_cli.quant.triton.dense import packed_product
from mimo_cli.quant.triton.launch import scale_view


def fill_scales(data: Tensor, kind: PackedFormat, matrix: MatrixLayout) -> None:
    """Write scales that make random codes weights of about 0.02 into records uint8 [n, bytes]."""
    if kind == "bf16":
        return
    typed = scale_view(data, kind)
    unit = typed.element_size()
    size = (len(data), matrix.blocks, matrix.spans, matrix.scale_bytes // unit)
    strides = (typed.shape[1], matrix.block_bytes // unit, matrix.scales_stride // unit, 1)
    places = typed.as_strided(size, strides, matrix.scales_offset // unit)
    if kind == "mxfp4":
        places.random_(118, 122)
    else:
        typical = {"int4": 0.005, "int8": 0.0003, "fp8": 0.00015}[kind]
        if kind == "fp8":  # a scale of a release holds for 128 rows
            places.copy_(torch.rand((size[0], 1, size[2], 1), device=data.device).add_(0.5).mul_(typical).expand(size))
        else:
            places.uniform_(0.5 * typical, 1.5 * typical)


def random_codes(data: Tensor, kind: PackedFormat) -> None:
    """Fill uint8 [n, bytes] with codes; no e4m3 NaN among them."""
    if kind == "bf16":
        data.view(torch.bfloat16).normal_(std=0.02)
        return
    data.random_(0, 256)
    if kind == "fp8":
        data.bitwise_and_(0xF7)


class Pool(NamedTuple):
    """Slots of random experts."""

    slots: Tensor
    layout: SlotLayout


def random_pool(kind: PackedFormat, group: int, count: int, hidden: int = 0, width: int = 0) -> Pool:
    """Return `count` experts of the model's shape, or of another."""
    hidden, width = hidden or SIZES.hidden, width or SIZES.width
    layout = slot_layout(PackedShape(kind, group, width, hidden, 2), PackedShape(kind, group, hidden, width))
    slots = torch.empty(count, -(-layout.record_bytes // 4096) * 4096, dtype=torch.uint8, device=DEVICE)
    random_codes(slots, kind)
    for matrix in (layout.gate, layout.up, layout.down):
        fill_scales(slots, kind, matrix)
    return Pool(slots, layout)


class Dense(NamedTuple):
    """A packed matrix."""

    shape: PackedShape
    data: Tensor

    def times(self, x: Tensor, **more: Any) -> Tensor:
        return packed_product(x, self.data, self.shape, **more)


def random_dense(kind: PackedFormat, rows: int, cols: int) -> Dense:
    shape = PackedShape(kind, 32 if kind in ("int4", "mxfp4") else 128, rows, cols)
    data = torch.empty(1, shape.nbytes, dtype=torch.uint8, device=DEVICE)
    random_codes(data, kind)
    fill_scales(data, kind, MatrixLayout.within(shape, 0, 0))
    return Dense(shape, data[0])


def random_choice(tokens: int, experts: int) -> tuple[Tensor, Tensor]:
    """Return distinct expert ids [tokens, A] and weights that sum to one."""
    ids = torch.rand(tokens, experts, device=DEVICE).topk(SIZES.active).indices
    weights = torch.rand(tokens, SIZES.active, device=DEVICE) + 0.1
    return ids, weights / weights.sum(-1, keepdim=True)


def random_states(rows: int, cols: int = 0) -> Tensor:
    return torch.randn(rows, cols or SIZES.hidden, device=DEVICE).to(DTYPE)
