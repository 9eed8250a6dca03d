# ruff: noqa: E402 (the imports below need the training extra)
"""Words: what is drawn is what the answer says, in typefaces of the split."""

import numpy as np
import pytest

REASON = "drawing needs the training extra (pillow, Hershey-Fonts)"
pytest.importorskip("PIL", reason=REASON)
pytest.importorskip("HersheyFonts", reason=REASON)

from training.data import words
from training.data.dice import Dice
from training.data.fonts import faces, letter
from training.data.sample import Picture
from training.data.vocabulary import VOCABULARY


def samples(split, count=120, **options):
    rng = np.random.default_rng(4)
    return [words.make(rng, split, **options) for _ in range(count)]


def test_the_same_seed_draws_the_same_word():
    one, two = (words.make(np.random.default_rng(6), "train") for _ in range(2))
    assert (one.text, one.answer) == (two.text, two.answer)
    assert one.facts == two.facts


def test_typefaces_are_trained_on_or_held_out_never_both():
    assert not set(faces(False)) & set(faces(True))
    assert len(faces(True)) >= 2
    assert {sample.facts["face"] for sample in samples("train")} <= set(faces(False))
    assert {sample.facts["face"] for sample in samples("held_out")} <= set(faces(True))


@pytest.mark.parametrize("kind", ["word", "free", "number", "words"])
def test_the_answer_is_the_text_as_drawn(kind):
    for sample in samples("train", 60, kind=kind):
        if sample.facts["kind"] == "ink":
            assert sample.answer == sample.facts["ink"]
            continue
        text = sample.answer
        assert text == sample.facts["letters"]
        if kind == "number":
            assert text.isdigit() and len(text) <= 6 and text[0] != "0"
        elif kind == "free":
            assert 1 <= len(text) <= 6
        else:
            assert all(word in VOCABULARY or len(word) == 1 for word in text.lower().split())


def test_every_letter_has_a_place_within_the_picture_from_left_to_right():
    for sample in samples("held_out"):
        centres = sample.facts["centres"]
        assert len(centres) == len(sample.facts["letters"])
        assert all(0 < x < 1 and 0 < y < 1 for x, y in centres)
        assert all(np.diff([x for x, _ in centres]) > 0)


def test_a_single_character_is_one_that_can_be_told_alone():
    rng = np.random.default_rng(1)
    dice = Dice(rng)
    alone = [text for text in (words.draw_text(dice, "free") for _ in range(2000)) if len(text) == 1]
    assert alone and set(alone) <= set(words.ALONE)


@pytest.mark.parametrize("face", faces(False) + faces(True))
def test_every_typeface_inks_each_letter_of_the_alphabet(face):
    for character in "aegkmqrswyBHQ0248":
        mask = letter(character, face, 24, 0.3, True).mask
        assert mask.max() > 128
        ys = np.flatnonzero(mask.max(axis=1) > 128)
        assert 8 <= ys[-1] - ys[0] <= 48


def test_ink_stands_out_from_the_paper():
    for sample in samples("train", 60):
        pixels = next(part.pixels for part in sample.user if isinstance(part, Picture)).astype(int)
        assert pixels.mean(axis=2).max() - pixels.mean(axis=2).min() > 35
        assert min(pixels.shape[:2]) >= 96
