"""The expert cache: memory within the budget, nobody leaves who is needed, counters that tell the truth."""

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.offload.expert_cache import ExpertCache
from mimo_cli.quant.buffers import PAGE_BYTES

RECORD_BYTES = 3 * 2304 + 5
SLOT_BYTES = 2 * PAGE_BYTES
LAYERS, EXPERTS = range(5), 40


class Disk:
    """Fills slots with bytes that say which expert they are; experts in `broken` fail, `gate` holds reads back."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.broken: set[int] = set()
        self.parts = 1
        self.gate = threading.Event()
        self.gate.set()

    def fill(self, layer: int, expert_id: int, slot: Tensor, part: int) -> None:
        assert slot.shape == (SLOT_BYTES,) and slot.data_ptr() % PAGE_BYTES == 0
        self.gate.wait(10)
        name = ((0, layer), (1, expert_id), (RECORD_BYTES - 1, expert_id))[part :: self.parts]
        for place, _ in name:
            slot[place] = 255  # whoever looks before the read is over sees this
        if not part:
            self.reads.append((layer, expert_id))
        if expert_id in self.broken and part == self.parts - 1:
            raise CheckpointError(f"expert {expert_id} is broken")
        for place, value in name:
            slot[place] = value


def make_cache(disk: Disk, slots: int, threads: int = 2, step_slots: int = 1, parts: int = 1) -> ExpertCache:
    disk.parts = parts
    return ExpertCache(disk.fill, RECORD_BYTES, slots, LAYERS, EXPERTS, step_slots, threads, parts)


def named(ready: list[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the place, and (layer, expert) as the bytes at the address say."""
    for place, address in ready:
        name = ctypes.string_at(address, 2)
        yield place, (name[0], name[1])


def found(cache: ExpertCache, layer: int, experts: list[int], in_order: bool = False) -> list[tuple[int, int]]:
    """Ask for experts and return what their slots hold, by place."""
    cache.step += 1
    cache.note(layer, experts)
    names = [pair for ready in cache.arriving(layer, experts, in_order=in_order) for pair in named(ready)]
    if in_order:
        assert [place for place, _ in names] == list(range(len(experts)))
    return [name for _, name in sorted(names)]


@pytest.mark.parametrize("in_order", [False, True])
def test_every_address_leads_to_its_expert(in_order: bool) -> None:
    cache = make_cache(Disk(), 100)
    assert found(cache, 1, [3, 5, 9], in_order) == [(1, 3), (1, 5), (1, 9)]
    assert found(cache, 2, [5], in_order) == [(2, 5)] and found(cache, 1, [3, 9], in_order) == [(1, 3), (1, 9)]
    cache.close()


def test_what_is_there_comes_before_what_must_be_read() -> None:
    disk = Disk()
    cache = make_cache(disk, 8)
    found(cache, 0, [2, 6])
    disk.gate.clear()
    lists = cache.arriving(0, [1, 2, 6, 7], in_order=False)
    assert [place for place, _ in next(lists)] == [1, 2]
    disk.gate.set()
    assert sorted(place for ready in lists for place, _ in ready) == [0, 3]
    assert (cache.counters.hits, cache.counters.misses) == (2, 4) and cache.counters.wait_s > 0
    cache.close()


def test_many_threads_read_at_once_and_no_more_than_asked() -> None:
    disk = Disk()
    disk.gate.clear()
    cache = make_cache(disk, 8, threads=3)
    lists = cache.arriving(0, [0, 1, 2, 3, 4], in_order=False)
    readers = threading.Timer(0.2, disk.gate.set)
    readers.start()
    assert sum(len(ready) for ready in lists) == 5 and len(disk.reads) == 5
    cache.close()


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 39, 40])
def test_in_order_more_experts_than_slots_are_read_once_each(slots: int) -> None:
    disk = Disk()
    cache = make_cache(disk, slots)
    assert found(cache, 3, list(range(40)), in_order=True) == [(3, e) for e in range(40)]
    assert len(disk.reads) == 40 and cache.nbytes <= slots * SLOT_BYTES
    cache.close()


def test_a_prompt_reads_nothing_again_that_was_there_and_had_room() -> None:
    disk = Disk()
    cache = make_cache(disk, 10)
    found(cache, 0, [30, 31, 32])
    disk.reads.clear()
    found(cache, 0, list(range(40)), in_order=True)
    assert len(disk.reads) == 37
    cache.close()


def test_experts_of_one_step_never_push_one_another_out() -> None:
    cache = make_cache(Disk(), 4)
    found(cache, 0, [0, 1, 2, 3])
    assert found(cache, 0, [0, 1, 4, 5]) == [(0, 0), (0, 1), (0, 4), (0, 5)]
    cache.close()


def test_more_experts_than_slots_at_once_are_our_own_mistake() -> None:
    cache = make_cache(Disk(), 2)
    with pytest.raises(ValueError, match="3 experts do not fit in 2 slots"):
        found(cache, 0, [0, 1, 2])
    assert found(cache, 0, [0, 1]) == [(0, 0), (0, 1)]
    cache.close()


def test_cleared_memory_is_given_back_and_counters_stay() -> None:
    cache = make_cache(Disk(), 4)
    found(cache, 0, [0, 1])
    cache.clear()
    assert (len(cache), cache.nbytes, cache.counters.misses) == (0, 0, 2)
    assert found(cache, 0, [1]) == [(0, 1)] and cache.counters.misses == 3
    cache.close()


