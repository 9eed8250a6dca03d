"""A real card, where there is one: the answers of the processor within rounding, whatever is copied or kept."""

from dataclasses import replace

import pytest
import torch

from mimo_cli.errors import CapacityError
from mimo_cli.offload import cuda_device
from mimo_cli.offload.cuda_device import CudaDevice
from mimo_cli.offload.gpu_costs import MissCosts
from mimo_cli.offload.gpu_experts import GpuExperts
from tests.support.kernels import needs_kernels
from tests.support.offload_faults import EXPERTS, answer, open_store, step

LAYER = 1
CARD = torch.device("cuda", 0)
COSTS = [MissCosts(1e-9, 1.0), MissCosts(1.0, 1e-9), MissCosts(1e-3, 1e-3), MissCosts(1e-2, 1e-3, 1e-3)]


def test_a_card_without_kernels_for_experts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "decode_experts", None)
    monkeypatch.setattr(cuda_device, "_missing", "No module named 'triton'", raising=False)
    with pytest.raises(CapacityError, match="cannot be computed on `cuda:0`: No module named 'triton'"):
        CudaDevice(CARD)


@pytest.mark.gpu
@needs_kernels
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("slots", [0, 3, EXPERTS])
def test_a_card_says_what_the_processor_says(slots: int, costs: MissCosts) -> None:
    store = open_store("store")
    experts = GpuExperts(store, CudaDevice(CARD), [LAYER], EXPERTS, replace(costs))
    experts.allot(slots, 2)
    for tokens, seed in [(1, 0), (1, 1), (40, 2), (3, 3), (1, 0), (40, 4), (9, 5)]:
        found = experts.run(LAYER, *(part.to(CARD) for part in step(tokens, seed))).cpu()
        expected = answer("store", tokens, seed)
        # Activations of 16 or 24 bits before exact weights, sums in another order: 1e-4 of the norm.
        assert (found - expected).norm() <= 1e-4 * expected.norm()
    experts.close()
    store.close()


@pytest.mark.gpu
@needs_kernels
def test_memory_of_a_card_is_given_back() -> None:
    device, store = CudaDevice(CARD), open_store("store")
    before = torch.cuda.memory_allocated(CARD)
    experts = GpuExperts(store, device, [LAYER], EXPERTS, replace(COSTS[0]))
    experts.allot(EXPERTS, 2)
    assert torch.cuda.memory_allocated(CARD) - before >= experts.nbytes
    experts.run(LAYER, *(part.to(CARD) for part in step(2, 0)))
    experts.close()
    assert torch.cuda.memory_allocated(CARD) <= before + (1 << 20)
    store.close()
