"""The sliding cache of a window layer: the window is exact, memory is bounded, nothing committed is lost."""

import random

import pytest
import torch

from mimo_cli.kvcache.sliding import ROLLBACK_TOKENS, STEP_TOKENS, SlidingKV

WINDOW = 5
KEYS = torch.randn(1, 2, 2000, 6, generator=torch.Generator().manual_seed(1))
VALUES = torch.randn(1, 2, 2000, 4, generator=torch.Generator().manual_seed(2))


def _update(cache: SlidingKV, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    return cache.update(KEYS[:, :, start : start + count], VALUES[:, :, start : start + count], start)


def _check(seen: tuple[torch.Tensor, torch.Tensor, int], start: int, count: int) -> None:
    keys, values, first = seen
    assert first == max(0, start - WINDOW)
    assert torch.equal(keys, KEYS[:, :, first : start + count])
    assert torch.equal(values, VALUES[:, :, first : start + count])


@pytest.mark.parametrize("seed", range(8))
def test_any_chunking_shows_exactly_the_window_before_each_chunk(seed: int) -> None:
    rng = random.Random(seed)
    cache, start = SlidingKV(WINDOW, torch.float32), 0
    while start < 1500:
        count = rng.choice([1, 1, 1, 2, 4, WINDOW - 1, WINDOW, WINDOW + 1, 40, STEP_TOKENS, 100, 300])
        _check(_update(cache, start, count), start, count)
        start += count


@pytest.mark.parametrize("seed", range(8))
def test_interrupted_passes_and_rollbacks_leave_no_trace(seed: int) -> None:
    """Every chunk may be preceded by one of other keys that is never committed, as after Ctrl-C."""
    rng = random.Random(seed)
    cache, start, furthest = SlidingKV(WINDOW, torch.float32), 0, 0
    while start < 1200:
        if rng.random() < 0.4:
            lost = rng.choice([1, 3, 20, 60, 200])
            cache.update(torch.full((1, 2, lost, 6), 9.0), torch.full((1, 2, lost, 4), 9.0), start)
        count = rng.choice([1, 1, 2, 7, STEP_TOKENS, 90])
        _check(_update(cache, start, count), start, count)
        furthest = start + count
        start = furthest - min(rng.choice([0, 0, 0, 1, 8]), count)


def test_at_least_the_promised_tokens_can_be_taken_back() -> None:
    for count in (1, 3, STEP_TOKENS, 200):
        cache, start = SlidingKV(WINDOW, torch.float32), 0
        while start < 400:
            _update(cache, start, count)
            start += count
            assert all(cache.holds(start - back) for back in range(min(ROLLBACK_TOKENS, start) + 1))


def test_the_far_past_is_not_held_and_asking_for_it_is_an_error() -> None:
    cache = SlidingKV(WINDOW, torch.float32)
    _update(cache, 0, 300)
    _update(cache, 300, 1)
    assert cache.holds(0)  # the beginning needs no window
    assert not cache.holds(150)
    with pytest.raises(RuntimeError, match="the window before position 150 is not cached"):
        _update(cache, 150, 1)


def test_memory_does_not_grow_with_the_sequence() -> None:
    cache = SlidingKV(WINDOW, torch.float32)
    peak = 0
    for start in range(600):
        _update(cache, start, 1)
        peak = max(peak, cache.nbytes)
    slot_bytes = 2 * (6 + 4) * 4
    assert peak == 2 * cache.capacity_tokens * slot_bytes  # two buffers while the window moves to the front
    assert cache.capacity_tokens == WINDOW + ROLLBACK_TOKENS + STEP_TOKENS


def test_a_single_token_step_copies_no_keys() -> None:
    cache = SlidingKV(WINDOW, torch.float32)
    _update(cache, 0, 10)
    base = cache.update(KEYS[:, :, 10:11], VALUES[:, :, 10:11], 10)[0].untyped_storage().data_ptr()
    assert _update(cache, 11, 1)[0].untyped_storage().data_ptr() == base


def test_a_snapshot_holds_the_window_alone_and_survives_its_restoring() -> None:
    cache = SlidingKV(WINDOW, torch.float32)
    _update(cache, 0, 100)
    saved = cache.snapshot(100)
    assert saved is not None and saved.nbytes == WINDOW * 2 * (6 + 4) * 4
    for _ in range(2):
        _update(cache, 100, 90)
        cache.restore(saved)
        _check(_update(cache, 100, 3), 100, 3)


def test_a_released_layer_keeps_655_kilobytes_per_snapshot() -> None:
    """128 positions of 5,120 bytes in bfloat16; the 39 window layers of V2.5 together 25.6 MB."""
    cache = SlidingKV(128, torch.bfloat16)
    cache.update(torch.zeros(1, 8, 300, 192), torch.zeros(1, 8, 300, 128), 0)
    saved = cache.snapshot(300)
    assert saved is not None and saved.nbytes == 128 * 5120


def test_the_snapshot_of_an_empty_cache_empties_it() -> None:
    cache = SlidingKV(WINDOW, torch.float32)
    saved = cache.snapshot(0)
    _update(cache, 0, 30)
    cache.restore(saved)
    assert cache.nbytes == 0
    _check(_update(cache, 0, 4), 0, 4)


def test_keys_are_kept_in_the_dtype_of_the_cache() -> None:
    cache = SlidingKV(WINDOW, torch.bfloat16)
    for start, count in ((0, 2), (2, 200), (202, 1)):
        keys, values, _ = _update(cache, start, count)
        assert keys.dtype == values.dtype == torch.bfloat16


@pytest.mark.parametrize("seed", range(8))
def test_a_pass_of_several_calls_leaves_what_was_committed(seed: int) -> None:
    """A wave writes block after block before anything counts; interrupted anywhere, it is repeated from its start."""
    rng = random.Random(seed)
    cache, start = SlidingKV(WINDOW, torch.float32), 0
    while start < 1200:
        blocks = [rng.choice([1, 2, 7, STEP_TOKENS, 90]) for _ in range(rng.randint(1, 5))]
        for written in (rng.randint(0, len(blocks)), len(blocks)):  # interrupted after so many blocks, then whole
            at = start
            for count in blocks[:written]:
                _check(_update(cache, at, count), at, count)
                assert len(cache._buffers) <= 2
                at += count
            assert cache.holds(start)
        start += sum(blocks)
        cache.commit(start)
