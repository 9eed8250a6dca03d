"""Sample: one question with its media and its one right answer, as every maker returns it.

Media are plain arrays, so that a maker needs no file and no network; turning them into a prompt is the trainer's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Picture:
    """A drawn picture: `pixels` uint8 [height, width, 3], RGB."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Sound:
    """A recording: `samples` float32 [n], mono, within -1..1, at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Film:
    """A short clip: `frames` uint8 [frames, height, width, 3], RGB, at `fps` frames per second."""

    frames: np.ndarray
    fps: float


Part = str | Picture | Sound | Film


@dataclass(frozen=True)
class Sample:
    """One user message (text and media in order) and the answer that is right.

    `turns` are earlier (user message, answer) pairs of the dialogue, a message being text or parts. `tools` are
    declarations in the template's JSON form; `tool_calls` (name, arguments) pairs that the answer consists of, `answer`
    being empty then; with `tool_results` (one a call) the calls have been made and `answer` is what follows them.
    `facts` holds direct labels for supervised heads (colour, shape, count, cell, letters, words and their end times in
    seconds).
    """

    task: str
    user: tuple[Part, ...]
    answer: str
    system: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    reasoning: str | None = None
    turns: tuple[tuple[str | tuple[Part, ...], str], ...] = ()
    tool_calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    tool_results: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text parts of the user message, joined by a space."""
        return " ".join(part for part in self.user if isinstance(part, str))

    @property
    def earlier(self) -> tuple[tuple[tuple[Part, ...], str], ...]:
        """The earlier turns, every message as parts."""
        return tuple(((said,) if isinstance(said, str) else said, answer) for said, answer in self.turns)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all user messages, in order."""
        return tuple(part for message in (*(said for said, _ in self.earlier), self.user) for part in message)


def dialogue(samples: Sequence[Sample]) -> list[Sample]:
    """Samples without tools or reasoning, each behind all that come before it: one dialogue.

    The first sample's system prompt and earlier turns hold for all.
    """
    turns = samples[0].turns
    grown = []
    for sample in samples:
        grown.append(replace(sample, system=samples[0].system, turns=turns, reasoning=None))
        turns = (*turns, (sample.user, sample.answer))
    return grown
