"""Packing: who sees whom, where beginnings are shared, and what is predicted."""

import numpy as np

from training.packing import PATIENCE, pack
from training.prompts import Example


def _example(text: str, answer: int) -> Example:
    ids = np.array([ord(c) for c in text], np.int64)
    return Example(ids, ids.copy(), answer)


def test_shared_beginnings_are_stored_once_and_branches_do_not_see_each_other() -> None:
    batch = pack(iter([[_example("abXY", 3), _example("abZ", 2)], [_example("q" * 9, 2)]]), 1, 8)
    assert "".join(map(chr, batch.ids[0, :5])) == "abXYZ"
    assert batch.positions[0, :5].tolist() == [0, 1, 2, 3, 2]
    sees = [np.flatnonzero(row[:5]).tolist() for row in batch.visible[0, :5]]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    assert batch.valid[0].sum() == 5


def test_every_answer_token_is_predicted_from_the_token_before_it_on_its_own_path() -> None:
    batch = pack(iter([[_example("abXY", 2), _example("abZ", 2)], [_example("q" * 9, 2)]]), 1, 8)
    assert batch.predict.tolist() == [1, 2, 1]
    assert [chr(t) for t in batch.targets] == ["X", "Y", "Z"]
    assert batch.example_of.tolist() == [0, 0, 1]


def test_groups_that_do_not_fit_go_to_the_next_row() -> None:
    groups = iter([[_example("abcdef", 2)], [_example("ghijkl", 2)], [_example("m" * 9, 2)]])
    batch = pack(groups, 2, 8)
    assert [chr(row[0]) for row in batch.ids] == ["a", "g"]
    assert batch.valid.sum() == 12


def test_media_rows_are_placed_by_number_and_row() -> None:
    ids = np.array([5, 7, 7, 6], np.int64)
    keys = np.array([5, -(1 + 2 * 4096 + 0), -(1 + 2 * 4096 + 1), 6], np.int64)
    batch = pack(iter([[Example(ids, keys, 3)], [_example("m" * 9, 2)]]), 1, 6)
    assert batch.media_at.tolist() == [1, 2]
    assert batch.media_uid.tolist() == [2, 2]
    assert batch.media_row.tolist() == [0, 1]


def test_a_group_goes_where_it_leaves_least_room_and_waits_where_there_is_none() -> None:
    waiting = [[_example("first", 2)]]
    groups = [[_example("abcdef", 2)], [_example("ij", 1)], [_example("xyz", 1)], [_example("long" * 2, 2)]]
    batch = pack(iter(groups), 2, 8, waiting=waiting)
    rows = ["".join(map(chr, row[: int(used.sum())])) for row, used in zip(batch.ids, batch.valid, strict=True)]
    assert rows == ["firstxyz", "abcdefij"]
    assert ["".join(map(chr, one.ids)) for group in waiting for one in group] == ["longlong"]


def test_a_batch_ends_when_enough_groups_wait() -> None:
    waiting: list[list[Example]] = []
    groups = iter([[_example(letter * 8, 2)] for letter in "abcdefghijklmnopqrstuvwxyz"[: PATIENCE + 5]])
    assert pack(groups, 1, 8, waiting=waiting).valid.all()
    assert len(waiting) == PATIENCE and len(list(groups)) == 4
