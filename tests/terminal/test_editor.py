import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.editor import DialogueCompleter, Editor, needs_more, unwrap_block

COMMANDS = {"/help": "list", "/image": "attach", "/quit": "leave"}
PASTE_START, PASTE_END, ALT_ENTER = "\x1b[200~", "\x1b[201~", "\x1b\r"


@contextmanager
def typing(monkeypatch: pytest.MonkeyPatch, history: Path | None = None) -> Iterator[tuple[Editor, PipeInput]]:
    """An editor whose keys come from the test and whose drawing goes nowhere."""
    monkeypatch.setattr("mimo_cli.terminal.editor.create_output", lambda stdout: DummyOutput())
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield Editor(Terminal(None, io.StringIO()), COMMANDS, ["/image"], history), keys


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hello\r", "hello"),
        ("one\\\rtwo\r", "one\ntwo"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        ('"""one\rtwo"""\r', "one\ntwo"),
        ('"""one line"""\r', "one line"),
        (f"{PASTE_START}a\r\nb\nc{PASTE_END}\r", "a\nb\nc"),
        ("a C:\\\\ path\r", "a C:\\\\ path"),
        ("wrong\x15right\r", "right"),
    ],
)
def test_keys_become_one_message(monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    with typing(monkeypatch) as (editor, keys):
        keys.send_text(typed)
        assert editor.read("> ") == message


def test_ctrl_c_clears_and_ctrl_d_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    with typing(monkeypatch) as (editor, keys):
        keys.send_text("half a line\x03")
        with pytest.raises(KeyboardInterrupt):
            editor.read("> ")
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            editor.read("> ")


def test_tab_completes_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with typing(monkeypatch) as (editor, keys):
        keys.send_text("/he\t")
        # Completion runs beside the input; Enter comes when it has had its time.
        threading.Timer(0.5, keys.send_text, ("\r",)).start()
        assert editor.read("> ") == "/help"


def test_history_is_kept_privately(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"
    with typing(monkeypatch, file) as (editor, keys):
        keys.send_text("first\r")
        editor.read("> ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with typing(monkeypatch, file) as (editor, keys):
        keys.send_text("\x1b[A\r")
        assert editor.read("> ") == "first"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_unwritable_history_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with typing(monkeypatch, tmp_path / "file" / "history") as (editor, keys):
        keys.send_text("hello\r")
        assert editor.read("> ") == "hello"


def completions(text: str) -> list[str]:
    completer = DialogueCompleter(COMMANDS, ["/image"])
    found = completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [text[: len(text) + item.start_position] + item.text for item in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    for name in ("pictures/cat one.jpg", "pictures/cat's.jpg", "pizza.png", ".hidden"):
        (tmp_path / name).touch()
    return tmp_path


def test_commands_and_paths_are_completed(folder: Path) -> None:
    assert completions("/i") == ["/image"]
    assert completions("/image pi") == ["/image pictures/", "/image pizza.png"]
    assert completions("/image pictures/ca") == [r"/image pictures/cat\ one.jpg", r"/image pictures/cat\'s.jpg"]
    assert completions(r"/image pictures/cat\ o") == [r"/image pictures/cat\ one.jpg"]
    assert completions("/image a.png pi") == ["/image a.png pictures/", "/image a.png pizza.png"]
    assert completions("/image ~/pic") == ["/image ~/pictures/"]
    assert completions(f"/image {folder}/piz") == [f"/image {folder}/pizza.png"]
    assert completions("/image .h") == ["/image .hidden"]
    assert completions("/image no/such/fo") == []


def test_plain_words_are_not_completed_but_paths_in_messages_are(folder: Path) -> None:
    assert completions("pi") == [] and completions("look at pi") == []
    assert completions("look at ./pi") == ["look at ./pictures/", "look at ./pizza.png"]


@pytest.mark.parametrize(
    ("text", "more"), [("a", False), ("a\\", True), ('"""a', True), ('"""a"""', False), ('say """', False)]
)
def test_when_enter_starts_a_new_line(text: str, more: bool) -> None:
    assert needs_more(text) is more


@pytest.mark.parametrize(
    ("text", "message"), [('"""\na\n"""', "a"), ("a", "a"), ('"""', '"""'), ('""""""', ""), (' """x""" ', "x")]
)
def test_quotes_of_a_block_are_taken_off(text: str, message: str) -> None:
    assert unwrap_block(text) == message


def test_drawing_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_to = []

    def create(stdout: io.StringIO) -> DummyOutput:
        drawn_to.append(stdout)
        return DummyOutput()

    stderr = io.StringIO()
    monkeypatch.setattr("mimo_cli.terminal.editor.create_output", create)
    monkeypatch.setattr("sys.stderr", stderr)
    terminal = Terminal(None, stderr)
    terminal.err_is_terminal = True
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        Editor(terminal, COMMANDS, [], None)
    assert drawn_to == [stderr]
