"""The dense product, over floats and over packed weights."""

import pytest
import torch

from mimo_cli.errors import MimoError
from mimo_cli.quant.fp8 import quantize_blocks
from mimo_cli.quant.linear import INIT_STD, Linear, PackedLinear, native_precision
from mimo_cli.quant.mxfp4 import encode
from mimo_cli.quant.pack import pack, packed_shape
from mimo_cli.quant.stored import StoredMatrix
from tests.support.kernels import kernels, needs_kernels


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


FORMATS = {
    "fp8": lambda weight: StoredMatrix("fp8", *quantize_blocks(weight)),
    "mxfp4": lambda weight: StoredMatrix("mxfp4", *encode(weight)),
    "bf16": lambda weight: StoredMatrix("plain", weight.bfloat16()),
}


def packed_layer(name: str, dtype: torch.dtype = torch.float32) -> tuple[PackedLinear, Linear]:
    """Return a packed layer of 96 x 256 and a layer of the same weights as float32."""
    stored = FORMATS[name](torch.randn(96, 256, generator=torch.Generator().manual_seed(0)))
    shape = packed_shape([stored], dtype)
    assert shape is not None and shape.format == name
    plain = Linear(256, 96)
    plain.weight.data = stored.floats(torch.float32)
    return PackedLinear(kernels(), shape, pack(kernels(), shape, [stored]), native_precision(dtype)), plain


@needs_kernels
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("leading", [(1,), (7,), (2, 3), (1, 1, 20), (0,)])
def test_a_packed_layer_computes_what_a_float_layer_does(name: str, leading: tuple[int, ...]) -> None:
    packed, plain = packed_layer(name)
    x = torch.randn(*leading, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = packed(x), plain(x)
    assert found.shape == (*leading, 96) and found.dtype == torch.float32
    # The exact paths keep 16 bits of the activations: 3e-6 of a product's norm for floats, 3e-5 for integer formats.
    assert (found - expected).norm() <= 4e-5 * expected.norm()


@needs_kernels
@pytest.mark.parametrize("name", FORMATS)
def test_a_packed_layer_keeps_bfloat16(name: str) -> None:
    packed, plain = packed_layer(name, torch.bfloat16)
    x = torch.randn(5, 256).bfloat16()
    with torch.inference_mode():
        found, expected = packed(x), plain(x.float())
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() <= 4e-3 * expected.norm()  # one rounding to bfloat16: up to 2^-9 each


@needs_kernels
def test_rows_do_not_depend_on_their_neighbours() -> None:
    x = torch.randn(33, 256)
    for name in FORMATS:
        packed, _ = packed_layer(name)
        assert torch.equal(packed(x), torch.cat([packed(row) for row in x.split(1)]))
        assert torch.equal(packed(x), torch.cat([packed(rows) for rows in x.split(5)]))


@needs_kernels
def test_a_packed_layer_refuses_gradients_instead_of_losing_them() -> None:
    packed, _ = packed_layer("fp8")
    x = torch.randn(1, 256, requires_grad=True)
    with pytest.raises(MimoError, match="no gradients") as caught:
        packed(x)
    assert "MIMO_ISA=none" in str(caught.value.hint)
    with torch.no_grad():
        assert packed(x).shape == (1, 96)


@needs_kernels
def test_a_packed_layer_has_no_parameters_and_its_bytes_as_state() -> None:
    packed, _ = packed_layer("fp8")
    assert not list(packed.parameters()) and list(packed.state_dict()) == ["data"]


@needs_kernels
def test_float_outputs_of_a_bfloat16_network_are_not_rounded_by_the_kernels() -> None:
    packed, _ = packed_layer("bf16", torch.bfloat16)
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        exact = packed.float_outputs(x)
        assert exact.dtype == torch.float32 and packed(x).dtype == torch.bfloat16
        assert torch.equal(exact.bfloat16(), packed(x)) and not torch.equal(exact, packed(x).float())


def test_float_outputs_of_a_float_layer_are_its_outputs() -> None:
    layer = Linear(5, 3, dtype=torch.bfloat16)
    x = torch.randn(2, 5).bfloat16()
    assert torch.equal(layer.float_outputs(x), layer(x).float())


@needs_kernels
@pytest.mark.parametrize("name", FORMATS)
def test_a_few_bfloat16_rows_are_rounded_once_as_the_float_sums_are(name: str) -> None:
    packed, _ = packed_layer(name, torch.bfloat16)
    x = torch.randn(1, 8, 256, generator=torch.Generator().manual_seed(4)).bfloat16()
    with torch.inference_mode():
        assert torch.equal(packed(x), packed.float_outputs(x).bfloat16())
        assert torch.equal(packed(x[:, 3:4]), packed(x)[:, 3:4])
