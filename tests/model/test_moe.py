"""Router and mixture: the choice, the weights, and who is kept out."""

import pytest
import torch
from torch import Tensor

from mimo_cli.model.moe import MoE, ResidentExperts, Router
from tests.support.kernels import kernels, needs_kernels
from tests.support.text_checkpoint import SEQUENCES, load_text_checkpoint
from tests.support.tiny_config import randomize, tiny_config


def _router(**overrides: object) -> Router:
    """A router over six experts whose logits are the first six inputs."""
    router = Router(tiny_config(**overrides))
    with torch.no_grad():
        router.weight.copy_(torch.eye(6, 16))
    return router


def _route(router: Router, logits: list[float]) -> tuple[list[int], Tensor]:
    expert_ids, expert_weights = router(torch.tensor([logits + [0.0] * 10]))
    return expert_ids[0].tolist(), expert_weights[0]


def test_the_best_scores_are_chosen_and_share_one() -> None:
    ids, weights = _route(_router(), [0.0, 3.0, -1.0, 1.0, 0.5, -2.0])
    assert ids == [1, 3]
    scores = torch.tensor([3.0, 1.0]).sigmoid()
    torch.testing.assert_close(weights, scores / scores.sum())


def test_the_bias_decides_who_is_chosen_but_not_by_how_much() -> None:
    router = _router()
    router.e_score_correction_bias[5] = 2.0
    ids, weights = _route(router, [0.0, 3.0, -1.0, 1.0, 0.5, -2.0])
    assert ids == [5, 1]
    scores = torch.tensor([-2.0, 3.0]).sigmoid()
    torch.testing.assert_close(weights, scores / scores.sum())


def test_equal_scores_go_to_the_lower_expert() -> None:
    assert _route(_router(), [1.0] * 6)[0] == [0, 1]
    assert _route(_router(), [0.0, 1.0, 2.0, 1.0, 1.0, 1.0])[0] == [2, 1]


def test_weights_may_be_left_unnormalized_and_scaled() -> None:
    router = _router(norm_topk_prob=False, routed_scaling_factor=2.5)
    _, weights = _route(router, [0.0, 3.0, -1.0, 1.0, 0.5, -2.0])
    torch.testing.assert_close(weights, 2.5 * torch.tensor([3.0, 1.0]).sigmoid())


def test_only_experts_of_the_best_groups_are_chosen() -> None:
    """Groups (0, 1), (2, 3), (4, 5) are judged by the sum of their two best; the best expert may lose by its group."""
    logits = [4.0, -9.0, 1.0, 1.0, 0.9, 1.2]
    assert _route(_router(), logits)[0] == [0, 5]
    assert _route(_router(n_group=3, topk_group=1), logits)[0] == [5, 4]
    assert _route(_router(n_group=3, topk_group=2), logits)[0] == [5, 2]
    assert _route(_router(n_group=3, topk_group=3), logits)[0] == [0, 5]


def test_a_group_may_be_a_single_expert() -> None:
    logits = [4.0, -9.0, 1.0, 1.0, 0.9, 1.2]
    assert _route(_router(n_group=6, topk_group=2), logits)[0] == _route(_router(), logits)[0]


def test_the_router_computes_in_float32_whatever_the_activations() -> None:
    """Logits 8 + 1/64 and 8 are equal in bfloat16: a rounded router would prefer the lower id."""
    router = _router()
    with torch.no_grad():
        router.weight[4, :2] = torch.tensor([1.0, 1 / 64])
        router.weight[1] = 0.0
        router.weight[1, 0] = 1.0
        router.weight[0] = 0.0
    x = torch.zeros(1, 16, dtype=torch.bfloat16)
    x[0, :2] = torch.tensor([8.0, 1.0])
    expert_ids, expert_weights = router(x)
    assert expert_ids[0, 0] == 4
    assert expert_weights.dtype == torch.float32


@pytest.mark.parametrize("name", ["text", "text_mxfp4"])
def test_choices_and_weights_are_those_of_the_reference(name: str) -> None:
    golden = load_text_checkpoint(name)
    routed: list[tuple[Tensor, Tensor]] = []
    hooks = [
        golden.model.layers[layer].mlp.gate.register_forward_hook(lambda *args: routed.append(args[2]))
        for layer in golden.config.moe_layers
    ]
    for i in range(SEQUENCES[name]):
        routed.clear()
        golden.states(golden.ids(i))
        expert_ids, order = torch.stack([ids for ids, _ in routed]).sort(dim=-1)
        expert_weights = torch.stack([weights for _, weights in routed]).gather(-1, order)
        assert torch.equal(expert_ids, golden.expected[f"seq{i}_router_idx"].long())
        torch.testing.assert_close(expert_weights, golden.expected[f"seq{i}_router_weight"], rtol=0, atol=1e-4)
    for hook in hooks:
        hook.remove()


