"""The pool: urgent before ahead, what has not begun can be taken back, and threads end with their pool."""

import gc
import threading
import time

import pytest

from mimo_cli.offload.read_pool import Fetch, FetchState, ReadPool


class Gate:
    """Work that waits to be let through and notes the order."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.done: list[int] = []

    def work(self, fetch: Fetch, part: int) -> None:
        self.open.wait(10)
        if fetch.expert < 0:
            raise OSError("broken")
        self.done.append(fetch.expert)


def test_what_is_needed_goes_before_what_is_read_ahead() -> None:
    gate = Gate()
    pool = ReadPool(gate.work, 1)
    first, ahead, urgent = Fetch(0, 0, 0), Fetch(0, 1, 1, True), Fetch(0, 2, 2)
    for fetch in (first, ahead, urgent):
        pool.submit([fetch])
    gate.open.set()
    pool.wait_all([first, ahead, urgent])
    assert gate.done == [0, 2, 1] and pool.is_idle and pool.busy_s > 0
    pool.close()


def test_a_fetch_can_be_made_urgent_or_taken_back_until_it_begins() -> None:
    gate = Gate()
    pool = ReadPool(gate.work, 1)
    fetches = [Fetch(0, number, number, number > 0) for number in range(4)]
    pool.submit(fetches)
    while fetches[0].state is not FetchState.reading:
        time.sleep(0.001)
    pool.promote(fetches[3])
    pool.cancel(fetches[:2])
    gate.open.set()
    pool.wait_all(fetches)
    assert gate.done == [0, 3, 2]
    assert [f.state for f in fetches[:2]] == [FetchState.done, FetchState.cancelled]
    pool.cancel([Fetch(0, 9, 9)])  # one that was never submitted
    pool.close()


def test_an_error_is_kept_with_its_fetch_and_the_thread_goes_on() -> None:
    gate = Gate()
    gate.open.set()
    pool = ReadPool(gate.work, 1)
    broken, fine = Fetch(0, -1, 0), Fetch(0, 1, 1)
    pool.submit([broken, fine])
    pool.wait_all([broken, fine])
    assert broken.state is FetchState.failed and isinstance(broken.error, OSError) and gate.done == [1]
    pool.close()


def test_waiting_for_any_returns_with_the_first() -> None:
    gate = Gate()
    pool = ReadPool(gate.work, 1)
    fetches = [Fetch(0, number, number) for number in range(3)]
    pool.submit(fetches)
    threading.Timer(0.05, gate.open.set).start()
    assert pool.wait_any(fetches) > 0.01 and any(fetch.is_over for fetch in fetches)
    assert pool.wait_any([]) < 1
    pool.close()


def test_no_thread_outlives_its_pool() -> None:
    def readers() -> int:
        return sum(thread.name.startswith("mimo-read") for thread in threading.enumerate())

    before = readers()
    gate = Gate()
    gate.open.set()
    closed, dropped = ReadPool(gate.work, 2), ReadPool(gate.work, 2)
    for pool in (closed, dropped):
        fetches = [Fetch(0, number, number) for number in range(4)]
        pool.submit(fetches)
        pool.wait_all(fetches)
    assert readers() > before
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.submit([Fetch(0, 0, 0)])
    del dropped, pool, closed
    gc.collect()
    assert readers() == before


class Parts:
    """Work that notes (expert, part); a part of `held` waits to be let through, one of `broken` fails."""

    def __init__(self, held: set[tuple[int, int]], broken: set[tuple[int, int]] | None = None) -> None:
        self.open = threading.Event()
        self.held, self.broken = held, broken or set()
        self.seen: list[tuple[int, int]] = []

    def work(self, fetch: Fetch, part: int) -> None:
        self.seen.append((fetch.expert, part))
        if (fetch.expert, part) in self.held:
            self.open.wait(10)
        if (fetch.expert, part) in self.broken:
            self.wait_until_seen(*self.held)
            raise OSError("broken")

    def wait_until_seen(self, *parts: tuple[int, int]) -> None:
        until = time.monotonic() + 10
        while not set(parts) <= set(self.seen) and time.monotonic() < until:
            time.sleep(0.001)


def test_threads_share_the_parts_of_one_fetch_before_the_next() -> None:
    parts = Parts({(0, 0), (0, 1)})
    pool = ReadPool(parts.work, 2)
    fetches = [Fetch(0, number, number, parts=2) for number in range(3)]
    pool.submit(fetches)
    parts.wait_until_seen((0, 0), (0, 1))
    assert sorted(parts.seen) == [(0, 0), (0, 1)] and fetches[0].state is FetchState.reading
    parts.open.set()
    pool.wait_all(fetches)
    assert sorted(parts.seen) == [(expert, part) for expert in range(3) for part in range(2)]
    assert all(fetch.state is FetchState.done for fetch in fetches)
    pool.close()


def test_the_rest_of_a_fetch_can_be_taken_back() -> None:
    parts = Parts({(0, 0)})
    pool = ReadPool(parts.work, 1)
    stopped, other = Fetch(0, 0, 0, True, parts=4), Fetch(0, 1, 1, parts=2)
    pool.submit([stopped])
    parts.wait_until_seen((0, 0))
    pool.submit([other])
    pool.cancel([stopped])
    assert not stopped.is_over  # its first part is under way
    parts.open.set()
    pool.wait_all([stopped, other])
    assert stopped.state is FetchState.cancelled and other.state is FetchState.done
    assert parts.seen == [(0, 0), (1, 0), (1, 1)] and not stopped.running
    pool.close()


def test_a_fetch_is_over_only_when_no_part_of_it_is_being_read() -> None:
    parts = Parts({(0, 1)}, broken={(0, 0)})
    pool = ReadPool(parts.work, 2)
    fetch = Fetch(0, 0, 0, parts=3)
    pool.submit([fetch])
    parts.wait_until_seen((0, 0), (0, 1))
    until = time.monotonic() + 10
    while fetch.error is None and time.monotonic() < until:
        time.sleep(0.001)
    assert fetch.error is not None and not fetch.is_over  # the slot is still being written
    parts.open.set()
    pool.wait_all([fetch])
    assert fetch.state is FetchState.failed and (0, 2) not in parts.seen and pool.is_idle
    pool.close()
