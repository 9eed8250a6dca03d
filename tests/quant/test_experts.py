"""The sum over a token's experts: right, in a fixed order, each expert fetched once."""

import pytest
import torch

from mimo_cli.quant.experts import ExpertWeights, swiglu, swiglu_experts

HIDDEN, WIDTH, EXPERTS = 12, 7, 9
GENERATOR = torch.Generator().manual_seed(3)


def _weights(dtype: torch.dtype = torch.float32) -> list[ExpertWeights]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH))
    return [tuple(torch.randn(s, generator=generator).to(dtype) for s in shapes) for _ in range(EXPERTS)]


def _routing(tokens: int, active: int = 3, experts: int = EXPERTS) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.rand(tokens, experts, generator=GENERATOR).argsort(dim=1)[:, :active]
    return ids, torch.rand(tokens, active, generator=GENERATOR)


def test_it_is_the_weighted_sum_of_the_chosen_experts() -> None:
    weights, x = _weights(), torch.randn(20, HIDDEN)
    ids, shares = _routing(20)
    exact = torch.zeros(20, HIDDEN, dtype=torch.float64)
    for n in range(20):
        for a in range(3):
            gate, up, down = (w.double() for w in weights[ids[n, a]])
            g = gate @ x[n].double()
            exact[n] += shares[n, a].double() * (down @ (g * torch.sigmoid(g) * (up @ x[n].double())))
    got = swiglu_experts(x, ids, shares, weights.__getitem__)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


def test_each_expert_that_occurs_is_fetched_once_in_ascending_order() -> None:
    weights, fetched = _weights(), []

    def fetch(expert_id: int) -> ExpertWeights:
        fetched.append(expert_id)
        return weights[expert_id]

    ids, shares = _routing(40, experts=6)
    swiglu_experts(torch.randn(40, HIDDEN), ids, shares, fetch)
    assert fetched == sorted(set(ids.flatten().tolist()))


def test_the_order_of_a_tokens_experts_is_the_order_of_the_sum() -> None:
    """Products of 1e8 cancel; float32 keeps the small one only if the large ones meet first, in slot order."""
    one = torch.ones(1, HIDDEN)
    gate = torch.full((1, HIDDEN), 100.0 / HIDDEN)  # silu(100) = 100
    up = torch.full((1, HIDDEN), 1.0 / HIDDEN)
    weights = {e: (gate, up, torch.full((HIDDEN, 1), size)) for e, size in ((0, 1e6), (1, -1e6), (2, 1e-3))}
    for ids, exact in (([0, 1, 2], True), ([0, 2, 1], False)):
        got = swiglu_experts(one, torch.tensor([ids]), torch.ones(1, 3), weights.__getitem__)
        assert bool((got - 0.1).abs().max() < 1e-3) == exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_alone_gets_what_it_gets_in_a_batch(dtype: torch.dtype) -> None:
    weights, x = _weights(dtype), torch.randn(30, HIDDEN).to(dtype)
    ids, shares = _routing(30)
    together = swiglu_experts(x, ids, shares, weights.__getitem__)
    alone = [swiglu_experts(x[n : n + 1], ids[n : n + 1], shares[n : n + 1], weights.__getitem__) for n in range(30)]
    # Only the matrix products may differ: they add in another order for one row than for many.
    relative = 1e-5 if dtype == torch.float32 else 2e-2  # some last digits of 24 and of 8 bits
    tolerance = relative * together.abs().max().item()
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=tolerance)


def test_bfloat16_products_are_added_in_float32() -> None:
    """Eight products of 1 + 2^-7: a bfloat16 running sum would lose the small parts above 2."""
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    gate, up = torch.full((1, 4), 8.0).bfloat16(), torch.full((1, 4), 1 / 128).bfloat16()  # silu(32) / 32 = 1
    fetched = (gate, up, torch.full((4, 1), 1.0078125).bfloat16())
    product = swiglu(x, *fetched)[0, 0].item()
    got = swiglu_experts(x, torch.arange(8)[None], torch.ones(1, 8), lambda _: fetched)
    assert got.dtype == torch.bfloat16
    assert got[0, 0].item() == torch.tensor(8 * product).bfloat16().item()


def test_no_tokens_need_no_experts() -> None:
    nothing = torch.empty(0, HIDDEN)
    got = swiglu_experts(nothing, torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3), _weights().__getitem__)
    assert got.shape == (0, HIDDEN)


def test_gradients_reach_inputs_shares_and_weights() -> None:
    weights = [tuple(w.double().requires_grad_() for w in expert) for expert in _weights()]
    x = torch.randn(5, HIDDEN, dtype=torch.float64, requires_grad=True)
    ids, shares = _routing(5)
    shares = shares.double().requires_grad_()
    used = [w for e in ids.unique().tolist() for w in weights[e]]

    def total(*_: torch.Tensor) -> torch.Tensor:
        return swiglu_experts(x, ids, shares, weights.__getitem__).sum()

    total().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in used)
    # The sum is kept in float32, hence steps and tolerances far above those for float64.
    assert torch.autograd.gradcheck(total, (x, shares), eps=1e-2, atol=1e-2, rtol=1e-2)


def test_one_changed_weight_changes_the_result() -> None:
    weights, x = _weights(), torch.randn(4, HIDDEN)
    ids, shares = _routing(4)
    before = swiglu_experts(x, ids, shares, weights.__getitem__)
    weights[ids[2, 1]][2][0, 0] += 0.5
    after = swiglu_experts(x, ids, shares, weights.__getitem__)
    assert not torch.equal(before[2], after[2])
