"""The dense SwiGLU feed-forward."""

import pytest
import torch

from mimo_cli.errors import MimoError
from mimo_cli.model.mlp import MLP
from mimo_cli.quant.kernels import FEW_TOKENS
from mimo_cli.quant.linear import Linear, PackedLinear, native_precision
from mimo_cli.quant.pack import pack, packed_shape
from mimo_cli.quant.stored import StoredMatrix
from tests.support.kernels import kernels, needs_kernels
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


def packed(mlp: MLP) -> MLP:
    """Put packed layers of the same weights, which bfloat16 holds, in the place of a network's."""
    made = MLP(mlp.gate_proj.weight.shape[1], mlp.gate_proj.weight.shape[0])
    for name in ("gate_proj", "up_proj", "down_proj"):
        layer: Linear = getattr(mlp, name)
        stored = StoredMatrix("plain", layer.weight.detach().bfloat16())
        shape = packed_shape([stored], torch.bfloat16)
        assert shape is not None
        data = pack(kernels(), shape, [stored])
        setattr(made, name, PackedLinear(kernels(), shape, data, native_precision(layer.weight.dtype)))
    return made


def rounded_mlp(dtype: torch.dtype, hidden: int = 70, width: int = 101) -> MLP:
    mlp = MLP(hidden, width)
    randomize(mlp)
    for weight in mlp.parameters():
        weight.data = weight.data.bfloat16().to(dtype)
    return mlp


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3, FEW_TOKENS])
def test_packed_layers_give_in_one_call_what_they_give_one_by_one(tokens: int, dtype: torch.dtype) -> None:
    mlp = packed(rounded_mlp(dtype))
    x = torch.randn(1, tokens, 70).to(dtype)
    before = kernels().use
    with torch.inference_mode():
        found = mlp(x)
        assert kernels().use.since(before).calls == 3
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        expected = mlp.down_proj(torch.nn.functional.silu(gate) * up)
    assert found.dtype == dtype and found.shape == x.shape
    # The exponential of the kernels differs from torch's in the last bit.
    torch.testing.assert_close(found, expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-3)


@needs_kernels
def test_a_row_of_a_few_does_not_depend_on_the_others() -> None:
    mlp, x = packed(rounded_mlp(torch.float32)), torch.randn(5, 70)
    with torch.inference_mode():
        assert torch.equal(mlp(x), torch.cat([mlp(row[None]) for row in x]))


@needs_kernels
def test_a_gate_that_is_no_number_stays_none() -> None:
    mlp, x = packed(rounded_mlp(torch.bfloat16)), torch.randn(1, 70).bfloat16()
    x[0, 3] = float("nan")
    with torch.inference_mode():
        assert bool(mlp(x).isnan().any())


@needs_kernels
def test_packed_layers_refuse_gradients() -> None:
    with pytest.raises(MimoError, match="gradients"):
        packed(rounded_mlp(torch.float32))(torch.randn(2, 70, requires_grad=True))
