import os
from pathlib import Path

import pytest

from mimo_cli.commands.saved_chats import chats_folder, find_chat, new_chat_path, saved_chats
from mimo_cli.errors import UsageError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_new_chats_never_take_an_old_ones_name() -> None:
    paths = []
    for _ in range(3):
        paths.append(new_chat_path())
        paths[-1].touch()
    assert len(set(paths)) == 3
    assert chats_folder().stat().st_mode & 0o777 == 0o700


def test_the_latest_is_found_without_a_name() -> None:
    folder = new_chat_path().parent
    for age, name in enumerate(("c", "a", "b")):
        (folder / f"{name}.jsonl").touch()
        os.utime(folder / f"{name}.jsonl", (1000 - age, 1000 - age))
    assert [path.stem for path in saved_chats()] == ["c", "a", "b"]
    assert find_chat(None) == folder / "c.jsonl"


def test_a_chat_is_found_by_name_with_suffix_or_path(tmp_path: Path) -> None:
    (new_chat_path().parent / "mine.jsonl").touch()
    (tmp_path / "else.jsonl").touch()
    assert find_chat("mine") == find_chat("mine.jsonl") == chats_folder() / "mine.jsonl"
    assert find_chat(str(tmp_path / "else.jsonl")) == tmp_path / "else.jsonl"


def test_what_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no saved dialogue in"):
        find_chat(None)
    (new_chat_path().parent / "mine.jsonl").touch()
    with pytest.raises(UsageError, match="no saved dialogue `mein`") as caught:
        find_chat("mein")
    assert caught.value.hint == "mimo chat --resume mine"
