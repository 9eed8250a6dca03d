"""Transcribed segments as text, subtitles and JSON.

Times come from where the recording was cut, so they are exact for a segment and estimated inside it: a segment that
fills several subtitles is shared out by the length of the text.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FORMATS = ("text", "json", "jsonl", "srt", "vtt")
APPROXIMATE = "approximate: from cutting the recording at quiet places"


@dataclass(frozen=True)
class Segment:
    """A piece of a recording and what was said in it; times in seconds from the start of the file."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class LineLimits:
    """How much text one subtitle holds; width in columns, a wide character takes two."""

    max_line_width: int = 42
    max_line_count: int = 2


def clock(seconds: float, mark: str = ".") -> str:
    """Render a time as `HH:MM:SS.mmm`, with `mark` before the milliseconds."""
    total_ms = round(seconds * 1000)
    total_s, ms = divmod(total_ms, 1000)
    return f"{total_s // 3600:02d}:{total_s // 60 % 60:02d}:{total_s % 60:02d}{mark}{ms:03d}"


def text_lines(segments: Iterable[Segment], with_times: bool) -> Iterator[str]:
    """Yield one line for each segment that has text, with its times in front if wanted."""
    for segment in segments:
        words = " ".join(segment.text.split())
        if words:
            times = f"[{clock(segment.start_s)} --> {clock(segment.end_s)}] " if with_times else ""
            yield times + words


def srt_blocks(cues: Iterable[Segment], first: int = 1) -> Iterator[str]:
    """Yield SubRip blocks, numbered from `first`; the text of a cue is already in lines."""
    for number, cue in enumerate(cues, first):
        yield f"{number}\n{clock(cue.start_s, ',')} --> {clock(cue.end_s, ',')}\n{cue.text}\n"


def vtt_blocks(cues: Iterable[Segment]) -> Iterator[str]:
    """Yield WebVTT cues (without the `WEBVTT` line); the characters that mean markup there are escaped."""
    for cue in cues:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield f"{clock(cue.start_s)} --> {clock(cue.end_s)}\n{text}\n"


def json_segment(segment: Segment, with_times: bool = True) -> dict[str, Any]:
    """Return a segment as a JSON object."""
    times = {"start": round(segment.start_s, 3), "end": round(segment.end_s, 3)} if with_times else {}
    return {**times, "text": segment.text}


def json_line(segment: Segment, name: str) -> str:
    """Return a segment as one line of JSON that also names its file."""
    return json.dumps({"file": name, **json_segment(segment)}, ensure_ascii=False)


def cues(segment: Segment, limits: LineLimits) -> list[Segment]:
    """Cut a segment into subtitles of at most the given lines; each gets time in proportion to its text."""
    lines = wrap_columns(segment.text, limits.max_line_width)
    groups = [lines[i : i + limits.max_line_count] for i in range(0, len(lines), limits.max_line_count)]
    total = sum(_columns(line) for line in lines)
    made: list[Segment] = []
    seen = 0
    for group in groups:
        start_s = segment.start_s + (segment.end_s - segment.start_s) * seen / total
        seen += sum(_columns(line) for line in group)
        end_s = segment.start_s + (segment.end_s - segment.start_s) * seen / total
        made.append(Segment(start_s, end_s, "\n".join(group)))
    return made


def wrap_columns(text: str, width: int) -> list[str]:
    """Break text into lines of at most `width` columns, between words and between wide characters.

    A word longer than a line is cut.
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line and _columns(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
        while _columns(line.rstrip()) > width:
            cut = _fit(line, width)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> Iterator[str]:
    word = ""
    for sign in " ".join(text.split()):
        if _is_wide(sign):
            if word:
                yield word
            word = ""
            yield sign
        else:
            word += sign
            if sign == " ":
                yield word
                word = ""
    if word:
        yield word


def _fit(line: str, width: int) -> int:
    columns = 0
    for i, sign in enumerate(line):
        columns += _columns(sign)
        if columns > width:
            return max(i, 1)
    return len(line)


def _columns(text: str) -> int:
    return sum(0 if unicodedata.combining(sign) else 2 if _is_wide(sign) else 1 for sign in text)


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in "WF"
