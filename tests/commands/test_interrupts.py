import os
import signal
import time

import pytest

from mimo_cli.commands.interrupts import (
    HungUp,
    Left,
    Terminated,
    TimeLimitReached,
    TurnInterrupt,
    ctrl_c_waits,
    signals_raise,
    time_limit,
)
from mimo_cli.engine.stats import GenerationStats


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Answer:
    """Takes note of what it is asked to do."""

    def __init__(self, phase: str) -> None:
        self.stats = GenerationStats(generated_tokens=0 if phase == "reading" else 3)
        self.is_thinking = phase == "thinking"
        self.was_asked_to_answer = False

    def end_thinking(self) -> None:
        self.was_asked_to_answer = True


def pressed(phase: str, *times_s: float) -> tuple[bool, bool]:
    """Whether the thinking and whether the turn were ended by presses at these times."""
    clock, answer = Clock(), Answer(phase)
    turn = TurnInterrupt(answer, clock)
    for time_s in times_s:
        clock.now_s = time_s
        turn.press()
    return answer.was_asked_to_answer, turn.wants_stop


def test_first_press_while_thinking_ends_thinking_only() -> None:
    assert pressed("thinking", 0) == (True, False)


def test_a_later_press_while_still_thinking_stops_the_turn() -> None:
    assert pressed("thinking", 0, 5) == (True, True)


def test_first_press_while_answering_stops_the_turn() -> None:
    assert pressed("answering", 0) == (False, True)


@pytest.mark.parametrize("phase", ["thinking", "answering"])
def test_second_press_within_two_seconds_leaves(phase: str) -> None:
    with pytest.raises(Left):
        pressed(phase, 0, 1.9)


def test_a_press_while_reading_the_prompt_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        pressed("reading", 0)


def test_sigint_reaches_the_turn_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    turn = TurnInterrupt(Answer("answering"))
    with turn.installed():
        os.kill(os.getpid(), signal.SIGINT)
        assert turn.wants_stop
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, Terminated), (signal.SIGHUP, HungUp)])
def test_termination_raises_inside_the_block_only(number: signal.Signals, stop: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(stop), signals_raise():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signal.getsignal(number) is before


def test_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_raise():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_time_limit_ends_a_long_block_and_spares_a_short_one() -> None:
    with pytest.raises(TimeLimitReached), time_limit(0.02):
        time.sleep(2)
    with time_limit(0.05):
        pass
    with time_limit(None):
        time.sleep(0.06)


def test_ctrl_c_waits_until_the_block_is_over() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with ctrl_c_waits():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("written")
        steps.append("never")
    assert steps == ["written"]
