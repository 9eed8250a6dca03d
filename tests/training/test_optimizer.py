"""The optimizer: updates of matrices are orthogonal, stacks are taken apart, states come back."""

import copy

import torch

from training.optimizer import Optimizer, orthogonalise


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((40, 90), (90, 40), (3, 32, 64)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert values.min() > 0.3 and values.max() < 1.4


def test_parts_of_a_matrix_are_orthogonalised_each_on_its_own() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(8, 6)
    gradient[4:] *= 1e-4
    joined, apart = (torch.zeros(8, 6, requires_grad=True) for _ in range(2))
    for matrix, parts in ((joined, {}), (apart, {id(apart): 2})):
        matrix.grad = gradient.clone()
        Optimizer([matrix], [torch.zeros(1)], parts=parts).step()
    assert apart[4:].norm() > 0.5 * apart[:4].norm()
    assert not torch.allclose(joined, apart)


def test_a_restored_optimizer_goes_on_as_the_first_and_keeps_its_own_rates() -> None:
    def make(rate: float) -> tuple[list[torch.Tensor], Optimizer]:
        torch.manual_seed(0)
        tensors = [torch.randn(4, 4, requires_grad=True), torch.randn(3, requires_grad=True), torch.randn(5)]
        return tensors, Optimizer(tensors[:1], tensors[1:2], tables=tensors[2:], adam_rate=rate, table_rate=0.1)

    def step(tensors: list[torch.Tensor], optimizer: Optimizer) -> None:
        for tensor in tensors:
            tensor.grad = torch.ones_like(tensor) * tensor.detach()
        optimizer.step(0.5)

    first, one = make(1e-2)
    step(first, one)
    second, other = make(1e-2)
    for tensor, value in zip(second, first, strict=True):
        tensor.data.copy_(value.data)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    step(first, one)
    step(second, other)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    _, slower = make(1e-3)
    slower.load_state_dict(one.state_dict())
    assert [group["rate"] for group in slower.adam.param_groups] == [1e-3, 0.1]
