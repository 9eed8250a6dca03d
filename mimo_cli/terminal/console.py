"""The two streams of a run: the answer on stdout, everything else on stderr.

Terminal decides once what each stream is (a terminal, a pipe), whether it takes colour and a status line, and makes
model text harmless before it reaches a terminal. It knows nothing of models, messages or commands.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, TextIO

Color = Literal["auto", "always", "never"]

DIM, BOLD, RED, YELLOW, CYAN = "2", "1", "31;1", "33", "36"
"""Attributes of ANSI select graphic rendition."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CLEAR_LINE = "\r\x1b[2K"


def wants_color(stream: TextIO | None, color: Color) -> bool:
    """Tell whether to colour a stream: the flag decides, then NO_COLOR and TERM=dumb, then whether it is a terminal."""
    if color != "auto":
        return color == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is an open terminal (a closed stream is None or raises)."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def harmless(text: str) -> str:
    """Replace control characters other than newline and tab, so that text cannot steer a terminal.

    C0 characters become their Unicode pictures (ESC is shown as one), DEL and the C1 range become the replacement sign.
    """
    return _CONTROL.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def error_text(message: str, hint: str | None) -> str:
    """Join message and hint to one line: `WHAT. WHY. TRY: command`."""
    message = " ".join(message.split()).rstrip(".")
    return f"{message}. TRY: {' '.join(hint.split())}" if hint else message


@dataclass
class Terminal:
    """Where a command writes. `quiet` drops notes and progress, `verbose` adds detail; errors always appear."""

    out: TextIO | None
    err: TextIO | None
    color: Color = "auto"
    quiet: bool = False
    verbose: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        self.out_is_terminal = is_terminal(self.out)
        self.err_is_terminal = is_terminal(self.err)
        self.colors_err = wants_color(self.err, self.color)
        self.colors_out = wants_color(self.out, self.color)
        self.rewrites = self.err_is_terminal and self.progress and not self.quiet and os.environ.get("TERM") != "dumb"
        self._status = ""
        self._err_column_open = False
        # A stream that cannot spell a character prints a question mark instead of ending the run.
        for stream in (self.out, self.err):
            if stream is not None and hasattr(stream, "reconfigure"):
                with suppress(ValueError, OSError):
                    stream.reconfigure(errors="replace")

    @classmethod
    def standard(
        cls, color: Color = "auto", quiet: bool = False, verbose: bool = False, progress: bool = True
    ) -> "Terminal":
        """Return the Terminal over the process's own streams."""
        return cls(sys.stdout, sys.stderr, color, quiet, verbose, progress)

    def write(self, text: str) -> None:
        """Write result text to stdout and flush. Raises OSError: BrokenPipeError where the reader is gone."""
        self.clear_status()
        if self.out is None or not text:
            return
        self.out.write(harmless(text) if self.out_is_terminal else text)
        self.out.flush()

    def write_error_stream(self, text: str, style: str = "") -> None:
        """Write text to stderr as it is (no newline added); a stderr that is gone is ignored."""
        if self.err is None or not text:
            return
        self.clear_status()
        text = harmless(text) if self.err_is_terminal else text
        self._raw_err(f"\x1b[{style}m{text}\x1b[0m" if style and self.colors_err else text)
        self._err_column_open = not text.endswith("\n")

    def line(self, text: str, style: str = "") -> None:
        """Write one line to stderr, quiet or not."""
        if self._err_column_open:
            self._raw_err("\n")
        self.write_error_stream(text, style)
        self._raw_err("\n")
        self._err_column_open = False

    def note(self, text: str, style: str = DIM) -> None:
        """Write one line to stderr unless quiet."""
        if not self.quiet:
            self.line(text, style)

    def detail(self, text: str) -> None:
        """Write one line to stderr if verbose."""
        if self.verbose:
            self.line(text, DIM)

    def warn(self, text: str) -> None:
        """Write a warning line to stderr unless quiet."""
        self.note(f"mimo: warning: {text}", YELLOW)

    def error(self, text: str) -> None:
        """Write an error line to stderr, quiet or not."""
        self.line(f"mimo: error: {text}", RED)

    def end_thinking(self) -> None:
        """Close an open line of streamed stderr text, so that what follows starts in the first column."""
        if self._err_column_open:
            self._raw_err("\n")
            self._err_column_open = False

    def status(self, text: str) -> None:
        """Show a line that the next output replaces; nothing unless stderr is a terminal that can rewrite a line."""
        if not self.rewrites:
            return
        width = shutil.get_terminal_size().columns - 1
        text = harmless(text)[:width]
        if text != self._status:
            self._raw_err(_CLEAR_LINE + (f"\x1b[{DIM}m{text}\x1b[0m" if self.colors_err else text))
            self._status = text

    def clear_status(self) -> None:
        """Remove the status line, if there is one."""
        if self._status:
            self._status = ""
            self._raw_err(_CLEAR_LINE)

    @contextmanager
    def answer(self) -> Iterator["AnswerWriter"]:
        """Yield a writer for one streamed answer; on the way out its last line is ended, also after an exception."""
        writer = AnswerWriter(self)
        try:
            yield writer
        finally:
            writer.close()

    def _raw_err(self, text: str) -> None:
        if self.err is None:
            return
        with suppress(OSError, ValueError):
            self.err.write(text)
            self.err.flush()


class AnswerWriter:
    """Streams one answer to stdout, without blank lines before it and with exactly one newline after it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._held = ""
        self.started = False

    def write(self, delta: str) -> None:
        """Write a piece of the answer. Trailing line ends are held back until more text follows."""
        text = self._held + delta
        if not self.started:
            text = text.lstrip("\r\n")
        body = text.rstrip("\r\n")
        self._held = text[len(body) :]
        if body:
            if not self.started:
                self._terminal.end_thinking()
            self.started = True
            self._terminal.write(body)

    def close(self) -> None:
        """End the line, if anything was written."""
        if self.started:
            self._terminal.write("\n")
            self.started = False
