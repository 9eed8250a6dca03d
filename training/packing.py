"""Packing: many examples in rows of fixed length, beginnings that are equal stored once.

A row is a forest written out flat: an example adds only what its predecessor's path lacks, stands at the positions it
would have alone, and sees its own path and nothing else. So the network computes for every token exactly what it would
compute for the example alone, and the system prompt or a picture is paid for once for several questions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from training.prompts import ROWS_A_MEDIUM, Example

PATIENCE = 8  # groups that find no room before a batch is closed


@dataclass
class Batch:
    """R rows of L tokens. `predict` [m] flat positions whose next token `targets` [m] counts.

    `media_at` [k] flat positions to be filled with row `media_row` [k] of medium `media_uid` [k]. `example_of` [m]
    numbers the example of each prediction; `is_scored` [m] says that the target belongs to the visible answer.
    """

    ids: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    valid: np.ndarray
    predict: np.ndarray
    targets: np.ndarray
    example_of: np.ndarray
    is_scored: np.ndarray
    media_at: np.ndarray
    media_uid: np.ndarray
    media_row: np.ndarray
    examples: list[Example]


class _Row:
    """One row under construction."""

    def __init__(self, length: int, share: bool) -> None:
        self.length, self.used, self.shares = length, 0, share
        self.ids = np.zeros(length, np.int64)
        self.keys = np.zeros(length, np.int64)
        self.positions = np.zeros(length, np.int64)
        self.visible = np.eye(length, dtype=bool)
        self.path = np.zeros(0, np.int64)
        self.last = np.zeros(0, np.int64)
        self.predictions: list[tuple[np.ndarray, Example]] = []

    def missing(self, example: Example) -> int:
        """Tokens this example would add."""
        return len(example) - self._shared(example)

    def _shared(self, example: Example) -> int:
        return _common(self.last, example.keys) if self.shares else 0

    def add(self, example: Example) -> None:
        """Append what is new of an example that fits."""
        shared = self._shared(example)
        fresh = len(example) - shared
        new = np.arange(self.used, self.used + fresh)
        path = np.concatenate([self.path[:shared], new])
        self.ids[new], self.keys[new] = example.ids[shared:], example.keys[shared:]
        self.positions[new] = np.arange(shared, len(example))
        if shared and fresh:
            self.visible[new] |= self.visible[path[shared - 1]]
        if fresh:
            self.visible[np.ix_(new, new)] = np.tri(fresh, dtype=bool)
        self.used += fresh
        self.path, self.last = path, example.keys
        self.predictions.append((path[example.answer - 1 : -1], example))


def pack(
    groups: Iterator[list[Example]],
    rows: int,
    length: int,
    *,
    share: bool = True,
    waiting: list[list[Example]] | None = None,
) -> Batch:
    """Fill `rows` rows of `length` tokens with groups of examples that share beginnings; a group stays in one row.

    A group goes where it leaves least room. What fits nowhere goes to `waiting`, whose groups come first the next time;
    PATIENCE of them end the batch, or the end of `groups`. Groups longer than a row lose the examples that do not fit.
    Without `share` every example is stored whole, so that its tokens lie side by side.
    """
    building = [_Row(length, share) for _ in range(rows)]
    waiting = [] if waiting is None else waiting
    stream = chain(waiting.copy(), groups)
    waiting.clear()
    while len(waiting) < PATIENCE:
        group = next(stream, None)
        if group is None:
            break
        rooms = [(row.length - row.used - _group_tokens(row, group), i) for i, row in enumerate(building)]
        _, best = min(((room, i) for room, i in rooms if room >= 0 or not building[i].used), default=(0, -1))
        if best < 0:
            waiting.append(group)
            continue
        row = building[best]
        for example in group:
            if row.missing(example) <= length - row.used:
                row.add(example)
    return _finish(building)


def _group_tokens(row: _Row, group: list[Example]) -> int:
    """Tokens a group adds: its first example, then of each what its predecessor has not."""
    total, last = row.missing(group[0]), group[0].keys
    for example in group[1:]:
        total += len(example) - (_common(last, example.keys) if row.shares else 0)
        last = example.keys
    return total


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How long the common beginning of two arrays is."""
    count = min(len(one), len(other))
    differ = np.flatnonzero(one[:count] != other[:count])
    return int(differ[0]) if len(differ) else count


def _finish(building: list[_Row]) -> Batch:
    length = building[0].length
    examples: list[Example] = []
    predict, targets, example_of, is_scored = [], [], [], []
    for number, row in enumerate(building):
        for places, example in row.predictions:
            predict.append(places + number * length)
            targets.append(example.ids[example.answer :])
            example_of.append(np.full(len(places), len(examples)))
            is_scored.append(np.arange(example.answer, len(example)) >= example.scored)
            examples.append(example)
    keys = np.concatenate([row.keys for row in building])
    media_at = np.flatnonzero(keys < 0)
    media = -keys[media_at] - 1
    return Batch(
        np.stack([row.ids for row in building]),
        np.stack([row.positions for row in building]),
        np.stack([row.visible for row in building]),
        np.stack([np.arange(length) < row.used for row in building]),
        np.concatenate(predict),
        np.concatenate(targets),
        np.concatenate(example_of),
        np.concatenate(is_scored),
        media_at,
        media // ROWS_A_MEDIUM,
        media % ROWS_A_MEDIUM,
        examples,
    )
