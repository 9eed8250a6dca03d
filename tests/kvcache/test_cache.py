"""The cache of a whole timeline: length, commit, rollback, snapshots."""

import pytest
import torch

from mimo_cli.errors import ContextOverflowError, MimoError
from mimo_cli.kvcache.cache import KVCache
from mimo_cli.kvcache.full import FullKV
from mimo_cli.kvcache.sliding import ROLLBACK_TOKENS, SlidingKV
from tests.support.tiny_config import WINDOW, tiny_config

CONFIG = tiny_config()
GENERATOR = torch.Generator().manual_seed(0)
TIMELINE = {
    heads: (torch.randn(1, heads, 500, 12, generator=GENERATOR), torch.randn(1, heads, 500, 8, generator=GENERATOR))
    for heads in (1, 2)
}


def _pass(cache: KVCache, tokens: int, layers: int | None = None) -> list[torch.Tensor]:
    """Write the next tokens of TIMELINE through the first `layers` layers; returns the keys each layer showed."""
    seen = []
    for layer, attention in list(zip(cache.layers, map(CONFIG.attention, range(4)), strict=True))[:layers]:
        keys, values = TIMELINE[attention.num_kv_heads]
        part = slice(cache.length, cache.length + tokens)
        seen.append(layer.update(keys[:, :, part], values[:, :, part], cache.length)[0].clone())
    return seen


def _read(cache: KVCache, tokens: int) -> None:
    _pass(cache, tokens)
    cache.advance(tokens)


def _all_equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_global_layers_grow_and_window_layers_slide() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    assert [type(layer) for layer in cache.layers] == [FullKV, SlidingKV, SlidingKV, FullKV]
    assert [layer.window for layer in KVCache.for_mtp(CONFIG, torch.float32).layers] == [WINDOW]


def test_tokens_count_only_when_they_are_committed() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _pass(cache, 7)
    assert cache.length == 0
    cache.advance(7)
    assert cache.length == 7


def test_tokens_that_were_never_written_cannot_be_committed() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _pass(cache, 3)
    with pytest.raises(MimoError, match="cannot move to 4"):
        cache.advance(4)
    assert cache.length == 0


def test_a_pass_may_be_committed_in_part() -> None:
    """Speculative decoding writes its drafts and keeps those that were right."""
    cache, plain = KVCache.for_decoder(CONFIG, torch.float32), KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 200)
    _pass(cache, 4)
    cache.advance(2)
    _read(plain, 202)
    assert _all_equal(_pass(cache, 3), _pass(plain, 3))


@pytest.mark.parametrize("tokens", [1, 30, 150])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_pass_that_stops_at_any_layer_can_be_repeated(tokens: int, layers: int) -> None:
    cache, plain = KVCache.for_decoder(CONFIG, torch.float32), KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 130)
    _read(plain, 130)
    _pass(cache, tokens, layers)
    assert cache.length == 130
    assert _all_equal(_pass(cache, tokens), _pass(plain, tokens))


def test_trimming_returns_to_an_earlier_length() -> None:
    cache, plain = KVCache.for_decoder(CONFIG, torch.float32), KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 300)
    cache.trim(300 - ROLLBACK_TOKENS)
    _read(plain, 300 - ROLLBACK_TOKENS)
    assert cache.length == plain.length
    assert _all_equal(_pass(cache, 5), _pass(plain, 5))


def test_trimming_further_than_a_window_reaches_is_an_error_that_changes_nothing() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 300)
    assert not cache.can_trim(150)
    with pytest.raises(MimoError, match="timeline of 300 tokens cannot move to 150") as raised:
        cache.trim(150)
    assert raised.value.hint
    assert cache.length == 300 and cache.can_trim(299)


def test_trimming_to_nothing_is_always_possible() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 300)
    cache.trim(0)
    fresh = KVCache.for_decoder(CONFIG, torch.float32)
    assert _all_equal(_pass(cache, 9), _pass(fresh, 9))


def test_a_length_outside_the_timeline_is_a_mistake_of_the_caller() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 5)
    for length in (-1, 6):
        assert not cache.can_trim(length)
        with pytest.raises(ValueError, match="cannot be cut"):
            cache.trim(length)


def test_restoring_a_snapshot_is_exact_and_repeatable() -> None:
    cache, plain = KVCache.for_decoder(CONFIG, torch.float32), KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 120)
    _read(plain, 120)
    saved = cache.snapshot()
    expected = _pass(plain, 40)
    for _ in range(2):
        _read(cache, 200)
        cache.restore(saved)
        assert cache.length == 120
        assert _all_equal(_pass(cache, 40), expected)


def test_a_snapshot_copies_windows_only() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 400)
    assert cache.snapshot().nbytes == 2 * WINDOW * 2 * (12 + 8) * 4  # two sliding layers of two kv heads
    assert KVCache.for_decoder(CONFIG, torch.float32).snapshot().nbytes == 0


def test_a_snapshot_is_void_once_the_timeline_was_cut_below_it() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 100)
    early = cache.snapshot()
    _read(cache, 10)
    late = cache.snapshot()
    cache.trim(105)
    with pytest.raises(MimoError, match="the snapshot at 110 tokens is void"):
        cache.restore(late)
    cache.restore(early)
    assert cache.length == 100


def test_restoring_an_early_snapshot_voids_the_later_ones() -> None:
    """What is read after going back overwrites the global keys that a later snapshot counts on."""
    cache = KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 50)
    early = cache.snapshot()
    _read(cache, 50)
    late = cache.snapshot()
    cache.restore(early)
    with pytest.raises(MimoError, match="void"):
        cache.restore(late)


def test_a_snapshot_of_another_timeline_is_refused() -> None:
    cache, other = KVCache.for_decoder(CONFIG, torch.float32), KVCache.for_decoder(CONFIG, torch.float32)
    _read(cache, 20)
    with pytest.raises(MimoError, match="void"):
        other.restore(cache.snapshot())


def test_the_context_limit_stops_a_pass_and_keeps_the_timeline() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.float32, max_tokens=64)
    _read(cache, 60)
    with pytest.raises(ContextOverflowError):
        _pass(cache, 5)
    assert cache.length == 60
    _read(cache, 4)
    assert cache.length == 64


def test_bytes_are_those_of_all_layers() -> None:
    cache = KVCache.for_decoder(CONFIG, torch.bfloat16)
    assert cache.nbytes == 0
    _read(cache, 3)
    assert cache.nbytes == sum(layer.nbytes for layer in cache.layers) > 0
