"""`mimo miniature`: what it writes, what it says where, and what it refuses."""

from pathlib import Path

import pytest

from mimo_cli.app import main
from mimo_cli.miniature.bundled import is_miniature
from tests.support.miniature import random_miniature


def test_the_folder_is_the_answer_and_the_rest_goes_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    assert main(["miniature", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}\n"
    assert "random-weight miniature, seed 0" in err and "4.88 MB" in err
    assert is_miniature(folder)


def test_the_default_seed_is_always_the_same(tmp_path: Path) -> None:
    assert main(["miniature", str(tmp_path / "tiny"), "-q"]) == 0
    shard = "model_pp0_ep0_shard1.safetensors"
    assert (tmp_path / "tiny" / shard).read_bytes() == (random_miniature() / shard).read_bytes()


def test_the_seed_changes_the_weights(tmp_path: Path) -> None:
    assert main(["miniature", str(tmp_path / "tiny"), "--seed", "7", "-q"]) == 0
    shard = "model_mtp.safetensors"
    assert (tmp_path / "tiny" / shard).read_bytes() != (random_miniature() / shard).read_bytes()


def test_quiet_says_nothing_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["miniature", str(tmp_path / "tiny"), "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["miniature", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "exists and is not empty. TRY: name a folder that is new or empty" in err


def test_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["miniature", str(tmp_path / "file")]) == 2
    assert "is not empty" in capsys.readouterr().err
