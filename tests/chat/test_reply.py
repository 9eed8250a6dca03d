import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.chat.events import Event, Finished, Notice, TextDelta, ToolCallEvent, Usage
from mimo_cli.chat.messages import Generated, TextPart
from mimo_cli.chat.reply import OutputReader, ReplyReader, read_reply
from tests.support.chat_golden import by_name, parse_cases
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.added_tokens["<|im_end|>"]
TOOLS = [{"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}]
CALL = "<tool_call>\n<function=f>\n<parameter=a>x</parameter>\n</function>\n</tool_call>"


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, added_tokens=True)


def summary(events: list[Event]) -> dict[str, Any]:
    """Sum events up in the shape of the reference readings."""
    texts = {
        kind: "".join(e.text for e in events if isinstance(e, TextDelta) and e.kind == kind)
        for kind in ("reasoning", "content")
    }
    calls = [{"name": e.call.name, "arguments": e.call.arguments} for e in events if isinstance(e, ToolCallEvent)]
    return {**texts, "tool_calls": calls}


def test_there_are_35_reference_readings() -> None:
    assert len(parse_cases()) == 35


@pytest.mark.parametrize("case", parse_cases(), ids=by_name)
def test_reference_readings_are_exact_for_every_chunk_size(case: dict) -> None:
    text = case["text"]
    for size in range(1, len(text) + 1):
        reader = OutputReader(case["tools"])
        events = [event for i in range(0, len(text), size) for event in reader.feed(text[i : i + size])]
        events += reader.finish(case["finish"] == "stop")
        # As JSON: 1 and 1.0 and True are equal in Python only.
        assert json.dumps(summary(events)) == json.dumps(case["expected"]), f"chunks of {size}"


@pytest.mark.parametrize("case", parse_cases(), ids=by_name)
def test_reference_readings_are_exact_from_token_ids(case: dict) -> None:
    reader = ReplyReader(TOKENIZER, {END}, case["tools"])
    tail = [END] if case["finish"] == "stop" else []
    events = list(read_reply([*ids_of(case["text"]), *tail], reader))
    assert summary(events) == case["expected"]
    finished = events[-1]
    assert isinstance(finished, Finished)
    expected = "tool_calls" if case["finish"] == "stop" and case["expected"]["tool_calls"] else case["finish"]
    assert finished.finish_reason == expected


PARTS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=f>",
    "</function>",
    "<parameter=a>",
    "</parameter>",
]


@given(st.lists(st.sampled_from([*PARTS, CALL, "x", "\n", "<", " "]), max_size=14).map("".join), st.data())
def test_any_cutting_of_any_output_gives_the_same_end(text: str, data: st.DataObject) -> None:
    for tools in (None, TOOLS):
        whole = OutputReader(tools)
        expected = summary([*whole.feed(text), *whole.finish(True)])
        reader = OutputReader(tools)
        events: list[Event] = []
        position = 0
        while position < len(text):
            step = data.draw(st.integers(1, 9))
            events += reader.feed(text[position : position + step])
            position += step
        assert summary([*events, *reader.finish(True)]) == expected


def test_a_finished_answer_is_a_message_with_its_ids() -> None:
    ids = ids_of("<think>so</think>Yes 🐱")
    reader = ReplyReader(TOKENIZER, {END}, thinking=True, prompt_tokens=10, cached_tokens=4)
    *_, finished = read_reply([*ids, END], reader)
    assert isinstance(finished, Finished) and finished.finish_reason == "stop"
    message = finished.message
    assert (message.role, message.reasoning, message.parts) == ("assistant", "so", (TextPart("Yes 🐱"),))
    assert message.generated == Generated(tuple(ids), True)
    thought = len(ids_of("<think>so</think>"))
    assert finished.usage == Usage(10, len(ids) + 1, thought, 4)


def test_no_character_is_split_between_deltas() -> None:
    reader = ReplyReader(TOKENIZER, {END})
    deltas = [e for e in read_reply(ids_of("中🐱é"), reader) if isinstance(e, TextDelta)]
    assert [delta.text for delta in deltas] == ["中", "🐱", "é"]


def test_bytes_left_over_at_the_end_are_replaced() -> None:
    reader = ReplyReader(TOKENIZER, {END})
    events = list(read_reply(ids_of("a🐱")[:-1], reader))
    assert summary(events)["content"] == "a\ufffd"


def test_special_tokens_leave_no_text_but_stay_in_the_ids() -> None:
    ids = [*ids_of("a"), TOKENIZER.added_tokens["<|image_pad|>"], *ids_of("b")]
    *_, finished = read_reply([*ids, END], ReplyReader(TOKENIZER, {END}))
    assert isinstance(finished, Finished)
    assert finished.message.text == "ab" and finished.message.generated == Generated(tuple(ids), True)


def test_reasoning_that_was_cut_off_gets_its_end_tag_in_the_ids() -> None:
    ids = ids_of("<think>so first")
    reader = ReplyReader(TOKENIZER, {END})
    *_, finished = read_reply(ids, reader, lambda: "cancelled")
    assert isinstance(finished, Finished) and finished.finish_reason == "cancelled"
    assert finished.message.generated is not None
    assert finished.message.generated.ids == (*ids, TOKENIZER.added_tokens["</think>"])
    assert finished.usage.reasoning_tokens == finished.usage.completion_tokens == len(ids)


def test_the_reader_says_whether_the_model_is_thinking() -> None:
    reader = ReplyReader(TOKENIZER, {END})
    seen = []
    for token_id in ids_of("<think>a</think>b"):
        reader.push(token_id)
        seen.append(reader.is_reasoning)
    assert seen == [True, True, False, False] and reader.num_tokens == 4


def test_a_call_inside_reasoning_is_noticed() -> None:
    events = list(read_reply([*ids_of(f"<think>{CALL}</think>no"), END], ReplyReader(TOKENIZER, {END}, TOOLS)))
    assert len([event for event in events if isinstance(event, Notice)]) == 1


def test_an_answer_of_calls_alone_has_no_text_part() -> None:
    *_, finished = read_reply([*ids_of(CALL), END], ReplyReader(TOKENIZER, {END}, TOOLS))
    assert isinstance(finished, Finished) and finished.finish_reason == "tool_calls"
    assert finished.message.parts == () and finished.message.tool_calls[0].arguments == {"a": "x"}
    *_, empty = read_reply([END], ReplyReader(TOKENIZER, {END}))
    assert isinstance(empty, Finished) and empty.message.reasoning == "" and empty.usage.completion_tokens == 1
