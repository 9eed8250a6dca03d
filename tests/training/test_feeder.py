"""Samples drawn by other processes arrive, differ, and their failures do too."""

import numpy as np
import pytest

from training.data.sample import Split
from training.feeder import CHUNK, FedSource, Feeder
from training.prompts import Example


def _number(rng: np.random.Generator, split: Split) -> int:
    return int(rng.integers(1 << 40))


def _fail(rng: np.random.Generator, split: Split) -> int:
    raise ValueError("no such picture")


def test_chunks_of_every_kind_arrive_and_never_repeat() -> None:
    feeder = Feeder({"a": _number, "b": _number}, workers=2, seed=1)
    try:
        drawn = [number for name in ("a", "b", "a", "a") for number in feeder.take(name)]
    finally:
        feeder.close()
    assert len(drawn) == 4 * CHUNK == len(set(drawn))


def test_what_goes_wrong_there_is_raised_here() -> None:
    feeder = Feeder({"a": _fail}, workers=1, seed=1)
    try:
        with pytest.raises(ValueError, match="no such picture"):
            feeder.take("a")
    finally:
        feeder.close()


def test_training_groups_are_fed_and_held_out_ones_drawn_here() -> None:
    def group(rng: np.random.Generator, split: Split) -> list[Example]:
        ids = np.array([len(split)])
        return [Example(ids, ids, 0)]

    feeder = Feeder({"x": group}, workers=1, seed=1)
    try:
        source = FedSource(feeder, "x", group)
        rng = np.random.default_rng(0)
        assert [source(rng, "train")[0].ids[0] for _ in range(CHUNK + 1)] == [len("train")] * (CHUNK + 1)
        assert source(rng, "held_out")[0].ids[0] == len("held_out")
    finally:
        feeder.close()
