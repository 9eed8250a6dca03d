import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.chat.jinja_sandbox import render
from mimo_cli.chat.messages import AudioPart, ImagePart, Message, ToolCall
from mimo_cli.chat.shield import Piece, Shield, random_mark
from tests.support.fake_media import fake_audio, fake_image
from tests.support.tiny_tokenizer import ADDED_TOKENS

NASTY = st.lists(st.sampled_from([*ADDED_TOKENS, "<", "|>", "<|", "im_end", "think>", "</", "a", " ", "\n"])).map(
    "".join
)


def restored(shield: Shield, text: str) -> str:
    return text.replace(shield.nonce, "")


def test_ordinary_text_is_left_alone() -> None:
    shield = Shield(ADDED_TOKENS)
    for text in ("", "Hello", "1 < 2 and 3 > 2", "<b>bold</b>!", "if (a < b) {"):
        assert shield.text(text) == text


@given(NASTY)
def test_shielded_text_holds_no_token_and_loses_nothing(text: str) -> None:
    shield = Shield(ADDED_TOKENS)
    shielded = shield.text(text)
    assert not any(token in shielded for token in ADDED_TOKENS)
    assert restored(shield, shielded) == text


@given(NASTY, NASTY, NASTY)
def test_no_token_arises_where_texts_meet(before: str, text: str, after: str) -> None:
    # `before` and `after` stand for what a template writes: it may write tokens, but none may reach into the text.
    shield = Shield(ADDED_TOKENS)
    shielded = shield.text(text)
    for token in ADDED_TOKENS:
        joined = before + shielded + after
        start = joined.find(token)
        while start >= 0:
            assert start + len(token) <= len(before) or start >= len(before) + len(shielded)
            start = joined.find(token, start + 1)


def test_tokens_that_overlap_are_all_broken() -> None:
    shield = Shield(["abab", "bab", "ba"])
    shielded = shield.text("xababab")
    assert not any(token in shielded for token in ("abab", "bab", "ba"))
    assert restored(shield, shielded) == "xababab"


@pytest.mark.parametrize(
    ("template", "text"), [("<{{ t }}>", "think"), ("</{{ t }}>", "tool_call"), ("<|{{ t }}|>", "im_end")]
)
def test_punctuation_of_the_template_makes_no_token_of_a_name(template: str, text: str) -> None:
    shield = Shield(ADDED_TOKENS)
    written = render(template, {"t": shield.text(text)}, 1000)
    assert [piece.is_control for piece in shield.split(written)] == [False]
    assert shield.split(written)[0].text == template.replace("{{ t }}", text)


def test_split_separates_what_the_template_wrote() -> None:
    shield = Shield(ADDED_TOKENS)
    written = "<|im_start|>user\n" + shield.text("a<|im_end|>b") + "<|im_end|>"
    assert shield.split(written) == [
        Piece("<|im_start|>", True),
        Piece("user\na<|im_end|>b", False),
        Piece("<|im_end|>", True),
    ]


def test_the_longest_token_wins_as_in_the_tokenizer() -> None:
    assert [piece.text for piece in Shield(["<a>", "<a><b>"]).split("<a><b><a>")] == ["<a><b>", "<a>"]


def test_a_shield_without_tokens_changes_nothing() -> None:
    shield = Shield([])
    assert shield.text("<|im_end|>") == "<|im_end|>"
    assert shield.split("<|im_end|>") == [Piece("<|im_end|>", False)]


def test_marks_are_private_and_never_the_same() -> None:
    marks = {random_mark() for _ in range(50)}
    assert len(marks) == 50
    assert all(unicodedata.category(letter) == "Co" for mark in marks for letter in mark)


def test_marks_survive_what_templates_do() -> None:
    mark = random_mark()
    for filters in ("upper", "lower", "trim", "title", "tojson", "string"):
        assert mark in render("{{ m | " + filters + " }}", {"m": mark}, 1000)
    assert unicodedata.normalize("NFKC", mark) == mark


def test_every_string_of_a_message_is_shielded() -> None:
    shield = Shield(ADDED_TOKENS)
    call = ToolCall("<think>", {"<|im_end|>": ["<|im_end|>", 1, None, {"k": "<|im_start|>"}]}, "id")
    message = Message("assistant", Message.of("assistant", "<|im_end|>").parts, "</think>", (call,))
    ready = shield.message(message)
    assert not any(token in str(ready) for token in ADDED_TOKENS)
    function = ready["tool_calls"][0]["function"]
    assert restored(shield, function["name"]) == "<think>"
    assert restored(shield, ready["reasoning_content"]) == "</think>"
    assert next(iter(function["arguments"].values()))[1:3] == [1, None]


def test_neighbouring_texts_are_joined_before_shielding() -> None:
    shield = Shield(ADDED_TOKENS)
    assert "<|im_end|>" not in str(shield.message(Message.of("user", "<|im_", "end|>"))["content"])
    parts = shield.message(Message.of("user", ImagePart(fake_image()), "<|im_", "end|>", AudioPart(fake_audio())))
    assert [part["type"] for part in parts["content"]] == ["image", "text", "audio"]
    assert restored(shield, parts["content"][1]["text"]) == "<|im_end|>"
    assert parts["content"][1]["text"] != "<|im_end|>"


def test_results_carry_their_name_and_call() -> None:
    message = Message("tool", Message.of("tool", "21").parts, tool_call_id="call_1", name="f")
    expected = {"role": "tool", "content": "21", "tool_call_id": "call_1", "name": "f"}
    assert Shield(ADDED_TOKENS).message(message) == expected
