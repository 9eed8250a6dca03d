"""Attention of a decoded token on the device equals the network's: rings, growing caches, windows, sinks."""

import pytest
import torch

from mimo_cli.model.attention import attend
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.triton.attention import decode_attention
from mimo_cli.quant.triton.rotary import rotate_into_cache
from tests.support.triton_interpreter import DEVICE, DTYPES

# query heads, kv heads, width, value width, places, tokens, window, sink
CASES = [
    (8, 2, 24, 16, 40, 33, None, False),  # growing, not yet full
    (8, 2, 192, 128, 129, 300, 128, True),  # a ring of the released window, gone round twice
    (4, 4, 24, 16, 150, 150, 20, True),  # more places than the window needs
    (2, 1, 24, 16, 129, 1, 128, True),  # the first token
    (16, 1, 24, 16, 300, 290, None, True),  # several parts, one of them empty
]


def cached(tokens: torch.Tensor, places: int) -> torch.Tensor:
    """Tokens [1, K, L, D] where a ring of so many places has them; the others are no numbers."""
    ring = torch.full((*tokens.shape[:2], places, tokens.shape[3]), float("nan"), dtype=tokens.dtype)
    for position in range(tokens.shape[2]):
        ring[:, :, position % places] = tokens[:, :, position]
    return ring


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_what_a_token_sees_is_mixed_as_the_network_does(case: tuple, dtype: torch.dtype) -> None:  # type: ignore[type-arg]
    heads, kv_heads, width, value_width, places, tokens, window, has_sink = case
    query = torch.randn(1, heads, width).to(dtype)
    keys, values = (
        torch.randn(1, kv_heads, tokens, width).to(dtype),
        torch.randn(1, kv_heads, tokens, value_width).to(dtype),
    )
    sinks = torch.randn(heads) if has_sink else None
    lengths = torch.tensor([tokens], dtype=torch.int32)
    given = [tensor.to(DEVICE) for tensor in (query, cached(keys, places), cached(values, places), lengths)]
    result = decode_attention(*given, sinks=None if sinks is None else sinks.to(DEVICE), window=window).cpu()
    wide = query.float()[:, :, None], keys.float(), values.float()
    expected = attend(*wide, offset=tokens - 1, window=window, sinks=sinks)[:, :, 0]
    # float32: sums in another order. bfloat16: chances and result are rounded to 8 bits.
    assert (result.float() - expected).abs().max() < (2e-6 if dtype == torch.float32 else 2e-2)


def test_the_sink_takes_its_share_and_nothing_else() -> None:
    keys, values = torch.zeros(1, 1, 4, 16), torch.ones(1, 1, 4, 16)
    given = [
        tensor.to(DEVICE) for tensor in (torch.zeros(1, 1, 16), keys, values, torch.tensor([3], dtype=torch.int32))
    ]
    sink = torch.tensor([3.0]).log().to(DEVICE)
    assert torch.allclose(decode_attention(*given, sinks=sink).cpu(), torch.full((1, 1, 16), 0.5))
    assert torch.allclose(decode_attention(*given).cpu(), torch.ones(1, 1, 16))


def test_parts_change_the_result_by_rounding_alone() -> None:
    query, keys, values = torch.randn(1, 4, 16), torch.randn(1, 2, 200, 16), torch.randn(1, 2, 200, 16)
    given = [tensor.to(DEVICE) for tensor in (query, keys, values, torch.tensor([200], dtype=torch.int32))]
    whole = decode_attention(*given, parts=1)
    assert (decode_attention(*given, parts=3) - whole).abs().max() < 1e-6  # float32 sums in another order


def test_new_heads_are_rotated_scaled_and_put_in_their_place() -> None:
    heads, kv_heads, width, value_width, places, length, half = 4, 2, 24, 16, 10, 23, 4
    projected = torch.randn(1, (heads + kv_heads) * width + kv_heads * value_width)
    angles = (length - 1) * torch.rand(1, half)
    keys, values = torch.zeros(1, kv_heads, places, width), torch.zeros(1, kv_heads, places, value_width)
    keys, values = keys.to(DEVICE), values.to(DEVICE)
    given = [t.to(DEVICE) for t in (projected, angles.cos(), angles.sin(), torch.tensor([length], dtype=torch.int32))]
    query = rotate_into_cache(*given, keys, values, heads=heads, value_scale=0.707).cpu()
    table = RotaryTable(angles.cos()[:, None, None], angles.sin()[:, None, None])
    q, k, v = projected.split([heads * width, kv_heads * width, kv_heads * value_width], dim=-1)
    place = (length - 1) % places
    assert torch.allclose(query, table.rotate(q.view(1, 1, heads, width))[:, 0])
    assert torch.allclose(keys[:, :, place].cpu(), table.rotate(k.view(1, 1, kv_heads, width))[:, 0])
    assert torch.allclose(values[:, :, place].cpu(), v.view(1, kv_heads, value_width) * 0.707)
    keys[:, :, place], values[:, :, place] = 0, 0
    assert not keys.any() and not values.any()
