import pytest

from mimo_cli.chat.messages import ToolCall
from mimo_cli.evaluation.normalize import contains_answer, normal_calls, normal_text, spoken_words


@pytest.mark.parametrize("text", ["red circle", "Red circle.", "  red\n circle ", "RED CIRCLE...", "red\u00a0circle ."])
def test_case_spaces_and_a_full_stop_at_the_end_do_not_count(text: str) -> None:
    assert normal_text(text) == "red circle"


@pytest.mark.parametrize("text", ["redcircle", "red, circle", "red circle!", "red.circle", "a red circle"])
def test_everything_else_counts(text: str) -> None:
    assert normal_text(text) != "red circle"


def test_curly_quotes_are_straight_ones() -> None:
    assert normal_text("\u201cit\u2019s\u201d") == '"it\'s"'


def test_words_of_a_transcript_have_no_punctuation_and_small_numbers_are_spelled() -> None:
    words = ["hello", "it's", "three", "left", "hand", "circles", "twelve"]
    assert spoken_words("Hello, it's 3 left-hand circles - 12!") == words
    assert spoken_words("21 and 007") == ["21", "and", "007"]
    assert spoken_words(" ... ") == []


def test_an_answer_is_contained_as_whole_words_only() -> None:
    assert contains_answer("There are Three circles.", "three")
    assert contains_answer("a red circle, left", "Red circle.")
    assert not contains_answer("there are thirteen", "thirt")
    assert not contains_answer("anything", " . ")


def test_calls_are_equal_by_name_and_arguments_alone() -> None:
    call = ToolCall("weather", {"city": "Paris ", "days": 3.0, "places": ["a"]}, "call_1")
    assert normal_calls([call]) == normal_calls([ToolCall("weather", {"days": 3, "places": ("a",), "city": "Paris"})])
    for other in (
        ToolCall("weathers", call.arguments),
        ToolCall("weather", {**call.arguments, "days": "3"}),
        ToolCall("weather", {**call.arguments, "city": "paris"}),
        ToolCall("weather", {**call.arguments, "more": None}),
    ):
        assert normal_calls([call]) != normal_calls([other])
    assert normal_calls([ToolCall("on", {"x": True})]) != normal_calls([ToolCall("on", {"x": 1})])
