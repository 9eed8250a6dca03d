"""Speech clips: words and their ends are right, splits share neither voice nor phrase."""

import shutil

import numpy as np
import pytest

from training.data.acoustics import loud_part
from training.data.phrases import is_held_out
from training.data.speech_clips import ClipFolder, Recipe, make_clips, write_shard
from training.data.vocabulary import VOCABULARY
from training.data.voices import HELD_OUT_VOICES, TRAINING_VOICES, Request, synthesise

PROGRAMS = ("espeak-ng", "flite", "festival")
pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS),
    reason=f"making speech needs the Debian packages {', '.join(PROGRAMS)}",
)


@pytest.fixture(scope="module")
def clips():
    return make_clips(Recipe(seed=11), shard=0, count=40)


def test_the_same_seed_speaks_the_same_clips(clips):
    again = make_clips(Recipe(seed=11), shard=0, count=40)
    assert [clip.text for clip in again] == [clip.text for clip in clips]
    assert [clip.voice for clip in again] == [clip.voice for clip in clips]


def test_clips_say_words_of_the_vocabulary_in_training_voices(clips):
    assert {clip.voice for clip in clips} <= set(TRAINING_VOICES)
    assert {word for clip in clips for word in clip.text.split()} <= set(VOCABULARY)
    assert {clip.kind for clip in clips} == {"word", "joined", "phrase"}


def test_every_word_ends_after_the_one_before_and_within_the_clip(clips):
    known = [clip for clip in clips if clip.ends_s is not None]
    assert len(known) > 30
    for clip in known:
        assert len(clip.ends_s) == len(clip.text.split())
        assert all(np.diff([0.0, *clip.ends_s]) > 0)
        assert clip.ends_s[-1] == pytest.approx(len(clip.samples) / 16_000, abs=0.001)


def test_word_ends_fall_into_the_pauses_of_joined_words(clips):
    for clip in clips:
        if clip.kind == "joined" and len(clip.text.split()) == 2 and clip.ends_s:
            first = clip.samples[: round(clip.ends_s[0] * 16_000)]
            assert loud_part(first, 16_000).stop == pytest.approx(len(first), abs=800)


def test_unseen_clips_use_held_out_voices_and_held_out_phrases():
    clips = make_clips(Recipe(seed=12, split="held_out", unseen=True), shard=0, count=25)
    assert {clip.voice for clip in clips} <= set(HELD_OUT_VOICES)
    assert all(is_held_out(clip.text) for clip in clips if clip.kind == "phrase" and len(clip.text.split()) > 2)
    assert not set(HELD_OUT_VOICES) & set(TRAINING_VOICES)


def test_faster_speech_is_shorter_in_every_program():
    for voice in ("espeak-ng en-us", "flite slt", "festival kal_diphone"):
        slow, fast = synthesise([Request("the red circle", voice, speed) for speed in (0.8, 1.3)])
        assert len(fast.samples) < 0.85 * len(slow.samples)


def test_shards_read_back_what_was_made_and_are_not_made_twice(tmp_path, clips):
    recipe = Recipe(seed=11)
    write_shard(tmp_path, recipe, 0, 40)
    written = (tmp_path / "clips_00000.npy").stat().st_mtime_ns
    write_shard(tmp_path, recipe, 0, 40)
    assert (tmp_path / "clips_00000.npy").stat().st_mtime_ns == written
    folder = ClipFolder(tmp_path)
    assert len(folder) == 40
    assert folder[7].text == clips[7].text
    # espeak-ng goes on from the phase of its last wave, so a clip spoken again differs by some samples.
    assert len(folder[7].samples) == pytest.approx(len(clips[7].samples), rel=0.01)
    assert np.abs(folder[7].samples).max() == pytest.approx(0.9, abs=0.001)
    assert all(folder[i].kind == "word" for i in folder.of_kind("word"))
