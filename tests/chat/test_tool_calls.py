import re

import pytest

from mimo_cli.chat.events import TextDelta, ToolCallEvent
from mimo_cli.chat.tool_calls import ToolCallReader

TOOLS = [{"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}]
CALL = "<tool_call>\n<function=f>\n<parameter=n>5</parameter>\n</function>\n</tool_call>"


def read(text: str, size: int, tools=TOOLS, is_stop: bool = True) -> tuple[str, list[tuple[str, dict]]]:
    """Return content and calls of an answer fed in chunks."""
    reader = ToolCallReader(tools)
    events = [event for i in range(0, len(text), size) for event in reader.feed(text[i : i + size])]
    events += reader.finish(is_stop)
    calls = [event for event in events if isinstance(event, ToolCallEvent)]
    assert [event.index for event in calls] == list(range(len(calls)))
    content = "".join(event.text for event in events if isinstance(event, TextDelta))
    return content, [(event.call.name, dict(event.call.arguments)) for event in calls]


F5 = ("f", {"n": 5})


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("a" + CALL + "b", "ab", [F5]),
        (f"{CALL}\n \n{CALL}", "", [F5, F5]),
        (f"{CALL}\n b {CALL}\n", "\n b ", [F5, F5]),
        (f"\n{CALL}", "\n", [F5]),
        (f"{CALL} \n", "", [F5]),
        (f"{CALL} <tool_call>no</tool_call> {CALL}", " <tool_call>no</tool_call> ", [F5, F5]),
        (f"say <tool_call> so: {CALL}", "say <tool_call> so: ", [F5]),
        (CALL.replace("=f", "=g"), CALL.replace("=f", "=g"), []),
        (CALL.removesuffix("</tool_call>"), "", [F5]),
        (CALL.removesuffix("\n</tool_call>"), "", [F5]),
        (CALL.removesuffix("</function>\n</tool_call>"), CALL.removesuffix("</function>\n</tool_call>"), []),
        ("x<tool_cal", "x<tool_cal", []),
        ("x<", "x<", []),
    ],
)
def test_calls_are_read_and_the_text_around_them_kept(text: str, content: str, calls: list) -> None:
    assert all(read(text, size) == (content, calls) for size in range(1, len(text) + 1))


def test_a_missing_end_tag_is_forgiven_only_to_a_model_that_stopped_itself() -> None:
    text = CALL.removesuffix("</tool_call>")
    assert read(text, 7, is_stop=False) == (text, [])


def test_without_tools_everything_is_content_at_once() -> None:
    for tools in (None, []):
        assert ToolCallReader(tools).feed("a <tool_c") == [TextDelta("content", "a <tool_c")]
        assert read(CALL, 1, tools) == (CALL, [])


def test_content_flows_until_a_tag_might_begin() -> None:
    reader = ToolCallReader(TOOLS)
    assert reader.feed("text <too") == [TextDelta("content", "text ")]
    assert reader.feed("k") == [TextDelta("content", "<took")]
    assert reader.feed("<tool_call>") == [] and reader.feed("abc") == []


def test_a_call_comes_whole_as_soon_as_its_block_ends() -> None:
    reader = ToolCallReader(TOOLS)
    assert reader.feed(CALL[:-1]) == []
    (event,) = reader.feed(">")
    assert isinstance(event, ToolCallEvent) and (event.call.name, event.call.arguments) == F5
    assert re.fullmatch(r"call_[0-9a-f]{24}", event.call.id or "")
