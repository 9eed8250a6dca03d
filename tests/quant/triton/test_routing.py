"""The router on the device chooses what the network's router chooses."""

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.model.moe import Router
from mimo_cli.model.norm import RMSNorm
from mimo_cli.quant.triton.dense import RowNorm
from mimo_cli.quant.triton.routing import route
from tests.support.tiny_config import tiny_config
from tests.support.triton_interpreter import DEVICE


def router(config: ModelConfig) -> Router:
    router = Router(config)
    torch.nn.init.normal_(router.weight)
    router.e_score_correction_bias.uniform_(0, 0.5)
    return router


@torch.no_grad()
def test_experts_and_weights_are_those_of_the_network() -> None:
    config = tiny_config()
    network, norm = router(config), RMSNorm(config.hidden_size, 1e-5)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(3, config.hidden_size)
    ids, weights = network(norm(x))
    bias = network.e_score_correction_bias.to(DEVICE)
    given = x.to(DEVICE), network.weight.to(DEVICE), bias, config.num_experts_per_tok
    choice = route(*given, norm=RowNorm(norm.weight.to(DEVICE), 1e-5))
    assert torch.equal(choice.expert_ids.cpu(), ids)
    assert torch.allclose(choice.expert_weights.cpu(), weights, atol=1e-6)  # sums of another order
    assert torch.allclose(choice.normed.cpu(), norm(x), atol=1e-6)


@torch.no_grad()
def test_of_equal_scores_the_lower_expert_comes_first_and_a_bias_only_decides() -> None:
    x, weight = torch.ones(1, 8), torch.zeros(6, 8)
    bias = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.0])
    given = [tensor.to(DEVICE) for tensor in (x, weight, bias)]
    choice = route(given[0], given[1], given[2], 4, factor=2.0)
    assert choice.expert_ids.tolist() == [[1, 3, 4, 0]]
    assert choice.expert_weights.tolist() == [[0.5] * 4]
    plain = route(given[0], given[1], given[2], 4, normalizes=False)
    assert plain.expert_weights.tolist() == [[0.5] * 4]
