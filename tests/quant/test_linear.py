"""The dense product."""

import torch

from mimo_cli.quant.linear import INIT_STD, Linear


def test_it_multiplies_by_the_transposed_weight() -> None:
    layer = Linear(5, 3)
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(layer(x), x @ layer.weight.T)
    assert layer.bias is None and [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_bias_is_added_where_there_is_one() -> None:
    layer = Linear(5, 3, bias=True)
    layer.bias.data = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(layer(torch.zeros(1, 5)), layer.bias[None])


def test_a_fresh_layer_is_small_and_random() -> None:
    weight = Linear(200, 200).weight
    assert abs(weight.std().item() / INIT_STD - 1) < 0.05  # 40,000 draws: the error of their deviation is 0.4 %


def test_it_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        layer = Linear(1 << 20, 1 << 20, dtype=torch.bfloat16)
    assert layer.weight.is_meta and layer.weight.dtype == torch.bfloat16
