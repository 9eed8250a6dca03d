"""Routed experts of many tokens: the same sums as those of a few, rounding apart."""

import pytest
import torch

from mimo_cli.quant.triton.prefill import prefill_experts, sort_pairs
from tests.support.slot_records import expected_sum, random_records
from tests.support.triton_interpreter import DEVICE, DTYPES

# The third expert of some tokens, number 3, is in no slot; slot 0 holds no expert.
IDS = torch.tensor([[4, 1, 3], [1, 4, 2], [2, 3, 1]])
TABLE = torch.tensor([-1, 2, 3, -1, 1, -1], dtype=torch.int32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_that_of_the_experts_in_slots(dtype: torch.dtype) -> None:
    records = random_records("bf16", 128, hidden=64, width=32, count=3)
    hidden, weights = torch.randn(3, 64).to(dtype), torch.rand(3, 3)
    given = [tensor.to(DEVICE) for tensor in (hidden, IDS, weights, TABLE, records.slots)]
    result = prefill_experts(*given, records.layout, out_dtype=torch.float32).cpu()
    expected = expected_sum(records, hidden, IDS, weights, TABLE)
    error = (result.double() - expected).norm() / expected.norm()
    assert error < (2e-6 if dtype == torch.float32 else 1e-2)  # float32 sums; three roundings to 8 bits


def test_eight_bits_stay_near_and_are_another_precision() -> None:
    records = random_records("fp8", 128, hidden=128, width=128, count=2)
    ids, table = torch.tensor([[1, 0], [2, 1]]), torch.tensor([-1, 1, 2], dtype=torch.int32)
    hidden, weights = torch.randn(2, 128), torch.rand(2, 2)
    if DEVICE == "cuda":
        hidden = hidden.bfloat16()
    given = [tensor.to(DEVICE) for tensor in (hidden, ids, weights, table, records.slots)]
    result = prefill_experts(*given, records.layout, precision="w8a8").cpu()
    expected = expected_sum(records, hidden, ids, weights, table)
    error = (result.double() - expected).norm() / expected.norm()
    # Rounding to e4m3 twice: 2.6 % of each value; the interpreter cuts bits off instead, up to an eighth, three times.
    assert 1e-3 < error < (0.06 if DEVICE == "cuda" else 0.25)


def test_pairs_are_sorted_by_expert_with_the_absent_ones_behind() -> None:
    pairs = sort_pairs(IDS, TABLE)
    assert pairs.counts == [0, 3, 2, 0, 2, 0]
    assert pairs.tokens.tolist() == [0, 1, 2, 1, 2, 0, 1, 0, 2]
    assert pairs.places.tolist() == [[5, 0, 7], [1, 6, 3], [4, 8, 2]]
