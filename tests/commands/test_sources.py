import io
import sys
from pathlib import Path

import pytest

from mimo_cli.commands.sources import (
    Attachment,
    Question,
    Stdin,
    build_question,
    decode_text,
    read_option_text,
    read_text_file,
)
from mimo_cli.errors import MediaError, UsageError
from mimo_cli.terminal.console import Terminal

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 20


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes | None, is_terminal: bool = False) -> Stdin:
    stream = None if content is None else io.TextIOWrapper(io.BytesIO(content))
    if stream is not None and is_terminal:
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stream)
    return Stdin(Terminal(None, None))


def question(
    stdin: Stdin, *words: str, files: list[str] | None = None, attach: list[Attachment] | None = None
) -> Question:
    return build_question(words, files or [], attach or [], stdin, with_names=True)


def test_stdin_comes_first_then_a_blank_line_then_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = piped(monkeypatch, b"+ new line\r\n- old line\n\n")
    assert question(stdin, "review", "this") == Question("+ new line\n- old line\n\nreview this")


@pytest.mark.parametrize("content", [b"", b" \n", None])
def test_empty_or_closed_stdin_counts_as_none(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    assert question(piped(monkeypatch, content), "hi") == Question("hi")
    assert question(piped(monkeypatch, content)).is_empty


def test_a_terminal_is_not_read_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert question(piped(monkeypatch, b"typed", is_terminal=True), "hi") == Question("hi")
    assert question(piped(monkeypatch, b"typed", is_terminal=True), "-", "hi") == Question("typed\n\nhi")


def test_media_on_stdin_becomes_an_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert question(piped(monkeypatch, PNG), "what?") == Question("what?", (Attachment("any", PNG),))


def test_a_flag_with_a_dash_takes_stdin_as_that_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    made = question(piped(monkeypatch, WAV), "what?", attach=[Attachment("image", "a.png"), Attachment("audio", "-")])
    assert made.attachments == (Attachment("image", "a.png"), Attachment("audio", WAV))


def test_stdin_cannot_be_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="asked for twice: by --audio - and by --image -"):
        question(piped(monkeypatch, WAV), attach=[Attachment("audio", "-"), Attachment("image", "-")])


def test_a_flag_that_takes_an_empty_stdin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="stdin is empty"):
        question(piped(monkeypatch, b""), attach=[Attachment("any", "-")])


def test_files_come_before_stdin_each_after_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 2\n")
    files = [str(tmp_path / name) for name in ("a.py", "b.py")]
    stdin = piped(monkeypatch, b"from stdin")
    assert question(stdin, "why?", files=files).text == "a.py:\nx = 1\n\nb.py:\ny = 2\n\nfrom stdin\n\nwhy?"
    plain = build_question(["why?"], files, [], piped(monkeypatch, b""), with_names=False)
    assert plain.text == "x = 1\n\ny = 2\n\nwhy?"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("né".encode(), "né"),
        (b"\xef\xbb\xbfabc", "abc"),
        ("né".encode("utf-16"), "né"),
        (b"a\r\nb", "a\nb"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ],
)
def test_text_is_read_in_its_encoding(content: bytes, text: str) -> None:
    assert decode_text(content, "x") == text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"caf\xe9", "`x` is neither text in UTF-8 nor a known kind of media: byte 3 is 0xe9"),
        (b"a\0b", "`x` is binary: it holds a zero byte at character 1"),
        (PNG, "`x` is an image file, not text"),
        (WAV, "`x` is an audio file, not text"),
    ],
)
def test_what_is_not_text_is_named(content: bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        decode_text(content, "`x`")


def test_known_but_unsupported_media_on_stdin_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="PDF"):
        question(piped(monkeypatch, b"%PDF-1.7\n"), "summarize")


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="does not exist") as caught:
        read_text_file(str(tmp_path / "note.txt"))
    assert caught.value.hint == str(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="is a folder"):
        read_text_file(str(tmp_path))


def test_an_option_text_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.\n")
    assert read_option_text(f"@{tmp_path}/system.txt") == "Be brief."
    assert read_option_text("Be brief.") == "Be brief."
    assert read_option_text("@") == "@"


def test_known_but_unsupported_media_in_a_file_are_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.7\n")
    with pytest.raises(MediaError, match=r"a\.txt` is a PDF document"):
        read_text_file(str(tmp_path / "a.txt"))
