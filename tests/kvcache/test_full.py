"""The growing cache of a global layer."""

import pytest
import torch

from mimo_cli.errors import ContextOverflowError
from mimo_cli.kvcache.full import FIRST_SLOTS, FullKV


def _rows(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, count, 6, generator=generator), torch.randn(1, 2, count, 4, generator=generator)


def test_every_position_comes_back_whatever_the_chunks() -> None:
    keys, values = _rows(700)
    cache, start = FullKV(torch.float32), 0
    for chunk in (1, 2, 255, 300, 1, 141):
        part = slice(start, start + chunk)
        seen_keys, seen_values, first = cache.update(keys[:, :, part], values[:, :, part], start)
        start += chunk
        assert first == 0
        assert torch.equal(seen_keys, keys[:, :, :start])
        assert torch.equal(seen_values, values[:, :, :start])


def test_growth_doubles_so_that_copies_stay_rare() -> None:
    cache, sizes = FullKV(torch.float32), set()
    for start in range(4 * FIRST_SLOTS):
        cache.update(*_rows(1), start)
        sizes.add(cache.nbytes)
    slot_bytes = 2 * (6 + 4) * 4
    assert sizes == {factor * FIRST_SLOTS * slot_bytes for factor in (1, 2, 4)}


def test_no_more_is_allocated_than_the_context_can_use() -> None:
    cache = FullKV(torch.float32, max_tokens=300)
    cache.update(*_rows(257), 0)
    cache.update(*_rows(43), 257)
    assert cache.nbytes == 300 * 2 * (6 + 4) * 4


def test_a_token_beyond_the_context_is_refused_and_the_cache_stays_as_it_was() -> None:
    keys, values = _rows(10)
    cache = FullKV(torch.float32, max_tokens=10)
    cache.update(keys, values, 0)
    with pytest.raises(ContextOverflowError, match="11 tokens do not fit a context of 10 tokens"):
        cache.update(*_rows(1), 10)
    assert torch.equal(cache.update(keys[:, :, 9:], values[:, :, 9:], 9)[0], keys)


def test_positions_that_were_never_written_are_not_held() -> None:
    cache = FullKV(torch.float32)
    assert cache.holds(0) and not cache.holds(1)
    cache.update(*_rows(5), 0)
    assert cache.holds(5) and not cache.holds(6)


def test_a_batch_keeps_its_rows_apart() -> None:
    keys, values = torch.randn(3, 2, 4, 6), torch.randn(3, 2, 4, 4)
    cache = FullKV(torch.float32)
    cache.update(keys[:, :, :3], values[:, :, :3], 0)
    assert torch.equal(cache.update(keys[:, :, 3:], values[:, :, 3:], 3)[0], keys)
