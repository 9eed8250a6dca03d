"""Experts of the host's memory are computed beside those of the pool, with slot numbers of the same kind."""

import torch

from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.launch import LaunchShape, is_fast
from mimo_cli.quant.triton.mapped import map_records
from tests.support.slot_records import expected_sum, random_records
from tests.support.triton_interpreter import DEVICE


def test_an_expert_outside_of_the_pool_is_computed_where_it_lies() -> None:
    records = random_records("bf16", 128, hidden=64, width=16, count=3)
    pool = records.slots[:3].to(DEVICE)  # the last expert is not in it
    mapped = map_records(pool, 1)
    mapped.records[0] = records.slots[3]
    inside = torch.tensor([1, 2, 3], dtype=torch.int32)  # where random_records put the experts
    table = inside + mapped.pool_slot
    table[2] = mapped.host_slot
    hidden, ids, weights = torch.randn(1, 64), torch.tensor([[2, 0, 1]]), torch.tensor([[0.5, 0.3, 0.2]])
    given = [tensor.to(DEVICE) for tensor in (hidden, ids, weights, table)]
    small, fast = LaunchShape(1, 4, 2), is_fast(pool.device)
    result = decode_experts(*given, mapped.base, records.layout, gate_up=small, down=small, fast=fast).cpu()
    expected = expected_sum(records, hidden, ids, weights, inside)
    assert (result.double() - expected).norm() / expected.norm() < 3e-6  # float32 sums


def test_numbers_count_whole_slots_from_the_lower_address() -> None:
    pool = torch.empty(4, 4096, dtype=torch.uint8, device=DEVICE)
    mapped = map_records(pool, 2)
    slot_bytes = pool.shape[1]
    assert mapped.base.data_ptr() + mapped.pool_slot * slot_bytes == pool.data_ptr()
    assert mapped.base.data_ptr() + mapped.host_slot * slot_bytes == mapped.records.data_ptr()
    assert min(mapped.pool_slot, mapped.host_slot) == 0 and mapped.records.shape == (2, 4096)
