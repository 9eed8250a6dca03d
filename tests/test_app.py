import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mimo_cli.app import overall_help, route
from mimo_cli.commands import registry
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import error_text
from tests.support.cli import run_cli
from tests.support.fake_engine import Script, scripted

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "routed"),
    [
        ([], ("chat", [])),
        (["chat", "hi"], ("chat", ["hi"])),
        (["what is this?"], ("chat", ["what is this?"])),
        (["hello"], ("chat", ["hello"])),
        (["--image", "cat.png", "what?"], ("chat", ["--image", "cat.png", "what?"])),
        (["-q", "bench", "-p", "8"], ("bench", ["-q", "-p", "8"])),
        (["-m", "tiny", "--color", "never", "inspect"], ("inspect", ["-m", "tiny", "--color", "never"])),
        (["-", "summarize"], ("chat", ["-", "summarize"])),
        (["bench mark this"], ("chat", ["bench mark this"])),
        (["--color=always", "inspect"], ("inspect", ["--color=always"])),
        (["--model=DIR", "doctor"], ("doctor", ["--model=DIR"])),
        (["-mDIR", "inspect"], ("inspect", ["-mDIR"])),
        (["-qjm", "DIR", "inspect"], ("inspect", ["-qjm", "DIR"])),
        (["-j", "inspect"], ("inspect", ["-j"])),
        (["--json", "version"], ("version", ["--json"])),
        (["--json", "inspect this"], ("chat", ["--json", "inspect this"])),
        (["ask", "why?"], ("chat", ["why?"])),
        (["-q", "run", "why?"], ("chat", ["-q", "why?"])),
        (["convert", "SRC", "DST"], ("quantize", ["SRC", "DST"])),
        (["serve it"], ("chat", ["serve it"])),
    ],
)
def test_a_command_line_finds_its_command(arguments: list[str], routed: tuple[str, list[str]]) -> None:
    assert route(arguments) == routed


@pytest.mark.parametrize("word", ["trasncribe", "benhc", "inspec"])
def test_a_mistyped_command_is_no_question(word: str) -> None:
    with pytest.raises(UsageError, match=f"there is no command `{word}`"):
        route([word])


@pytest.mark.parametrize("word", registry.ABSENT)
def test_a_command_that_this_version_lacks_is_no_question(word: str) -> None:
    for arguments, question in (([word], word), (["-q", word, "--port", "80"], f"{word} ...")):
        with pytest.raises(UsageError, match=f"there is no command `{word}` in this version") as caught:
            route(arguments)
        assert caught.value.hint is not None and f'mimo chat "{question}"' in caught.value.hint
    assert word not in registry.COMMANDS and word not in registry.ALIASES


def test_help_fits_one_screen_with_three_examples(tmp_path: Path) -> None:
    run = run_cli("--help", home=tmp_path)
    assert (run.code, run.out, run.err) == (0, overall_help(), "")
    assert run.out.count("\n") <= 30 and max(map(len, run.out.splitlines())) <= 80
    examples = run.out.partition("examples:\n")[2].split("\n\n")[0].splitlines()
    assert len(examples) == 3 and all(line.startswith("  ") for line in examples)
    for name in registry.COMMANDS:
        assert f"\n  {name} " in run.out


@pytest.mark.parametrize("name", registry.COMMANDS)
def test_every_command_has_a_one_screen_help_with_runnable_examples(tmp_path: Path, name: str) -> None:
    run = run_cli(name, "--help", home=tmp_path, environ={"COLUMNS": "80"})
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith(f"usage: mimo {name} ")
    assert run.out.count("\n") <= 32 and max(map(len, run.out.splitlines())) <= 80
    examples = [line for line in run.out.partition("examples:\n")[2].splitlines() if line.startswith("  ")]
    assert len(examples) >= 3 and all("mimo" in line for line in examples)


