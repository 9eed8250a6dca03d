"""The input line of the dialogue: several lines, history, completion, one message for one paste.

    Enter                 send            \\ at the end of a line, or an open \"\"\"    go on in the next line
    Alt-Enter             new line        Tab                                     complete commands and file names
    Ctrl-C                clear the line  Ctrl-D on an empty line                 leave

All of prompt_toolkit is here; it draws on stderr, so that stdout carries answers only.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output

from mimo_cli.terminal.console import Terminal

BLOCK = '"""'
_PATH_STARTS = ("./", "../", "~/", "/")


class Editor:
    """Reads one message after the other from the terminal."""

    def __init__(
        self, terminal: Terminal, commands: Mapping[str, str], path_commands: Iterable[str], history_file: Path | None
    ) -> None:
        """`commands` maps slash commands to a word on each, `path_commands` are those that take a file name."""
        stream = sys.stderr if terminal.err_is_terminal else sys.stdout
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=_history(history_file),
            completer=DialogueCompleter(commands, path_commands),
            complete_while_typing=False,
            key_bindings=_key_bindings(),
            output=create_output(stdout=stream),
            color_depth=None if terminal.colors_err else ColorDepth.DEPTH_1_BIT,
            prompt_continuation="... ",
            enable_open_in_editor=False,
        )

    def read(self, prompt: str) -> str:
        """Return the next message. Raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D on an empty line."""
        return unwrap_block(self._session.prompt(FormattedText([("bold", prompt)])))


def needs_more(text: str) -> bool:
    """Tell whether Enter starts a new line of the message instead of sending it."""
    return text.endswith("\\") or (text.lstrip().startswith(BLOCK) and text.count(BLOCK) % 2 == 1)


def unwrap_block(text: str) -> str:
    """Return the message without the triple quotes around it and without the line breaks that a backslash escaped."""
    stripped = text.strip()
    if stripped.startswith(BLOCK) and stripped.endswith(BLOCK) and len(stripped) >= 2 * len(BLOCK):
        return stripped[len(BLOCK) : -len(BLOCK)].strip("\n")
    return text


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif needs_more(buffer.text) and buffer.document.is_cursor_at_the_end:
            if buffer.text.endswith("\\"):
                buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _history(file: Path | None) -> History:
    if file is None:
        return InMemoryHistory()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Created here and not by prompt_toolkit, which would leave it readable for everyone.
        os.close(os.open(file, os.O_CREAT | os.O_APPEND, 0o600))
        file.chmod(0o600)
        return FileHistory(str(file))
    return InMemoryHistory()


class DialogueCompleter(Completer):
    """Completes a slash command at the start of a message, and file names after the commands that take one."""

    def __init__(self, commands: Mapping[str, str], path_commands: Iterable[str]) -> None:
        self._commands = commands
        self._path_commands = frozenset(path_commands)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may follow the text before the cursor."""
        text = document.text_before_cursor
        name, blank, rest = text.partition(" ")
        if text.startswith("/") and not blank:
            for command, meaning in self._commands.items():
                if command.startswith(text):
                    yield Completion(command, start_position=-len(text), display_meta=meaning)
        word = _last_word(rest)
        if blank and (name in self._path_commands or word.startswith(_PATH_STARTS)):
            yield from _path_completions(word)


def _last_word(text: str) -> str:
    """Return what follows the last blank that no backslash escapes."""
    return re.split(r"(?<!\\)\s", text)[-1]


def _path_completions(word: str) -> Iterable[Completion]:
    """Yield the files that a typed path may become, folders with a slash, blanks and quotes escaped as in a shell."""
    folder, _, start = re.sub(r"\\(.)", r"\1", word).rpartition("/")
    typed_start = word.rpartition("/")[2]
    try:
        entries = sorted(Path(folder + "/" if folder or word.startswith("/") else ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            name = re.sub(r"([\s'\"\\])", r"\\\1", entry.name) + ("/" if entry.is_dir() else "")
            yield Completion(name, start_position=-len(typed_start), display=name)
