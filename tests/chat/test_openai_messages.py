import base64
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.chat.messages import AudioPart, ImagePart, Message, TextPart, ToolCall, VideoPart
from mimo_cli.chat.openai_messages import read_messages, split_inline_reasoning
from mimo_cli.errors import UsageError
from tests.support.fake_media import fake_audio, fake_image, fake_video

PICTURE, FILM, TALK = ImagePart(fake_image()), VideoPart(fake_video()), AudioPart(fake_audio())


class Opener:
    """Remembers what it was asked to open."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str | None]] = []

    def __call__(self, reference: str | Path | bytes, kind: str | None = None) -> ImagePart | VideoPart | AudioPart:
        self.asked.append((reference, kind))
        parts: dict[str | None, ImagePart | VideoPart | AudioPart] = {"image": PICTURE, "video": FILM, "audio": TALK}
        return parts[kind]


def read(*values: Any) -> list[Message]:
    return read_messages(values, Opener())


def part(value: Any) -> tuple[Any, Any]:
    """Return the part made of a value and what was opened for it."""
    opener = Opener()
    (message,) = read_messages([{"role": "user", "content": [value]}], opener)
    return message.parts[0], opener.asked


def test_strings_nulls_and_parts_are_contents() -> None:
    assert read({"role": "user", "content": "a"})[0].parts == (TextPart("a"),)
    assert read({"role": "user", "content": None})[0].parts == () == read({"role": "user"})[0].parts
    assert read({"role": "user", "content": ["a", {"type": "text", "text": "b"}]})[0].text == "ab"


@pytest.mark.parametrize(
    ("value", "reference", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "file:///a.png"}}, "file:///a.png", "image"),
        ({"type": "image_url", "image_url": "a.png"}, "a.png", "image"),
        ({"type": "video_url", "video_url": {"url": "v.mp4"}}, "v.mp4", "video"),
        ({"type": "audio_url", "audio_url": {"url": "t.wav"}}, "t.wav", "audio"),
        ({"type": "image", "path": "a.png"}, "a.png", "image"),
        ({"type": "image", "image": "a.png"}, "a.png", "image"),
        ({"image": Path("a.png")}, Path("a.png"), "image"),
        ({"type": "video", "url": "v.mp4"}, "v.mp4", "video"),
        ({"type": "audio", "data": b"RIFF"}, b"RIFF", "audio"),
    ],
)
def test_media_parts_say_where_they_are(value: dict, reference: Any, kind: str) -> None:
    assert part(value)[1] == [(reference, kind)]


def test_input_audio_is_decoded() -> None:
    value = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFFxx").decode(), "format": "wav"}}
    assert part(value) == (TALK, [(b"RIFFxx", "audio")])


def test_opened_parts_and_messages_pass_through() -> None:
    assert part(PICTURE) == (PICTURE, [])
    message = Message.of("user", "x")
    assert read(message) == [message]


def test_a_developer_is_a_system() -> None:
    assert read({"role": "developer", "content": "x"})[0].role == "system"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_three_names(key: str) -> None:
    assert read({"role": "assistant", "content": "b", key: "a"})[0].reasoning == "a"


def test_inline_reasoning_is_moved_unless_the_field_is_there() -> None:
    (message,) = read({"role": "assistant", "content": "<think>\na\n</think>\n\nb"})
    assert (message.reasoning, message.text) == ("\na\n", "\n\nb")
    (message,) = read({"role": "assistant", "content": "<think>a</think>b", "reasoning_content": ""})
    assert (message.reasoning, message.text) == ("", "<think>a</think>b")
    assert read({"role": "assistant", "content": "b"})[0].reasoning is None
    assert split_inline_reasoning("x<think>a<think>b</think>c</think>d") == ("b", "d")


def call(call_id: str | None, name: str = "f", arguments: Any = "{}") -> dict:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*values: dict) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(values)}


def result(call_id: str | None, content: str) -> dict:
    return {"role": "tool", "content": content, **({"tool_call_id": call_id} if call_id else {})}


def test_calls_are_decoded() -> None:
    message = read(calls(call("a", arguments='{"x": 1}'), call(None, arguments=None), {"name": "g"}))[0]
    assert message.tool_calls == (ToolCall("f", {"x": 1}, "a"), ToolCall("f", {}), ToolCall("g", {}))


def test_results_come_in_the_order_of_their_calls() -> None:
    messages = read(calls(call("a"), call("b")), result("b", "2"), result("a", "1"), {"role": "user", "content": "x"})
    assert [message.text for message in messages] == ["", "1", "2", "x"]


def test_results_without_ids_are_told_apart_by_place() -> None:
    assert [m.text for m in read(calls(call(None), call(None)), result(None, "1"), result(None, "2"))] == ["", "1", "2"]


def test_the_last_calls_may_still_be_unanswered() -> None:
    assert len(read(calls(call("a")))) == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([calls(call("a")), result("z", "1")], r"message 1: results for calls \['z'\], but the calls made are \['a'\]"),
        ([calls(call("a"), call("b")), result("a", "1")], r"the calls made are \['a', 'b'\]"),
        ([calls(call("a")), result("a", "1"), result("a", "2")], "results for calls"),
        ([calls(call(None), call(None)), result(None, "1")], r"2 tool call\(s\), 1 result\(s\)"),
        ([calls(call("a")), {"role": "user", "content": "x"}], r"1 tool call\(s\), 0 result"),
        ([{"role": "user", "content": "x"}, result("a", "1")], "message 2: a tool result follows no tool call"),
        ([result("a", "1")], "message 1: a tool result follows no tool call"),
        ([calls(call("a", arguments="[]"))], "message 1: the arguments of a tool call must be an object"),
        ([calls(call(5))], "message 1: `id` must be a string, found int"),
        ([calls({})], "not a function with a name"),
        ([{"role": "robot", "content": "x"}], "unknown role 'robot'"),
        (["x"], "message 1 is not an object"),
        ([{"role": "user", "content": 5}], "content must be a string or a list"),
        ([{"role": "user", "content": [5]}], "must be an object, found int"),
        ([{"role": "user", "content": [{"type": "file"}]}], "unknown content part of type 'file'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "says nothing about where the image is"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "no base64 `data`"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "?"}}]}], "not base64"),
        ([{"role": "tool", "content": "x", "tool_call_id": 5}], "`tool_call_id` must be a string"),
        ([], "at least one message"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(values: list, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read(*values)


def test_messages_must_be_a_list() -> None:
    with pytest.raises(UsageError, match="must be a list"):
        read_messages({"role": "user"}, Opener())  # type: ignore[arg-type]
