"""Ctrl-C, as a real signal to a real `mimo`, while experts are being read from disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.kernels import needs_kernels
from tests.support.miniature import random_miniature
from tests.support.screen import LIMIT_S, PROMPT, ROOT, Screen

pytestmark = [needs_kernels, pytest.mark.skipif(not hasattr(os, "preadv"), reason="reads are slowed down in preadv")]

IN_PROMPT, IN_ANSWER = 12, 130
"""Numbers of reads: a prompt reads at most 40 experts, every token after it about ten."""


def program(home: Path, read: int, *argv: str) -> list[str]:
    """The command line of a `mimo chat ARGV` of which one read takes long, on a model that seldom ends an answer."""
    model = str(random_miniature())
    return ["-m", "tests.support.slow_disk_mimo", str(home), str(read), "chat", "-m", model, "--no-think", *argv]


def start(home: Path, read: int, *argv: str) -> subprocess.Popen[str]:
    """Start `mimo chat ARGV` with streams of its own and HOME `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MIMO_", "XDG_"))}
    return subprocess.Popen(
        [sys.executable, *program(home, read, "--seed", "1", "-n", "60", *argv, "hello there")],
        cwd=ROOT,
        env={**kept, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_read(home: Path) -> None:
    """Return when the slow read is under way."""
    deadline = time.monotonic() + LIMIT_S
    while not (home / "reading").exists():
        if time.monotonic() > deadline:
            pytest.fail("the read did not come")
        time.sleep(0.02)
    time.sleep(0.2)  # by then the step waits for it


def interrupted(home: Path, read: int, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """Interrupt a `mimo chat` inside a read; returns exit code, stdout and stderr."""
    process = start(home, read)
    try:
        wait_for_read(home)
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def left_behind(home: Path) -> list[str]:
    """Files below a home that no finished program leaves."""
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    return [name for name in files if name != "reading" and not name.endswith(".json")]


@pytest.fixture(scope="module")
def whole_answer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the program says when nobody interrupts it."""
    out, err = start(tmp_path_factory.mktemp("whole"), 10**6).communicate(timeout=LIMIT_S)
    assert out, err
    return out


def test_during_the_prompt_it_leaves_with_130_and_nothing_on_stdout(tmp_path: Path) -> None:
    code, out, err = interrupted(tmp_path, IN_PROMPT)
    assert (code, out) == (130, "")
    assert "Traceback" not in err and left_behind(tmp_path) == []


def test_during_the_answer_it_leaves_with_130_and_keeps_what_was_said(tmp_path: Path, whole_answer: str) -> None:
    code, out, err = interrupted(tmp_path, IN_ANSWER)
    said = out.rstrip("\n")
    assert code == 130 and 0 < len(said) < len(whole_answer.rstrip("\n")) and whole_answer.startswith(said)
    assert "Traceback" not in err and left_behind(tmp_path) == []


def test_sigterm_during_a_read_leaves_with_143(tmp_path: Path) -> None:
    code, _, err = interrupted(tmp_path, IN_ANSWER, signal.SIGTERM)
    assert code == 143
    assert "Traceback" not in err and left_behind(tmp_path) == []


def test_a_dialogue_goes_on_after_it(tmp_path: Path) -> None:
    screen = Screen("--seed", "1", home=tmp_path, program=program(tmp_path, IN_ANSWER, "-n", "40"))
    screen.wait_for(PROMPT)
    screen.press("hello there\r")
    wait_for_read(tmp_path)
    screen.press("\x03")
    screen.wait_for(PROMPT, 2)
    screen.press("/regen\r")  # the same question, from the experts and keys that the interrupted turn left
    screen.wait_for(r"answer 40 tok[\s\S]*mimo \S+/32k>")
    screen.press("\x04")
    assert screen.end() == 0
    assert "Traceback" not in screen.text
