"""The commands that load no model: version, config, completion."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mimo_cli.commands import registry
from tests.support.cli import run_cli


def test_version_is_one_line_and_json_names_the_libraries(tmp_path: Path) -> None:
    plain = run_cli("version", home=tmp_path)
    assert plain.code == 0 and plain.out.startswith("mimo ") and plain.out.count("\n") == 1
    assert run_cli("--version", home=tmp_path).out == plain.out
    found = json.loads(run_cli("version", "--json", home=tmp_path).out)
    assert f"mimo {found['mimo']}\n" == plain.out
    assert found["torch"] and found["python"]
    assert "torch " in run_cli("version", "-v", home=tmp_path).out


def test_config_is_a_settings_file_with_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mimo.toml").write_text('temp = 0.5\n[chat]\nstop = ["a", "b\\n"]\n')
    run = run_cli("config", home=tmp_path, environ={"MIMO_CTX": "8k"})
    values = tomllib.loads(run.out)
    assert set(values) == set(registry.COMMANDS)
    assert values["chat"]["temp"] == 0.5 and values["chat"]["stop"] == ["a", "b\n"]
    lines = [" ".join(line.split()) for line in run.out.splitlines()]
    assert "temp = 0.5 # mimo.toml" in lines
    assert 'ctx = "8k" # MIMO_CTX' in lines
    assert "think = true # default" in lines
    assert "# seed = # default" in lines
    (tmp_path / "mimo.toml").write_text(run.out)
    assert "# allow-net = false # default" in lines
    assert run_cli("config", home=tmp_path).code == 0


def test_config_of_one_command_as_json(tmp_path: Path) -> None:
    document = json.loads(run_cli("config", "bench", "--json", home=tmp_path).out)
    assert list(document["commands"]) == ["bench"]
    assert document["commands"]["bench"]["repeats"] == {
        "name": "repeats",
        "value": 3,
        "origin": "default",
        "variable": "MIMO_REPEATS",
    }


def test_config_of_nothing_known_is_a_usage_error(tmp_path: Path) -> None:
    assert run_cli("config", "nonsense", home=tmp_path).code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_all_commands_and_flags(tmp_path: Path, shell: str) -> None:
    run = run_cli("completion", shell, home=tmp_path)
    assert (run.code, run.err) == (0, "")
    for name in registry.COMMANDS:
        assert name in run.out
    assert "max-tokens" in run.out and "no-think" in run.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = run_cli("completion", shell, home=tmp_path).out
    check = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True)
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mimo", "tr"], ["transcribe"]),
        (["mimo", "chat", "--no-th"], ["--no-think"]),
        (["mimo", "--imag"], ["--image", "--image-faithful"]),
        (["mimo", "completion", "z"], ["zsh"]),
        (["mimo", "transcribe", "spee"], ["speech one.wav"]),
    ],
)
def test_bash_completes_commands_flags_and_files(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "speech one.wav").touch()
    script = run_cli("completion", "bash", home=tmp_path).out
    quoted = " ".join(f"'{word}'" for word in words)
    script += f"\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mimo; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    run = subprocess.run(["bash"], input=script, text=True, capture_output=True, cwd=tmp_path)
    assert run.stdout.splitlines() == expected


def test_completion_of_an_unknown_shell_is_a_usage_error(tmp_path: Path) -> None:
    run = run_cli("completion", "csh", home=tmp_path)
    assert run.code == 2 and run.err.count("\n") == 1
