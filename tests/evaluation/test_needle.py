import pytest

from mimo_cli.evaluation.needle import QUESTION, needle_items


def count_words(text: str) -> int:
    return 40 + len(text.split())


@pytest.mark.parametrize("context", [128, 1000, 4096])
def test_prompts_nearly_fill_the_context_and_never_exceed_it(context: int) -> None:
    longest_sentence = 12  # words: three, two, three and four at most
    for found in needle_items(7, context, count_words):
        length = count_words(found.messages[0]["content"])
        assert context - longest_sentence < length <= context


def test_the_needle_is_told_once_and_asked_for_at_the_end() -> None:
    for found in needle_items(9, 600, count_words):
        text, number = found.messages[0]["content"], found.answers[0]
        assert text.count(number) == 1 and text.endswith(f"\n{QUESTION}")
        assert f"The secret number is {number}." in text


def test_needles_lie_evenly_from_the_beginning_to_the_end() -> None:
    items = needle_items(10, 2000, count_words)
    places = [item.messages[0]["content"].index(item.answers[0]) / len(item.messages[0]["content"]) for item in items]
    assert places == sorted(places)
    assert all(abs(place - (i + 0.5) / 10) < 0.04 for i, place in enumerate(places))
    assert [item.kind for item in items] == ["early"] * 3 + ["middle"] * 4 + ["late"] * 3


def test_the_same_seed_gives_the_same_needles_and_another_one_others() -> None:
    assert needle_items(5, 300, count_words) == needle_items(5, 300, count_words)
    assert needle_items(5, 300, count_words) != needle_items(5, 300, count_words, seed=1)


def test_a_context_too_small_for_filler_still_asks() -> None:
    assert QUESTION in needle_items(1, 1, count_words)[0].messages[0]["content"]
