"""`mimo`: from the command line to a command, and from errors to one line and an exit code.

    0 done                      4 not enough memory or disk          130 Ctrl-C
    1 failed while running      5 some inputs failed, some done      141 the reader of stdout went away
    2 wrong usage or input      6 stopped by a limit the user set    143, 129 SIGTERM, SIGHUP
    3 model files missing or damaged

Nothing heavy is imported before a command is known: `mimo --help` costs little more than starting Python.
"""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from mimo_cli.commands import registry
from mimo_cli.commands.interrupts import Stopped, TimeLimitReached, signals_raise
from mimo_cli.errors import MimoError, UsageError
from mimo_cli.terminal.console import Color, Terminal, error_text

FAILED, CAPACITY, INTERRUPTED, CLOSED_PIPE = 1, 4, 130, 141

_COMMON_FLAG = re.compile(
    r"-[jqv]+|-[jqv]*m.+|--(json|quiet|verbose|debug|progress|no-progress)|--(model|color)=.*", re.DOTALL
)
_COMMON_OPTION = re.compile(r"-[jqv]*m|--model|--color")
"""What may stand before the name of a command: words that are complete, and words whose value is the next one."""

_NEAR_MISS = 0.75
"""Likeness above which a single unknown word is taken for a mistyped command instead of a question."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal.standard(color=_color(arguments))
    try:
        with signals_raise():
            code = _run(arguments, terminal)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except (Exception, KeyboardInterrupt, Stopped) as err:
        return _explain(err, terminal, debug=_is_debug(arguments))


def route(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command and its arguments: a question without a command goes to `chat`, flags may stand before a name.

    Raises UsageError for a first word that looks like a mistyped command, or names one that this version lacks.
    """
    position = _first_word(arguments)
    first = arguments[position] if position < len(arguments) else ""
    name = registry.ALIASES.get(first, first)
    if name in registry.COMMANDS:
        return name, [*arguments[:position], *arguments[position + 1 :]]
    if first in registry.ABSENT:
        question = first if position + 1 == len(arguments) else f"{first} ..."
        raise UsageError(
            f"there is no command `{first}` in this version",
            hint=f'{registry.ABSENT[first]}, or mimo chat "{question}" to ask it as a question',
        )
    near = difflib.get_close_matches(first, registry.COMMANDS, n=1, cutoff=_NEAR_MISS) if first else []
    if near and " " not in first:
        raise UsageError(
            f"there is no command `{first}`", hint=f'mimo {near[0]}, or mimo chat "{first}" if it is a question'
        )
    return "chat", list(arguments)


def _first_word(arguments: Sequence[str]) -> int:
    """Return where the first word stands that is no flag common to all commands."""
    position = 0
    while position < len(arguments):
        if _COMMON_OPTION.fullmatch(arguments[position]):
            position += 2
        elif _COMMON_FLAG.fullmatch(arguments[position]):
            position += 1
        else:
            break
    return position


def overall_help() -> str:
    """Return the help of `mimo` itself."""
    commands = "\n".join(f"  {entry.name:<12}{entry.summary}" for entry in registry.ENTRIES)
    return f"""usage: mimo COMMAND [OPTIONS]
       mimo ["QUESTION"]     one answer, then exit; a dialogue without it

Run MiMo-V2.5 on this machine: text, images, video and audio in, text out.

commands:
{commands}

for every command that loads a model:
  -m, --model MODEL    a folder or a name [MIMO_MODEL, settings, the miniature]
  -q, -v, --debug      only errors; more detail; a traceback for an error
  --color WHEN         auto, always or never

examples:
  mimo chat --image cat.jpg "What is in this picture?"
  git diff | mimo "review this" > review.md
  mimo transcribe talk.mp3 --format srt -o talk.srt

more: mimo COMMAND --help, everything: mimo COMMAND --help-all
"""


def _run(arguments: list[str], terminal: Terminal) -> int:
    if arguments and arguments[0] in ("-h", "--help", "--help-all"):
        terminal.write(overall_help())
        return 0
    if arguments and arguments[0] == "help":
        return _help(arguments[1:], terminal)
    if arguments == ["--version"]:
        arguments = ["version"]
    name, rest = route(arguments)
    flags = rest[: rest.index("--")] if "--" in rest else rest
    if "--help-all" in flags:
        return _help([name], terminal)
    return registry.run(name, rest)


def _help(topics: list[str], terminal: Terminal) -> int:
    if not topics:
        terminal.write(overall_help())
        return 0
    name = registry.ALIASES.get(topics[0], topics[0])
    if name not in registry.COMMANDS:
        raise UsageError(f"there is no help on `{topics[0]}`", hint="mimo --help")
    terminal.write(registry.load_command(name).help_text(f"mimo {name}", everything=True) + "\n")
    return 0


def _explain(err: BaseException, terminal: Terminal, debug: bool) -> int:
    """Write the error line for `err` (none for a closed pipe or a stop) and return the exit code."""
    if isinstance(err, BrokenPipeError):
        _silence_stdout()
        return CLOSED_PIPE
    terminal.clear_status()
    if debug:
        terminal.line("".join(traceback.format_exception(err)).rstrip())
    if isinstance(err, TimeLimitReached):
        terminal.error("stopped: the time of --timeout is over. TRY: a longer --timeout, or --max-tokens")
    if isinstance(err, (Stopped, KeyboardInterrupt)):
        terminal.end_thinking()
        return err.exit_code if isinstance(err, Stopped) else INTERRUPTED
    if isinstance(err, MimoError):
        terminal.error(error_text(str(err), err.hint))
        return err.exit_code
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        terminal.error(error_text(f"out of memory: {err}", "a smaller --ctx, or close other programs"))
        return CAPACITY
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        _silence_stdout()
        terminal.error(error_text(f"cannot write: {err.strerror}", "make room on the disk and run again"))
        return CAPACITY
    terminal.error(error_text(f"{type(err).__name__}: {err}. This is a bug in mimo", "the same command with --debug"))
    return FAILED


def _silence_stdout() -> None:
    """Point stdout at nothing: Python flushes it once more at exit and would complain about the same reader."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_debug(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("MIMO_DEBUG", "") not in ("", "0")


def _color(arguments: Sequence[str]) -> Color:
    """Find the colour wish before anything is parsed: errors of the parser itself are coloured too."""
    text = " ".join([f"--color={os.environ.get('MIMO_COLOR', '')}", *arguments]).replace("--color ", "--color=")
    wishes: dict[str, Color] = {"--color=always": "always", "--color=never": "never"}
    return next((wishes[word] for word in reversed(text.split()) if word in wishes), "auto")
