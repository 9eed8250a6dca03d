"""The slash commands of the dialogue: their names, what they take, and how a line is told from a message.

/word ...   a command         //word ...   a message that starts with one slash         anything else   a message
"""

import difflib
import shlex
from dataclasses import dataclass

from mimo_cli.errors import UsageError


@dataclass(frozen=True)
class SlashCommand:
    """One command; `argument` is how its argument is shown in the help, "" if it takes none."""

    name: str
    aliases: tuple[str, ...]
    argument: str
    meaning: str
    takes_path: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return all words that call it, with their slash."""
        return tuple("/" + word for word in (self.name, *self.aliases))


COMMANDS = (
    SlashCommand("image", (), "PATH", "attach a picture to the next message", takes_path=True),
    SlashCommand("audio", (), "PATH", "attach a recording", takes_path=True),
    SlashCommand("video", (), "PATH", "attach a video", takes_path=True),
    SlashCommand("attach", (), "PATH", "attach any of these", takes_path=True),
    SlashCommand("file", ("read",), "PATH", "put a text file before the next message", takes_path=True),
    SlashCommand("system", ("sp",), "TEXT", "set the system text (starts at the next message); none shows it"),
    SlashCommand("think", (), "on|off|N|show|hide", "reasoning: on, off, at most N tokens, shown or hidden"),
    SlashCommand("regen", ("r",), "", "answer the last message again"),
    SlashCommand("undo", (), "", "take back the last message and its answer"),
    SlashCommand("save", (), "FILE", "write the conversation to a file", takes_path=True),
    SlashCommand("load", (), "FILE", "go on with a saved conversation", takes_path=True),
    SlashCommand("stats", ("tps",), "", "numbers of the last answer"),
    SlashCommand("tokens", ("t",), "", "how much of the context is taken"),
    SlashCommand("set", (), "NAME VALUE", "change a setting: temp, top_p, top_k, min_p, seed, max_tokens, ..."),
    SlashCommand("show", (), "", "model, context and settings"),
    SlashCommand("clear", ("new", "n"), "", "start a new conversation"),
    SlashCommand("help", ("?",), "", "this list"),
    SlashCommand("quit", ("bye", "exit", "x"), "", "leave (so does Ctrl-D)"),
)
_BY_WORD = {word: command for command in COMMANDS for word in command.spellings}


@dataclass(frozen=True)
class SlashLine:
    """A command that was typed, and its argument."""

    command: SlashCommand
    argument: str


def parse_line(text: str) -> SlashLine | str:
    """Return the command of a line, or the message that it is. Raises UsageError for an unknown command."""
    if text.startswith("//"):
        return text[1:]
    if not text.startswith("/"):
        return text
    word, _, argument = text.strip().partition(" ")
    command = _BY_WORD.get(word.lower())
    if command is None:
        near = difflib.get_close_matches(word.lower(), _BY_WORD, n=1)
        hint = f"{near[0]}, or " if near else ""
        raise UsageError(f"there is no command `{word}`", hint=f"{hint}/help; // starts a message with a slash")
    return SlashLine(command, argument.strip())


def paths_of(argument: str) -> list[str]:
    """Split an argument into file names: quoted or escaped as in a shell; an unquoted name may hold an apostrophe."""
    try:
        return shlex.split(argument)
    except ValueError:
        return [argument]


def help_lines() -> list[str]:
    """Return the help of the dialogue."""
    lines = []
    for command in COMMANDS:
        words = ", ".join(command.spellings)
        lines.append(f"  {words + ' ' + command.argument:<28} {command.meaning}")
    return [
        *lines,
        '  Alt-Enter, \\ at line end, or """ ... """ write several lines; Tab completes; Ctrl-C stops an answer',
    ]


def meanings() -> dict[str, str]:
    """Return every spelling with its meaning, for completion."""
    return {word: command.meaning for word, command in _BY_WORD.items()}


def path_words() -> list[str]:
    """Return the spellings of the commands that take a file name."""
    return [word for word, command in _BY_WORD.items() if command.takes_path]