@pytest.mark.parametrize("name", registry.COMMANDS)
def test_help_all_shows_every_option(tmp_path: Path, name: str) -> None:
    options = registry.load_command(name).options()
    for argv in ((name, "--help-all"), ("help", name)):
        run = run_cli(*argv, home=tmp_path)
        assert run.code == 0
        assert all(flag in run.out for option in options for flag in option.opts)


def test_help_on_nothing_known_is_a_usage_error(tmp_path: Path) -> None:
    assert run_cli("help", "nonsense", home=tmp_path).code == 2
    assert run_cli("help", home=tmp_path).out == overall_help()


def test_help_is_fast_and_light(tmp_path: Path) -> None:
    times_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mimo_cli", "--help"], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The promise is 0.25 s on an idle machine. Processor time, as a busy machine stretches the other without limit.
    assert min(times_s) <= 0.25


def test_parser_errors_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    run = run_cli("bench", "--repeats", "many", home=tmp_path)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("mimo: error: invalid value for '-r'") and run.err.endswith("TRY: mimo bench --help\n")
    assert run.err.count("\n") == 1


def test_errors_are_red_where_colour_is_wanted(tmp_path: Path) -> None:
    plain = run_cli("benhc", home=tmp_path, terminal=True, environ={"NO_COLOR": "1"})
    assert "\x1b[" not in plain.err
    assert run_cli("benhc", home=tmp_path, terminal=True).err.startswith("\x1b[31;1mmimo: error: ")
    assert run_cli("benhc", home=tmp_path, terminal=True, environ={"MIMO_COLOR": "never"}).err == plain.err
    assert run_cli("version", "--bad", "--color", "always", home=tmp_path).err.startswith("\x1b[31;1m")


def test_an_error_line_says_what_and_what_to_try() -> None:
    assert error_text("a\nb.", "mimo  x") == "a b. TRY: mimo x"
    assert error_text("a", None) == "a"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 4, "cannot write: No space left on device"),
        (MemoryError("need 9 GB"), 4, "out of memory: need 9 GB"),
        (BrokenPipeError(), 141, ""),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero. This is a bug in mimo"),
    ],
)
def test_failures_have_their_exit_codes(tmp_path: Path, error: Exception, code: int, text: str) -> None:
    def fail() -> None:
        raise error

    loader = scripted(Script("x", {0: fail}))
    run = run_cli("-q", "hi", home=tmp_path, commands__loading__load_engine=loader)
    assert run.code == code
    assert run.err == "" if not text else text in run.err and run.err.count("\n") == 1


def mimo(*argv: str, **options: object) -> subprocess.Popen[bytes]:
    """Start the real program on the bundled miniature."""
    command = [sys.executable, "-m", "mimo_cli", *argv]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MIMO_")}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=ROOT, env=environ, **pipes)  # type: ignore[call-overload, no-any-return]


def test_a_closed_pipe_ends_the_run_quietly() -> None:
    process = mimo("-q", "--no-think", "--seed", "1", "tell me more")
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(timeout=120) == 141
    assert process.stderr.read() == b""  # type: ignore[union-attr]


def test_help_into_a_closed_pipe_is_quiet_too() -> None:
    process = mimo("--help")
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(timeout=60) in (0, 141)
    assert process.stderr.read() == b""  # type: ignore[union-attr]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_exit_4() -> None:
    with Path("/dev/full").open("wb") as full:
        process = mimo("--help", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert err == b"mimo: error: cannot write: No space left on device. TRY: make room on the disk and run again\n"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_the_program_answers_from_a_shell_pipeline(tmp_path: Path) -> None:
    script = f"echo text | '{sys.executable}' -m mimo_cli -q --seed 3 --no-think -n 12 'sum up' > '{tmp_path}/out.md'"
    subprocess.run(["sh", "-c", script], cwd=ROOT, check=True, timeout=120)
    text = (tmp_path / "out.md").read_text("utf-8")
    assert text.endswith("\n") and text.strip()
