import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import UsageError
from mimo_cli.units import format_bytes, format_count, format_duration, parse_count, parse_duration, parse_size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (640, "640 B"), (1_000, "1 kB"), (12_800_000, "12.8 MB"), (315_000_000_000, "315 GB"), (2e12, "2 TB")],
)
def test_bytes_have_three_digits_and_powers_of_a_thousand(size_bytes: float, text: str) -> None:
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.85, "850 ms"), (3.24, "3.2 s"), (245, "4 min 05 s"), (3599.6, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_have_separators() -> None:
    assert format_count(1204) == "1,204"


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("24G", 24 * 10**9), ("1.5gb", 15 * 10**8), (" 512 M ", 512 * 10**6), ("7", 7)]
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(("text", "count"), [("4096", 4096), ("32k", 32768), ("1M", 1048576)])
def test_counts_are_read_in_the_fields_k_of_1024(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("00:01:30", 90),
        ("1:30.5", 90.5),
        ("90", 90),
        (".5", 0.5),
        ("2 H 5 M", 7500),
    ],
)
def test_durations_are_read_in_every_spelling(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("parse", [parse_size, parse_count, parse_duration])
@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "1.2.3", "5 5s"])
def test_anything_else_is_a_usage_error_that_names_the_text(parse: object, text: str) -> None:
    with pytest.raises(UsageError, match=f"`{text}`"):
        parse(text)  # type: ignore[operator]


@given(st.text(max_size=12))
def test_no_text_makes_another_error_than_a_usage_error(text: str) -> None:
    for parse in (parse_size, parse_count, parse_duration):
        with contextlib.suppress(UsageError):
            assert parse(text) >= 0
