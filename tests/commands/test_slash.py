import pytest

from mimo_cli.commands.slash import COMMANDS, SlashLine, help_lines, meanings, parse_line, path_words, paths_of
from mimo_cli.errors import UsageError


@pytest.mark.parametrize(
    ("line", "name", "argument"),
    [
        ("/help", "help", ""),
        ("/?", "help", ""),
        ("/SYSTEM  You are terse. ", "system", "You are terse."),
        ("/r", "regen", ""),
        ("/bye", "quit", ""),
        ("/read a b.txt", "file", "a b.txt"),
    ],
)
def test_commands_and_their_aliases_are_read(line: str, name: str, argument: str) -> None:
    read = parse_line(line)
    assert isinstance(read, SlashLine)
    assert (read.command.name, read.argument) == (name, argument)


@pytest.mark.parametrize(
    ("line", "message"), [("hello /help", "hello /help"), ("//etc is a path", "/etc is a path"), ("", "")]
)
def test_anything_else_is_a_message(line: str, message: str) -> None:
    assert parse_line(line) == message


def test_unknown_command_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="there is no command `/hlep`") as caught:
        parse_line("/hlep me")
    assert caught.value.hint is not None and caught.value.hint.startswith("/help")


@pytest.mark.parametrize(
    ("argument", "paths"),
    [("a.png 'b c.png'", ["a.png", "b c.png"]), (r"b\ c.png", ["b c.png"]), ("it's.png", ["it's.png"]), ("", [])],
)
def test_file_names_are_split_as_in_a_shell(argument: str, paths: list[str]) -> None:
    assert paths_of(argument) == paths


def test_help_names_every_command_and_no_word_calls_two() -> None:
    text = "\n".join(help_lines())
    words = [word for command in COMMANDS for word in command.spellings]
    assert all(word in text for word in words)
    assert len(words) == len(set(words)) == len(meanings())
    assert set(path_words()) <= set(words)
    assert max(map(len, help_lines())) <= 110
