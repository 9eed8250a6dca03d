import json

import pytest

from mimo_cli.commands.subtitles import (
    LineLimits,
    Segment,
    clock,
    cues,
    json_line,
    json_segment,
    srt_blocks,
    text_lines,
    vtt_blocks,
    wrap_columns,
)


def test_times_round_to_milliseconds_and_carry_over() -> None:
    assert clock(0) == "00:00:00.000"
    assert clock(3661.2345, ",") == "01:01:01,234"
    assert clock(59.9996) == "00:01:00.000"


def test_text_has_one_line_for_each_segment_that_has_words() -> None:
    segments = [Segment(0, 2, " Hello\nthere. "), Segment(2, 4, "  "), Segment(4, 90, "Bye.")]
    assert list(text_lines(segments, with_times=False)) == ["Hello there.", "Bye."]
    assert list(text_lines(segments, with_times=True)) == [
        "[00:00:00.000 --> 00:00:02.000] Hello there.",
        "[00:00:04.000 --> 00:01:30.000] Bye.",
    ]


def test_srt_numbers_cues_and_writes_commas() -> None:
    blocks = list(srt_blocks([Segment(0, 1.5, "a\nb"), Segment(1.5, 2, "c")], first=4))
    assert blocks == ["4\n00:00:00,000 --> 00:00:01,500\na\nb\n", "5\n00:00:01,500 --> 00:00:02,000\nc\n"]


def test_vtt_escapes_what_would_be_markup() -> None:
    assert list(vtt_blocks([Segment(0, 1, "<v Bob> & co")])) == [
        "00:00:00.000 --> 00:00:01.000\n&lt;v Bob&gt; &amp; co\n"
    ]


def test_json_segments_carry_times_only_if_wanted() -> None:
    segment = Segment(0.12345, 1, "日本")
    assert json_segment(segment) == {"start": 0.123, "end": 1, "text": "日本"}
    assert json_segment(segment, with_times=False) == {"text": "日本"}
    assert json.loads(json_line(segment, "a.wav")) == {"file": "a.wav", "start": 0.123, "end": 1, "text": "日本"}
    assert "日本" in json_line(segment, "a.wav")


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("one two three", 6, ["one", "two", "three"]),
        ("abcdefghij kl", 4, ["abcd", "efgh", "ij", "kl"]),
        ("你好世界", 4, ["你好", "世界"]),
        ("你好 ok 世界", 7, ["你好 ok", "世界"]),
        ("  spaced \n out ", 20, ["spaced out"]),
        ("e\u0301e\u0301e\u0301 x", 3, ["e\u0301e\u0301e\u0301", "x"]),
        ("", 5, []),
    ],
)
def test_lines_break_between_words_and_wide_characters(text: str, width: int, lines: list[str]) -> None:
    assert wrap_columns(text, width) == lines


def test_a_long_segment_becomes_several_cues_that_share_its_time() -> None:
    made = cues(Segment(10, 30, "aaaa bbbb cccc dddd"), LineLimits(max_line_width=4, max_line_count=2))
    assert made == [Segment(10, 20, "aaaa\nbbbb"), Segment(20, 30, "cccc\ndddd")]


def test_a_segment_without_words_has_no_cue() -> None:
    assert cues(Segment(0, 30, " \n "), LineLimits()) == []
