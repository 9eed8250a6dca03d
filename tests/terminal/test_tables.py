import io

import pytest

from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.tables import write_pairs, write_table


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO) -> list[str]:
    write_table(Terminal(stream, None), ("name", "size"), [("a" * 30, "1"), ("b", "2,000")], numbers=(1,))
    return stream.getvalue().splitlines()


def test_a_table_in_a_pipe_is_plain_text_with_numbers_flush_right() -> None:
    head, rule, first, second = written(io.StringIO())
    assert head.split() == ["name", "size"] and set(rule.strip()) == {"─"}
    assert first.endswith("    1") and second.endswith("2,000")
    assert len(first) == len(second)


def test_a_narrow_terminal_wraps_and_a_pipe_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert max(map(len, written(TerminalStream()))) <= 20
    assert max(map(len, written(io.StringIO()))) > 30


def test_pairs_stand_in_two_columns() -> None:
    stream = io.StringIO()
    write_pairs(Terminal(stream, None), [("a", "1"), ("long", "2"), ("", "3"), ("none", "")])
    assert stream.getvalue() == "a     1\nlong  2\n      3\nnone\n"
