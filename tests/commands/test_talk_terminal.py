"""The dialogue in a real pseudo-terminal, on the bundled miniature."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.screen import LIMIT_S, PROMPT, ROOT, Screen


def test_a_dialogue_in_a_terminal(tmp_path: Path) -> None:
    screen = Screen("chat", "--no-think", "--seed", "1", "-n", "8", home=tmp_path)
    screen.wait_for(PROMPT)
    assert "demonstration model, not MiMo-V2.5" in screen.text
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
