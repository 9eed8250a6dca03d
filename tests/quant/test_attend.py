"""Attention by the kernels against a plain float64 softmax, over odd widths, groups, windows, sinks and lengths."""

import functools

import pytest
import torch
from torch import Tensor

from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import Heads, Kernels, missing_reason
from tests.support.tiny_config import tiny_config

if missing_reason() is not None:
    pytest.skip(f"{missing_reason()}", allow_module_level=True)


@functools.cache
def on(isa: str, threads: int = 1) -> Kernels | None:
    try:
        return Kernels(isa, threads)
    except ValueError:
        return None


ISAS = [isa for isa in ("avx512", "avx2") if on(isa)]


def drawn(heads: Heads, tokens: int, keys: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, and keys and values that are views into longer memory, as a cache hands them out."""
    generator = torch.Generator().manual_seed(tokens * 1000 + keys)
    query = torch.randn(tokens, heads.queries, heads.width, generator=generator)
    stored = [
        torch.randn(heads.kv_heads, keys + 9, width, generator=generator).to(dtype)[:, 2 : keys + 2]
        for width in (heads.width, heads.value_width)
    ]
    return query, stored[0], stored[1]


def expected(query: Tensor, keys: Tensor, values: Tensor, window: int | None, sinks: Tensor | None) -> Tensor:
    tokens, group, count = len(query), query.shape[1] // keys.shape[0], keys.shape[1]
    keys, values = keys.double().repeat_interleave(group, 0), values.double().repeat_interleave(group, 0)
    scores = torch.einsum("thd,hsd->hts", query.double(), keys) / query.shape[-1] ** 0.5
    behind = torch.arange(count - tokens, count)[:, None] - torch.arange(count)
    hidden = (behind < 0) | (behind > (count if window is None else window))
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(-1, tokens, 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return torch.einsum("hts,hsd->thd", weights, values)


def attend(kernels: Kernels | None, *drawn: Tensor, window: int | None, sinks: Tensor | None) -> Tensor:
    assert kernels
    query, keys, values = drawn
    return kernels.attend(query, keys, values, offset=keys.shape[1] - len(query), window=window, sinks=sinks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [Heads(64, 4, 192, 128), Heads(6, 2, 12, 8), Heads(5, 5, 33, 17), Heads(9, 1, 1, 1)])
@pytest.mark.parametrize("isa", ISAS)
def test_it_is_the_softmax_of_float64(isa: str, heads: Heads, dtype: torch.dtype) -> None:
    for tokens, keys in ((1, 1), (1, 129), (3, 50), (8, 513), (1, 1300)):
        inputs = drawn(heads, tokens, keys, dtype)
        for window in (None, 0, 5, 128):
            for sinks in (None, torch.linspace(-2, 9, heads.queries)):
                found = attend(on(isa), *inputs, window=window, sinks=sinks)
                # sums of up to 1300 float32 products of about one
                torch.testing.assert_close(
                    found.double(), expected(*inputs, window=window, sinks=sinks), rtol=0, atol=3e-6
                )


@pytest.mark.parametrize("isa", ISAS)
def test_a_query_gets_the_same_bits_beside_others_on_any_threads_and_wherever_its_window_stands(isa: str) -> None:
    heads = Heads(16, 4, 192, 128)
    for window in (None, 128):
        query, keys, values = drawn(heads, 8, 1200, torch.bfloat16)
        together = attend(on(isa, 3), query, keys, values, window=window, sinks=None)
        for t in range(8):
            low = 0 if window is None else 1192 + t - window
            alone = attend(
                on(isa),
                query[t : t + 1],
                keys[:, low : 1193 + t],
                values[:, low : 1193 + t],
                window=window,
                sinks=None,
            )
            assert torch.equal(alone[0], together[t])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("isa", ISAS)
def test_a_broken_key_never_comes_out_as_a_finite_number(isa: str, bad: float) -> None:
    query, keys, values = drawn(Heads(4, 2, 12, 8), 1, 40, torch.float32)
    keys[1, 7, 3] = bad
    found = attend(on(isa), query, keys, values, window=None, sinks=None)
    assert found[0, :2].isfinite().all() and not found[0, 2:].isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_turned_and_rounded_exactly_as_torch_does(dtype: torch.dtype) -> None:
    attention = tiny_config().global_attention
    heads = Heads(attention.num_heads, attention.num_kv_heads, attention.head_dim, attention.v_head_dim)
    qkv = torch.randn(5, heads.columns, generator=torch.Generator().manual_seed(1)).to(dtype)
    table = RotaryTable.at(torch.arange(1000, 1005), attention)
    kernels = on(ISAS[0])
    assert kernels
    found = kernels.rotate(qkv, table.cos, table.sin, heads, 0.707)
    widths = [heads.queries * heads.width, heads.kv_heads * heads.width, heads.kv_heads * heads.value_width]
    query, keys, values = qkv.split(widths, dim=-1)
    assert torch.equal(found.query, table.rotate(query.unflatten(-1, (-1, heads.width))).float())
    assert torch.equal(found.keys, table.rotate(keys.unflatten(-1, (-1, heads.width))).transpose(0, 1))
    assert torch.equal(found.values, (values.unflatten(-1, (-1, heads.value_width)) * 0.707).transpose(0, 1))


def test_what_does_not_fit_is_refused() -> None:
    query, keys, values = drawn(Heads(4, 2, 12, 8), 2, 40, torch.float32)
    kernels = on(ISAS[0])
    assert kernels
    with pytest.raises(ValueError, match="do not fit"):
        kernels.attend(query, keys, values, offset=39, window=None, sinks=None)
    with pytest.raises(ValueError, match="one behind the other"):
        kernels.attend(query, keys.half(), values, offset=1, window=None, sinks=None)
    with pytest.raises(ValueError, match="sinks"):
        kernels.attend(query, keys, values, offset=1, window=None, sinks=torch.zeros(3))
