import json
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.chat.template import BUILT_IN, RELEASE_SHA256, ChatTemplate, render_chat
from mimo_cli.chat.template_child import RenderLimits
from mimo_cli.errors import CheckpointError, UsageError
from tests.support.chat_golden import by_name, render_cases

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("case", render_cases(), ids=by_name)
def test_render_chat_equals_the_release_byte_for_byte(case: dict[str, Any]) -> None:
    assert render_chat(case["messages"], case["tools"], **case["kwargs"]) == case["expected"]


def test_there_are_34_reference_renderings() -> None:
    assert len(render_cases()) == 34


def test_an_unknown_template_renders_the_same_in_its_child_process() -> None:
    template = ChatTemplate(ChatTemplate.built_in().text + "{# changed #}", "folder")
    assert not template.is_known
    for case in render_cases()[22:25]:
        options = dict(case["kwargs"])
        prompts = options.pop("add_generation_prompt", False)
        rendered = template.render(case["messages"], case["tools"], options, add_generation_prompt=prompts)
        assert rendered == case["expected"]


def test_thinking_is_on_by_default() -> None:
    assert render_chat(HELLO, add_generation_prompt=True).endswith("<|im_start|>assistant\n")
    assert render_chat(HELLO, add_generation_prompt=True, enable_thinking=False).endswith("<think></think>")


def test_a_renderings_beginning_is_the_turn_before() -> None:
    turns = [
        *HELLO,
        {"role": "assistant", "content": "Hi!", "reasoning_content": "greet"},
        {"role": "user", "content": "Bye"},
    ]
    first = render_chat(turns[:1], add_generation_prompt=True)
    second = render_chat(turns, add_generation_prompt=True)
    assert second.startswith(first + "<think>greet</think>Hi!<|im_end|>")


@pytest.mark.parametrize("value", [None, {}, {"content": None}])
def test_null_and_missing_content_is_empty(value: dict[str, Any] | None) -> None:
    message = {"role": "user", **(value or {})}
    assert render_chat([message]).endswith("<|im_start|>user\n<|im_end|>")


def test_tool_arguments_as_a_json_string_are_decoded() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": "x"}'}}
    decoded = {"function": {"name": "f", "arguments": {"a": "x"}}}
    texts = [render_chat([*HELLO, {"role": "assistant", "tool_calls": [each]}]) for each in (call, decoded)]
    assert texts[0] == texts[1]
    assert "<parameter=a>x</parameter>" in texts[0]


def test_null_parameters_render_empty() -> None:
    text = render_chat(HELLO, [{"name": "now", "parameters": None}])
    assert "<name>now</name>\n<parameters>\n</parameters>\n</function>" in text


@pytest.mark.parametrize(
    ("messages", "tools", "reason"),
    [
        ([], None, "no messages"),
        ([{"role": "user", "content": 5}], None, "message 1: content must be a string"),
        ([{"role": "user", "content": [5]}], None, "message 1: a content part must be an object"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], None, "must hold a string, found int"),
        ([{"content": "x"}], None, "not an object with a role"),
        ([*HELLO, {"role": "tool", "content": "x"}], None, "message 2: a tool result follows no tool call"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}], None, "must be an object"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}], None, "are not JSON"),
        ([{"role": "assistant", "tool_calls": [{}]}], None, "not a function with a name"),
        (HELLO, [{"type": "function"}], "tool 1 is not a function with a name"),
        (HELLO, {"name": "f"}, "tools must be a list"),
        ([{"role": "user", "content": "x", "extra": {1, 2}}], None, "must hold JSON values only"),
    ],
)
def test_what_the_template_cannot_take_is_a_usage_error(messages: Any, tools: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        render_chat(messages, tools)


def test_the_template_of_the_folder_wins_over_its_tokenizer_config(tmp_path: Path) -> None:
    assert ChatTemplate.from_folder(tmp_path).source == BUILT_IN
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "config"}))
    assert ChatTemplate.from_folder(tmp_path).text == "config"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert ChatTemplate.from_folder(tmp_path).text == "file"


def test_a_template_of_a_sub_folder_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "audio_tokenizer").mkdir()
    (tmp_path / "audio_tokenizer" / "chat_template.jinja").write_text("other")
    assert ChatTemplate.from_folder(tmp_path).source == BUILT_IN


def test_a_list_of_named_templates_gives_its_default(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.from_folder(tmp_path).text == "plain"


def test_a_template_that_is_no_text_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": 5}')
    with pytest.raises(CheckpointError, match=r"`chat_template` must be text, found int"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ChatTemplate.from_folder(tmp_path)


def test_our_template_is_known_and_the_release_too() -> None:
    assert ChatTemplate.built_in().is_known
    assert not ChatTemplate("other", "folder").is_known
    # The hash is that of the text with its closing newline, as it stands in the release's file.
    assert len(RELEASE_SHA256) == 64


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("{{ raise_exception('no pictures') }}", UsageError, "refuses these messages: no pictures"),
        ("{{ messages[7].content }}", UsageError, "cannot render these messages"),
        ("{% if %}", CheckpointError, "is not valid: line 1"),
        ("{{ messages.__class__.__mro__ }}", CheckpointError, "does something forbidden"),
    ],
)
def test_a_failing_template_is_an_error_of_ours(text: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        ChatTemplate(text, "folder").render(HELLO, limits=RenderLimits(seconds=20))


def test_long_conversations_fit_the_output_limit() -> None:
    text = "word " * 400_000
    assert text in render_chat([{"role": "user", "content": text}])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "{% for m in messages %}\n  {%- if loop.last %}{{ m | tojson }}{% endif %}\n  x\n{% endfor %}\n",
        "{{ messages | tojson(indent=2) }}|{{ tools }}|{{ add_generation_prompt }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ messages[0]['content'] | upper }}{{ undefined_name }}",
    ],
)
def test_templates_render_as_transformers_renders_them(text: str) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": "user", "content": "<Hé & 'x'>"}, {"role": "assistant", "content": "ok"}]
    (expected,), _ = reference.render_jinja_template([messages], chat_template=text, add_generation_prompt=True)
    assert ChatTemplate(text, "folder").render(messages, add_generation_prompt=True) == expected
