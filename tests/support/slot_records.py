"""Expert records of random weights in slots, and what the experts say worked out in float64."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.quant.packed import PackedFormat, PackedShape, decode_packed
from mimo_cli.quant.quantize import pack_stream, quantize
from mimo_cli.quant.slot_layout import SlotLayout, slot_layout

GARBAGE = 255
"""Not a number in every format: a slot that nobody filled must not reach a result."""


class Records(NamedTuple):
    """slots uint8 [S, bytes] of `layout`; gate, up and down of each slot as float64."""

    slots: Tensor
    layout: SlotLayout
    weights: list[tuple[Tensor, Tensor, Tensor]]


def random_records(kind: PackedFormat, group: int, hidden: int, width: int, count: int, garbage: int = 1) -> Records:
    """Return `count` experts behind `garbage` slots that hold none."""
    up, down = PackedShape(kind, group, width, hidden, 2), PackedShape(kind, group, hidden, width)
    layout = slot_layout(up, down)
    slot_bytes = -(-layout.record_bytes // 256) * 256
    slots = torch.full((garbage + count, slot_bytes), GARBAGE, dtype=torch.uint8)
    generator, weights = torch.Generator().manual_seed(5), []
    for index in range(count):
        record = slots[garbage + index]
        first, second = record[: up.nbytes], record[up.nbytes : layout.record_bytes]
        for shape, stream in ((up, first), (down, second)):
            size = (shape.rows, shape.cols)
            drawn = [torch.randn(size, generator=generator) * 0.1 for _ in range(shape.streams)]
            pack_stream(shape, [quantize(matrix, kind, group) for matrix in drawn], stream)
        matrices = [*decode_packed(first.numpy(), up), *decode_packed(second.numpy(), down)]
        gate, above, below = (torch.from_numpy(matrix).double() for matrix in matrices)
        weights.append((gate, above, below))
    return Records(slots, layout, weights)


def expected_sum(
    records: Records, hidden: Tensor, ids: Tensor, weights: Tensor, table: Tensor, garbage: int = 1
) -> Tensor:
    """Return the weighted sums of the experts that have a slot, float64 [N, H]."""
    total = torch.zeros(hidden.shape, dtype=torch.float64)
    for token, chosen in enumerate(ids.tolist()):
        for place, expert in enumerate(chosen):
            slot = int(table[expert])
            if slot >= 0:
                gate, up, down = records.weights[slot - garbage]
                x = hidden[token].double()
                total[token] += weights[token, place].double() * (down @ (functional.silu(gate @ x) * (up @ x)))
    return total
