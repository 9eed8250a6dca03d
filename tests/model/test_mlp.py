"""The dense SwiGLU feed-forward."""

import torch

from mimo_cli.model.mlp import MLP
from tests.support.tiny_config import randomize


def test_it_is_down_of_silu_of_gate_times_up() -> None:
    mlp = MLP(6, 10)
    randomize(mlp)
    x = torch.randn(2, 3, 6)
    gate, up = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    torch.testing.assert_close(mlp(x), (gate * torch.sigmoid(gate) * up) @ mlp.down_proj.weight.T)


def test_its_weights_carry_the_checkpoint_names() -> None:
    names = {name: tuple(value.shape) for name, value in MLP(6, 10).state_dict().items()}
    assert names == {"gate_proj.weight": (10, 6), "up_proj.weight": (10, 6), "down_proj.weight": (6, 10)}


def test_it_computes_in_its_dtype() -> None:
    assert MLP(6, 10, torch.bfloat16)(torch.randn(1, 6).bfloat16()).dtype == torch.bfloat16
