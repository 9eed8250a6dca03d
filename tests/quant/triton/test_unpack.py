"""Packed experts unpacked on the device are what the packed decoder says."""

import pytest
import torch

from mimo_cli.quant.packed import GROUPS, PackedFormat
from mimo_cli.quant.triton.unpack import unpack_experts, unpack_fp8
from tests.support.slot_records import random_records
from tests.support.triton_interpreter import DEVICE

KINDS: list[tuple[PackedFormat, int]] = [(kind, groups[0]) for kind, groups in GROUPS.items()]


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_float32_values_are_the_exact_ones(kind: PackedFormat, group: int) -> None:
    records = random_records(kind, group, hidden=136, width=8, count=1)
    slot_ids = torch.tensor([1], dtype=torch.int32)
    gate_up, down = unpack_experts(records.slots.to(DEVICE), slot_ids.to(DEVICE), records.layout, torch.float32)
    for place, slot in enumerate(slot_ids.tolist()):
        gate, up, below = records.weights[slot - 1]
        assert torch.equal(gate_up[place].cpu().double(), torch.cat([gate, up]))
        assert torch.equal(down[place].cpu().double(), below)


def test_fp8_is_unpacked_as_stored_with_a_scale_per_block() -> None:
    records = random_records("fp8", 128, hidden=256, width=128, count=1)
    slot_ids = torch.tensor([1], dtype=torch.int32)
    unpacked = unpack_fp8(records.slots.to(DEVICE), slot_ids.to(DEVICE), records.layout)
    gate_up, up_scales, down, down_scales = (tensor.cpu()[0].double() for tensor in unpacked)
    spread = [scales.repeat_interleave(128, 0).repeat_interleave(128, 1) for scales in (up_scales, down_scales)]
    gate, up, below = records.weights[0]
    # The decoder's product of code and scale is rounded to float32, this one is not.
    assert torch.allclose(gate_up * spread[0], torch.cat([gate, up]), rtol=1e-7, atol=0)
    assert torch.allclose(down * spread[1], below, rtol=1e-7, atol=0)


def test_another_format_is_not_unpacked_as_fp8() -> None:
    records = random_records("bf16", 128, hidden=128, width=128, count=1)
    with pytest.raises(ValueError, match="no FP8 blocks"):
        unpack_fp8(records.slots, torch.tensor([1], dtype=torch.int32), records.layout)
