import errno
import json
import stat
from pathlib import Path

import pytest

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.chat_file import load_conversation, save_conversation
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Generated, ImagePart, Message, TextPart, ToolCall
from mimo_cli.errors import CapacityError, MediaError, MimoError, UsageError
from tests.support.chat_golden import subset_tokenizer
from tests.support.fake_media import fake_image
from tests.support.media_files import EXAMPLES
from tests.support.tiny_tokenizer import tiny_tokenizer

OPENER = MediaOpener()
TOKENIZER = tiny_tokenizer()
CAT = EXAMPLES / "cat.jpg"
TOOLS = [{"name": "f", "description": "tool é"}]


def conversation() -> Conversation:
    """Return a conversation with one of everything."""
    calls = (ToolCall("f", {"a": [1, None]}, "call_1"),)
    return Conversation(
        [
            Message.of("system", "Be brief."),
            Message.of("user", OPENER.open(CAT), OPENER.open(CAT.read_bytes()), "What?\u2028 中\n"),
            Message("assistant", (), "look", calls, generated=Generated((5, 6), False)),
            Message("tool", (TextPart("21"),), tool_call_id="call_1", name="f"),
            Message.of("assistant", "A cat."),
        ],
        TOOLS,
    )


def shape(messages: tuple[Message, ...]) -> list:
    """Media compare by identity; compare what they are made of."""
    return [
        (
            m.role,
            m.text,
            [p.media.num_tokens for p in m.media],
            m.reasoning,
            m.tool_calls,
            m.tool_call_id,
            m.name,
            m.generated,
        )
        for m in messages
    ]


def test_a_conversation_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    save_conversation(path, conversation(), TOKENIZER)
    loaded = load_conversation(path, OPENER.open, TOKENIZER)
    assert shape(loaded.messages) == shape(conversation().messages)
    assert loaded.tools == TOOLS
    assert loaded.messages[1].media[1].origin == CAT.read_bytes()


def test_the_file_is_readable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    save_conversation(path, conversation(), TOKENIZER)
    lines = path.read_text("utf-8").split("\n")
    assert [json.loads(line).get("role") for line in lines if line] == [
        None,
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert "中" in lines[2] and str(CAT.resolve()) in lines[2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["chat.jsonl"]


def test_ids_of_another_tokenizer_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    save_conversation(path, conversation(), TOKENIZER)
    assert all(
        message.generated is None for message in load_conversation(path, OPENER.open, subset_tokenizer()).messages
    )


def test_a_medium_that_is_gone_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "gone.jpg"
    picture.write_bytes(CAT.read_bytes())
    path = tmp_path / "chat.jsonl"
    save_conversation(path, Conversation([Message.of("user", OPENER.open(picture))]), TOKENIZER)
    picture.unlink()
    with pytest.raises(MediaError, match=r"gone\.jpg` does not exist"):
        load_conversation(path, OPENER.open, TOKENIZER)


HEAD = json.dumps({"mimo_chat": 1, "tokenizer": TOKENIZER.sha256, "tools": None}) + "\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is no conversation saved by mimo"),
        ('{"mimo_chat": 2}\n', "is no conversation saved by mimo"),
        (HEAD + "nonsense\n", "line 2 is not JSON"),
        (HEAD + "[]\n", "line 2 is not an object"),
        (HEAD + "{}\n", "line 2 is damaged: KeyError: 'role'"),
        (HEAD + '{"role": "robot", "content": []}\n', "unknown role 'robot'"),
        (HEAD + '{"role": "user", "content": 5}\n', "line 2 is damaged"),
        (HEAD + '{"role": "user", "content": [{"type": "scent"}]}\n', "unknown part 'scent'"),
        (HEAD + '{"role": "user", "content": [{"type": "image", "base64": "?"}]}\n', "line 2 is damaged"),
        (
            HEAD + '{"role": "assistant", "content": [], "ids": [-1], "thinking": true}\n',
            "an id is not in the vocabulary",
        ),
        (HEAD + '{"role": "assistant", "content": [], "ids": [99999], "thinking": true}\n', "an id is not in the voc"),
        (HEAD + '{"role": "assistant", "content": [], "ids": ["5"], "thinking": true}\n', "an id is not in the vocab"),
        (HEAD + '{"role": "assistant", "content": [], "ids": [5]}\n', "KeyError: 'thinking'"),
    ],
)
def test_a_damaged_file_is_a_usage_error(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=reason):
        load_conversation(path, OPENER.open, TOKENIZER)


def test_files_that_cannot_be_read_or_written_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_conversation(tmp_path / "absent.jsonl", OPENER.open, TOKENIZER)
    with pytest.raises(MimoError, match="cannot be written"):
        save_conversation(tmp_path / "no" / "chat.jsonl", conversation(), TOKENIZER)
    with pytest.raises(UsageError, match=r"`cat\.png` cannot be saved"):
        save_conversation(tmp_path / "x", Conversation([Message.of("user", ImagePart(fake_image()))]), TOKENIZER)


def test_a_full_disk_is_a_matter_of_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def vanished(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(Path, "unlink", vanished)
    with pytest.raises(CapacityError, match="No space left on device"):
        save_conversation(tmp_path / "chat.jsonl", conversation(), TOKENIZER)
