"""Text from a download is parsed strictly and shown harmlessly."""

import pytest

from mimo_cli.checkpoint.untrusted import list_some, parse_json_object, shorten
from mimo_cli.errors import CheckpointError


def test_an_object_is_parsed() -> None:
    assert parse_json_object('{"größe": [1, null]}'.encode(), "it") == {"größe": [1, None]}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1]", b'"a"', b"1", b"\xff{}", b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b'{"a":' * 100_000],
)
def test_anything_but_one_object_with_unique_names_is_refused(text: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^the file") as error:
        parse_json_object(text, "the file")
    assert error.value.hint


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not JSON"):
        parse_json_object(b'{"a": ' + b"9" * 100_000 + b"}", "it")


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "bell\x07", "right\u202eleft"])
def test_control_characters_are_escaped(text: str) -> None:
    assert shorten(text).isprintable()


def test_long_values_are_cut() -> None:
    assert len(shorten("x" * 10_000)) < 130 and shorten("x" * 10_000).endswith("…")
    assert shorten([1, 2]) == "[1, 2]"


def test_a_list_shows_the_first_names_and_counts_the_rest() -> None:
    assert list_some(["a", "b"]) == "`a`, `b`"
    assert list_some("abcde") == "`a`, `b`, `c` and 2 more"
    assert list_some([]) == ""
