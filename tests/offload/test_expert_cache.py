"""The expert cache: memory within the budget, the least recently used leaves first, counters that tell the truth."""

import ctypes
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.offload.expert_cache import ExpertCache
from mimo_cli.quant.buffers import PAGE_BYTES
from mimo_cli.quant.packed import PackedShape

RECORD_BYTES = 3 * 2304 + 5
SLOT_BYTES = 2 * PAGE_BYTES


class NamedRecords:
    """Records whose first bytes say which expert they are; `fail_after` n fills raises Ctrl-C."""

    up_shape = PackedShape("int4", 32, 16, 128, 2)
    down_shape = PackedShape("int4", 32, 16, 128)
    record_bytes = RECORD_BYTES
    stored_bytes = 1000

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[int]]] = []
        self.fail_after: int | None = None

    def read(self, layer: int, expert_ids: Sequence[int], slots: Sequence[Tensor]) -> None:
        self.batches.append((layer, list(expert_ids)))
        for expert_id, slot in zip(expert_ids, slots, strict=True):
            assert slot.shape == (RECORD_BYTES,) and slot.data_ptr() % PAGE_BYTES == 0
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    self.fail_after = None
                    raise KeyboardInterrupt
            slot.fill_(0)
            slot[0], slot[1], slot[-1] = layer, expert_id, expert_id

    def close(self) -> None:
        """Nothing is open."""


def found(cache: ExpertCache, layer: int, expert_ids: list[int]) -> list[tuple[int, int]]:
    """Return (layer, expert) as the bytes at the addresses say."""
    named = [bytes(ctypes.string_at(address, 2)) for address in cache.addresses(layer, expert_ids)]
    return [(name[0], name[1]) for name in named]


def test_every_address_leads_to_its_expert() -> None:
    cache = ExpertCache(NamedRecords(), 100 * SLOT_BYTES)
    assert found(cache, 1, [3, 5, 9]) == [(1, 3), (1, 5), (1, 9)]
    assert found(cache, 2, [5]) == [(2, 5)] and found(cache, 1, [9, 3]) == [(1, 9), (1, 3)]


def test_the_missing_experts_of_a_step_are_read_together() -> None:
    records = NamedRecords()
    cache = ExpertCache(records, 8 * SLOT_BYTES)
    cache.addresses(4, [1, 2])
    cache.addresses(4, [0, 1, 7])
    assert records.batches == [(4, [1, 2]), (4, [0, 7])]
    assert (cache.hits, cache.misses, cache.bytes_read) == (1, 4, 4000)


def test_the_least_recently_used_leaves_first() -> None:
    records = NamedRecords()
    cache = ExpertCache(records, 3 * SLOT_BYTES)
    for expert_ids in ([0], [1], [2], [0], [3], [1]):  # 1 goes for 3, then 2 for 1
        cache.addresses(0, expert_ids)
    assert [ids for _, ids in records.batches] == [[0], [1], [2], [3], [1]]
    cache.addresses(0, [0, 3, 1])
    assert len(records.batches) == 5


def test_experts_of_one_step_never_push_one_another_out() -> None:
    cache = ExpertCache(NamedRecords(), 4 * SLOT_BYTES)
    cache.addresses(0, [0, 1, 2, 3])
    assert found(cache, 0, [4, 0, 5, 1]) == [(0, 4), (0, 0), (0, 5), (0, 1)]


@pytest.mark.parametrize(
    ("budget", "capacity"), [(0, 1), (SLOT_BYTES, 1), (3 * SLOT_BYTES - 1, 2), (10**9, 10**9 // SLOT_BYTES)]
)
def test_a_budget_holds_whole_slots_and_at_least_one(budget: int, capacity: int) -> None:
    cache = ExpertCache(NamedRecords(), budget)
    assert cache.capacity == capacity and cache.nbytes == 0
    for expert_id in range(20):
        cache.addresses(0, [expert_id])
        assert cache.nbytes <= max(budget, SLOT_BYTES)
    assert len(cache) == min(20, capacity)


def test_more_experts_than_slots_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="3 experts do not fit in 2 slots"):
        ExpertCache(NamedRecords(), 2 * SLOT_BYTES).addresses(0, [0, 1, 2])


def test_cleared_memory_is_given_back_and_counters_stay() -> None:
    cache = ExpertCache(NamedRecords(), 4 * SLOT_BYTES)
    cache.addresses(0, [0, 1])
    cache.clear()
    assert (len(cache), cache.nbytes, cache.misses) == (0, 0, 2)
    assert found(cache, 0, [1]) == [(0, 1)] and cache.misses == 3


@pytest.mark.parametrize("fail_after", [0, 1, 2])
@pytest.mark.parametrize("slots", [3, 4, 50])
def test_an_interrupted_read_is_not_found_later_and_loses_no_slot(slots: int, fail_after: int) -> None:
    records = NamedRecords()
    cache = ExpertCache(records, slots * SLOT_BYTES)
    cache.addresses(0, [0, 1])
    for first in range(10, 40, 6):
        records.fail_after = fail_after
        wanted = [first, first + 1, first + 2]
        with pytest.raises(KeyboardInterrupt):
            cache.addresses(0, wanted)
        assert found(cache, 0, wanted) == [(0, expert_id) for expert_id in wanted]
        assert found(cache, 0, [first + 3, first + 4, first + 5])[2] == (0, first + 5)
    assert cache.nbytes <= slots * SLOT_BYTES


@given(
    slots=st.integers(1, 9),
    steps=st.lists(st.tuples(st.integers(0, 2), st.sets(st.integers(0, 9), min_size=1)), max_size=30),
)
def test_any_history_finds_every_expert_and_counts_like_a_plain_list(
    slots: int, steps: list[tuple[int, set[int]]]
) -> None:
    cache = ExpertCache(NamedRecords(), slots * SLOT_BYTES)
    recent: list[tuple[int, int]] = []  # least recently used first
    hits = 0
    for layer, chosen in steps:
        wanted = [(layer, expert_id) for expert_id in sorted(chosen)[:slots]]
        assert found(cache, layer, [expert_id for _, expert_id in wanted]) == wanted
        kept = [key for key in wanted if key in recent]
        missing = [key for key in wanted if key not in recent]
        hits += len(kept)
        recent = [key for key in recent if key not in kept] + kept
        recent = [*recent[max(0, len(recent) + len(missing) - slots) :], *missing]
        assert (cache.hits, len(cache)) == (hits, len(recent))
