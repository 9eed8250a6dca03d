import io
from typing import Any

import pytest

from mimo_cli.terminal.console import Terminal, harmless, wants_color


class Stream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def terminal(is_terminal: bool = False, **options: Any) -> Terminal:
    return Terminal(Stream(is_terminal), Stream(is_terminal), **options)


def streams(made: Terminal) -> tuple[str, str]:
    assert isinstance(made.out, Stream) and isinstance(made.err, Stream)
    return made.out.getvalue(), made.err.getvalue()


def test_color_needs_a_terminal_no_no_color_and_a_real_term(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wants_color(Stream(True), "auto")
    assert not wants_color(Stream(False), "auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Stream(True), "auto")
    assert wants_color(Stream(False), "always")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Stream(True), "auto")
    assert not wants_color(Stream(True), "never")


def test_empty_no_color_is_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_color(Stream(True), "auto")


def test_closed_streams_are_no_terminals_and_take_text_silently() -> None:
    made = Terminal(None, None)
    made.write("lost")
    made.line("lost too")
    made.status("and this")
    assert not made.out_is_terminal


def test_model_text_cannot_steer_a_terminal() -> None:
    made = terminal(is_terminal=True)
    made.write("a\x1b[2Jb\x9bc\td\r\ne\x07\n")
    assert streams(made)[0] == "a␛[2Jb\ufffdc\td\ne␇\n"
    assert harmless("\x7f") == "\ufffd"


def test_pipes_get_the_bytes_as_they_are() -> None:
    made = terminal()
    made.write("a\x1b[0mb\r\n")
    assert streams(made)[0] == "a\x1b[0mb\r\n"


def test_lines_are_plain_off_a_terminal_and_coloured_on_one() -> None:
    plain, colored = terminal(), terminal(is_terminal=True)
    for made in (plain, colored):
        made.warn("careful")
    assert streams(plain) == ("", "mimo: warning: careful\n")
    assert streams(colored)[1] == "\x1b[33mmimo: warning: careful\x1b[0m\n"


def test_quiet_drops_notes_and_keeps_errors() -> None:
    made = terminal(quiet=True)
    made.note("note")
    made.warn("warning")
    made.error("broken")
    assert streams(made) == ("", "mimo: error: broken\n")


def test_details_need_verbose() -> None:
    made, talkative = terminal(), terminal(verbose=True)
    made.detail("seed 7")
    talkative.detail("seed 7")
    assert streams(made)[1] == ""
    assert streams(talkative)[1] == "seed 7\n"


def test_status_is_rewritten_on_a_terminal_and_gone_before_output() -> None:
    made = terminal(is_terminal=True, color="never")
    made.status("one")
    made.status("one")
    made.status("two")
    made.write("answer")
    assert streams(made) == ("answer", "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2K")


@pytest.mark.parametrize("options", [{"quiet": True}, {"progress": False}])
def test_no_status_when_not_wanted(options: dict[str, bool]) -> None:
    made = terminal(is_terminal=True, **options)
    made.status("one")
    assert streams(made)[1] == ""


def test_no_status_in_a_pipe_or_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = terminal()
    made.status("one")
    monkeypatch.setenv("TERM", "dumb")
    dumb = terminal(is_terminal=True)
    dumb.status("one")
    assert streams(made)[1] == streams(dumb)[1] == ""


def test_status_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    made = terminal(is_terminal=True, color="never")
    made.status("x" * 40)
    assert streams(made)[1] == "\r\x1b[2K" + "x" * 9


@pytest.mark.parametrize(
    ("deltas", "printed"),
    [
        (["Hello", "!"], "Hello!\n"),
        (["\n\nHello", "\n"], "Hello\n"),
        (["\n", "\n", "a\n", "\n", "b\n\n"], "a\n\nb\n"),
        ([" indented"], " indented\n"),
        ([], ""),
        (["\n"], ""),
    ],
)
def test_answer_starts_without_blank_lines_and_ends_with_one_newline(deltas: list[str], printed: str) -> None:
    made = terminal()
    with made.answer() as answer:
        for delta in deltas:
            answer.write(delta)
    assert streams(made)[0] == printed


def test_answer_line_is_ended_after_an_interrupt() -> None:
    made = terminal()
    with pytest.raises(KeyboardInterrupt), made.answer() as answer:
        answer.write("partial")
        raise KeyboardInterrupt
    assert streams(made)[0] == "partial\n"


def test_streamed_thinking_is_closed_before_a_line_and_before_the_answer() -> None:
    made = terminal()
    made.write_error_stream("hm")
    made.write_error_stream(", well")
    with made.answer() as answer:
        answer.write("yes")
    made.write_error_stream("more")
    made.note("numbers")
    assert streams(made) == ("yes\n", "hm, well\nmore\nnumbers\n")


def test_a_character_the_stream_cannot_spell_becomes_a_question_mark() -> None:
    raw = io.BytesIO()
    made = Terminal(io.TextIOWrapper(raw, encoding="ascii"), None)
    made.write("né")
    assert raw.getvalue() == b"n?"


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_gone_reader_of_the_answer_is_reported_and_one_of_stderr_is_not() -> None:
    with pytest.raises(BrokenPipeError):
        Terminal(Broken(), None).write("x")
    Terminal(None, Broken()).line("x")
