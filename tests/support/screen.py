"""A program in a pseudo-terminal, for tests of what people see and press."""

import os
import re
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

fcntl = pytest.importorskip("fcntl", reason="needs pseudo-terminals")
pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
termios = pytest.importorskip("termios", reason="needs pseudo-terminals")

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
PROMPT = re.compile(r"mimo \S+/32k>")


class Screen:
    """A program in a pseudo-terminal: what it drew so far, and keys to press.

    program: arguments of the interpreter, those of the program behind them.
    """

    def __init__(self, *argv: str, home: Path, program: Sequence[str] = ("-m", "mimo_cli")) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MIMO_", "XDG_"))}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
            environ = {**kept, "HOME": str(home), "TERM": "xterm"}
            os.execve(sys.executable, [sys.executable, *program, *argv], environ)
        self.text = ""

    def wait_for(self, pattern: str | re.Pattern[str], count: int = 1) -> None:
        """Read until a pattern was drawn so many times."""
        deadline = time.monotonic() + LIMIT_S
        while len(re.findall(pattern, self.text)) < count:
            if time.monotonic() > deadline or not self._read():
                pytest.fail(f"{pattern} did not come {count} times; the screen so far:\n{self.text}")

    def press(self, keys: str) -> None:
        """Type some keys."""
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + LIMIT_S
        while self._read():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            if not select.select([self.master], [], [], LIMIT_S)[0]:
                os.kill(self.pid, signal.SIGKILL)
            drawn = os.read(self.master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]", "", drawn.decode("utf-8", "replace"))
        # A program asks where the cursor is and waits for the answer.
        if b"\x1b[6n" in drawn:
            self.press("\x1b[1;1R")
        return bool(drawn)