@pytest.mark.parametrize("in_order", [False, True])
def test_a_read_that_fails_is_told_and_the_cache_goes_on(in_order: bool) -> None:
    disk = Disk()
    cache = make_cache(disk, 4)
    disk.broken = {2}
    with pytest.raises(CheckpointError, match="expert 2 is broken"):
        found(cache, 0, [1, 2, 3], in_order)
    disk.broken = set()
    assert found(cache, 0, [1, 2, 3], in_order) == [(0, 1), (0, 2), (0, 3)]
    assert found(cache, 1, [4, 5, 6, 7], in_order) == [(1, 4), (1, 5), (1, 6), (1, 7)]
    cache.close()


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("slots", [3, 4, 50])
def test_an_interrupted_step_leaves_nothing_half_read_and_loses_no_slot(slots: int, in_order: bool) -> None:
    disk = Disk()
    cache = make_cache(disk, slots)
    for first in range(10, 34, 6):
        wanted = [first, first + 1, first + 2]
        lists = cache.arriving(0, wanted, in_order=in_order)
        with pytest.raises(KeyboardInterrupt):
            for _ in lists:
                raise KeyboardInterrupt
        del lists
        assert found(cache, 0, wanted, in_order) == [(0, e) for e in wanted]
        assert found(cache, 1, [first + 3, first + 4, first + 5], in_order)[2] == (1, first + 5)
    assert cache.nbytes <= slots * SLOT_BYTES
    cache.close()


def test_reading_ahead_is_found_counted_and_never_in_the_way() -> None:
    disk = Disk()
    cache = make_cache(disk, 6, threads=1)
    found(cache, 0, [0, 1])
    cache.read_ahead(1, [7, 8, 9], limit=2)
    while not cache.is_idle:
        pass
    assert disk.reads[-2:] == [(1, 7), (1, 8)] and cache.counters.prefetched == 2
    assert found(cache, 1, [7, 9]) == [(1, 7), (1, 9)]
    assert (cache.counters.hits, cache.counters.misses) == (1, 3)
    found(cache, 2, list(range(6)))  # all slots at once
    assert cache.counters.wasted_prefetch == 1
    cache.close()


def test_what_waits_to_be_read_ahead_is_taken_back_when_something_is_needed() -> None:
    disk = Disk()
    cache = make_cache(disk, 9, threads=1)
    disk.gate.clear()
    cache.read_ahead(1, [7, 8, 9], limit=3)
    threading.Timer(0.05, disk.gate.set).start()
    assert found(cache, 1, [5, 9]) == [(1, 5), (1, 9)]
    assert (1, 8) not in disk.reads and cache.counters.prefetched <= 2
    cache.close()


def test_a_wrong_guess_is_given_up_halfway_and_may_be_right_the_next_time() -> None:
    disk = Disk()
    cache = make_cache(disk, 9, threads=1, parts=3)
    disk.gate.clear()
    cache.read_ahead(1, [7, 8], limit=2)
    until = time.monotonic() + 10
    while cache._pool._shared.reading < 1 and time.monotonic() < until:
        time.sleep(0.001)
    threading.Timer(0.05, disk.gate.set).start()
    assert found(cache, 1, [5]) == [(1, 5)] and disk.reads == [(1, 7), (1, 5)]
    assert (cache.counters.prefetched, cache.counters.wasted_prefetch) == (1, 1)
    assert found(cache, 1, [7, 8]) == [(1, 7), (1, 8)]  # neither is taken for read
    cache.close()


def test_a_smaller_budget_gives_slots_back_and_a_larger_one_takes_them_again() -> None:
    cache = make_cache(Disk(), 8)
    found(cache, 0, list(range(8)))
    cache.resize(3)
    assert (len(cache), cache.limit) == (3, 3)
    assert found(cache, 1, [1, 2, 3]) == [(1, 1), (1, 2), (1, 3)] and len(cache) == 3
    assert found(cache, 2, list(range(20)), in_order=True) == [(2, e) for e in range(20)]
    cache.resize(100)
    assert cache.limit == 8
    found(cache, 0, list(range(8)))
    assert len(cache) == 8
    cache.close()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), slots=st.integers(1, 12), threads=st.integers(1, 4), parts=st.integers(1, 3))
def test_any_history_finds_every_expert(data: st.DataObject, slots: int, threads: int, parts: int) -> None:
    disk = Disk()
    cache = make_cache(disk, slots, threads, data.draw(st.integers(1, 3)), parts)
    asked = 0
    for _ in range(data.draw(st.integers(0, 15))):
        layer, wanted = data.draw(st.sampled_from(LAYERS)), sorted(data.draw(st.sets(st.integers(0, 15), min_size=1)))
        action = data.draw(st.sampled_from(["ask", "ask", "order", "ahead", "break", "resize"]))
        if action == "ahead":
            cache.read_ahead(layer, wanted, data.draw(st.integers(1, 4)))
            continue
        if action == "resize":
            cache.resize(data.draw(st.integers(1, slots)))
            continue
        in_order = action == "order" or len(wanted) > cache.limit
        if action == "break":
            disk.broken = {wanted[-1]}
            with contextlib.suppress(CheckpointError):
                found(cache, layer, wanted, in_order)
            disk.broken = set()
        assert found(cache, layer, wanted, in_order) == [(layer, e) for e in wanted]
        asked += len(wanted)
        assert len(cache) <= cache.limit and cache.counters.hits + cache.counters.misses >= asked
    cache.close()
