"""The dialogue in a real pseudo-terminal, on the bundled miniature."""

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

fcntl = pytest.importorskip("fcntl", reason="needs pseudo-terminals")
pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
termios = pytest.importorskip("termios", reason="needs pseudo-terminals")

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
PROMPT = re.compile(r"mimo \S+/32k>")


class Screen:
    """A program in a pseudo-terminal: what it drew so far, and keys to press."""

    def __init__(self, *argv: str, home: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MIMO_", "XDG_"))}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
            environ = {**kept, "HOME": str(home), "TERM": "xterm"}
            os.execve(sys.executable, [sys.executable, "-m", "mimo_cli", *argv], environ)
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


def test_a_dialogue_in_a_terminal(tmp_path: Path) -> None:
    screen = Screen("chat", "--no-think", "--seed", "1", "-n", "8", home=tmp_path)
    screen.wait_for(PROMPT)
    assert "random-weight miniature" in screen.text
    screen.press("hello\r")
    screen.wait_for(r"prompt \d+ tok.* \| answer \d+ tok[\s\S]*mimo \S+/32k>")
    screen.press("half a line\x03")  # Ctrl-C clears it
    screen.press("/nonsense\r")
    screen.wait_for("there is no command `/nonsense`")
    screen.press("/undo\r")
    screen.wait_for(r"taken back: hello[\s\S]*mimo \S+/32k>")  # keys typed before the prompt go through the cooked line
    screen.press("\x04")  # Ctrl-D leaves
    assert screen.end() == 0
    assert "Traceback" not in screen.text
    (saved,) = (tmp_path / ".local/state/mimo/chats").glob("*.jsonl")
    assert f"mimo chat --resume {saved.stem} goes on" in screen.text
    assert (tmp_path / ".local/state/mimo/history").read_text().count("+hello") == 1


def test_ctrl_c_while_the_prompt_is_read_leaves_a_script_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mimo_cli", "--no-think", "what is this?"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stderr and process.stdout
    process.stdin.write(b"some words that take a while to read\n" * 1200)
    process.stdin.close()
    for line in process.stderr:
        if b"lossy" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT_S) == 130
    assert process.stdout.read() == b""
    assert b"Traceback" not in process.stderr.read()
