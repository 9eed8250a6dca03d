"""What only a card can show: PTX and arithmetic agree, launches can be captured, the model's own shapes fit."""

import pytest
import torch

from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.prefill import prefill_experts
from mimo_cli.quant.triton.routing import route
from mimo_cli.quant.triton.unpack import unpack_experts
from tests.support.slot_records import random_records

pytestmark = pytest.mark.gpu

KINDS: list[tuple[PackedFormat, int]] = [("int4", 32), ("mxfp4", 32), ("fp8", 128)]
HIDDEN, WIDTH = 4096, 2048


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_ptx_and_arithmetic_decode_the_same_numbers(kind: PackedFormat, group: int) -> None:
    records = random_records(kind, group, hidden=512, width=256, count=1)
    slot = torch.tensor([1], dtype=torch.int32, device="cuda")
    both = [
        unpack_experts(records.slots.cuda(), slot, records.layout, torch.float32, fast=fast) for fast in (False, True)
    ]
    assert all(torch.equal(plain, by_ptx) for plain, by_ptx in zip(*both, strict=True))


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_a_captured_step_gives_the_same_bits_and_follows_the_table(kind: PackedFormat, group: int) -> None:
    records = random_records(kind, group, hidden=HIDDEN, width=WIDTH, count=3)
    slots, x = records.slots.cuda(), torch.randn(1, HIDDEN, device="cuda").bfloat16()
    weight, bias = torch.randn(6, HIDDEN, device="cuda") * 0.02, torch.zeros(6, device="cuda")
    table = torch.tensor([1, 2, 3, 1, 2, 3], dtype=torch.int32, device="cuda")

    def step() -> torch.Tensor:
        choice = route(x, weight, bias, 4)
        return decode_experts(x, choice.expert_ids, choice.expert_weights, table, slots, records.layout)

    expected = step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    graph.replay()
    assert torch.equal(result, expected)
    table.fill_(-1)  # nobody is there any more: nothing on the host decided who was
    graph.replay()
    assert not result.any()


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_a_prompt_gets_what_its_tokens_get_one_by_one(kind: PackedFormat, group: int) -> None:
    records = random_records(kind, group, hidden=HIDDEN, width=WIDTH, count=3)
    table = torch.tensor([1, 2, 3, -1], dtype=torch.int32, device="cuda")
    x = torch.randn(40, HIDDEN, device="cuda").bfloat16()
    ids = torch.rand(40, 4, device="cuda").topk(3).indices
    given = x, ids, torch.rand(40, 3, device="cuda"), table, records.slots.cuda(), records.layout
    many, few = prefill_experts(*given).double(), decode_experts(*given).double()
    assert (many - few).norm() / few.norm() < 2e-2  # weights and three results are rounded to bfloat16
    if kind == "fp8":
        eight = prefill_experts(*given, precision="w8a8").double()
        assert 1e-3 < (eight - few).norm() / few.norm() < 6e-2  # activations are rounded to 4 bits, twice


@pytest.mark.parametrize(("kind", "group"), KINDS[:2])
def test_tensor_cores_give_the_same_sums(kind: PackedFormat, group: int) -> None:
    records = random_records(kind, group, hidden=HIDDEN, width=WIDTH, count=3)
    table = torch.tensor([1, 2, 3, -1], dtype=torch.int32, device="cuda")
    ids, weights = torch.tensor([[2, 0, 3], [1, 2, 0]], device="cuda"), torch.rand(2, 3, device="cuda")
    given = torch.randn(2, HIDDEN, device="cuda").bfloat16(), ids, weights, table, records.slots.cuda(), records.layout
    plain, by_cores = (decode_experts(*given, cores=cores).double() for cores in (False, True))
    assert (plain - by_cores).norm() / plain.norm() < 8e-3  # both are rounded to bfloat16, before down and at the end
