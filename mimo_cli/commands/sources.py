"""What one run was given: words on the command line, stdin, text files; put together to one question.

    text files (each after a line with its name), blank line, stdin, blank line, words

stdin is read when it is not a terminal or when `-` asks for it. Media bytes on stdin become an attachment.
"""

import codecs
import difflib
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from mimo_cli.chat.named_files import user_path
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal, is_terminal

Kind = Literal["image", "video", "audio", "any"]

STDIN = "-"
MAX_TEXT_CHARACTERS = 16_000_000
"""Far more than a million tokens hold; cutting more into tokens would take minutes, only to be refused then."""

_WAIT_NOTE_S = 2.0
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Attachment:
    """A medium named by the user: `source` is a path or URL as typed, or the bytes that came by stdin."""

    kind: Kind
    source: str | bytes


@dataclass(frozen=True)
class Question:
    """The first user message: its text (may be empty) and its attachments in order."""

    text: str
    attachments: tuple[Attachment, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was asked at all."""
        return not self.text.strip() and not self.attachments


class Stdin:
    """Standard input, read at most once and only if there is something to read."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._content: bytes | None = None
        self._claimed_by: str | None = None

    @property
    def is_piped(self) -> bool:
        """Tell whether stdin is open and no terminal."""
        return sys.stdin is not None and not sys.stdin.closed and not is_terminal(sys.stdin)

    def claim(self, user: str) -> bytes:
        """Return all of stdin for one user (a flag); raises UsageError where a second one asks."""
        if self._claimed_by is not None:
            raise UsageError(f"stdin was asked for twice: by {self._claimed_by} and by {user}")
        self._claimed_by = user
        return self._read()

    def rest(self) -> bytes:
        """Return stdin for the question: empty where it is a terminal, closed, or claimed by a flag."""
        return self._read() if self.is_piped and self._claimed_by is None else b""

    def _read(self) -> bytes:
        if sys.stdin is None or sys.stdin.closed:
            return b""
        # Someone may have inherited a pipe that nobody writes to: say what we wait for.
        note = "waiting for stdin (Ctrl-D ends it; `< /dev/null` gives none)"
        timer = threading.Timer(_WAIT_NOTE_S, self._terminal.note, (note,))
        timer.daemon = True
        timer.start()
        try:
            return binary_stdin().read()
        finally:
            timer.cancel()


def binary_stdin() -> BinaryIO:
    """Return the bytes under sys.stdin (replaced streams without them are an error of the embedding program)."""
    return sys.stdin.buffer


def media_kind(content: bytes, name: str = "stdin") -> str | None:
    """Tell what kind of media some bytes are, None for text and for nothing at all; `name` stands for them in errors.

    Raises MediaError, naming the kind, for media that are known and not supported.
    """
    if not content.strip():
        return None
    from mimo_cli.media.sniff import sniff  # brings the decoders along, which `--help` must not

    return sniff(content, name=name, allow_text=True)


def decode_text(content: bytes, name: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; raises UsageError for anything that is not text."""
    encoding = next((encoding for bom, encoding in _BOMS if content.startswith(bom)), "utf-8")
    kind = media_kind(content, name)
    if kind is not None:
        raise UsageError(f"{name} is {_with_article(kind)} file, not text", hint=f"attach it with --{kind}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as err:
        byte = f"byte {err.start} is 0x{content[err.start]:02x}"
        raise UsageError(
            f"{name} is neither text in UTF-8 nor a known kind of media: {byte}",
            hint="iconv -t UTF-8 for text, --attach for media",
        ) from None
    if "\0" in text:
        raise UsageError(f"{name} is binary: it holds a zero byte at character {text.index(chr(0))}")
    return text.replace("\r\n", "\n")


def read_text_file(name: str) -> str:
    """Read a text file; raises UsageError naming it where it is missing, a folder, or not text."""
    return decode_text(read_bytes(name), f"`{name}`")


def read_bytes(name: str) -> bytes:
    """Read a file whole; raises UsageError naming it."""
    path = user_path(name)
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UsageError(f"`{name}` is a folder, a file was expected") from None
    except FileNotFoundError:
        raise UsageError(f"`{name}` does not exist", hint=_nearby(path)) from None
    except OSError as err:
        raise UsageError(f"`{name}` cannot be read: {err.strerror}") from err


def build_question(
    words: Sequence[str], files: Iterable[str], attachments: Sequence[Attachment], stdin: Stdin, *, with_names: bool
) -> Question:
    """Put files, stdin and words together; attachments named `-` take stdin first. Raises UsageError."""
    resolved = [_resolve(item, stdin) for item in attachments]
    pieces = [_file_text(name, stdin, with_names) for name in files]
    piped = stdin.claim("`-`") if STDIN in words else stdin.rest()
    words = [word for word in words if word != STDIN]
    if media_kind(piped) is not None:
        resolved.append(Attachment("any", piped))
    elif piped.strip():
        pieces.append(decode_text(piped, "stdin").strip("\n"))
    pieces += [" ".join(words)] if words else []
    text = "\n\n".join(piece for piece in pieces if piece)
    if len(text) > MAX_TEXT_CHARACTERS:
        limit = f"at most {MAX_TEXT_CHARACTERS:,} are taken"
        raise UsageError(f"the text has {len(text):,} characters, {limit}", hint="ask about a part of it")
    return Question(text, tuple(resolved))


def read_option_text(value: str) -> str:
    """Return the text of an option: `@FILE` is the file's content, anything else the text itself."""
    return read_text_file(value[1:]).rstrip("\n") if value.startswith("@") and len(value) > 1 else value


def _resolve(item: Attachment, stdin: Stdin) -> Attachment:
    if item.source != STDIN:
        return item
    content = stdin.claim(f"--{item.kind if item.kind != 'any' else 'attach'} -")
    if not content:
        raise UsageError("stdin is empty, media was expected")
    return Attachment(item.kind, content)


def _file_text(name: str, stdin: Stdin, with_names: bool) -> str:
    text = decode_text(stdin.claim("--file -"), "stdin") if name == STDIN else read_text_file(name)
    text = text.strip("\n")
    return f"{Path(name).name}:\n{text}" if with_names and name != STDIN else text


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _nearby(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"{path.parent / near[0]}" if near else None
