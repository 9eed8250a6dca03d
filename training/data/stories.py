"""Stories: what drawn objects do in a short clip, and the questions that the clip answers.

The model sees pairs of frames, each pair after a label of minutes and seconds; events begin with the first frame of
such a pair, so that the label in front of it is their time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from training.data import film_wordings as wordings
from training.data.dice import Dice
from training.data.sample import Split
from training.data.scenes import PLACES, is_held_out
from training.data.shapes import COLOURS, SHAPES
from training.data.wording import Wording, with_article

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
FRAMES_SEEN = 8
_FILM_CELL = 100  # stands for "in a film" where pictures have a place


Asked = tuple[Wording, dict[str, Any], str]  # a question, what fills its slots, the answer


@dataclass(frozen=True)
class Actor:
    """An object of a clip: where it is at the first and last frame (fractions of the sides), and what befalls it.

    `enters` and `leaves` are frame numbers; `turns` (frame, colour) a change of colour; `grows` the last size over the
    first.
    """

    colour: str
    shape: str
    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    enters: int = 0
    leaves: int = 10_000
    turns: tuple[int, str] | None = None
    grows: float = 1.0

    @property
    def name(self) -> str:
        """`red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Story:
    """What a clip shows: actors, frames and rate, and the questions that it answers."""

    actors: tuple[Actor, ...]
    frames: int
    fps: int
    asked: tuple[Asked, ...]


def step_frames(frames: int, fps: float) -> list[int]:
    """The first frame of every pair that the model sees: one frame a second, at least eight, spread over the clip."""
    seen = min(max(frames / fps, FRAMES_SEEN), frames)
    seen = 2 * int(seen // 2)
    return np.linspace(0, frames - 1, seen, dtype=np.int64)[::2].tolist()


def label(frame: int, fps: float) -> str:
    """The label in front of a pair that begins with this frame."""
    seconds = int(np.float64(np.float32(frame) / np.float32(fps)))
    return f"{seconds // 60:02d}:{seconds % 60:02d}"


def _length(dice: Dice) -> tuple[int, int]:
    """Frames and frames per second, at most six seconds."""
    fps = dice.pick((2, 2, 3, 3, 4, 5, 6, 8))
    return dice.integer(8, min(16, 6 * fps)), fps


def _cast(dice: Dice, split: Split, count: int) -> list[tuple[str, str]]:
    """Colours and shapes of actors, no colour and no shape twice, all of the split."""
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
        if any(colour == other[0] or shape == other[1] for other in chosen):
            continue
        if is_held_out(colour, shape, _FILM_CELL) == (split == "held_out"):
            chosen.append((colour, shape))
    return chosen


def _places(dice: Dice, count: int) -> list[tuple[float, float]]:
    """Middles of different cells of the grid, slightly moved."""
    return [
        ((cell % 3 + 0.5) / 3 + dice.uniform(-0.03, 0.03), (cell // 3 + 0.5) / 3 + dice.uniform(-0.03, 0.03))
        for cell in dice.some(range(9), count)
    ]


def _called(actor: Actor, dice: Dice) -> str:
    """One of the names of an actor among others of other colours and shapes."""
    return dice.pick((actor.name, actor.shape, f"{actor.colour} object", f"{actor.colour} shape"))


def moves(dice: Dice, split: Split) -> Story:
    """One object moves in one direction, up to two others stand."""
    kinds = _cast(dice, split, dice.pick((1, 1, 2, 2, 3)))
    frames, fps = _length(dice)
    way = dice.pick(tuple(DIRECTIONS))
    dx, dy = DIRECTIONS[way]
    far = dice.uniform(0.16, 0.34)
    row = dice.pick((0.2, 0.35, 0.5, 0.65, 0.8)) + dice.uniform(-0.04, 0.04)
    drift = dice.uniform(-0.05, 0.05)
    middle = 0.5 + dice.uniform(-0.1, 0.1)
    centre = (middle, row) if dx else (row, middle)
    across = (drift * abs(dy), drift * abs(dx))
    start = (centre[0] - dx * far - across[0], centre[1] - dy * far - across[1])
    end = (centre[0] + dx * far + across[0], centre[1] + dy * far + across[1])
    mover = Actor(*kinds[0], start, end, dice.uniform(0.09, 0.17))
    others: list[Actor] = []
    for kind in kinds[1:]:
        lane = (row + dice.uniform(0.32, 0.45)) if row < 0.5 else (row - dice.uniform(0.32, 0.45))
        along = 0.2 + 0.3 * len(others) + dice.uniform(0, 0.2)
        place = (along, lane) if dx else (lane, along)
        others.append(Actor(*kind, place, place, dice.uniform(0.08, 0.13)))
    name = _called(mover, dice)
    asked: list[Asked] = [
        (wordings.DIRECTION, {"thing": name}, way), (wordings.MOVES, {}, with_article(mover.name)),
        (wordings.DIRECTION, {"thing": name}, way), (wordings.HAPPENS, {}, f"{with_article(mover.name)} moves {way}"),
    ]  # fmt: skip
    if not others:
        asked.append((wordings.ONLY_DIRECTION, {}, way))
    for wording, (x, y) in ((wordings.WHERE_START, start), (wordings.WHERE_END, end)):
        if all(abs(part * 3 % 1 - 0.5) < 0.36 for part in (x, y)):  # clearly within one place
            asked.append((wording, {"thing": name}, PLACES[int(y * 3) * 3 + int(x * 3)]))
    return Story((mover, *others), frames, fps, tuple(asked))


def appear(dice: Dice, split: Split) -> Story:
    """Two or three objects come one after another, at the start of pairs of frames."""
    frames, fps = _length(dice)
    steps = step_frames(frames, fps)
    count = dice.pick((2, 2, 3))
    enters = [0, *sorted(dice.some(steps[1:], count - 1))]
    places = _places(dice, count)
    actors = tuple(
        Actor(*kind, place, place, dice.uniform(0.09, 0.15), enters=enter)
        for kind, place, enter in zip(_cast(dice, split, count), places, enters, strict=True)
    )
    names = [with_article(actor.name) for actor in actors]
    late = dice.pick(actors[1:])
    asked: list[Asked] = [
        (wordings.FIRST, {}, names[0]), (wordings.LAST, {}, names[-1]), (wordings.ORDER, {}, ", then ".join(names)),
        (wordings.HOW_MANY, {}, str(count)), *_timed(late.enters, steps, fps, wordings.WHEN, _called(late, dice)),
    ]  # fmt: skip
    if _is_told(late.enters, steps, fps):
        asked.append((wordings.AT_TIME, {"time": label(late.enters, fps)}, f"{with_article(late.name)} appears"))
    return Story(actors, frames, fps, tuple(asked))


def _is_told(frame: int, steps: list[int], fps: int) -> bool:
    """Whether no other pair of frames has the label of the pair that begins with this frame."""
    labels = [label(step, fps) for step in steps]
    return labels.count(label(frame, fps)) == 1


def _timed(frame: int, steps: list[int], fps: int, wording: Wording, thing: str) -> list[Asked]:
    """The question for the time of an event, where its label is its own."""
    return [(wording, {"thing": thing}, label(frame, fps))] * 2 if _is_told(frame, steps, fps) else []


def disappear(dice: Dice, split: Split) -> Story:
    """One of two or three objects goes away."""
    frames, fps = _length(dice)
    steps = step_frames(frames, fps)
    count = dice.pick((1, 2, 2, 3))
    actors = [
        Actor(*kind, place, place, dice.uniform(0.09, 0.15))
        for kind, place in zip(_cast(dice, split, count), _places(dice, count), strict=True)
    ]
    gone = replace(actors[0], leaves=dice.pick(steps[1:]))
    name = with_article(gone.name)
    asked: list[Asked] = [
        (wordings.HAPPENS, {}, f"{name} disappears"),
        *_timed(gone.leaves, steps, fps, wordings.WHEN_GONE, _called(gone, dice)),
    ]
    if _is_told(gone.leaves, steps, fps):
        asked.append((wordings.AT_TIME, {"time": label(gone.leaves, fps)}, f"{name} disappears"))
    return Story((gone, *actors[1:]), frames, fps, tuple(asked))


def turn(dice: Dice, split: Split) -> Story:
    """One object changes its colour."""
    frames, fps = _length(dice)
    steps = step_frames(frames, fps)
    count = dice.pick((1, 1, 2))
    actors = [
        Actor(*kind, place, place, dice.uniform(0.1, 0.2 if count == 1 else 0.15))
        for kind, place in zip(_cast(dice, split, count), _places(dice, count), strict=True)
    ]
    new = dice.pick([colour for colour in COLOURS if all(actor.colour != colour for actor in actors)])
    frame = dice.pick(steps[1:])
    changed = replace(actors[0], turns=(frame, new))
    event = f"the {changed.shape} turns {new}"
    slots = {"shape": changed.shape, "colour": new}
    asked: list[Asked] = [
        (wordings.BECOMES, slots, new),
        (wordings.WAS, slots, changed.colour),
        (wordings.HAPPENS, {}, event),
    ]
    if _is_told(frame, steps, fps):
        asked += [
            (wordings.WHEN_COLOUR, slots, label(frame, fps)),
            (wordings.AT_TIME, {"time": label(frame, fps)}, event),
        ]
    return Story((changed, *actors[1:]), frames, fps, tuple(asked))


def grow(dice: Dice, split: Split) -> Story:
    """One object grows or shrinks."""
    frames, fps = _length(dice)
    factor = dice.uniform(1.8, 3.0)
    larger = dice.chance(0.5)
    place = (0.5 + dice.uniform(-0.2, 0.2), 0.5 + dice.uniform(-0.2, 0.2))
    small = dice.uniform(0.08, 0.1)
    (kind,) = _cast(dice, split, 1)
    actor = Actor(*kind, place, place, small if larger else small * factor, grows=factor if larger else 1 / factor)
    answer = "larger" if larger else "smaller"
    event = f"{with_article(actor.name)} gets {answer}"
    asked: list[Asked] = [(wordings.GROWS, {"shape": actor.shape}, answer)] * 2
    return Story((actor,), frames, fps, (*asked, (wordings.HAPPENS, {}, event)))


KINDS: dict[str, tuple[Callable[[Dice, Split], Story], float]] = {
    "moves": (moves, 0.44), "appear": (appear, 0.26), "disappear": (disappear, 0.08), "turn": (turn, 0.14),
    "grow": (grow, 0.08),
}  # fmt: skip
