# ruff: noqa: E402 (the imports below need the training extra)
"""Pictures: answers follow from what is drawn, splits are apart, the same seed draws the same."""

import cv2
import numpy as np
import pytest

REASON = "drawing needs the training extra (pillow, Hershey-Fonts)"
pytest.importorskip("PIL", reason=REASON)
pytest.importorskip("HersheyFonts", reason=REASON)

from training.data import pictures
from training.data.canvas import jpeg
from training.data.dice import Dice
from training.data.sample import Picture
from training.data.scenes import PLACES, Scene, draw_scene, is_held_out, paint
from training.data.shapes import COLOURS, PLURALS, SHAPES, TONES, fill_polygon, outline


def samples(split, count=150, **options):
    rng = np.random.default_rng(3)
    return [pictures.make(rng, split, **options) for _ in range(count)]


def pixels_of(sample):
    return next(part.pixels for part in sample.user if isinstance(part, Picture))


def test_the_same_seed_draws_the_same_picture_and_question():
    one, two = (pictures.make(np.random.default_rng(5), "train") for _ in range(2))
    assert (one.text, one.answer) == (two.text, two.answer)
    np.testing.assert_array_equal(pixels_of(one), pixels_of(two))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_objects_belong_to_the_split_of_their_colour_shape_and_place(split):
    for sample in samples(split):
        objects = sample.facts["objects"]
        held_out = [is_held_out(thing["colour"], thing["shape"], thing["cell"]) for thing in objects]
        is_crowd = len(objects) > 1 and len({thing["shape"] for thing in objects}) == 1
        assert any(held_out) == (split == "held_out")
        assert all(held_out) == (split == "held_out") or is_crowd


def test_every_colour_shape_and_place_is_learned_in_some_combination():
    seen = [thing for sample in samples("train", 600) for thing in sample.facts["objects"]]
    assert {thing["colour"] for thing in seen} == set(COLOURS)
    assert {thing["shape"] for thing in seen} == set(SHAPES)
    assert {thing["cell"] for thing in seen} == set(range(9))


@pytest.mark.parametrize("kind", pictures.QUESTIONS)
def test_answers_are_in_their_fixed_form(kind):
    forms = {
        "colour": set(COLOURS),
        "shape": set(SHAPES),
        "where": set(PLACES),
        "count": {str(n) for n in range(1, 8)},
        "count_of": {str(n) for n in range(8)},
        "is_there": {"yes", "no"},
        "is_colour": {"yes", "no"},
        "relation": {"yes", "no"},
        "size": {"small", "large", *SHAPES},
    }
    for sample in samples("train", 40, kind=kind):
        assert sample.answer in forms.get(kind, {sample.answer})
        assert sample.answer == sample.answer.strip() != ""


def test_yes_and_no_are_about_as_frequent():
    for kind in ("is_there", "is_colour", "relation"):
        answers = [sample.answer for sample in samples("train", 300, kind=kind)]
        assert 0.35 < answers.count("yes") / len(answers) < 0.7


def test_colour_count_and_place_answers_agree_with_the_objects():
    for sample in samples("held_out", 400):
        objects, question = sample.facts["objects"], sample.text.lower()
        if sample.facts["kind"] == "count":
            assert sample.answer == str(len(objects)) == str(sample.facts["count"])
        elif sample.facts["kind"] == "where":
            assert sample.answer in {PLACES[thing["cell"]] for thing in objects}
        elif sample.facts["kind"] == "count_of" and (named := [s for s in SHAPES if PLURALS[s] in question.split()]):
            assert int(sample.answer) <= sum(thing["shape"] == named[0] for thing in objects)
        elif sample.facts["kind"] == "colour" and (named := [s for s in SHAPES if s in question.split()]):
            assert [thing["colour"] for thing in objects if thing["shape"] == named[0]] == [sample.answer]


def plain(scene: Scene) -> np.ndarray:
    """The scene in its simplest style, on an unnamed background."""
    dice, pixels = Dice(np.random.default_rng(0)), np.full((scene.height, scene.width, 3), (180, 200, 180), np.uint8)
    for thing in scene.things:
        points = outline(thing.shape, dice) * thing.radius + (thing.x, thing.y)
        fill_polygon(pixels, points, TONES[thing.colour][0], smooth=False)
    return pixels


def test_counts_colours_and_places_can_be_read_back_from_the_pixels():
    rng = np.random.default_rng(8)
    for count in (1, 2, 3, 4, 5) * 4:
        scene = draw_scene(Dice(rng), "train", count)
        pixels = plain(scene)
        drawn = (pixels != (180, 200, 180)).any(axis=2).astype(np.uint8)
        found, _, boxes, centres = cv2.connectedComponentsWithStats(drawn)
        assert found - 1 == count
        assert boxes[1:, cv2.CC_STAT_AREA].min() > 15
        cells = {int(y * 3 // scene.height) * 3 + int(x * 3 // scene.width) for x, y in centres[1:]}
        assert cells == {thing.cell for thing in scene.things}
        for thing in scene.things:
            assert tuple(TONES[thing.colour][0]) in {tuple(p) for p in pixels.reshape(-1, 3).tolist()}


def test_objects_stand_out_from_every_background():
    rng = np.random.default_rng(9)
    for _ in range(60):
        dice = Dice(rng)
        scene = draw_scene(dice, "train", 1)
        pixels = paint(scene, dice).astype(int)
        thing = scene.things[0]
        inside = pixels[
            max(0, int(thing.y - thing.radius)) : int(thing.y + thing.radius) + 1,
            max(0, int(thing.x - thing.radius)) : int(thing.x + thing.radius) + 1,
        ]
        corner = (0 if thing.cell // 3 else -1, 0 if thing.cell % 3 else -1)
        assert np.abs(inside - pixels[corner]).sum(axis=2).max() > 60


def test_a_plain_picture_has_its_objects_and_one_paper():
    rng = np.random.default_rng(12)
    for _ in range(20):
        dice = Dice(rng)
        scene = draw_scene(dice, "train", 2, large_share=0.0)
        pixels = paint(scene, dice, ease=1.0).reshape(-1, 3)
        _, counts = np.unique(pixels, axis=0, return_counts=True)
        assert counts.max() > 0.4 * len(pixels)
        assert (np.sort(counts)[-3:].sum()) > 0.9 * len(pixels)  # paper and two tones; the rest are smooth edges


def test_sizes_reach_from_96_to_1024_pixels():
    sides = [max(pixels_of(sample).shape[:2]) for sample in samples("train", 40, large_share=0.5)]
    assert min(sides) >= 96
    assert 400 < max(sides) <= 1024


def test_a_jpeg_keeps_size_and_colours_roughly():
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :64] = (220, 30, 40)
    worn = jpeg(pixels, 80)
    assert worn.shape == pixels.shape
    assert np.abs(worn[48, 20].astype(int) - (220, 30, 40)).max() < 25
