import pytest

from mimo_cli.chat.events import Notice, TextDelta
from mimo_cli.chat.reasoning import CALL_IN_REASONING, ReasoningReader

CALL = "<tool_call>\n<function=f>\n</function>\n</tool_call>"


def read(text: str, has_tools: bool = False, size: int = 1) -> tuple[str, str, list[str]]:
    """Return reasoning, content and notices of a text fed in chunks."""
    reader = ReasoningReader(has_tools)
    events = [event for i in range(0, len(text), size) for event in reader.feed(text[i : i + size])] + reader.finish()
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert all(delta.text for delta in deltas)
    joined = {kind: "".join(d.text for d in deltas if d.kind == kind) for kind in ("reasoning", "content")}
    return joined["reasoning"], joined["content"], [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>a</think>b", "a", "b"),
        (" \n<think>a</think>b", "a", "b"),
        ("<think><think><think>a</think>b", "a", "b"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>a</thin", "a</thin", ""),
        ("<think><thi", "<thi", ""),
        ("<thi", "", "<thi"),
        ("  ", "", "  "),
        ("", "", ""),
        (" a<think>b</think>", "", " a<think>b</think>"),
        ("<think>", "", ""),
    ],
)
def test_reasoning_is_what_an_opener_at_the_start_opens(text: str, reasoning: str, content: str) -> None:
    for size in range(1, len(text) + 2):
        assert read(text, size=size) == (reasoning, content, [])


def test_text_that_might_become_a_tag_is_held_back() -> None:
    reader = ReasoningReader(has_tools=False)
    assert reader.feed("<th") == [] and not reader.is_reasoning
    assert reader.feed("ink>abc</th") == [TextDelta("reasoning", "abc")] and reader.is_reasoning
    assert reader.feed("e</think>x") == [TextDelta("reasoning", "</the"), TextDelta("content", "x")]
    assert not reader.is_reasoning


def test_text_flows_at_once_where_nothing_can_become_a_tag() -> None:
    reader = ReasoningReader(has_tools=False)
    reader.feed("<think>")
    assert reader.feed("word") == [TextDelta("reasoning", "word")]
    reader.feed("</think>")
    assert reader.feed("a <think>") == [TextDelta("content", "a <think>")]


def test_a_call_in_closed_reasoning_is_only_noticed() -> None:
    assert read(f"<think>a{CALL}b</think>c", has_tools=True) == (f"a{CALL}b", "c", [CALL_IN_REASONING])
    assert read(f"<think>a{CALL}b</think>c", has_tools=False) == (f"a{CALL}b", "c", [])


def test_half_a_call_in_reasoning_is_no_call() -> None:
    assert read("<think>a <tool_call> b</think>c", has_tools=True) == ("a <tool_call> b", "c", [])
    assert read("<think>a <tool_call> b", has_tools=True) == ("a <tool_call> b", "", [])


def test_a_complete_call_ends_reasoning_that_never_closes() -> None:
    assert read(f"<think>a{CALL}b", has_tools=True) == ("a", f"{CALL}b", [])
    assert read(f"<think>say <tool_call>, then{CALL}", has_tools=True) == ("say <tool_call>, then", CALL, [])
    assert read(f"<think>a{CALL}b", has_tools=False) == (f"a{CALL}b", "", [])


def test_reasoning_stays_under_way_while_a_call_is_held() -> None:
    reader = ReasoningReader(has_tools=True)
    reader.feed("<think>a<tool_call>")
    assert reader.is_reasoning
