# ruff: noqa: E402 (the imports below need the training extra)
"""Films, sounds, pairs of pictures and recordings: what is asked can be seen or heard in the medium."""

import ctypes.util

import numpy as np
import pytest

REASON = "drawing needs the training extra (pillow, Hershey-Fonts)"
pytest.importorskip("PIL", reason=REASON)
pytest.importorskip("HersheyFonts", reason=REASON)

from mimo_cli.media.video import VideoOptions, frame_times_s, sample_indices
from training.data import films, mixed, pairs, sounds, speech, stories
from training.data.acoustics import add_noise, augment, resample
from training.data.catalogue import MAKERS
from training.data.dice import Dice
from training.data.held_out import held_out
from training.data.sample import Film, Picture, Sound
from training.data.speech_clips import Clip
from training.data.vocabulary import VOCABULARY
from training.data.voices import HELD_OUT_VOICES

needs_espeak = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="speaking needs the Debian package espeak-ng"
)


def samples(make, split="train", count=60, **options):
    rng = np.random.default_rng(21)
    return [make(rng, split, **options) for _ in range(count)]


def medium(sample, kind):
    return next(part for part in sample.user if isinstance(part, kind))


def moved(frames):
    """Shift of the changed pixels' middle from the first to the last frame, as (x, y)."""
    change = np.abs(frames[-1].astype(int) - frames[0].astype(int)).sum(axis=2) > 60
    still = np.median(frames, axis=0)
    middles = []
    for frame in (frames[0], frames[-1]):
        y, x = np.nonzero(change & (np.abs(frame - still).sum(axis=2) > 45))
        middles.append((x.mean(), y.mean()))
    return np.subtract(middles[1], middles[0])


