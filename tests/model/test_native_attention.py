"""The attention half of a layer in one call of the kernels: bit for bit what its modules give one after the other."""

import pytest
import torch
from torch import Tensor

from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.decoder import DecoderLayer
from mimo_cli.model.moe import ResidentExperts
from mimo_cli.model.native_attention import NativeAttention
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import Kernels
from mimo_cli.quant.linear import Linear, PackedLinear, native_precision
from mimo_cli.quant.pack import pack, packed_shape
from mimo_cli.quant.stored import StoredMatrix
from tests.support.kernels import kernels, needs_kernels
from tests.support.tiny_config import randomize, tiny_config

pytestmark = needs_kernels
STEPS = (3, 1, 1, 8, 1, 5, *(1,) * 70, 8, 8, 2, *(1,) * 40, 30, 1, 1, 7)
"""Tokens of each step: past several moves of the sliding window, with a prompt among them."""


def packed(layer: Linear, found: Kernels) -> PackedLinear:
    stored = StoredMatrix("plain", layer.weight.detach().bfloat16())
    shape = packed_shape([stored], torch.bfloat16)
    assert shape is not None
    return PackedLinear(found, shape, pack(found, shape, [stored]), native_precision(layer.weight.dtype))


def layers(number: int, dtype: torch.dtype, threads: int = 2) -> tuple[DecoderLayer, DecoderLayer]:
    """Return a layer with its attention in one call, and one that shares its parts and goes through its modules."""
    torch.manual_seed(0)  # of the experts
    config, found = tiny_config(hidden_size=256), kernels(threads)
    one, other = (DecoderLayer(config, number, ResidentExperts(config, dtype), dtype) for _ in range(2))
    randomize(one)
    attention = one.self_attn
    attention.qkv_proj, attention.o_proj = packed(attention.qkv_proj, found), packed(attention.o_proj, found)
    for part in (attention, one.input_layernorm, one.post_attention_layernorm):
        part.kernels = found
    other.self_attn, other.mlp = attention, one.mlp
    other.input_layernorm, other.post_attention_layernorm = one.input_layernorm, one.post_attention_layernorm
    one.native = NativeAttention(found, one.input_layernorm, attention, one.post_attention_layernorm)
    return one, other


def passes(layer: DecoderLayer, number: int, dtype: torch.dtype, steps: tuple[int, ...]) -> list[Tensor]:
    config = tiny_config(hidden_size=256)
    attention, start, seen = config.attention(number), 0, []
    cache = KVCache([attention], dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        for tokens in steps:
            x = torch.randn(1, tokens, 256, generator=generator).to(dtype)
            rotary = RotaryTable.at(torch.arange(start, start + tokens), attention)
            seen.append(layer(x, rotary, cache.layers[0], start))
            cache.advance(tokens)
            start += tokens
    return seen


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", [0, 1])  # global without sinks, sliding with them
def test_one_call_gives_the_bits_of_the_modules(number: int, dtype: torch.dtype, threads: int) -> None:
    one, other = layers(number, dtype, threads)
    calls: list[int] = []
    one.native.register_forward_hook(lambda _m, inputs, _o: calls.append(inputs[0].shape[1]))
    found, expected = passes(one, number, dtype, STEPS), passes(other, number, dtype, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(calls) > 0.9 * len(STEPS) and max(calls) == 8  # it ran, but for first steps, moves and the prompt


@pytest.mark.parametrize("number", [0, 1])
def test_threads_do_not_change_a_bit(number: int) -> None:
    on_one, on_three = (layers(number, torch.bfloat16, threads)[0] for threads in (1, 3))
    pairs = zip(*(passes(layer, number, torch.bfloat16, STEPS) for layer in (on_one, on_three)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_it_cannot_do_is_left_to_the_modules() -> None:
    one, _ = layers(1, torch.float32)
    native, cache = one.native, KVCache([tiny_config().attention(1)], torch.float32)
    assert native is not None
    few = torch.randn(1, 2, 256)
    with torch.inference_mode():
        passes_before = native.room(few, cache.layers[0], 0)
        assert passes_before is None  # nothing is allocated yet
        one(few, RotaryTable.at(torch.arange(2), tiny_config().attention(1)), cache.layers[0], 0)
        assert native.room(few, cache.layers[0], 2) is not None
        assert native.room(few.bfloat16(), cache.layers[0], 2) is None
        assert native.room(few.expand(2, -1, -1), cache.layers[0], 2) is None
        assert native.room(torch.randn(1, 9, 256), cache.layers[0], 2) is None
        assert native.room(few, None, 2) is None
    assert native.room(few.requires_grad_(), cache.layers[0], 2) is None  # norms and rows would need gradients
    assert not any(name.startswith("native") for name in one.state_dict())
