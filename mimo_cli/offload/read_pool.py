"""ReadPool: a few threads that fetch experts, those that computation waits for first. The GIL is free while they read.

A Fetch is one expert on its way into a slot. What computation asked for is urgent and goes in the order of asking;
reading ahead comes after, and can be taken back as long as it has not begun.
"""

import inspect
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TypeAlias

DEFAULT_THREADS = 4


class FetchState(Enum):
    """A fetch waits, is under way, or is over, one way or another."""

    queued = 0
    reading = 1
    done = 2
    failed = 3
    cancelled = 4


class Fetch:
    """One expert on its way: layer and expert, the slot's number, the state, and the error where it failed."""

    __slots__ = ("error", "expert", "is_ahead", "layer", "slot", "state")

    def __init__(self, layer: int, expert: int, slot: int, is_ahead: bool = False) -> None:
        self.layer = layer
        self.expert = expert
        self.slot = slot
        self.is_ahead = is_ahead
        self.state = FetchState.queued
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nobody will touch the slot for this fetch any more."""
        return self.state not in (FetchState.queued, FetchState.reading)


Work: TypeAlias = Callable[[Fetch], None]


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
                fetch.state = FetchState.cancelled
            self.urgent.clear()
            self.ahead.clear()
            self.has_work.notify_all()
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
                count += 1
            self._start(count)
            self._shared.has_work.notify(count)

    def promote(self, fetch: Fetch) -> None:
        """Make a fetch urgent that was to be read ahead."""
        with self._shared.has_work:
            fetch.is_ahead = False
            if fetch.state is FetchState.queued and fetch in self._shared.ahead:
                self._shared.ahead.remove(fetch)
                self._shared.urgent.append(fetch)

    def cancel(self, fetches: Iterable[Fetch]) -> None:
        """Take back what has not begun."""
        with self._shared.has_work:
            for fetch in fetches:
                if fetch.state is FetchState.queued:
                    fetch.state = FetchState.cancelled
                    for queue in (self._shared.urgent, self._shared.ahead):
                        if fetch in queue:  # or in none, if its submission was interrupted
                            queue.remove(fetch)

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
        wanted = min(self.threads, shared.reading + len(shared.urgent) + len(shared.ahead), len(self._workers) + count)
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
            fetch = (shared.urgent or shared.ahead).popleft()
            fetch.state = FetchState.reading
            shared.reading += 1
            if shared.reading == 1:
                shared.busy_since = time.perf_counter()
        state = FetchState.failed
        try:
            work = shared.work()
            if work is not None:
                work(fetch)
                state = FetchState.done
        except BaseException as err:  # whoever waits for it raises it
            fetch.error = err
        finally:
            work = None
        with shared.has_ended:
            fetch.state = state
            shared.reading -= 1
            if not shared.reading:
                shared.busy_s += time.perf_counter() - shared.busy_since
            shared.has_ended.notify_all()
        del fetch
