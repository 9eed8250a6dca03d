"""Ways a run ends from outside: signals and a time limit; and the two presses of Ctrl-C while the model writes.

first press while reading the prompt   stop
first press while thinking             end the thinking, give the answer
first press while answering            stop, keep what is there
second press within two seconds        quit at once (so do SIGTERM and SIGHUP)
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from mimo_cli.engine.stats import GenerationStats

SECOND_PRESS_S = 2.0


class Stopped(BaseException):
    """The run was ended from outside. Not an Exception, so that no library takes it for a failure to recover from."""

    exit_code = 130


class Terminated(Stopped):
    """SIGTERM; the code is the shell's 128 + 15."""

    exit_code = 143


class Left(Stopped):
    """Ctrl-C pressed twice."""


class HungUp(Stopped):
    """SIGHUP: the terminal is gone; 128 + 1."""

    exit_code = 129


class TimeLimitReached(Stopped):
    """The user's `--timeout` is over."""

    exit_code = 6


@contextmanager
def signals_raise() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise in the block, so that temporary files are removed on the way out."""
    previous: dict[int, Any] = {}
    is_main = threading.current_thread() is threading.main_thread()
    for name, stop in (("SIGTERM", Terminated), ("SIGHUP", HungUp)) if is_main else ():
        number = getattr(signal, name, None)
        # A signal that the parent asked us to ignore (nohup) stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, _raiser(stop))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Let a Ctrl-C in the block count only when the block is over. For the main thread, which alone sees signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    presses: list[tuple[int, FrameType | None]] = []
    # Not a signal mask: that holds for one thread, and any other may take the signal in its place.
    previous = signal.signal(signal.SIGINT, lambda number, frame: presses.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if presses and callable(previous):
        previous(*presses[0])


def _raiser(stop: type[Stopped]) -> Callable[[int, FrameType | None], NoReturn]:
    def handle(number: int, frame: FrameType | None) -> NoReturn:
        raise stop

    return handle


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """Raise TimeLimitReached in the block when `limit_s` seconds are over; None sets no limit."""
    if limit_s is None:
        yield
        return
    previous = signal.signal(signal.SIGALRM, _raiser(TimeLimitReached))
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Interruptible(Protocol):
    """An answer being written, as Ctrl-C sees it (`dialogue.Answer` is one)."""

    @property
    def stats(self) -> "GenerationStats":
        """What it cost so far; no generated tokens means that the prompt is being read."""
        ...

    @property
    def is_thinking(self) -> bool:
        """Tell whether reasoning is being written."""
        ...

    def end_thinking(self) -> None:
        """End the reasoning; the answer comes next."""
        ...


class TurnInterrupt:
    """What Ctrl-C means while an answer is written; see the module's table.

    `wants_stop` asks whoever iterates the answer to end it after the token under way.
    """

    def __init__(self, answer: Interruptible, clock: Callable[[], float] = time.monotonic) -> None:
        self.wants_stop = False
        self._answer = answer
        self._clock = clock
        self._last_press_s: float | None = None
        self._has_ended_thinking = False

    def press(self) -> None:
        """Act on one Ctrl-C.

        Raises Left if it means to leave at once, KeyboardInterrupt while there is nothing yet that could be kept.
        """
        now_s = self._clock()
        is_second = self._last_press_s is not None and now_s - self._last_press_s <= SECOND_PRESS_S
        self._last_press_s = now_s
        if is_second:
            raise Left
        if not self._answer.stats.generated_tokens:
            raise KeyboardInterrupt
        if self._answer.is_thinking and not self._has_ended_thinking:
            self._has_ended_thinking = True
            self._answer.end_thinking()
        else:
            self.wants_stop = True

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Send SIGINT here during the block."""
        previous = signal.signal(signal.SIGINT, lambda number, frame: self.press())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
