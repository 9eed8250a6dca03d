import io

import pytest

from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.progress import Stage, finished_text, progress_text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("loading", 43e9, 152e9, "bytes", 43 / 5.9), "loading 43/152 GB 5.9 GB/s eta 18 s"),
        (("reading", 6144, 16384, "tok", 6144 / 310), "reading 6,144/16,384 tok 310 t/s eta 33 s"),
        (("encoding cat.png", 0, 1024, "tok", 0.0), "encoding cat.png 0/1,024 tok"),
        (("thinking", 12, None, "tok", 4.0), "thinking 12 tok 3 t/s"),
        (("loading", 0, None, "", 1.0), "loading"),
        (("reading", 8, 8, "tok", 1.0), "reading 8/8 tok 8 t/s"),
    ],
)
def test_running_stage_says_done_total_rate_and_time_left(
    arguments: tuple[str, float, float, str, float], text: str
) -> None:
    assert progress_text(*arguments) == text  # type: ignore[arg-type]


def test_bar_fills_with_seconds_of_sound() -> None:
    text = progress_text("talk.mp3", 150, 600, "s", 30.0, bar=True)
    assert text == "talk.mp3 [#####...............] 02:30/10:00 5.0x eta 1 min 30 s"


def test_finished_stage_says_how_much_in_what_time() -> None:
    assert finished_text("reading", 16384, "tok", 52.9) == "reading 16,384 tok in 52.9 s"
    assert finished_text("loading", 0, "", 2.0) == "loading in 2.0 s"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def make(is_terminal: bool) -> tuple[Terminal, Stage, Clock]:
    clock = Clock()
    stream = TerminalStream() if is_terminal else io.StringIO()
    terminal = Terminal(None, stream, color="never")
    return terminal, Stage(terminal, "reading", "tok", clock=clock), clock


@pytest.fixture(autouse=True)
def real_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def drawn(terminal: Terminal) -> list[str]:
    assert isinstance(terminal.err, io.StringIO)
    return [text for text in terminal.err.getvalue().split("\r\x1b[2K") if text]


def test_stage_is_silent_for_half_a_second_then_redraws_ten_times_a_second() -> None:
    terminal, stage, clock = make(is_terminal=True)
    with stage:
        for tick in range(100):  # one second
            clock.now_s = tick / 100
            stage.update(tick, 100)
    texts = drawn(terminal)
    assert texts[0].startswith(("reading 50/100 tok", "reading 51/100 tok"))
    assert 4 <= len(texts) <= 6
    assert terminal.err.getvalue().endswith("\r\x1b[2K")  # type: ignore[union-attr]


@pytest.mark.parametrize(("elapsed_s", "lines"), [(0.4, []), (2.0, ["reading 7 tok in 2.0 s\n"])])
def test_off_a_terminal_a_slow_stage_leaves_one_line(elapsed_s: float, lines: list[str]) -> None:
    terminal, stage, clock = make(is_terminal=False)
    with stage:
        clock.now_s = elapsed_s
        stage.update(7, 7)
    assert drawn(terminal) == lines


def test_a_failed_stage_leaves_no_line() -> None:
    terminal, stage, clock = make(is_terminal=False)
    with pytest.raises(ValueError), stage:
        clock.now_s = 9
        raise ValueError
    assert drawn(terminal) == []
