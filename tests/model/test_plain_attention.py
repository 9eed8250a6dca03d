"""Attention written out: the formula of the fused path, wherever queries stand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.model import plain_attention
from mimo_cli.model.attention import attend
from mimo_cli.model.plain_attention import attend_plainly

HEADS, KV_HEADS, WIDTH, VALUE_WIDTH = 8, 2, 24, 16


def inputs(tokens: int, keys: int, seed: int = 0, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, HEADS, tokens, WIDTH), (batch, KV_HEADS, keys, WIDTH), (batch, KV_HEADS, keys, VALUE_WIDTH)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


SINKS = torch.linspace(-2, 3, HEADS)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    before=st.integers(0, 60),
    window=st.sampled_from([None, 1, 5, 16]),
    has_sinks=st.booleans(),
    scores=st.sampled_from([1, 3000, 1 << 26]),
)
def test_it_is_the_attention_of_the_processor(
    tokens: int, before: int, window: int | None, has_sinks: bool, scores: int
) -> None:
    tensors, sinks = inputs(tokens, tokens + before), SINKS if has_sinks else None
    usual, plain_attention.MAX_SCORES = plain_attention.MAX_SCORES, scores
    try:
        found = attend_plainly(*tensors, offset=before, window=window, sinks=sinks)
    finally:
        plain_attention.MAX_SCORES = usual
    expected = attend(*tensors, offset=before, window=window, sinks=sinks)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)  # float32 sums in another order


@pytest.mark.parametrize("window", [None, 5])
def test_padding_hides_keys_as_it_does_for_the_processor(window: int | None) -> None:
    tensors = inputs(12, 12, batch=3)
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[0, :4], mask[2, 7:] = False, False
    found = attend_plainly(*tensors, window=window, sinks=SINKS, key_mask=mask)
    expected = attend(*tensors, window=window, sinks=SINKS, key_mask=mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("before", [0, 3, 20, 31])
def test_a_place_that_is_a_tensor_sees_the_same_keys_in_a_longer_buffer(window: int | None, before: int) -> None:
    query, keys, values = inputs(1, before + 1)
    buffers = [
        torch.cat([part, torch.full_like(part[:, :, :1], 99.0).expand(-1, -1, 40, -1)], 2) for part in (keys, values)
    ]
    found = attend_plainly(query, *buffers, offset=torch.tensor(before), window=window, sinks=SINKS)
    expected = attend(query, keys, values, offset=before, window=window, sinks=SINKS)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_bfloat16_is_rounded_once_at_the_end() -> None:
    tensors = inputs(9, 30, dtype=torch.bfloat16)
    found = attend_plainly(*tensors, offset=21, window=16, sinks=SINKS)
    exact = attend_plainly(*(part.float() for part in tensors), offset=21, window=16, sinks=SINKS)
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.bfloat16())