class _Recorder:
    """An expert source that remembers what it was asked and answers with the input."""

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        self.layer, self.rows, self.ids = layer, hidden_states, expert_ids
        return hidden_states


def test_the_source_is_asked_for_its_layer_with_all_rows() -> None:
    source = _Recorder()
    x = torch.randn(2, 3, 16)
    assert torch.equal(MoE(tiny_config(), 2, source)(x), x)
    assert source.layer == 2
    assert source.rows.shape == (6, 16) and source.ids.shape == (6, 2)


def test_padding_is_never_routed_and_comes_out_zero() -> None:
    source = _Recorder()
    x = torch.randn(2, 3, 16)
    mask = torch.tensor([[False, True, True], [True, False, False]])
    out = MoE(tiny_config(), 1, source)(x, mask)
    assert torch.equal(source.rows, torch.stack([x[0, 1], x[0, 2], x[1, 0]]))
    assert torch.equal(out, x * mask[..., None])


def test_a_batch_of_padding_alone_asks_for_no_expert() -> None:
    config = tiny_config()
    out = MoE(config, 1, ResidentExperts(config))(torch.randn(1, 3, 16), torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(out, torch.zeros(1, 3, 16))


def test_resident_experts_hold_gate_above_up_for_every_layer_with_experts() -> None:
    experts = ResidentExperts(tiny_config(), torch.bfloat16)
    assert {name: tuple(w.shape) for name, w in experts.named_parameters()} == {
        f"{part}.{layer}": shape
        for part, shape in (("gate_up_proj", (6, 16, 16)), ("down_proj", (6, 16, 8)))
        for layer in (1, 2, 3)
    }
    gate, up, down = experts.expert(3, 5)
    assert torch.equal(torch.cat([gate, up]), experts.gate_up_proj["3"][5])
    assert torch.equal(down, experts.down_proj["3"][5]) and down.dtype == torch.bfloat16


def test_another_expert_or_another_weight_changes_the_result() -> None:
    config = tiny_config()
    experts = ResidentExperts(config)
    randomize(experts)
    x, weights = torch.randn(1, 16), torch.tensor([[0.5, 0.5]])
    results = [
        experts.run(1, x, torch.tensor([[0, 1]]), weights),
        experts.run(1, x, torch.tensor([[0, 2]]), weights),
        experts.run(2, x, torch.tensor([[0, 1]]), weights),
        experts.run(1, x, torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.4]])),
    ]
    assert not any(torch.equal(results[0], other) for other in results[1:])


@needs_kernels
def test_the_kernels_route_like_torch_and_a_token_like_alone() -> None:
    config = tiny_config()
    router = Router(config)
    rows = torch.randn(8, config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ids, weights = router(rows)
        router.kernels = kernels()
        before = kernels().use.seconds
        native_ids, native_weights = router(rows)
        assert kernels().use.seconds > before and torch.equal(native_ids, ids)
        torch.testing.assert_close(native_weights, weights, rtol=1e-6, atol=1e-7)  # sums in another order
        router.kernels = kernels(1)
        for i in range(8):
            assert torch.equal(router(rows[i : i + 1])[1][0], native_weights[i])
    router(rows)[1].sum().backward()
    assert router.weight.grad is not None


@needs_kernels
def test_the_kernels_choose_by_bias_and_give_equal_scores_to_the_lower_expert() -> None:
    router = _router(norm_topk_prob=False, routed_scaling_factor=2.5)
    router.kernels = kernels()
    router.e_score_correction_bias[5] = 2.0
    with torch.inference_mode():
        ids, weights = _route(router, [0.0, 1.0, 2.0, 1.0, 1.0, -2.0])
        assert ids == [5, 2]
        torch.testing.assert_close(weights, 2.5 * torch.tensor([-2.0, 2.0]).sigmoid())
        router.e_score_correction_bias[5] = 0.0
        assert _route(router, [1.0] * 6)[0] == [0, 1]
        ids, weights = _route(router, [float("nan"), 9.0, 0.0, 0.0, 0.0, 0.0])
    assert len(set(ids)) == 2 and weights.isnan().any()  # two experts still, and the fault shows
