"""Routed experts of a few tokens on the device: against float64, with experts that are not there, in any slots."""

import pytest
import torch

from mimo_cli.errors import CapacityError
from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.launch import LaunchShape
from tests.support.slot_records import expected_sum, random_records
from tests.support.triton_interpreter import DEVICE, DTYPES

KINDS: list[tuple[PackedFormat, int]] = [
    ("int4", 32),
    ("int4", 128),
    ("mxfp4", 32),
    ("fp8", 128),
    ("int8", 128),
    ("bf16", 128),
]
SMALL = LaunchShape(1, 4, 2)

FLOAT32_ERROR = 3e-6
"""Relative: float32 sums of a few hundred products, and of int4 those of numbers between 1 and 2."""

BFLOAT16_ERROR = 8e-3
"""Relative: two roundings to 8 bits."""


def choices(experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token of three experts, the third in no slot; expert ids, weights and the table [E]."""
    table = torch.full((experts,), -1, dtype=torch.int32)
    table[1], table[4] = 2, 1  # slot 0 holds garbage
    return torch.tensor([[4, 1, 3]]), torch.tensor([[0.6, 0.3, 0.1]]), table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_the_sum_is_that_of_the_experts_in_slots(kind: PackedFormat, group: int, dtype: torch.dtype) -> None:
    records = random_records(kind, group, hidden=128 + 32, width=32, count=2)
    hidden = torch.randn(1, 160).to(dtype)
    ids, weights, table = choices(6)
    given = [tensor.to(DEVICE) for tensor in (hidden, ids, weights, table, records.slots)]
    result = decode_experts(*given, records.layout, gate_up=SMALL, down=SMALL).cpu()
    expected = expected_sum(records, hidden, ids, weights, table)
    error = (result.double() - expected).norm() / expected.norm()
    assert result.dtype == dtype and error < (FLOAT32_ERROR if dtype == torch.float32 else BFLOAT16_ERROR)


def test_where_an_expert_lies_and_who_else_is_computed_changes_no_bit() -> None:
    records = random_records("bf16", 128, hidden=128, width=16, count=2)
    hidden, (ids, weights, table) = torch.randn(2, 128), choices(6)
    ids, weights = ids.repeat(2, 1), weights.repeat(2, 1)
    moved = torch.stack([records.slots[i] for i in (1, 0, 2)])
    other = table.clone()
    other[4] = 0

    def run(rows: torch.Tensor, table: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        given = [tensor.to(DEVICE) for tensor in (rows, ids[: len(rows)], weights[: len(rows)], table, slots)]
        return decode_experts(*given, records.layout, gate_up=SMALL, down=SMALL).cpu()

    both = run(hidden, table, records.slots)
    assert torch.equal(run(hidden[:1], table, records.slots), both[:1])
    assert torch.equal(run(hidden[:1], other, moved), both[:1])


def test_several_spans_at_once_and_a_residual_give_the_same_sum() -> None:
    records = random_records("bf16", 128, hidden=256, width=32, count=2)
    hidden, residual, (ids, weights, table) = torch.randn(1, 256), torch.randn(1, 256), choices(6)
    given = [tensor.to(DEVICE) for tensor in (hidden, ids, weights, table, records.slots)]
    wide = LaunchShape(2, 8, 3)
    result = decode_experts(*given, records.layout, residual=residual.to(DEVICE), gate_up=wide, down=wide).cpu()
    expected = expected_sum(records, hidden, ids, weights, table) + residual
    assert (result.double() - expected).norm() / expected.norm() < FLOAT32_ERROR


def test_no_tokens_give_no_rows() -> None:
    records = random_records("fp8", 128, hidden=128, width=32, count=1)
    ids, weights, table = choices(6)
    result = decode_experts(
        torch.empty(0, 128), ids[:0], weights[:0], table, records.slots, records.layout, out_dtype=torch.float64
    )
    assert result.shape == (0, 128) and result.dtype == torch.float64


def test_slots_too_short_for_a_record_are_refused() -> None:
    records = random_records("fp8", 128, hidden=128, width=32, count=1)
    ids, weights, table = choices(6)
    with pytest.raises(CapacityError, match="do not hold records"):
        decode_experts(torch.empty(1, 128), ids, weights, table, records.slots[:, :4096].contiguous(), records.layout)
