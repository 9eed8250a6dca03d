"""ReadPool: a few threads that fetch experts, those that computation waits for first. The GIL is free while they read.

A Fetch is one expert on its way into a slot. What computation asked for is urgent and goes in the order of asking;
reading ahead comes after, and what of it has not begun can be taken back. All threads read parts of one fetch before
they go on to the next: experts arrive one by one, so that computing begins early, and little is left when the last is
there.
"""

import inspect
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TypeAlias

DEFAULT_THREADS = 8


class FetchState(Enum):
    """A fetch waits, is under way, or is over, one way or another."""

    queued = 0
    reading = 1
    done = 2
    failed = 3
    cancelled = 4


class Fetch:
    """One expert on its way in so many `parts`: layer and expert, the slot's number, the state, the error if it failed.

    `begun` parts were given to threads, `running` of them are being read. One that `is_stopped` will be cancelled.
    """

    __slots__ = ("begun", "error", "expert", "is_ahead", "is_stopped", "layer", "parts", "running", "slot", "state")

    def __init__(self, layer: int, expert: int, slot: int, is_ahead: bool = False, parts: int = 1) -> None:
        self.layer = layer
        self.expert = expert
        self.slot = slot
        self.is_ahead = is_ahead
        self.parts = parts
        self.begun = 0
        self.running = 0
        self.is_stopped = False
        self.state = FetchState.queued
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nobody will touch the slot for this fetch any more."""
        return self.state not in (FetchState.queued, FetchState.reading)


Work: TypeAlias = Callable[[Fetch, int], None]
"""Reads one part of a fetch, 0 to `parts` - 1."""


class _Shared:
    """What a pool and its threads have in common. Threads know nothing else, so a pool that is dropped ends them."""

    def __init__(self, work: Work) -> None:
        self.work = weakref.WeakMethod(work) if inspect.ismethod(work) else lambda: work
        self.urgent: deque[Fetch] = deque()
        self.ahead: deque[Fetch] = deque()
        lock = threading.Lock()
        self.has_work = threading.Condition(lock)
        self.has_ended = threading.Condition(lock)
        self.reading = 0
        self.busy_s = 0.0
        self.busy_since = 0.0
        self.is_closed = False

    def close(self) -> None:
        with self.has_work:
            self.is_closed = True
            for fetch in (*self.urgent, *self.ahead):
                self.stop(fetch)
            self.has_work.notify_all()
            self.has_ended.notify_all()

    def next_part(self) -> tuple[Fetch, int]:
        """Return a part to read; there is one, and the lock is held."""
        queue = self.urgent or self.ahead
        fetch, part = queue[0], queue[0].begun
        fetch.begun += 1
        fetch.running += 1
        fetch.state = FetchState.reading
        if fetch.begun == fetch.parts:
            queue.popleft()
        if not self.reading:
            self.busy_since = time.perf_counter()
        self.reading += 1
        return fetch, part

    def end_part(self, fetch: Fetch, error: BaseException | None) -> None:
        """Note that a part is over, and the fetch if it was the last; the lock is held."""
        self.reading -= 1
        if not self.reading:
            self.busy_s += time.perf_counter() - self.busy_since
        fetch.running -= 1
        if error is not None:
            fetch.error = fetch.error or error
            self.stop(fetch)
        if fetch.running or (fetch.begun < fetch.parts and not fetch.is_stopped):
            return
        fetch.state = FetchState.done if fetch.error is None else FetchState.failed
        if fetch.error is None and fetch.is_stopped:
            fetch.state = FetchState.cancelled
        self.has_ended.notify_all()

    def stop(self, fetch: Fetch) -> None:
        """Take back the parts of a fetch that have not begun; the lock is held."""
        if fetch.is_over or fetch.begun == fetch.parts:
            return
        fetch.is_stopped = True
        for queue in (self.urgent, self.ahead):
            if fetch in queue:  # or in none, if its submission was interrupted
                queue.remove(fetch)
        if not fetch.running and fetch.error is None:
            fetch.state = FetchState.cancelled
            self.has_ended.notify_all()


class ReadPool:
    """Runs `work` for every fetch on one of `threads` threads, which start with the first fetch."""

    def __init__(self, work: Work, threads: int = DEFAULT_THREADS) -> None:
        self.threads = max(1, threads)
        self._shared = _Shared(work)
        self._workers: list[threading.Thread] = []
        # Also at the end of the program: a thread that is inside native code then would take the whole process down.
        weakref.finalize(self, _end, self._shared, self._workers)

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is under way or waiting."""
        return not (self._shared.reading or self._shared.urgent or self._shared.ahead)

    @property
    def busy_s(self) -> float:
        """Seconds so far in which at least one fetch was under way."""
        with self._shared.has_work:
            return self._shared.busy_s + (
                time.perf_counter() - self._shared.busy_since if self._shared.reading else 0.0
            )

    def submit(self, fetches: Iterable[Fetch]) -> None:
        """Queue fetches: urgent ones in this order, those read ahead behind all urgent ones."""
        with self._shared.has_work:
            if self._shared.is_closed:
                raise RuntimeError("the pool of readers is closed")
            count = 0
            for fetch in fetches:
                (self._shared.ahead if fetch.is_ahead else self._shared.urgent).append(fetch)
                count += fetch.parts
            self._start(count)
            self._shared.has_work.notify(count)

    def promote(self, fetch: Fetch) -> None:
        """Make a fetch urgent that was to be read ahead."""
        with self._shared.has_work:
            fetch.is_ahead = False
            if fetch in self._shared.ahead:
                self._shared.ahead.remove(fetch)
                self._shared.urgent.append(fetch)

    def cancel(self, fetches: Iterable[Fetch]) -> None:
        """Take back what has not begun, also the rest of what has."""
        with self._shared.has_work:
            for fetch in fetches:
                self._shared.stop(fetch)

    def wait_any(self, fetches: Iterable[Fetch]) -> float:
        """Return as soon as one of some fetches is over, with the seconds waited; at once if there is none."""
        waiting = list(fetches)
        started = time.perf_counter()
        with self._shared.has_ended:
            self._shared.has_ended.wait_for(lambda: not waiting or any(fetch.is_over for fetch in waiting))
        return time.perf_counter() - started

    def wait_all(self, fetches: Iterable[Fetch]) -> None:
        """Return when all of some fetches are over."""
        waiting = list(fetches)
        with self._shared.has_ended:
            self._shared.has_ended.wait_for(lambda: all(fetch.is_over for fetch in waiting))

    def close(self) -> None:
        """Take back what has not begun, wait for the rest, and end the threads."""
        _end(self._shared, self._workers)

    def _start(self, count: int) -> None:
        shared = self._shared
        waiting = sum(fetch.parts - fetch.begun for fetch in (*shared.urgent, *shared.ahead))
        wanted = min(self.threads, shared.reading + waiting, len(self._workers) + count)
        while len(self._workers) < wanted:
            name = f"mimo-read-{len(self._workers)}"
            self._workers.append(threading.Thread(target=_read, args=(shared,), name=name, daemon=True))
            self._workers[-1].start()


def _end(shared: _Shared, workers: list[threading.Thread]) -> None:
    shared.close()
    while workers:
        worker = workers.pop()
        if worker is not threading.current_thread():  # which may be the one that dropped the pool
            worker.join()


def _read(shared: _Shared) -> None:
    while True:
        with shared.has_work:
            shared.has_work.wait_for(lambda: shared.is_closed or shared.urgent or shared.ahead)
            if shared.is_closed:
                return
            fetch, part = shared.next_part()
        error: BaseException | None = None
        try:
            work = shared.work()
            if work is None:
                raise RuntimeError("the pool of readers is gone")
            work(fetch, part)
        except BaseException as err:  # whoever waits for it raises it
            error = err
        finally:
            work = None
        with shared.has_ended:
            shared.end_part(fetch, error)
        del fetch, error
