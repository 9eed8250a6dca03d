"""Places for the caller to write: the same keys as `update` gives, and nothing done where only `update` can."""

import pytest
import torch

from mimo_cli.kvcache.full import FullKV
from mimo_cli.kvcache.sliding import SlidingKV


@pytest.mark.parametrize("window", [None, 5])
def test_written_places_are_those_of_an_update(window: int | None) -> None:
    ours, theirs = (FullKV(torch.float32) if window is None else SlidingKV(window, torch.float32) for _ in range(2))
    start = reserved = 0
    for tokens in (3, 1, 1, 8, *(1,) * 300, 5):
        keys, values = torch.randn(1, 2, tokens, 4), torch.randn(1, 2, tokens, 3)
        room = ours.reserve(start, tokens, torch.float32)
        if room is None:
            found = ours.update(keys, values, start)[:2]
        else:
            reserved += 1
            room[0][:, :, -tokens:], room[1][:, :, -tokens:] = keys, values
            found = room
        expected = theirs.update(keys, values, start)[:2]
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        start += tokens
        assert ours.holds(start) and theirs.holds(start)
    assert reserved > 290


@pytest.mark.parametrize("window", [None, 5])
def test_nothing_is_reserved_before_there_is_memory_or_in_another_dtype(window: int | None) -> None:
    cache = FullKV(torch.float32) if window is None else SlidingKV(window, torch.float32)
    assert cache.reserve(0, 1, torch.float32) is None and cache.nbytes == 0
    cache.update(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 3), 0)
    assert cache.reserve(3, 1, torch.bfloat16) is None and not cache.holds(4)
    assert cache.reserve(4, 1, torch.float32) is None  # a place would stay empty
