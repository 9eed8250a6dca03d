from pathlib import Path
from typing import Any

import pytest

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.messages import ImagePart, ToolCall
from mimo_cli.errors import UsageError
from mimo_cli.evaluation.item import Item, ItemFiles, balanced, read_item, read_items
from tests.support.eval_items import WEATHER, asked, item, small_folder, write_items
from tests.support.media_files import encode_picture, smooth_picture


def test_a_folder_gives_every_item_with_its_files(tmp_path: Path) -> None:
    items = read_items(small_folder(tmp_path))
    assert [item.task for item in items] == ["pictures"] * 2 + ["speech"] * 3 + ["text"] * 2 + ["tools"]
    assert [item.senses for item in items[:3]] == [{"image"}, {"image"}, {"audio"}]
    call = items[-1]
    assert call.scoring == "tool_calls" and call.tools == (WEATHER,)
    assert call.tool_calls == (ToolCall("weather", {"city": "Rome", "days": 2}),)


def test_only_the_tasks_asked_for_are_read(tmp_path: Path) -> None:
    (small_folder(tmp_path) / "speech.jsonl").write_text("no JSON")
    assert {item.task for item in read_items(tmp_path, ["text", "tools"])} == {"text", "tools"}
    with pytest.raises(UsageError, match=r"speech.jsonl` line 1 is no JSON"):
        read_items(tmp_path)


def test_media_come_from_the_archive_of_the_task_or_from_the_folder(tmp_path: Path) -> None:
    first = read_items(small_folder(tmp_path), ["pictures"])[0]
    picture = first.read(MediaOpener())[0].media[0]
    assert isinstance(picture, ImagePart) and isinstance(picture.origin, bytes)
    (tmp_path / "0.png").write_bytes(encode_picture(smooth_picture(200, 120), ".png"))
    picture = first.read(MediaOpener())[0].media[0]
    assert picture.origin == tmp_path / "0.png"


def test_media_may_be_bytes_in_the_item_itself() -> None:
    content = [{"type": "image", "data": encode_picture(smooth_picture(), ".png")}, {"type": "text", "text": "?"}]
    message = Item("i", "pictures", "", ({"role": "user", "content": content},), ("x",)).read(MediaOpener())[0]
    assert isinstance(message.media[0], ImagePart) and message.text == "?"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b"])
def test_no_item_reaches_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="outside of"):
        ItemFiles(tmp_path, "pictures").read(name)


def test_a_missing_medium_and_a_damaged_archive_are_named(tmp_path: Path) -> None:
    small_folder(tmp_path)
    with pytest.raises(UsageError, match=r"`9.png` is neither in .* nor in pictures.zip"):
        ItemFiles(tmp_path, "pictures").read("9.png")
    (tmp_path / "pictures.zip").write_bytes(b"PK no archive")
    with pytest.raises(UsageError, match=r"pictures.zip` cannot be read"):
        ItemFiles(tmp_path, "pictures").read("0.png")


GOOD: dict[str, Any] = {"id": "a", "task": "text", "messages": asked("?"), "answers": ["x"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "is not an object"),
        ({**GOOD, "anser": ["x"]}, "unknown field `anser`"),
        ({**GOOD, "id": ""}, "`id` must be a text"),
        ({**GOOD, "kind": 3}, "`kind` must be a text"),
        ({**GOOD, "answers": []}, "needs `answers`"),
        ({**GOOD, "answers": "x"}, "`answers` must be a list"),
        ({**GOOD, "answers": [1]}, "needs `answers`"),
        ({**GOOD, "messages": []}, "`messages` must be a list of objects"),
        ({**GOOD, "scoring": "close"}, "scoring 'close' is none of exact, words, tool_calls"),
        ({**GOOD, "scoring": "tool_calls"}, "or `tool_calls` where they are scored"),
        ({**GOOD, "tool_calls": [{"arguments": {}}]}, "has a `name`"),
        ({**GOOD, "tool_calls": [{"name": "f", "arguments": "{}"}]}, "are an object"),
    ],
)
def test_what_is_no_item_says_why(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_item(value, "line 1")


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no items"):
        read_items(tmp_path)


def test_kinds_and_groups_take_turns() -> None:
    items = [item(id=f"{g}{k}{i}", group=g, kind=k) for g in ("", "noise") for k in ("sum", "copy") for i in range(3)]
    order = [found.id for found in balanced(items)]
    assert order[:4] == ["sum0", "copy0", "noisesum0", "noisecopy0"] and sorted(order) == sorted(i.id for i in items)


def test_the_task_of_a_line_is_the_name_of_its_file(tmp_path: Path) -> None:
    write_items(tmp_path, "riddles", [{"messages": asked("?"), "answers": ["x"]}])
    assert read_items(tmp_path)[0].task == "riddles"
