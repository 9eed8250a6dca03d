"""Speech: a spoken clip to be written down, in small letters without marks, numbers as words."""

import numpy as np

from training.data.acoustics import augment
from training.data.dice import Dice
from training.data.sample import Sample, Sound, Split
from training.data.speech_clips import STORED_RATE, Clip, ClipFolder
from training.data.wording import Wording

TRANSCRIBE = Wording(
    (
        "Please transcribe this audio file", "Transcribe this audio.", "Transcribe the recording.", "What is said?",
        "What do you hear?", "Write down what is said.", "What does the speaker say?", "Please transcribe the speech.",
        "What was said in the recording?", "Transcribe this.", "Write down the words.", "Which words are spoken?",
        "What is being said?", "Listen and write what you hear.", "Give me the transcript.",
        "Turn this speech into text.",
    ),
    (
        "Please write down what you hear.", "Say which words were spoken.", "I need a transcript of this.",
        "What did they say?",
    ),
)  # fmt: skip


def of_clip(clip: Clip, rng: np.random.Generator, split: Split, *, snr_db: float | None = None) -> Sample:
    """A clip as a question; word ends follow the changes of the recording. Held-out noise only where `snr_db` says."""
    samples, sample_rate, lead_s, factor = augment(clip.samples, STORED_RATE, rng, snr_db=snr_db)
    dice = Dice(rng)
    question = TRANSCRIBE.say(dice, split)
    ends = None if clip.ends_s is None else tuple(lead_s + end * factor for end in clip.ends_s)
    sound = Sound(samples, sample_rate)
    user = (question, sound) if dice.chance(0.2) else (sound, question)
    facts = {"kind": clip.kind, "voice": clip.voice, "words": tuple(clip.text.split()), "ends_s": ends}
    return Sample("speech", user, clip.text, facts=facts)


def make(
    rng: np.random.Generator, split: Split, clips: ClipFolder, *, kind: str | None = None, snr_db: float | None = None
) -> Sample:
    """One of the clips of a folder, changed by `augment`; `kind` is word, joined or phrase."""
    numbers = clips.of_kind(kind) if kind else range(len(clips))
    return of_clip(clips[numbers[int(rng.integers(len(numbers)))]], rng, split, snr_db=snr_db)
