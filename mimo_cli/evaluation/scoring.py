"""Whether an answer is right: exact text, word errors of a transcript, or the very tool calls that were expected."""

from collections.abc import Sequence
from dataclasses import dataclass

from mimo_cli.chat.messages import Message
from mimo_cli.evaluation.item import Item
from mimo_cli.evaluation.normalize import contains_answer, normal_calls, normal_text, spoken_words


@dataclass(frozen=True)
class Score:
    """Of one answer: right or wrong; whether the right answer stands in it; word errors and words where they count."""

    is_right: bool
    is_contained: bool
    word_errors: int = 0
    words: int = 0


def score_answer(item: Item, message: Message) -> Score:
    """Judge the answer to an item, by the item's own scoring."""
    if item.scoring == "tool_calls":
        is_right = normal_calls(message.tool_calls) == normal_calls(item.tool_calls)
        return Score(is_right, is_right)
    text = message.text
    if item.scoring == "words":
        return _transcript_score(item.answers, text)
    is_right = not message.tool_calls and normal_text(text) in {normal_text(answer) for answer in item.answers}
    return Score(is_right, any(contains_answer(text, answer) for answer in item.answers))


def _transcript_score(answers: Sequence[str], text: str) -> Score:
    """Take the answer with the fewest errors."""
    found = spoken_words(text)
    errors, words = min((word_errors(spoken_words(answer), found), len(spoken_words(answer))) for answer in answers)
    return Score(errors == 0, errors == 0, errors, words)


def word_errors(expected: Sequence[str], found: Sequence[str]) -> int:
    """Return the least number of substitutions, deletions and insertions that turn one list of words into another."""
    row = list(range(len(found) + 1))
    for i, wanted in enumerate(expected, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(found, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != word))
    return row[-1]