def test_directions_can_be_measured_in_the_frames():
    rng, found = np.random.default_rng(5), 0
    for _ in range(60):
        dice = Dice(rng)
        story = stories.moves(dice, "train")
        frames = films.shoot(story, dice)
        way = next(answer for wording, _, answer in story.asked if wording is stories.wordings.DIRECTION)
        middle = frames[len(frames) // 2].astype(int)
        if np.abs(frames[0].astype(int) - middle).sum(axis=2).max() < 60:
            continue
        dx, dy = moved(frames)
        if not np.isfinite([dx, dy]).all():
            continue
        measured = ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")
        found += measured == way
    assert found > 50  # grainy clips may mislead the measurement, not the answer


def test_time_labels_are_those_the_runtime_writes():
    for frames, fps in ((8, 2), (12, 2), (16, 3), (13, 6), (16, 8), (9, 4)):
        indices = sample_indices(frames, fps, VideoOptions())
        assert stories.step_frames(frames, fps) == list(indices[::2])
        for index, seconds in zip(indices, frame_times_s(indices, fps), strict=True):
            assert stories.label(int(index), fps) == f"00:{int(seconds):02d}"


def test_clips_are_short_and_small():
    for sample in samples(films.make):
        film = medium(sample, Film)
        assert 8 <= len(film.frames) <= 16
        assert len(film.frames) / film.fps <= 6
        assert film.frames.dtype == np.uint8 and max(film.frames.shape[1:3]) <= 144


def test_an_event_begins_with_the_frame_under_its_label():
    for kind, attribute in (("disappear", "leaves"), ("appear", "enters")):
        for seed in range(20):
            dice = Dice(np.random.default_rng(seed))
            story = stories.KINDS[kind][0](dice, "train")
            steps = stories.step_frames(story.frames, story.fps)
            assert all(getattr(actor, attribute) in (0, 10_000, *steps) for actor in story.actors)


def test_objects_that_come_change_the_picture_from_their_frame_on():
    for seed in range(12):
        dice = Dice(np.random.default_rng(seed))
        story = stories.appear(dice, "train")
        frames = films.shoot(story, dice).astype(int)
        for actor in story.actors[1:]:
            change = np.abs(frames[actor.enters] - frames[actor.enters - 1]).sum(axis=2)
            assert (change > 100).sum() > 20


def test_a_group_of_questions_is_about_one_film():
    for seed in range(20):
        group = films.make_group(np.random.default_rng(seed), "train")
        assert len({id(sample.user[0]) for sample in group}) == 1
        assert len({sample.user[1] for sample in group}) == len(group) <= 3


def test_film_objects_belong_to_the_split():
    for split in ("train", "held_out"):
        for sample in samples(films.make, split, 40):
            for thing in sample.facts["objects"]:
                held = stories.is_held_out(thing["colour"], thing["shape"], 100)
                assert held == (split == "held_out")


@pytest.mark.parametrize("kind", sounds.KINDS)
def test_sounds_have_the_level_and_rate_they_claim(kind):
    for sample in samples(sounds.make, count=25, kind=kind):
        sound = medium(sample, Sound)
        assert 8000 <= sound.sample_rate <= 48_000
        assert sound.samples.dtype == np.float32
        peak = np.abs(sound.samples).max()
        assert peak < 0.005 if kind == "silence" else 0.02 < peak <= 1.0


def test_a_tone_has_its_pitch_and_a_chirp_its_slope():
    rng = np.random.default_rng(3)
    for _ in range(20):
        sound, known = sounds.draw_sound(Dice(rng), "tone")
        spectrum = np.abs(np.fft.rfft(sound.samples))
        peak_hz = spectrum.argmax() * sound.sample_rate / len(sound.samples)
        assert peak_hz == pytest.approx(known["frequency_hz"], rel=0.03)
        assert {"high": peak_hz > 900, "low": peak_hz < 420}.get(known["height"], True)
    for _ in range(20):
        seconds = 1.5
        samples_, known = sounds.chirp(Dice(rng), 16_000, seconds)
        loud = samples_[np.flatnonzero(samples_)[0] : np.flatnonzero(samples_)[-1]]
        crossings = np.diff(np.sign(loud)) != 0
        quarter = len(crossings) // 8
        early, late = crossings[quarter : 2 * quarter].sum(), crossings[2 * quarter : 3 * quarter].sum()
        assert (late > early) == (known["slope"] == "rising")


def test_clicks_can_be_counted():
    rng = np.random.default_rng(4)
    for _ in range(25):
        samples_, known = sounds.clicks(Dice(rng), 16_000, 1.5)
        loud = np.flatnonzero(np.abs(samples_) > 0.15 * np.abs(samples_).max())
        assert 1 + (np.diff(loud) > 0.03 * 16_000).sum() == known["count"]


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_pairs_differ_exactly_as_the_answer_says(kind):
    for sample in samples(pairs.make, count=30, kind=kind):
        pictures = [part.pixels for part in sample.user if isinstance(part, Picture)]
        objects = [scene["objects"] for scene in sample.facts["scenes"]]
        if kind == "same":
            assert (sample.answer == "yes") == (objects[0] == objects[1]) == np.array_equal(*pictures)
        elif kind == "more":
            assert sample.answer == ("first" if len(objects[0]) > len(objects[1]) else "second")
        elif kind == "difference":
            assert (len(objects[0]) != len(objects[1])) == (sample.answer == "count")
            for attribute in ("colour", "shape"):
                if sample.answer in ("colour", "shape"):
                    values = [sorted(thing[attribute] for thing in scene) for scene in objects]
                    assert (values[0] != values[1]) == (sample.answer == attribute)
        elif kind == "odd_one":
            odd = pairs.ORDINALS.index(sample.answer)
            rest = [pixels for i, pixels in enumerate(pictures) if i != odd]
            assert np.array_equal(*rest) and not np.array_equal(rest[0], pictures[odd])


def test_resampling_keeps_a_tone_where_it_is():
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    for rate in (8000, 11_025, 22_050, 48_000):
        changed = resample(tone, 16_000, rate)
        assert len(changed) == rate
        expected = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        middle = slice(rate // 10, -rate // 10)  # the ends ring, as a cut-off tone must
        np.testing.assert_allclose(changed[middle], expected[middle], atol=0.02)


def test_noise_has_the_ratio_that_was_asked_for():
    dice = Dice(np.random.default_rng(0))
    speech_like = np.sin(np.linspace(0, 3000, 16_000)).astype(np.float32)
    noise = add_noise(speech_like, 10.0, dice) - speech_like
    ratio_db = 10 * np.log10(np.mean(speech_like**2) / np.mean(noise**2))
    assert ratio_db == pytest.approx(10, abs=0.4)


def test_word_ends_follow_the_augmented_recording():
    clip = Clip(np.concatenate([np.full(8000, 0.5), np.zeros(8000)]).astype(np.float32), "stop", "word", "none", (0.5,))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sample = speech.of_clip(clip, rng, "train", snr_db=60.0)
        sound = medium(sample, Sound)
        (end,) = sample.facts["ends_s"]
        loud = np.flatnonzero(np.abs(sound.samples) > 0.25 * np.abs(sound.samples).max())
        assert loud[-1] / sound.sample_rate == pytest.approx(end, abs=0.05)


def test_augmentation_is_determined_by_its_generator():
    tone = np.sin(np.linspace(0, 900, 12_000)).astype(np.float32)
    one, two = (augment(tone, 16_000, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:] == two[1:]


@needs_espeak
def test_spoken_questions_use_the_vocabulary_and_voices_of_the_split():
    for split in ("train", "held_out"):
        for sample in samples(mixed.make, split, 15):
            assert set(sample.facts["question"].split()) <= set(VOCABULARY)
            assert len(medium(sample, Sound).samples) > 2000
            assert split == "held_out" or sample.facts["voice"] not in HELD_OUT_VOICES
            assert isinstance(medium(sample, Picture), Picture)


@pytest.mark.parametrize("task", [task for task in MAKERS if task != "mixed"])
def test_held_out_samples_repeat_and_carry_a_question_and_an_answer(task):
    one, two = held_out(task, 3), held_out(task, 3)
    assert [(sample.text, sample.answer) for sample in one] == [(sample.text, sample.answer) for sample in two]
    for sample in one:
        assert sample.text
        assert sample.answer or sample.tool_calls
