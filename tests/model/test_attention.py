"""Attention against a plain float64 formula, at its edges, and against the reference values of the golden set."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mimo_cli.kvcache.full import FullKV
from mimo_cli.kvcache.sliding import SlidingKV
from mimo_cli.model import attention as attention_module
from mimo_cli.model.attention import Attention, attend
from mimo_cli.model.rope import RotaryTable
from tests.support.kernels import kernels, needs_kernels
from tests.support.text_checkpoint import load_text_checkpoint
from tests.support.tiny_config import randomize, tiny_config

WINDOW = 5


def _inputs(batch: int, heads: int, kv_heads: int, tokens: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens + keys)
    shapes = ((batch, heads, tokens, 12), (batch, kv_heads, keys, 12), (batch, kv_heads, keys, 8))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _plain(
    query: Tensor, keys: Tensor, values: Tensor, window: int | None, sinks: Tensor | None, key_mask: Tensor | None
) -> Tensor:
    """The formula of the specification, word by word, in float64."""
    group = query.shape[1] // keys.shape[1]
    keys, values = keys.double().repeat_interleave(group, 1), values.double().repeat_interleave(group, 1)
    scores = query.double() @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5
    i = torch.arange(query.shape[2])[:, None] + keys.shape[2] - query.shape[2]
    j = torch.arange(keys.shape[2])
    visible = (j <= i) & (j >= i - (window if window is not None else keys.shape[2]))
    visible = visible.expand_as(scores)
    if key_mask is not None:
        visible = visible & (key_mask[:, None, None, :] | (i == j))
    scores = scores.masked_fill(~visible, float("-inf"))
    sink = torch.tensor(float("-inf")) if sinks is None else sinks.double()[:, None, None]
    top = torch.maximum(scores.amax(-1, keepdim=True), sink)
    weights = (scores - top).exp()
    return weights / (weights.sum(-1, keepdim=True) + (sink - top).exp()) @ values


@pytest.mark.parametrize("tokens, keys", [(1, 1), (1, 40), (7, 7), (3, 50), (300, 300), (200, 431)])
@pytest.mark.parametrize("window", [None, WINDOW, 128])
@pytest.mark.parametrize("has_sink", [False, True])
@pytest.mark.parametrize("heads, kv_heads", [(4, 1), (6, 3), (2, 2)])
def test_it_equals_the_formula(
    tokens: int, keys: int, window: int | None, has_sink: bool, heads: int, kv_heads: int
) -> None:
    query, key, value = _inputs(2, heads, kv_heads, tokens, keys)
    sinks = torch.linspace(-2, 3, heads) if has_sink else None
    got = attend(query, key, value, offset=keys - tokens, window=window, sinks=sinks)
    torch.testing.assert_close(got.double(), _plain(query, key, value, window, sinks, None), rtol=0, atol=5e-6)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("has_sink", [False, True])
def test_padding_on_either_side_equals_the_formula(window: int | None, has_sink: bool) -> None:
    query, key, value = _inputs(3, 4, 2, 700, 700)  # 650 masked keys fill whole blocks of the fused kernels
    key_mask = torch.ones(3, 700, dtype=torch.bool)
    key_mask[0, :650] = False
    key_mask[1, 300:] = False
    sinks = torch.linspace(-2, 3, 4) if has_sink else None
    got = attend(query, key, value, window=window, sinks=sinks, key_mask=key_mask)
    exact = _plain(query, key, value, window, sinks, key_mask)
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=5e-6)
    assert torch.isfinite(got).all()


@pytest.mark.parametrize("behind, seen", [(WINDOW - 1, True), (WINDOW, True), (WINDOW + 1, False)])
def test_the_window_ends_after_so_many_previous_tokens(behind: int, seen: bool) -> None:
    """window previous tokens and the own one: a key that far behind still counts, one further it does not."""
    query, key, value = _inputs(1, 2, 2, 20, 20)
    changed = value.clone()
    changed[:, :, 19 - behind] += 1.0
    before = attend(query, key, value, window=WINDOW)[:, :, 19]
    after = attend(query, key, changed, window=WINDOW)[:, :, 19]
    assert torch.equal(before, after) != seen


@pytest.mark.parametrize("keys", [WINDOW, WINDOW + 1, WINDOW + 2])
def test_a_sequence_within_the_window_is_plain_causal(keys: int) -> None:
    query, key, value = _inputs(1, 2, 1, keys, keys)
    same = torch.allclose(attend(query, key, value, window=WINDOW), attend(query, key, value), atol=1e-6)
    assert same == (keys <= WINDOW + 1)


def test_the_future_is_never_seen() -> None:
    query, key, value = _inputs(1, 2, 1, 300, 300)
    before = attend(query, key, value)
    key[:, :, 200:], value[:, :, 200:] = 50.0, 1e6
    after = attend(query, key, value)
    assert torch.equal(before[:, :, :200], after[:, :, :200])
    assert not torch.equal(before[:, :, 200:], after[:, :, 200:])


def test_a_sink_is_neither_scaled_nor_masked() -> None:
    """One key of score zero beside a sink b: the value keeps 1 / (1 + e^b) of itself."""
    query, key, value = torch.zeros(1, 1, 1, 12), torch.zeros(1, 1, 1, 12), torch.ones(1, 1, 1, 8)
    for sink in (-3.0, 0.0, 2.0):
        got = attend(query, key, value, sinks=torch.tensor([sink]))
        torch.testing.assert_close(got, torch.full_like(got, torch.sigmoid(torch.tensor(-sink)).item()))


def test_one_changed_sink_changes_its_head_alone() -> None:
    query, key, value = _inputs(1, 4, 2, 30, 30)
    sinks = torch.zeros(4)
    before = attend(query, key, value, window=WINDOW, sinks=sinks)
    sinks[2] += 0.1
    after = attend(query, key, value, window=WINDOW, sinks=sinks)
    assert [torch.equal(before[:, h], after[:, h]) for h in range(4)] == [True, True, False, True]


@pytest.mark.parametrize("window, has_sink", [(None, False), (None, True), (WINDOW, True)])
def test_tiles_of_any_size_give_the_same(window: int | None, has_sink: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = _inputs(2, 4, 2, 150, 260)
    sinks = torch.linspace(-1, 1, 4) if has_sink else None
    whole = attend(query, key, value, offset=110, window=window, sinks=sinks)
    for limit in (1, 5000, 60000):
        monkeypatch.setattr(attention_module, "MAX_MASK", limit)
        tiled = attend(query, key, value, offset=110, window=window, sinks=sinks)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-6)


class _LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.untyped_storage().nbytes() > 0:
                self.numel = max(self.numel, value.untyped_storage().nbytes() // value.element_size())
        return result


@pytest.mark.parametrize("window, has_sink", [(None, False), (WINDOW, True)])
def test_memory_does_not_grow_with_tokens_times_keys(window: int | None, has_sink: bool) -> None:
    query, key, value = _inputs(1, 8, 1, 2000, 2000)
    sinks = torch.zeros(8) if has_sink else None
    with torch.no_grad(), _LargestTensor() as largest:
        attend(query, key, value, window=window, sinks=sinks)
    assert query.numel() <= largest.numel <= 8 * 128 * 2001 < 8 * 2000 * 2000 / 15


@pytest.mark.parametrize("has_sink", [False, True])
def test_bfloat16_scores_are_kept_in_float32(has_sink: bool) -> None:
    """Scores near 60 would be rounded to 0.25 in bfloat16, which moves weights by a fifth."""
    query, key, value = (t.bfloat16() for t in _inputs(1, 4, 2, 64, 64))
    query = query * 6
    sinks = torch.zeros(4) if has_sink else None
    got = attend(query, key, value, sinks=sinks).double()
    exact = _plain(query, key, value, None, sinks, None)
    assert got.sub(exact).abs().max() < 0.03  # results up to 3.5 with 8 bits: half a unit is 0.008


@pytest.mark.parametrize("window", [None, WINDOW])
def test_widened_products_are_those_of_float32_rounded_once(window: int | None) -> None:
    query, key, value = (t.bfloat16() for t in _inputs(1, 4, 2, 200, 231))
    settings = {"offset": 31, "window": window, "sinks": torch.linspace(-2, 3, 4)}
    got = attend(query, key, value, is_widened=True, **settings)
    assert torch.equal(got, attend(query.float(), key.float(), value.float(), **settings).bfloat16())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("window", [None, WINDOW])
def test_gradients_equal_those_of_the_formula(window: int | None, dtype: torch.dtype, tolerance: float) -> None:
    inputs = [t.to(dtype) for t in _inputs(2, 4, 2, 150, 150)]
    sinks = torch.linspace(-1, 1, 4)
    key_mask = torch.ones(2, 150, dtype=torch.bool)
    key_mask[0, :20] = False
    probe = torch.randn(2, 4, 150, 8)

    def gradients(function, leaves: list[Tensor]) -> list[Tensor]:
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        (function(*leaves) * probe).sum().backward()
        return [leaf.grad.double() for leaf in leaves]

    got = gradients(lambda q, k, v, s: attend(q, k, v, window=window, sinks=s, key_mask=key_mask), [*inputs, sinks])
    exact = gradients(lambda q, k, v, s: _plain(q, k, v, window, s, key_mask), [t.double() for t in [*inputs, sinks]])
    for mine, right in zip(got, exact, strict=True):
        assert right.abs().max() > 0
        assert (mine - right).abs().max() <= tolerance * right.abs().max()


@pytest.mark.parametrize("seed", range(3))
def test_the_sliding_cache_equals_a_full_cache_under_the_window_mask(seed: int) -> None:
    query, key, value = _inputs(1, 4, 2, 400, 400)
    sinks = torch.linspace(-1, 1, 4)
    sliding, full = SlidingKV(WINDOW, torch.float32), FullKV(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    cuts = [0, 1, 2, *torch.randint(3, 400, (25,), generator=generator).sort().values.unique().tolist(), 400]
    for start, end in pairwise(cuts):
        results = []
        for cache in (sliding, full):
            keys, values, first = cache.update(key[:, :, start:end], value[:, :, start:end], start)
            results.append(
                attend(query[:, :, start:end], keys, values, offset=start - first, window=WINDOW, sinks=sinks)
            )
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=2e-6)


def _layer(**changes: object) -> Attention:
    config = tiny_config()
    layer = Attention(config.hidden_size, replace(config.sliding_attention, **changes), config.attention_value_scale)
    randomize(layer)
    return layer


def test_values_are_scaled_before_they_are_cached() -> None:
    layer = _layer()
    x, rotary = torch.randn(1, 3, 16), RotaryTable.at(torch.arange(3), layer.attention)
    scaled = layer.project(x, rotary)[2]
    layer.value_scale = 1.0
    torch.testing.assert_close(scaled, 0.7 * layer.project(x, rotary)[2])


def test_rows_of_qkv_are_all_queries_then_all_keys_then_all_values() -> None:
    layer = _layer()
    a = layer.attention
    x, rotary = torch.randn(1, 1, 16), RotaryTable.at(torch.tensor([0]), a)
    query, keys, values = layer.project(x, rotary)
    rows = torch.cat([query.flatten(), keys.flatten(), values.flatten() / 0.7])
    torch.testing.assert_close(rows, layer.qkv_proj(x)[0, 0])
    assert (query.shape, keys.shape, values.shape) == ((1, 4, 1, 12), (1, 2, 1, 12), (1, 2, 1, 8))


def test_a_layer_without_a_sink_has_no_such_parameter() -> None:
    assert "attention_sink_bias" in dict(_layer().named_parameters())
    assert "attention_sink_bias" not in _layer(has_sink=False).state_dict()


@pytest.mark.parametrize("layer", [0, 1])
def test_projections_and_heads_are_those_of_the_reference(layer: int) -> None:
    """q and k after rotation, v after scaling, and the heads before o_proj; layer 0 is global, layer 1 sliding."""
    golden = load_text_checkpoint("text")
    attention = golden.model.layers[layer].self_attn
    seen = {}
    hooks = [
        attention.register_forward_pre_hook(lambda _, args: seen.update(projected=attention.project(*args[:2]))),
        attention.o_proj.register_forward_pre_hook(lambda _, args: seen.update(heads=args[0])),
    ]
    golden.states(golden.ids(0))
    for hook in hooks:
        hook.remove()
    got = dict(zip("qkv", (part[0].transpose(0, 1) for part in seen["projected"]), strict=True))
    got["attn"] = seen["heads"][0].unflatten(-1, (attention.attention.num_heads, -1))
    for name, value in got.items():
        expected = golden.expected[f"seq0_layer{layer}_{name}"]
        torch.testing.assert_close(value[: len(expected)], expected, rtol=0, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("is_sliding", [False, True])
def test_the_kernels_attend_like_torch(is_sliding: bool, dtype: torch.dtype, atol: float) -> None:
    """float32: sums in another order. bfloat16: torch also rounds the weights of the softmax, to 2^-9 of each."""
    config = tiny_config()
    spec = replace(config.sliding_attention, window=WINDOW) if is_sliding else config.global_attention
    by_torch = Attention(config.hidden_size, spec, 0.707, dtype)
    randomize(by_torch, std=0.1)
    native = copy.deepcopy(by_torch)
    native.kernels = kernels()
    caches = [SlidingKV(WINDOW, dtype) if is_sliding else FullKV(dtype) for _ in range(2)]
    hidden_states = torch.randn(1, 200, config.hidden_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    before, start = kernels().use.seconds, 0
    for tokens in (20, 1, 1, 3, 8, 1, 60, *[1] * 90):
        rotary = RotaryTable.at(torch.arange(start, start + tokens), spec)
        part = hidden_states[:, start : start + tokens]
        with torch.inference_mode():
            one, two = (a(part, rotary, cache, start) for a, cache in zip((by_torch, native), caches, strict=True))
        assert one.dtype == two.dtype == dtype
        torch.testing.assert_close(two, one, rtol=0, atol=atol)
        start += tokens
    assert kernels().use.seconds > before


@needs_kernels
def test_what_needs_gradients_or_padding_is_left_to_torch() -> None:
    config = tiny_config()
    module = Attention(config.hidden_size, config.global_attention, 0.707)
    randomize(module)
    module.kernels = kernels()
    rotary = RotaryTable.at(torch.arange(3), config.global_attention)
    hidden_states = torch.randn(1, 3, config.hidden_size, requires_grad=True)
    module(hidden_states, rotary).sum().backward()
    assert hidden_states.grad is not None
