"""How the rows of a film and of its sound track alternate in the prompt; a pure function of times and counts.

The prompt builder turns each piece into ids: a label into text tokens, rows into a run of placeholders between the
start and end markers of their kind. Source: vision specification, sections 10.6 and 11.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

AUDIO_TOKENS_PER_SECOND = 6.25


class Label(NamedTuple):
    """The time at which the pictures that follow begin, as text."""

    kind: Literal["label"]
    text: str


class Rows(NamedTuple):
    """Rows `offset` to `offset + length` of the encoded pictures or of the encoded sound track."""

    kind: Literal["vision", "audio"]
    offset: int
    length: int


Segment: TypeAlias = Label | Rows


@dataclass(frozen=True)
class SoundTrack:
    """The sound beside the pictures: rows of the whole track, when the last step ends, and how to interleave.

    interleave_s 0 puts a group of sound after every step, a positive number after each window of that many seconds,
    -1 after the whole film. tokens_per_second is the rate of the encoded rows.
    """

    num_tokens: int
    segment_end_s: float
    interleave_s: float = 0.0
    tokens_per_second: float = AUDIO_TOKENS_PER_SECOND


def time_label(time_s: float) -> str:
    """Render whole minutes and seconds as `MM:SS`; minutes grow past 99, there are no hours."""
    seconds = float(time_s)
    return f"{math.floor(seconds / 60):02d}:{math.floor(seconds % 60):02d}"


def video_layout(timestamps_s: Sequence[float], step_tokens: int, sound: SoundTrack | None = None) -> list[Segment]:
    """Lay out a film of len(timestamps_s) temporal steps with step_tokens rows each.

    Returns labels and row ranges in prompt order. Without sound (or with a track of no rows) there are no "audio"
    pieces; with sound every group has one, of length 0 where the track has already ended. Sound past the last step is
    dropped.
    """
    segments: list[Segment] = []
    if sound is not None and not sound.num_tokens:
        sound = None
    for steps in _groups(timestamps_s, sound):
        segments.append(Label("label", time_label(timestamps_s[steps[0]])))
        segments += [Rows("vision", step * step_tokens, step_tokens) for step in steps]
        if sound is not None:
            segments.append(_sound_rows(steps, timestamps_s, sound))
    return segments


def _groups(timestamps_s: Sequence[float], sound: SoundTrack | None) -> Iterator[range]:
    """Yield the runs of steps that share one label and one group of sound."""
    count = len(timestamps_s)
    if sound is None or sound.interleave_s == 0:
        yield from (range(step, step + 1) for step in range(count))
        return
    first = 0
    for step in range(1, count + 1):
        if step == count or _window(timestamps_s[step], sound) != _window(timestamps_s[first], sound):
            yield range(first, step)
            first = step


def _window(time_s: float, sound: SoundTrack) -> int:
    """Number the window, counted from time 0, in which a step begins."""
    return 0 if sound.interleave_s < 0 else math.floor(float(time_s) / sound.interleave_s)


def _sound_rows(steps: range, timestamps_s: Sequence[float], sound: SoundTrack) -> Rows:
    """Cut the rows that sound during some consecutive steps; each step's length is clamped at 0 on its own."""
    starts = [_row_at(timestamps_s[step], sound) for step in steps]
    after = steps.stop
    ends = [*starts[1:], _row_at(sound.segment_end_s if after == len(timestamps_s) else timestamps_s[after], sound)]
    lengths = [max(0, min(end, sound.num_tokens) - start) for start, end in zip(starts, ends, strict=True)]
    return Rows("audio", min(starts[0], sound.num_tokens), sum(lengths))


def _row_at(time_s: float, sound: SoundTrack) -> int:
    """Return the row that sounds at a time; the product is float32, as in the reference, then truncated."""
    return int(np.float32(time_s) * np.float32(sound.tokens_per_second))
