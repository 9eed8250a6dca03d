from pathlib import Path

import pytest

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.named_files import user_path
from tests.support.media_files import EXAMPLES


def test_a_tilde_is_a_home_folder_or_part_of_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.txt") == tmp_path / "a.txt"
    assert user_path("~no such user.png") == Path("~no such user.png")


def test_media_may_be_called_like_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~tmp.jpg").write_bytes((EXAMPLES / "cat.jpg").read_bytes())
    assert MediaOpener().open("~tmp.jpg").origin == Path("~tmp.jpg")
