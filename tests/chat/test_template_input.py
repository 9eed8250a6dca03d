import pytest

from mimo_cli.chat.template_input import check_tool_results, decode_arguments, template_messages, template_tools
from mimo_cli.errors import UsageError

CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}


def test_what_is_right_stays_as_it_is() -> None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}], "other": 1}]
    assert template_messages(messages) == messages


def test_the_callers_messages_are_not_changed() -> None:
    messages = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": "{}"}]}]
    assert template_messages(messages)[0]["tool_calls"] == [{"name": "f", "arguments": {}}]
    assert messages[0]["content"] is None and messages[0]["tool_calls"][0]["arguments"] == "{}"


def test_bare_strings_and_sound_among_the_parts_become_parts() -> None:
    parts = ["an image", {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]
    content = template_messages([{"role": "user", "content": parts}])[0]["content"]
    assert content == [{"type": "text", "text": "an image"}, {"type": "audio"}]


def test_null_arguments_are_left_out() -> None:
    calls = [{"function": {"name": "f", "arguments": None}, "id": "a"}]
    ready = template_messages([{"role": "assistant", "tool_calls": calls}])[0]["tool_calls"]
    assert ready == [{"function": {"name": "f"}, "id": "a"}]


def test_results_must_follow_calls_or_results() -> None:
    result = {"role": "tool", "content": "1"}
    check_tool_results([CALL, result, result])
    for wrong in ([result], [CALL, {"role": "user", "content": ""}, result], [{**CALL, "tool_calls": []}, result]):
        with pytest.raises(UsageError, match="follows no tool call"):
            check_tool_results(wrong)


def test_tools_may_be_wrapped_or_flat_or_none() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"name": "g"}]
    assert template_tools(tools) == tools
    assert template_tools(None) is None and template_tools([]) == []


@pytest.mark.parametrize(("arguments", "decoded"), [("", {}), ("  ", {}), ('{"a": 1}', {"a": 1}), ({"b": 2}, {"b": 2})])
def test_arguments_are_an_object_or_its_json(arguments: object, decoded: dict[str, int]) -> None:
    assert decode_arguments(arguments, "here") == decoded


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", 5, None, "1"])
def test_other_arguments_are_refused_by_place(arguments: object) -> None:
    with pytest.raises(UsageError, match="here: the arguments"):
        decode_arguments(arguments, "here")
