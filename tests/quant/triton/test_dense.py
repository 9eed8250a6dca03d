"""A packed matrix times vectors on the device, with a norm before and a sum after it, against torch."""

import pytest
import torch

from mimo_cli.model.norm import RMSNorm
from mimo_cli.quant.packed import PackedFormat, PackedShape, decode_packed
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.quant.triton.dense import RowNorm, packed_product
from tests.support.triton_interpreter import DEVICE, DTYPES

ROWS, COLS = 40, 200


def matrix(kind: PackedFormat) -> tuple[PackedShape, torch.Tensor, torch.Tensor]:
    shape = PackedShape(kind, 32 if kind in ("int4", "mxfp4") else 128, ROWS, COLS)
    data = RandomStreams(3).fill(shape, torch.zeros(shape.nbytes, dtype=torch.uint8))
    return shape, data, torch.from_numpy(decode_packed(data.numpy(), shape)[0]).double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["int4", "mxfp4", "int8", "fp8", "bf16"])
def test_norm_product_and_sum_are_those_of_torch(kind: PackedFormat, dtype: torch.dtype) -> None:
    shape, data, weights = matrix(kind)
    x, residual, norm = torch.randn(2, COLS).to(dtype), torch.randn(2, ROWS).to(dtype), RMSNorm(COLS, 1e-5, dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    with torch.no_grad():
        expected = (norm(x).double() @ weights.T).to(dtype) + residual
    result = packed_product(
        x.to(DEVICE),
        data.to(DEVICE),
        shape,
        norm=RowNorm(norm.weight.detach().to(DEVICE), 1e-5),
        residual=residual.to(DEVICE),
    ).cpu()
    error = (result.double() - expected.double()).norm() / expected.double().norm()
    assert error < (1e-6 if dtype == torch.float32 else 8e-3)  # float32 sums; bfloat16: the sum is rounded once more


def test_without_norm_the_vector_is_taken_as_it_is_and_the_result_in_the_dtype_asked_for() -> None:
    shape, data, weights = matrix("fp8")
    x = torch.randn(1, COLS)
    result = packed_product(x.to(DEVICE), data.to(DEVICE), shape, out_dtype=torch.float64).cpu()
    assert result.dtype == torch.float64
    assert torch.allclose(result, x.double() @ weights.T, atol=1e-6)  # float32 sums of numbers below 0.1


def test_vectors_of_another_width_are_refused() -> None:
    shape, data, _ = matrix("fp8")
    with pytest.raises(ValueError, match="do not go with"):
        packed_product(torch.empty(1, COLS + 1), data, shape)
