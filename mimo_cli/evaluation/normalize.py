"""What counts as the same answer: normal forms of text, of words for word error rates, and of tool calls."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mimo_cli.chat.messages import ToolCall

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_SMALL_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER_WORDS = {str(number): word for number, word in enumerate(_SMALL_NUMBERS)}


def normal_text(text: str) -> str:
    """Return text as answers are compared: one case, straight quotes, single spaces, no full stop at the end."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return " ".join(text.split()).rstrip(".").rstrip()


def spoken_words(text: str) -> list[str]:
    """Return the words of a transcript: one case, no punctuation, hyphens as spaces, 0 to 20 spelled out."""
    text = normal_text(text).replace("-", " ")
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)
    return [_NUMBER_WORDS.get(word, word) for word in words]


def contains_answer(text: str, answer: str) -> bool:
    """Tell whether the answer stands in the text as whole words, in normal form."""
    wanted = normal_text(answer)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normal_text(text)) is not None


def normal_calls(calls: Sequence[ToolCall]) -> list[tuple[str, Any]]:
    """Return calls as they are compared: name and arguments, in order, without ids."""
    return [(call.name, _normal_value(call.arguments)) for call in calls]


def _normal_value(value: Any) -> Any:
    """Return a JSON value whose equality is that of the values meant: 3 is 3.0, but true is not 1."""
    if isinstance(value, Mapping):
        return {key: _normal_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normal_value(item) for item in value]
    if isinstance(value, bool):
        return ("bool", value)
    return value.strip() if isinstance(value, str) else value
