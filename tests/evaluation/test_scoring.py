import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.chat.messages import Message, ToolCall
from mimo_cli.evaluation.scoring import score_answer, word_errors
from tests.support.eval_items import item


@pytest.mark.parametrize(
    ("expected", "found", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c d", "b c d a", 2),
    ],
)
def test_word_errors_are_the_fewest_edits(expected: str, found: str, errors: int) -> None:
    assert word_errors(expected.split(), found.split()) == errors


WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@given(WORDS, WORDS, WORDS)
def test_word_errors_are_a_distance(one: list[str], two: list[str], three: list[str]) -> None:
    assert (word_errors(one, two) == 0) == (one == two)
    assert word_errors(one, two) == word_errors(two, one)
    assert word_errors(one, three) <= word_errors(one, two) + word_errors(two, three)
    assert abs(len(one) - len(two)) <= word_errors(one, two) <= max(len(one), len(two))


def test_an_exact_answer_is_one_of_those_listed() -> None:
    question = item(answers=("two", "2"))
    assert score_answer(question, Message.of("assistant", "2.")).is_right
    assert score_answer(question, Message.of("assistant", "Two")).is_right
    wrong = score_answer(question, Message.of("assistant", "There are two circles"))
    assert not wrong.is_right and wrong.is_contained
    assert not score_answer(question, Message("assistant")).is_right


def test_a_tool_call_is_no_answer_in_words() -> None:
    message = Message("assistant", Message.of("assistant", "two").parts, tool_calls=(ToolCall("count", {}),))
    assert not score_answer(item(answers=("two",)), message).is_right


def test_a_transcript_counts_the_errors_against_the_nearest_answer() -> None:
    question = item(answers=("the red circle", "the red ring"), scoring="words")
    score = score_answer(question, Message.of("assistant", "The red, ring!"))
    assert (score.is_right, score.word_errors, score.words) == (True, 0, 3)
    score = score_answer(question, Message.of("assistant", "a red ring thing"))
    assert (score.is_right, score.word_errors, score.words) == (False, 2, 3)


def test_calls_must_be_those_expected_in_their_order() -> None:
    first, second = ToolCall("weather", {"city": "Rome"}), ToolCall("weather", {"city": "Oslo"})
    question = item(tool_calls=(first, second), scoring="tool_calls")
    assert score_answer(question, Message("assistant", tool_calls=(first, second))).is_right
    for calls in ((), (first,), (second, first), (first, second, second)):
        assert not score_answer(question, Message("assistant", tool_calls=calls)).is_right
